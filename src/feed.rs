//! Records that come step by step from outside, instead of lying in memory.

use crate::dataset::{Content, Dataset, Kind};
use crate::error::Error;
use crate::records::Records;
use serde::{Deserialize, Serialize};

/// What is known beforehand of all the records that a feed brings; see [`crate::records::Records::fed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Their number.
    pub records: usize,
    /// The shape of a record.
    pub shape: Vec<usize>,
    /// Classes that labels may name.
    pub classes: usize,
    /// Their digests.
    pub content: Content,
    /// Whether features are bytes.
    pub is_bytes: bool,
    /// Per cent of the bytes that are not 0, as [`Kind`] has it; 0 where nobody knows.
    pub density: u8,
}

impl Facts {
    /// Those of records that others get step by step.
    pub fn of(records: &Records) -> Facts {
        let density = match records.kind() {
            Kind::U8 { density, .. } => Some(density),
            Kind::F32 => None,
        };
        Facts {
            records: records.len(),
            shape: records.shape().to_vec(),
            classes: records.classes(),
            content: *records.content(),
            is_bytes: density.is_some(),
            density: density.unwrap_or(0),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Features;
    use std::path::Path;

    #[test]
    fn records_are_of_the_same_kind_wherever_they_come_from() {
        let bytes = vec![1; 30].into_iter().chain(vec![0; 70]).collect::<Vec<u8>>();
        let bytes = Features::U8 { bytes: bytes.into(), scale: 0.5 };
        for features in [bytes, Features::F32(vec![1.0; 100])] {
            let data = Dataset::from_features(Path::new("data"), features, &[10], 3).unwrap();
            let records = Records::from(data.with_labels(Path::new("data"), vec![0; 10]).unwrap());
            assert_eq!(Records::fed(Path::new("feed"), Facts::of(&records), 0.5).kind(), records.kind());
        }
    }
}
