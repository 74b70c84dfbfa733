//! The lines of a training, read back.

use super::{Ended, EpochEnd, FORMAT, Line, Run, Steps};
use crate::error::Error;
use serde::Deserialize;
use std::path::Path;

/// What `metrics.jsonl` says of a training, over all of its runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The runs, in their order.
    pub runs: Vec<Run>,
    /// Steps, each once.
    pub steps: Vec<Steps>,
    /// Epochs, each once.
    pub epochs: Vec<EpochEnd>,
    /// How the last run ended; none if it has not, or not in order.
    pub end: Option<Ended>,
    /// What is odd about the file, as sentences.
    pub remarks: Vec<String>,
}

/// As much of a `run` line as every version understands.
#[derive(Deserialize)]
struct Probe {
    run: ProbedRun,
}

#[derive(Deserialize)]
struct ProbedRun {
    format: u32,
}

impl History {
    /// Reads the content of a file, which `path` names in messages. A last line without end is taken for one that is being written.
    ///
    /// # Errors
    /// If a newer version wrote it.
    pub fn parse(content: &[u8], path: &Path) -> Result<History, Error> {
        let mut history = History::default();
        let mut damaged = Vec::new();
        for (index, text) in content.split_inclusive(|&byte| byte == b'\n').enumerate() {
            if let Ok(Probe { run: ProbedRun { format } }) = probe(text)
                && format > FORMAT
            {
                return Err(Error::Invalid(format!(
                    "{}: line {} is of format {format}, this version knows formats up to {FORMAT}; take the version of muster \
                     that wrote it, or a newer one",
                    path.display(),
                    index + 1
                )));
            }
            match serde_json::from_slice(text) {
                Ok(line) => history.take(line),
                Err(_) if text.ends_with(b"\n") => damaged.push(index + 1),
                Err(_) => history.remarks.push(format!("{}: the last line is cut", path.display())),
            }
        }
        if let Some(first) = damaged.first() {
            let (path, count) = (path.display(), damaged.len());
            history
                .remarks
                .push(format!("{path}: {count} damaged lines are left out, the first is line {first}"));
        }
        Ok(history)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Run(run) => {
                self.steps.retain(|steps| steps.step <= run.first_step);
                self.epochs.retain(|epoch| epoch.step <= run.first_step);
                self.end = None;
                self.runs.push(run);
            }
            Line::Steps(steps) => self.steps.push(steps),
            Line::Epoch(epoch) => self.epochs.push(epoch),
            Line::End(end) => self.end = Some(end),
        }
    }
}

/// Only a line that looks like one of a run is parsed twice.
fn probe(text: &[u8]) -> Result<Probe, serde_json::Error> {
    serde_json::from_slice(if text.starts_with(br#"{"run":"#) { text } else { b"" })
}
