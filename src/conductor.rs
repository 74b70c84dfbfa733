//! Decides after which step to evaluate, to save and to end, and tells an observer what happens.

use crate::batch::{Batch, Schedule};
use crate::checkpoint::{Checkpoint, Progress};
use crate::error::Error;
use crate::histogram::LayerHistograms;
use crate::model::Tensors;
use crate::optimizer::decayed;
use crate::pass::Score;
use crate::store::Store;
use crate::train::{Job, State};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What follows a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Next {
    /// The epoch is complete: evaluate.
    pub evaluate: bool,
    /// Write a checkpoint.
    pub save: bool,
    /// Take no further step.
    pub end: Option<End>,
}

impl Next {
    /// There are no more records for this step: it is not taken, and what was trained before is saved.
    pub const DRAINED: Next = Next { evaluate: false, save: true, end: Some(End::Drained) };
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps were taken.
    Finished,
    /// There were no more records.
    Drained,
    /// A signal of this number asked for it.
    Interrupted(usize),
    /// An error that another thread or rank reports.
    Failed,
}

/// What the leader of a team tells its members about a step, before they meet in the middle of that step. Two of them, because
/// the leader may announce the next step while a slow member has not read about this one.
#[derive(Default)]
pub struct Signal([Mutex<Next>; 2]);

impl Signal {
    /// Announces what follows `step`.
    pub fn set(&self, step: u64, next: Next) {
        *self.0[step as usize & 1].lock().expect("no panic while it is held") = next;
    }

    /// What follows `step`.
    pub fn get(&self, step: u64) -> Next {
        *self.0[step as usize & 1].lock().expect("no panic while it is held")
    }
}

/// One epoch of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: u64,
    /// Mean over its records, while they were trained on.
    pub loss: f64,
    /// Share of its records that were classified rightly, while they were trained on.
    pub train_accuracy: f64,
    /// Mean over the test records, with the weights at its end; none without a test set.
    pub test_loss: Option<f64>,
    /// Share of the test records classified rightly; none without a test set.
    pub test_accuracy: Option<f64>,
    /// Seconds of training, evaluation and checkpoints not counted.
    pub seconds: f64,
}

/// A step that is done.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Steps done, over all epochs and runs.
    pub steps: u64,
    /// Its epoch, from 1.
    pub epoch: u64,
    /// Records of the batch.
    pub rows: usize,
    /// Score of the batch.
    pub score: Score,
    /// Its learning rate.
    pub learning_rate: f32,
    /// Seconds that this run has trained, evaluation and checkpoints not counted.
    pub seconds: f64,
    /// Of them, those in which this rank sent and received.
    pub communication: f64,
    /// Of them, those in which this rank waited for others.
    pub waiting: f64,
    /// Of them, those in which this rank waited for its records.
    pub reading: f64,
    /// How many updates its gradient has missed, in asynchronous training.
    pub staleness: Option<u64>,
}

/// What the ranks know of a step that they have taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Score of the batch.
    pub score: Score,
    /// Seconds in which this rank has sent and received, in all steps of this run.
    pub communication: f64,
    /// Seconds in which it has waited for others.
    pub waiting: f64,
    /// Seconds in which it has waited for its records.
    pub reading: f64,
    /// How many updates the gradient has missed, in asynchronous training.
    pub staleness: Option<u64>,
}

/// What the observer is told.
pub enum Event<'a> {
    /// A step is done.
    Step(Step),
    /// An epoch is done.
    Epoch(&'a Epoch),
    /// The parameters of each layer at the end of an epoch, which was told just before; see [`Conductor::histograms`].
    Layers(&'a [LayerHistograms]),
    /// A checkpoint is on the disk.
    Saved(PathBuf),
    /// A checkpoint could not be written; another try follows.
    NotSaved(&'a Error),
}

/// See the module.
pub struct Conductor<'a> {
    /// Steps, scores and epochs so far, over all runs of this training.
    pub progress: Progress,
    /// Where checkpoints go; none are written without it.
    pub store: Option<&'a Store>,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// A signal's number once one has come, before that 0.
    pub interrupt: &'a AtomicUsize,
    /// Is told what happens.
    pub observer: &'a mut (dyn FnMut(Event) + Send),
    /// Whether the observer is told of the parameters' sizes at the end of epochs, at most once a second.
    pub histograms: bool,
    /// Seconds that this run has trained, evaluation and checkpoints not counted.
    pub train_seconds: f64,
    schedule: Schedule,
    last_step: u64,
    /// When the present stretch of training began.
    since: Instant,
    saved_at: Instant,
    saved_step: Option<u64>,
}

impl<'a> Conductor<'a> {
    /// Conducts from `progress` on until `last_step` steps are done.
    pub fn new(
        (progress, schedule, last_step): (Progress, Schedule, u64),
        store: Option<&'a Store>,
        checkpoint_every: Duration,
        interrupt: &'a AtomicUsize,
        observer: &'a mut (dyn FnMut(Event) + Send),
    ) -> Conductor<'a> {
        let now = Instant::now();
        let (since, saved_at, saved_step) = (now, now, (progress.steps > 0).then_some(progress.steps));
        Conductor {
            progress,
            store,
            checkpoint_every,
            interrupt,
            observer,
            histograms: false,
            train_seconds: 0.0,
            schedule,
            last_step,
            since,
            saved_at,
            saved_step,
        }
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.progress.steps
    }

    /// After how many steps training ends.
    pub fn last_step(&self) -> u64 {
        self.last_step
    }

    /// Whether there is nothing left to do.
    pub fn is_finished(&self) -> bool {
        self.progress.steps >= self.last_step
    }

    /// What follows the step of number `step` (from 0), which is about to be taken.
    pub fn next(&self, step: u64) -> Next {
        let steps = step + 1;
        let end = match self.interrupt.load(Ordering::Relaxed) {
            _ if steps >= self.last_step => Some(End::Finished),
            0 => None,
            signal => Some(End::Interrupted(signal)),
        };
        Next {
            evaluate: steps.is_multiple_of(self.schedule.steps_per_epoch()),
            save: end.is_some() || (self.store.is_some() && self.saved_at.elapsed() >= self.checkpoint_every),
            end,
        }
    }

    /// Takes note of a step that is done.
    pub fn done(&mut self, job: &Job, step: u64, batch: &Batch, taken: Taken) {
        let Taken { score, communication, waiting, reading, staleness } = taken;
        self.progress.steps = step + 1;
        self.progress.epoch_loss += score.loss;
        self.progress.epoch_hits += u64::from(score.hits);
        (self.observer)(Event::Step(Step {
            steps: step + 1,
            epoch: batch.epoch + 1,
            rows: batch.positions.len(),
            score,
            learning_rate: job.learning_rate(batch.epoch),
            seconds: self.train_seconds + self.since.elapsed().as_secs_f64(),
            communication,
            waiting,
            reading,
            staleness,
        }));
    }

    /// Does what `next` says, while all threads wait. `test` is the score of the test set and its number of records.
    ///
    /// # Errors
    /// If the last checkpoint cannot be written.
    pub fn pause(
        &mut self,
        next: Next,
        job: &Job,
        state: &State,
        test: Option<(Score, usize)>,
    ) -> Result<(), Error> {
        let seconds = self.since.elapsed().as_secs_f64();
        self.train_seconds += seconds;
        self.progress.epoch_seconds += seconds;
        if next.evaluate {
            self.complete_epoch(test);
            let gradients = state.gradients.as_ref();
            if let Some(layers) = gradients.and_then(|gradients| gradients.take(job.model, &state.weights)) {
                (self.observer)(Event::Layers(&layers));
            }
        }
        let saved = if next.save { self.save(job, state) } else { Ok(()) };
        self.since = Instant::now();
        match saved {
            Err(error) if next.end.is_none() => (self.observer)(Event::NotSaved(&error)),
            saved => saved?,
        }
        Ok(())
    }

    fn complete_epoch(&mut self, test: Option<(Score, usize)>) {
        let progress = &mut self.progress;
        let records = self.schedule.records as f64;
        let epoch = Epoch {
            epoch: progress.epochs.len() as u64 + 1,
            loss: progress.epoch_loss / records,
            train_accuracy: progress.epoch_hits as f64 / records,
            test_loss: test.map(|(score, records)| score.loss / records as f64),
            test_accuracy: test.map(|(score, records)| f64::from(score.hits) / records as f64),
            seconds: progress.epoch_seconds,
        };
        (progress.epoch_loss, progress.epoch_hits, progress.epoch_seconds) = (0.0, 0, 0.0);
        (self.observer)(Event::Epoch(&epoch));
        progress.epochs.push(epoch);
    }

    fn save(&mut self, job: &Job, state: &State) -> Result<(), Error> {
        self.saved_at = Instant::now();
        let Some(store) = self.store.filter(|_| self.saved_step != Some(self.progress.steps)) else {
            return Ok(());
        };
        let checkpoint = state.checkpoint(job, self.progress.clone());
        check_finite(job, &checkpoint)?;
        let path = store.save(&checkpoint)?;
        self.saved_step = Some(self.progress.steps);
        (self.observer)(Event::Saved(path));
        Ok(())
    }
}

/// Keeps weights that no longer are numbers out of the model directory: the loss tells only before the last update.
fn check_finite(job: &Job, checkpoint: &Checkpoint) -> Result<(), Error> {
    let is_finite = |layer: &Tensors| layer.weight.iter().chain(&layer.bias).all(|value| value.is_finite());
    if checkpoint.weights.iter().all(is_finite) {
        return Ok(());
    }
    let step = checkpoint.progress.steps;
    let epoch = job.schedule().batch(step - 1).epoch;
    let learning_rate = decayed(job.recipe.learning_rate, job.recipe.learning_rate_decay, epoch);
    Err(Error::Diverged { step, loss: f64::NAN, learning_rate })
}
