//! What a program is to be fed with: it says so when it registers, and the driver knows no more than this.

use crate::error::Error;
use muster::batch::Schedule;
use muster::parts::source::{Location, Source};
use muster::storage::Storage;
use muster::train::Recipe;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a driver keeps of the records, if a program does not say.
const CACHE_BYTES: u64 = 4 << 30;

/// The records, and what becomes of them; the same on all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedSpec {
    /// The format's name, as [`muster::parts::Format`] has it.
    pub format: String,
    /// A directory of parts: features, or whole records.
    pub features: PathBuf,
    /// The same for labels, where they lie apart.
    pub labels: Option<PathBuf>,
    /// The shape of a record, where no manifest tells it.
    pub shape: Vec<usize>,
    /// Classes that labels may name.
    pub classes: usize,
    /// Whether features are bytes; otherwise they are `f32`.
    pub is_bytes: bool,
    /// The first rank that takes records in a world of more than one.
    pub first_rank: usize,
    /// Bytes of records that the driver may keep. Those to train on that take more are read again in every epoch, some windows of their
    /// order at a time.
    pub cache_bytes: u64,
    /// Whether parts may be added while the job runs: it goes on until it is stopped.
    pub follow: bool,
    /// What becomes of the records.
    pub goal: Goal,
}

/// What becomes of the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// A model is trained on them.
    Train(Course),
    /// They are classified, and the results written.
    Inference {
        /// The directory for the results, a part for each part.
        output: PathBuf,
        /// Whether it may be replaced.
        overwrite: bool,
    },
}

/// Which records make up which step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Of the order of records.
    pub seed: u64,
    /// Records of a global batch.
    pub batch_size: usize,
    /// The most records of a micro-batch.
    pub micro_batch: usize,
    /// Whether every worker computes batches of its own.
    pub asynchronous: bool,
}

impl Course {
    /// The schedule over so many records.
    pub fn schedule(&self, records: usize) -> Schedule {
        Schedule { records, batch_size: self.batch_size, micro_batch: self.micro_batch }
    }
}

impl FeedSpec {
    /// A training on labelled records of `f32` in one directory, by all ranks but the server, in step.
    pub fn training(format: &str, path: &Path, shape: &[usize], classes: usize, recipe: &Recipe) -> FeedSpec {
        let Recipe { seed, batch_size, micro_batch, .. } = *recipe;
        FeedSpec {
            format: format.to_owned(),
            features: path.to_owned(),
            labels: None,
            shape: shape.to_vec(),
            classes,
            is_bytes: false,
            first_rank: 1,
            cache_bytes: CACHE_BYTES,
            follow: false,
            goal: Goal::Train(Course { seed, batch_size, micro_batch, asynchronous: false }),
        }
    }

    /// Finds the parts.
    ///
    /// # Errors
    /// If there are none, or they do not pair.
    pub fn find(&self, storage: &Storage) -> Result<Source, Error> {
        let location = Location {
            format: self.format.parse()?,
            features: &self.features,
            labels: self.labels.as_deref(),
            labels_required: matches!(self.goal, Goal::Train(_)),
        };
        Ok(Source::find(storage, location, &self.shape, self.classes)?)
    }
}
