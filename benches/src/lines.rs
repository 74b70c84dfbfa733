//! Metrics: what a line of them costs, beside what they may cost of a training that writes one at every step.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster::conductor::{Event, Step};
use muster::metrics::{Recorder, Run};
use muster::pass::Score;
use muster::storage::{HadoopConfig, Storage};

use crate::Error;
use crate::measure::{Limit, Probe, steps};
use crate::report::{Group, Unit};
use crate::suite::Bench;
use crate::trainer::BATCH;
use crate::training::{counted, model};

/// Lines that tell how many fill a sample; as many as make what is done once for all of them small.
const TRIAL: u64 = 1000;
/// As many as a writer finds after its second of a fast training: more at once would have to be given memory that no training needs.
const LINES_MAX: u64 = 10_000;
/// Of a training's time.
const SHARE: f64 = 0.01;
/// The model that is trained by default.
const HIDDEN: &[usize] = &[128];

/// Microseconds of a line, from its step to the files, under the share of a step that they may take.
///
/// # Errors
/// If there is no temporary directory.
pub fn probes(bench: &Bench) -> Result<Vec<Probe<'static>>, Error> {
    let directory = tempfile::tempdir().map_err(Error::io("make a directory in", &std::env::temp_dir()))?;
    let (all, time) = (bench.thread_counts().last().unwrap_or(1), bench.sample);
    let training = format!("{}, {}", model(HIDDEN), counted(all, "thread"));
    let run = move |lines| micros(directory.path(), lines);
    Ok(vec![Probe {
        group: Group::Training,
        name: "metrics, a line".to_owned(),
        unit: Unit::Micros,
        // The training's figure is in records a second.
        limit: Some(Limit::Over(training, SHARE * BATCH as f64 * 1e6)),
        intensity: None,
        sample: steps(TRIAL, move |micros| lines_of(time, micros), run),
    }])
}

/// As many lines of `micros` microseconds as fill a sample, or a writing.
fn lines_of(sample: Duration, micros: f64) -> u64 {
    ((sample.as_secs_f64() * 1e6 / micros) as u64).clamp(TRIAL, LINES_MAX)
}

/// Microseconds that a line takes, in a directory that is gone afterwards.
fn micros(directory: &Path, lines: u64) -> Result<f64, Error> {
    let place = tempfile::tempdir_in(directory).map_err(Error::io("make a directory in", directory))?;
    Ok(write(place.path(), lines)? * 1e6 / lines as f64)
}

/// Seconds of writing so many lines: those of the training's thread, and behind them those of the writer's.
fn write(place: &Path, lines: u64) -> Result<f64, Error> {
    let storage = Arc::new(Storage::new(HadoopConfig::default()));
    let run = Run { every: 1, steps_per_epoch: 600, last_step: lines, ..Run::default() };
    let mut recorder = Recorder::begin(&storage, place, run)?;
    let start = Instant::now();
    (1..=lines).for_each(|steps| recorder.observe(&Event::Step(step(steps))));
    let warning = recorder.end("finished", &[]);
    let seconds = start.elapsed().as_secs_f64();
    warning.map_or(Ok(seconds), |warning| Err(Error::Usage(warning)))
}

/// A step with as many digits as real ones have.
fn step(steps: u64) -> Step {
    let seconds = steps as f64 * 1.1437e-4;
    Step {
        steps,
        epoch: steps / 600 + 1,
        rows: BATCH,
        score: Score { loss: 23.194_217 + 1.0 / steps as f64, hits: 97 },
        learning_rate: 0.0512,
        seconds,
        communication: 0.0713 * seconds,
        waiting: 0.1319 * seconds,
        reading: 0.0117 * seconds,
        staleness: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster::metrics::{FILE, History};

    #[test]
    fn what_is_measured_is_a_line_for_each_step() {
        let directory = tempfile::tempdir().unwrap();
        assert!(micros(directory.path(), 50).unwrap() > 0.0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
        assert!(write(directory.path(), 50).unwrap() > 0.0);
        let text = std::fs::read(directory.path().join(FILE)).unwrap();
        let history = History::parse(&text, Path::new(FILE)).unwrap();
        assert_eq!(history.steps.len(), 50);
        assert!(history.steps.iter().all(|steps| steps.compute > 0.0 && steps.reading > 0.0));
    }
}
