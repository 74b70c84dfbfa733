//! Where bytes lie: whole files as [`Bytes`], written atomically.
//!
//! [`Bytes`] is a range of a memory map or of a buffer; a sub-range shares it instead of copying.

pub mod file;

pub use bytes::Bytes;
