//! Feed mode: the driver reads records and pushes them to the workers' data listeners.
//!
//! Records travel in portions: ranges of an epoch's order of records, as bytes that only source and worker understand. A portion is
//! leased to a worker until the worker has used it; the [`Ledger`] sees to it that every record is used exactly once, whatever is
//! lost, repeated or not wanted any more.
//!
//! - [`spec`]: what a program says it is to be fed with; [`Fed`]: what it has in place of a data set.
//! - [`Supply`]: the records and their order, out of parts or of a [`stream`] of them.
//! - [`Feeder`]: the driver's side; [`Inlet`]: a worker's; [`protocol`]: what is between them; [`ledger`]: the bookkeeping.

mod fed;
mod feeder;
mod inlet;
pub mod ledger;
pub mod protocol;
mod results;
pub mod spec;
pub mod stream;
mod supply;

pub use fed::Fed;
pub use feeder::{Feeder, Progress};
pub use inlet::{Batch, Inlet};
pub use ledger::{Ledger, Tally};
pub use supply::Supply;

/// Portions that a worker may hold without having used them: enough to read ahead, and the bound of both sides' memory.
pub const WINDOW: usize = 8;

/// Consecutive records of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Place of the first record in the epoch.
    pub first: u64,
    /// Number of records.
    pub count: u32,
    /// The worker (from 0) that must use it; none if any may.
    pub worker: Option<usize>,
    /// The records.
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests;
