//! `mnist`: trains and serves MNIST classifiers with muster.

// No command uses these modules yet; only their tests do.
#![allow(dead_code)]

mod fetch;
mod source;
mod synthetic;

fn main() {}
