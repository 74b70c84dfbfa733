//! What a user would pick instead of muster's kernels and trainer.

pub mod blas;
pub mod c_trainer;
pub mod products;
