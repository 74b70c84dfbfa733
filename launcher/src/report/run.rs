//! What the directory of a run holds: metrics, a report, both, or less.

use crate::error::Error;
use muster::conductor::Epoch;
use muster::metrics::{EVALUATIONS_FILE, Evaluated, FILE, History, REPORT_FILE};
use muster::report::Results;
use muster::storage::Storage;
use std::path::Path;

/// A run's directory.
#[derive(Default)]
pub struct RunDirectory {
    /// What it is called on the page.
    pub name: String,
    /// Where it lies.
    pub directory: String,
    /// What `metrics.jsonl` says; empty without one.
    pub history: History,
    /// What `evaluations.jsonl` says, as far as no later run has gone back behind it, by step.
    pub evaluations: Vec<Evaluated>,
    /// What `report.json` says.
    pub results: Option<Results>,
    /// What is odd about it, as sentences.
    pub remarks: Vec<String>,
    /// Whether it is the only one on the page.
    pub is_alone: bool,
}

/// What the files of a run's directory hold, those that are there.
#[derive(Default)]
pub struct Files {
    /// `metrics.jsonl`
    pub metrics: Option<Vec<u8>>,
    /// `report.json`
    pub results: Option<Vec<u8>>,
    /// `evaluations.jsonl`
    pub evaluations: Option<Vec<u8>>,
}

impl RunDirectory {
    /// Reads a directory.
    ///
    /// # Errors
    /// If there is no run in it, or one of a newer version.
    pub fn read(storage: &Storage, directory: &Path) -> Result<RunDirectory, Error> {
        let mend = "check the path";
        match storage.stat(directory) {
            Ok(Some(entry)) if entry.is_dir => {}
            Ok(Some(_)) => {
                return Err(no_run(directory, "it is a file", "name the directory that it lies in"));
            }
            Ok(None) => return Err(no_run(directory, "there is no such directory", mend)),
            Err(error) => return Err(no_run(directory, error, mend)),
        }
        let file =
            |name| read(storage, &directory.join(name)).map_err(|error| no_run(directory, error, mend));
        let (metrics, results, evaluations) = (file(FILE)?, file(REPORT_FILE)?, file(EVALUATIONS_FILE)?);
        RunDirectory::of(directory, &Files { metrics, results, evaluations })
    }

    /// A directory with these files.
    ///
    /// # Errors
    /// If there is no run in them, or one of a newer version.
    pub fn of(directory: &Path, files: &Files) -> Result<RunDirectory, Error> {
        let mut run = RunDirectory { directory: directory.display().to_string(), ..Default::default() };
        if let Some(metrics) = &files.metrics {
            run.history = History::parse(metrics, &directory.join(FILE))
                .map_err(|error| no_run(directory, error, "a newer muster can show it"))?;
            run.remarks.append(&mut run.history.remarks);
        }
        run.evaluations = Evaluated::parse(files.evaluations.as_deref().unwrap_or_default());
        let runs = &run.history.runs;
        let holds = |e: &Evaluated| !runs.iter().any(|run| run.time > e.time && run.first_step < e.step);
        run.evaluations.retain(holds);
        run.evaluations.sort_by_key(|evaluated| evaluated.step);
        match files.results.as_deref().map(serde_json::from_slice::<Results>) {
            Some(Ok(results)) => run.results = Some(results),
            Some(Err(error)) => {
                let path = directory.join(REPORT_FILE);
                run.remarks.push(format!("{}: not a whole report: {error}; it is left out", path.display()));
            }
            None => {}
        }
        if run.history.runs.is_empty() && run.history.steps.is_empty() && run.results.is_none() {
            let found = match (&files.metrics, &files.results) {
                (None, None) => format!("there is neither {FILE} nor {REPORT_FILE} in it"),
                (Some(_), None) => format!("{FILE} has no whole line"),
                _ => run.remarks.join("; "),
            };
            return Err(no_run(directory, found, "name the --log-dir of a training that has begun"));
        }
        run.notice_gaps(files.metrics.is_some());
        Ok(run)
    }

    /// Says what is not there, and what does not fit together.
    fn notice_gaps(&mut self, has_metrics: bool) {
        let directory = &self.directory;
        let last = self.history.steps.last().map_or(0, |steps| steps.step);
        match &self.results {
            _ if !has_metrics => self.remarks.push(format!("{directory}: no {FILE}, so there are no curves")),
            None => self.remarks.push(format!(
                "{directory}: no {REPORT_FILE}: the training runs still, or did not end in order"
            )),
            Some(results) if results.steps < last => {
                let at = results.steps;
                self.remarks.push(format!(
                    "{directory}: {REPORT_FILE} is that of step {at}, the metrics go on to step {last}"
                ));
            }
            Some(_) => {}
        }
    }

    /// What one of its series is called in a legend.
    pub fn series_name(&self, what: &str) -> String {
        if self.is_alone { what.to_owned() } else { format!("{}, {what}", self.name) }
    }

    /// The epochs with their last steps; those of the report where there are no metrics.
    pub fn epochs(&self) -> Vec<(u64, &Epoch)> {
        let of_history: Vec<_> = self.history.epochs.iter().map(|end| (end.step, &end.epoch)).collect();
        match &self.results {
            Some(results) if of_history.is_empty() && !results.epochs.is_empty() => {
                let each = results.steps / results.epochs.len() as u64;
                results.epochs.iter().map(|epoch| (epoch.epoch.saturating_mul(each), epoch)).collect()
            }
            _ => of_history,
        }
    }
}

fn no_run(directory: &Path, found: impl ToString, mend: &'static str) -> Error {
    Error::NoRun { directory: directory.display().to_string(), found: found.to_string(), mend }
}

/// A file's content; none if it is not there.
fn read(storage: &Storage, path: &Path) -> Result<Option<Vec<u8>>, muster::Error> {
    if storage.stat(path)?.is_none() {
        return Ok(None);
    }
    let file = storage.file(path)?;
    let content = file.bytes(0..file.length()).map_err(|error| muster::Error::from(error).in_file(path))?;
    Ok(Some(content.to_vec()))
}

/// Names each run by the end of its path, as long as it takes to tell them apart.
pub fn name_apart(runs: &mut [RunDirectory]) {
    let parts: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            run.directory
                .split('/')
                .filter(|part| !part.is_empty() && *part != ".")
                .map(str::to_owned)
                .collect()
        })
        .collect();
    let names = |length: usize| -> Vec<String> {
        parts
            .iter()
            .map(|parts: &Vec<String>| parts[parts.len().saturating_sub(length)..].join("/"))
            .collect()
    };
    let longest = parts.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let are_apart = |names: &[String]| names.iter().enumerate().all(|(at, name)| !names[..at].contains(name));
    let chosen = (1..=longest).map(names).find(|names| are_apart(names)).unwrap_or_else(|| names(longest));
    let is_alone = runs.len() == 1;
    for (at, (run, name)) in runs.iter_mut().zip(chosen).enumerate() {
        run.name = if name.is_empty() { format!("run {}", at + 1) } else { name };
        run.is_alone = is_alone;
    }
}
