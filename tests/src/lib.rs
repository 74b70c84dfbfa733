//! What the tests of whole programs share.
//!
//! # Layout
//! - [`program`]: builds a binary once and runs it in a folder of its own.
//! - [`digits`]: small data sets as IDX files.
//! - [`hdfs`]: a real HDFS whose nodes can be killed.
//! - [`manifest`]: manifests of parts that a test has changed.
//! - [`machine`]: what this machine lacks, said where nobody can miss it.

pub mod digits;
pub mod hdfs;
pub mod machine;
pub mod manifest;
pub mod program;
