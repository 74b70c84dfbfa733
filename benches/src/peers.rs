//! What a user would pick instead of muster's kernels, trainer and readers.

pub mod blas;
pub mod c_trainer;
pub mod products;
pub mod readers;
pub mod softmax;
