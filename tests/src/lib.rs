//! The seams between the crates, tested from outside.
