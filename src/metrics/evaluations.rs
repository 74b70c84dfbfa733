//! What an evaluator writes beside the metrics of the training: a file of lines, and event files in a directory of their own, which
//! TensorBoard shows as another run.

use super::growing::Growing;
use crate::error::Error;
use crate::events::{self, Summary};
use crate::storage::Storage;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// The file of lines in a run's directory, one [`Evaluated`] a line.
pub const EVALUATIONS_FILE: &str = "evaluations.jsonl";

/// The directory of the event files in a run's directory.
const EVENTS: &str = "evaluator";

/// A checkpoint that was evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Its steps, over all runs.
    pub step: u64,
    /// Seconds since 1970.
    pub time: f64,
    /// Of its weights.
    pub weights_sha256: String,
    /// Test records.
    pub records: usize,
    /// Mean over them.
    pub loss: f64,
    /// Share of them that was classified rightly.
    pub accuracy: f64,
}

impl Evaluated {
    /// Those of a file of lines; what is damaged, or still being written, is left out.
    pub fn parse(content: &[u8]) -> Vec<Evaluated> {
        content.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// Both files of an evaluator.
pub struct EvaluationLog {
    lines: Growing,
    events: Growing,
    /// What stood there before.
    before: Vec<Evaluated>,
}

impl EvaluationLog {
    /// Opens both in a run's directory, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open(storage: &Arc<Storage>, directory: &Path) -> Result<EvaluationLog, Error> {
        let path = directory.join(EVALUATIONS_FILE);
        let before = match storage.stat(&path)? {
            Some(_) => {
                let file = storage.file(&path)?;
                Evaluated::parse(&file.bytes(0..file.length()).map_err(Error::io("read", &path))?)
            }
            None => Vec::new(),
        };
        let lines = Growing::open(storage, &path)?;
        let time = super::now();
        let name = format!("events.out.tfevents.{:010}.muster.{}", time as u64, std::process::id());
        let mut events = Growing::open(storage, &directory.join(EVENTS).join(name))?;
        events::begin_file(time, events.pending());
        Ok(EvaluationLog { lines, events, before })
    }

    /// Whether the checkpoint of this step, with these weights, was evaluated before the log was opened.
    pub fn has(&self, step: u64, weights_sha256: &str) -> bool {
        self.before.iter().any(|known| known.step == step && known.weights_sha256 == weights_sha256)
    }

    /// Writes at once.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, evaluated: &Evaluated) -> Result<(), Error> {
        let pending = self.lines.pending();
        serde_json::to_writer(&mut *pending, evaluated).expect("plain data becomes JSON");
        pending.push(b'\n');
        let mut summary = Summary::default();
        summary.scalar("test/loss", evaluated.loss as f32);
        summary.scalar("test/accuracy", evaluated.accuracy as f32);
        summary.write(evaluated.time, evaluated.step, self.events.pending());
        self.lines.flush(true).and(self.events.flush(true))
    }
}
