//! Bytes to records and back.

pub mod idx;
