//! Distributed training and inference of dense models on CPU clusters.

pub mod error;
pub mod format;
pub mod parts;
pub mod storage;
