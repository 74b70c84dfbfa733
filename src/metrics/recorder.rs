//! The side of the training: counts steps and leaves lines for the writer, which is a thread of its own. A step costs some additions;
//! nothing is allocated, formatted or written between steps.

use super::writer::{Entry, Mailbox, Writer};
use super::{Ended, EpochEnd, Missed, Run, Steps};
use crate::conductor::{Event, Step};
use crate::error::Error;
use crate::mistakes::Mistake;
use crate::storage::Storage;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

/// Writes a training's metrics while it is told of its events. What could not be written is no reason to end a training.
pub struct Recorder {
    mailbox: Arc<Mailbox>,
    writer: Option<JoinHandle<()>>,
    /// Steps from line to line.
    every: u64,
    steps_per_epoch: u64,
    last_step: u64,
    /// What will be the next line.
    open: Open,
    /// Seconds of training, communication, waiting and reading up to the last line.
    before: [f64; 4],
    /// Steps done.
    steps: u64,
}

/// Steps since the last line.
#[derive(Default)]
struct Open {
    steps: u64,
    rows: u64,
    loss: f64,
    hits: u64,
    missed: u64,
    missed_max: u64,
    /// The last of them.
    last: Option<Step>,
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // Microseconds, which is what is worth writing down.
    since.map_or(0.0, |since| (since.as_secs_f64() * 1e6).round() / 1e6)
}

impl Recorder {
    /// Begins to write into a directory, which is made if it is not there. `run` says what is trained; its time is set here.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub fn begin(storage: &Arc<Storage>, directory: &Path, run: Run) -> Result<Recorder, Error> {
        let Run { every, steps_per_epoch, last_step, first_step, .. } = run;
        let run = Run { format: super::FORMAT, time: now(), ..run };
        let writer = Writer::open(storage, directory, run)?;
        let mailbox = Arc::new(Mailbox::default());
        let thread = std::thread::Builder::new().name("metrics".to_owned());
        let of_thread = mailbox.clone();
        let started = thread.spawn(move || writer.run(&of_thread));
        let writer = Some(started.map_err(Error::io("start the writer of", directory))?);
        let (open, before) = Default::default();
        Ok(Recorder { mailbox, writer, every, steps_per_epoch, last_step, open, before, steps: first_step })
    }

    /// Takes note of an event of the training.
    pub fn observe(&mut self, event: &Event) {
        match event {
            Event::Step(step) => self.step(step),
            Event::Epoch(epoch) => {
                let end = EpochEnd { step: self.steps, time: now(), epoch: (*epoch).clone() };
                self.mailbox.put(Entry::Epoch(end));
            }
            Event::Layers(layers) => {
                self.mailbox.put(Entry::Layers { step: self.steps, time: now(), layers: layers.to_vec() });
            }
            Event::Saved(_) | Event::NotSaved(_) => {}
        }
    }

    /// What has gone wrong with writing since it was last asked.
    pub fn warning(&self) -> Option<String> {
        self.mailbox.take_warning()
    }

    /// Writes down how the training ended, and what its model gets wrong; returns what went wrong with writing.
    pub fn end(mut self, reason: &str, mistakes: &[Mistake]) -> Option<String> {
        self.close_line();
        let end = Ended { step: self.steps, time: now(), reason: reason.to_owned() };
        self.mailbox.put(Entry::End(end, mistakes.to_vec()));
        self.stop();
        self.warning()
    }

    fn step(&mut self, step: &Step) {
        let open = &mut self.open;
        open.steps += 1;
        open.rows += step.rows as u64;
        open.loss += step.score.loss;
        open.hits += u64::from(step.score.hits);
        open.missed += step.staleness.unwrap_or(0);
        open.missed_max = open.missed_max.max(step.staleness.unwrap_or(0));
        open.last = Some(*step);
        self.steps = step.steps;
        let is_due = step.steps.is_multiple_of(self.every)
            || step.steps.is_multiple_of(self.steps_per_epoch)
            || step.steps >= self.last_step;
        if is_due {
            self.close_line();
        }
    }

    fn stop(&mut self) {
        self.mailbox.close();
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            self.mailbox.warn("the writer of metrics panicked; its message stands above".to_owned());
        }
    }

    /// Leaves the steps since the last line to the writer.
    fn close_line(&mut self) {
        let open = std::mem::take(&mut self.open);
        let Some(step) = open.last else { return };
        let now_spent = [step.seconds, step.communication, step.waiting, step.reading];
        let since = std::mem::replace(&mut self.before, now_spent);
        let [seconds, communication, waiting, reading] =
            [0, 1, 2, 3].map(|i| (now_spent[i] - since[i]).max(0.0));
        let rows = open.rows as f64;
        self.mailbox.put(Entry::Steps(Steps {
            step: step.steps,
            epoch: step.epoch,
            time: now(),
            rows: open.rows,
            loss: (open.loss / rows) as f32,
            accuracy: (open.hits as f64 / rows) as f32,
            learning_rate: step.learning_rate,
            images_per_second: if seconds > 0.0 { (rows / seconds) as f32 } else { 0.0 },
            seconds: seconds as f32,
            compute: (seconds - communication - waiting - reading).max(0.0) as f32,
            communication: communication as f32,
            waiting: waiting as f32,
            reading: reading as f32,
            staleness: step.staleness.map(|_| Missed {
                mean: (open.missed as f64 / open.steps as f64) as f32,
                max: open.missed_max,
            }),
        }));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
    }
}
