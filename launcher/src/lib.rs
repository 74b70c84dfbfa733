//! Reserves a cluster, starts a program on every rank, watches it while it trains or infers, and shuts it down.
//!
//! # Layout
//! The driver's side:
//! - [`job`]: what is to be run, where, and within which limits; [`hosts`] and their slots; [`engine`]: `mpirun`, `srun`, threads.
//! - [`run`](fn@run): a whole job, with restarts; [`driver`]: its four phases as four types; [`notice`]: what a person is told.
//! - [`roster`]: who is there and how far; [`control`]: the listener; [`process`] and [`output`]: the engine and what the ranks write.
//! - [`plan`](mod@plan): what a job would be, before anything is started; [`memory`]: what this machine has left.
//! - [`doctor`]: whether hosts, ports, the engine and the storage are as a job needs them.
//! - [`job_file`]: how `muster status` and `muster stop` find a job.
//! - [`report`]: runs that were, as a page to look at.
//!
//! The program's side:
//! - [`agent`]: registers, gives signs of life, takes orders; [`environment`]: how it finds the driver; [`inject`]: faults on purpose.
//!
//! Between them:
//! - [`fuzz`]: what may never crash, whatever comes over the network.
//! - [`feed`]: records pushed by the driver to the workers.
//! - [`channel`]: authenticated frames under a job's [`key`]; [`message`]: what is in them.

pub mod agent;
pub mod channel;
mod cluster;
pub mod control;
pub mod doctor;
pub mod driver;
pub mod engine;
pub mod environment;
pub mod error;
pub mod feed;
mod feeding;
pub mod fuzz;
pub mod hosts;
pub mod inject;
pub mod job;
pub mod job_file;
pub mod key;
mod logs;
pub mod memory;
pub mod message;
pub mod notice;
pub mod output;
pub mod plan;
pub mod process;
pub mod report;
pub mod roster;
mod run;

pub use error::{Error, Failure};
pub use run::run;
