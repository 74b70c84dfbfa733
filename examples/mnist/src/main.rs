//! `mnist`: trains and serves MNIST classifiers with muster.
fn main() {}
