//! Benchmarks and the peers they are measured against.
//!
//! # Layout
//!
//! - [`measure`]: contenders in turns, medians, ratios
//! - [`peak`]: the machine's FMA peak, measured in the same run
//! - [`blas`]: MKL and OpenBLAS, loaded at run time when present
//! - [`products`]: matrix products on the shapes of training and on squares, ours beside the peers'
//! - [`c_trainer`]: the trainer that a C programmer would write over a BLAS; [`trainer`]: ours

pub mod blas;
pub mod c_trainer;
pub mod measure;
pub mod peak;
pub mod products;
pub mod trainer;
