//! Evaluates each checkpoint of a model directory as it appears, beside the training that writes them: it reads only, so that the
//! weights of the training stay what they are.

use crate::checkpoint;
use crate::error::Error;
use crate::evaluate::Evaluation;
use crate::inference::read_model;
use crate::metrics::{Evaluated, EvaluationLog, now};
use crate::model::{Model, Tensors};
use crate::records::Records;
use crate::storage::Storage;
use crate::store;
use crate::team;
use muster_kernels::Kernels;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How often the model directory is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// See the module.
pub struct Evaluator<'a> {
    storage: &'a Storage,
    directory: &'a Path,
    model: &'a Model,
    kernels: &'a Kernels,
    test: &'a Records,
    threads: usize,
    log: Option<EvaluationLog>,
    /// Checkpoints that are there and were evaluated: their steps, and the digests of their weights.
    known: BTreeMap<u64, String>,
}

impl<'a> Evaluator<'a> {
    /// Of the checkpoints in the model directory `directory` that have the shape of `model`, on labelled records.
    pub fn new(
        (storage, directory): (&'a Storage, &'a Path),
        (model, kernels): (&'a Model, &'a Kernels),
        test: &'a Records,
        threads: usize,
    ) -> Evaluator<'a> {
        let (log, known) = Default::default();
        Evaluator { storage, directory, model, kernels, test, threads, log, known }
    }

    /// Writes what comes out to a log, too. What stands there already is not evaluated again.
    pub fn with_log(self, log: EvaluationLog) -> Evaluator<'a> {
        Evaluator { log: Some(log), ..self }
    }

    /// Evaluates until `ends_within`, which waits for at most the time that it is given, says that the training has ended, and then what
    /// is left; `each` is told what comes out.
    ///
    /// # Errors
    /// If a checkpoint or the test records cannot be read, and that of `ends_within`.
    pub fn follow<X: From<Error>>(
        &mut self,
        mut ends_within: impl FnMut(Duration) -> Result<bool, X>,
        mut each: impl FnMut(&Evaluated),
    ) -> Result<(), X> {
        loop {
            let is_over = ends_within(LOOK)?;
            self.look(is_over, &mut each)?;
            if is_over {
                return Ok(());
            }
        }
    }

    /// Evaluates the checkpoints that have appeared, the oldest first. With `again` those that are known are read again: a training that
    /// began anew may have replaced one by another of the same step.
    ///
    /// # Errors
    /// If a checkpoint or the test records cannot be read.
    pub fn look(&mut self, again: bool, each: &mut impl FnMut(&Evaluated)) -> Result<(), Error> {
        let steps = store::steps(self.storage, self.directory)?;
        self.known.retain(|step, _| steps.contains(step));
        for step in steps {
            if again || !self.known.contains_key(&step) {
                self.evaluate(step, each)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, step: u64, each: &mut impl FnMut(&Evaluated)) -> Result<(), Error> {
        let path = store::checkpoint_path(self.directory, step);
        let Some(weights) = self.read(&path)? else { return Ok(()) };
        let weights_sha256 = checkpoint::sha256(&weights);
        let is_known = self.known.insert(step, weights_sha256.clone()).as_ref() == Some(&weights_sha256);
        if is_known || self.log.as_ref().is_some_and(|log| log.has(step, &weights_sha256)) {
            return Ok(());
        }
        let buffer = self.model.buffer();
        self.model.import(&weights, &buffer);
        let evaluation = Evaluation::new(self.test.len());
        team::run(self.threads, |team| evaluation.run((self.model, self.kernels, &buffer), self.test, team));
        let (score, records) = (evaluation.score()?, self.test.len());
        let (loss, accuracy) = (score.loss / records as f64, f64::from(score.hits) / records as f64);
        let evaluated = Evaluated { step, time: now(), weights_sha256, records, loss, accuracy };
        if let Some(log) = &mut self.log {
            log.write(&evaluated)?;
        }
        each(&evaluated);
        Ok(())
    }

    /// The weights of a checkpoint; none if it is gone, as the oldest go in time, or belongs to a model of another shape, which is about
    /// to be set aside.
    fn read(&self, path: &Path) -> Result<Option<Vec<Tensors>>, Error> {
        match read_model(self.storage, &path.join(store::MODEL_FILE)) {
            Ok((model, weights)) => Ok((model.widths() == self.model.widths()).then_some(weights)),
            Err(_) if self.storage.stat(path)?.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
