//! Distributed training and inference of dense models on CPU clusters.

pub mod dataset;
pub mod doctor;
pub mod error;
pub mod format;
pub mod storage;
