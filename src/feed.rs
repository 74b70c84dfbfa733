//! Records that come step by step from outside, instead of lying in memory.

use crate::dataset::Dataset;
use crate::error::Error;

/// Where workers get their records from. Which records make up which step is the same as if they lay in memory, and so are the weights.
pub trait Feed: Sync {
    /// The `rows` records of worker `worker` in step `step`, in the order of its share; none if no more will come, which ends the
    /// training before this step. Whoever asks has seen the end of the step that it asked for before.
    ///
    /// # Errors
    /// If the records do not come.
    fn take(&self, worker: usize, step: u64, rows: usize) -> Result<Option<Dataset>, Error>;

    /// Whether there is no end of records, other than that none have come.
    fn is_open(&self) -> bool;

    /// The last step of worker `worker` is done: it takes no more.
    ///
    /// # Errors
    /// If that cannot be said any more.
    fn finish(&self, worker: usize) -> Result<(), Error>;
}
