//! What a training writes while it runs: `metrics.jsonl`, lines of JSON, and an event file of TensorBoard, in a directory of this
//! machine or of HDFS.
//!
//! A line is an object with one key, its kind:
//!
//! | key | when | value |
//! |---|---|---|
//! | `run` | a training begins or goes on | [`Run`] |
//! | `steps` | some steps are done | [`Steps`] |
//! | `epoch` | an epoch is done | [`EpochEnd`] |
//! | `end` | the training ends in order | [`Ended`] |
//!
//! The evaluator of a job has files of its own there; see [`EvaluationLog`].
//!
//! A training that goes on writes to the same file. Where it goes on from a checkpoint, the lines of steps behind that checkpoint
//! stand there twice; [`History`] forgets the first ones.

mod evaluations;
mod growing;
mod history;
mod recorder;
mod writer;

pub use evaluations::{EVALUATIONS_FILE, Evaluated, EvaluationLog};
pub use history::History;
pub use recorder::Recorder;
pub(crate) use recorder::now;

use crate::conductor::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of the lines. A reader refuses a greater number.
pub const FORMAT: u32 = 1;

/// The file of lines in a run's directory.
pub const FILE: &str = "metrics.jsonl";

/// The report in a run's directory; see [`crate::report`].
pub const REPORT_FILE: &str = "report.json";

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A training begins or goes on.
    Run(Run),
    /// Some steps are done.
    Steps(Steps),
    /// An epoch is done.
    Epoch(EpochEnd),
    /// The training has ended.
    End(Ended),
}

/// A training that begins or goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`FORMAT`]
    pub format: u32,
    /// Of the program.
    pub version: String,
    /// Seconds since 1970.
    pub time: f64,
    /// Steps that were done before.
    pub first_step: u64,
    /// The step that it is to end with.
    pub last_step: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps from line to line.
    pub every: u64,
    /// Ranks, the server among them.
    pub world_size: usize,
    /// Seconds of reading the data, before the first step.
    pub reading: f64,
    /// What decides the result, and how it is computed, by name.
    pub options: BTreeMap<String, String>,
}

/// Steps since the line before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// The last of them, from 1, over all runs.
    pub step: u64,
    /// Its epoch, from 1.
    pub epoch: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// Records.
    pub rows: u64,
    /// Mean over the records.
    pub loss: f32,
    /// Share of the records that were classified rightly.
    pub accuracy: f32,
    /// Of the last step.
    pub learning_rate: f32,
    /// Records in a second of training.
    pub images_per_second: f32,
    /// Seconds of training, evaluation and checkpoints not counted.
    pub seconds: f32,
    /// Of them, those in which rank 0 computed.
    pub compute: f32,
    /// … sent and received.
    pub communication: f32,
    /// … waited for others.
    pub waiting: f32,
    /// … waited for its records.
    #[serde(default)]
    pub reading: f32,
    /// How many updates the gradients of asynchronous training have missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness: Option<Missed>,
}

/// How many updates gradients have missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Missed {
    /// On average.
    pub mean: f32,
    /// At most.
    pub max: u64,
}

/// An epoch that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochEnd {
    /// Its last step, over all runs.
    pub step: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// What came out.
    #[serde(flatten)]
    pub epoch: Epoch,
}

/// The end of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// The last step, over all runs.
    pub step: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// `finished`, or why it did not.
    pub reason: String,
}

#[cfg(test)]
mod tests;
