//! The seams between the crates, tested from outside.

pub mod hdfs;
