//! `mnist`: trains and serves MNIST classifiers with muster.

// The commands that use these modules stand in the next commit.
#![allow(dead_code)]

mod fetch;
mod source;
mod synthetic;

fn main() {}
