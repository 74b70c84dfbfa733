//! The benchmark suite behind `muster bench`. The package `muster-peers` sets beside it what a user would pick instead.
//!
//! # Layout
//! What is measured, each as a share of what limits it:
//! - [`limits`]: the machine: [`peak`], multiply-adds a second; [`memory`], bytes a second from caches, memory and other cores
//! - [`products`] and [`kernels`]: the kernels on the shapes of training, under the roofline
//! - [`trainer`] and [`training`]: records a second, on one thread and on all
//! - [`lines`]: what a line of metrics costs
//! - [`exchange`]: push and pull of a model's weights; [`world`]: the same, and training, under mpirun
//! - [`reading`]: csv and TFRecord, on this machine and on HDFS; [`launch`]: [`job`]s from start to end
//!
//! How:
//! - [`options`]: the command line; [`suite`]: all of the above in turns, round after round
//! - [`measure`]: probes, samples, medians and spreads; [`machine`]: what it was measured on
//! - [`report`]: figures as JSON; [`compare`]: what got slower since another report
//! - [`table`]: figures on a terminal; [`page`] and [`roofline`]: as HTML

pub mod bare_hdfs;
pub mod compare;
pub mod error;
pub mod exchange;
pub mod job;
pub mod kernels;
pub mod launch;
pub mod limits;
pub mod lines;
pub mod machine;
pub mod measure;
pub mod memory;
pub mod options;
pub mod page;
pub mod peak;
pub mod products;
pub mod reading;
pub mod report;
pub mod roofline;
pub mod suite;
pub mod table;
pub mod trainer;
pub mod training;
pub mod world;

pub use error::Error;
