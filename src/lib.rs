//! Distributed training and inference of dense models on CPU clusters.
//!
//! # Layout
//! The line of data, in order:
//! - [`storage`]: where bytes lie; [`format`](mod@format): bytes ⇄ records; [`parts`]: directories of parts ⇄ records.
//! - [`dataset`]: records in memory; [`blocks`]: records that are read again and again, [`windows`] at a time; [`feed`]: records that come
//!   from outside; [`records`]: any of them; [`sequence`]: any of them, batch after batch, for a driver that feeds others.
//! - [`batch`]: the global order of records and who gets which of them; [`random`]: its random numbers.
//! - [`model`]: layers and where their parameters lie; [`pass`]: forward and backward; [`gradient`]: one rank's share of a step.
//! - [`optimizer`]: update rules, [`update`]: a step of one; [`sum`]: of the gradients of several workers.
//! - [`train`]: the loop, with [`server`] (or [`asynchronous`]) and [`worker`] for worlds of several ranks.
//! - [`cluster`]: how these work together; [`agree`]: what they make sure of before they begin.
//! - [`conductor`]: when to evaluate, save and end; [`evaluate`]: forward passes over a whole data set; [`team`]: threads in step.
//! - [`metrics`]: what a training writes while it runs, for [`report`] and for TensorBoard ([`events`], [`histogram`]);
//!   [`mistakes`]: what it gets wrong at the end; [`evaluator`]: evaluates checkpoints beside it; [`page`]: pages that show it.
//! - [`doctor`]: what a run needs of its storage; [`console`]: lines on the terminal.
//! - [`checkpoint`] and [`store`]: what a training needs to go on, and where it lies; [`report`]: what a run was and what came out.

pub mod agree;
pub mod asynchronous;
pub mod batch;
pub mod blocks;
pub mod checkpoint;
pub mod cluster;
pub mod conductor;
pub mod console;
pub mod dataset;
pub mod doctor;
pub mod error;
pub mod evaluate;
pub mod evaluator;
pub mod events;
pub mod feed;
pub mod format;
pub mod gradient;
pub mod histogram;
pub mod inference;
pub mod metrics;
pub mod mistakes;
pub mod model;
pub mod optimizer;
pub mod page;
mod pages;
pub mod parts;
pub mod pass;
pub mod random;
pub mod records;
pub mod report;
pub mod sequence;
pub mod server;
pub mod storage;
pub mod store;
pub mod sum;
pub mod team;
pub mod train;
pub mod update;
pub mod windows;
pub mod worker;

pub use error::Error;
