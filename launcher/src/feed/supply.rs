//! What the driver feeds a job's ranks with, and in which order.

use super::results::Results;
use super::spec::{Course, FeedSpec, Goal};
use super::stream::{LOOK, Stream, is_early};
use super::{Feeder, Portion, Progress, Tally};
use crate::error::Error;
use muster::batch::{Batch, Schedule};
use muster::dataset::{Content, Dataset};
use muster::feed::Facts;
use muster::gradient::Share;
use muster::records::Records;
use muster::sequence::Sequence;
use muster::storage::Storage;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Records of a portion in inference: enough to keep a worker busy, few enough to divide a part among many.
const INFERENCE_RECORDS: usize = 1024;

/// The records of a job, found or read.
pub struct Supply {
    spec: FeedSpec,
    storage: Storage,
    facts: Facts,
    /// Those to train on in an order that needs all of them.
    records: Option<Records>,
}

impl Supply {
    /// Reads what is to be trained on; finds the parts of everything else. Where parts have yet to appear, waits for the first of them, since
    /// their manifest may tell the shape of records, or until `stop` says so.
    ///
    /// # Errors
    /// If there is nothing, or it cannot be read.
    pub fn prepare(spec: &FeedSpec, stop: &AtomicBool) -> Result<Supply, Error> {
        let storage = Storage::from_environment()?;
        let records = match spec.goal {
            Goal::Train(_) if !spec.follow => Some(read(spec, &storage)?),
            _ => None,
        };
        let facts = match &records {
            Some(records) => Facts::of(records),
            // How many will come nobody knows: more than any training takes.
            None => Facts {
                records: u32::MAX as usize,
                shape: shape(spec, &storage, stop)?,
                classes: spec.classes,
                content: Content { features_sha256: [0; 32], labels_sha256: Some([0; 32]) },
                is_bytes: spec.is_bytes,
                density: 0,
            },
        };
        Ok(Supply { spec: spec.clone(), storage, facts, records })
    }

    /// What the ranks have to know before the first record.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether each record has a result.
    pub fn wants_results(&self) -> bool {
        matches!(self.spec.goal, Goal::Inference { .. })
    }

    /// Feeds the workers until they want no more, there is no more, or `stop` says so where there never is an end. The books are closed.
    ///
    /// # Errors
    /// If a part cannot be read, nothing moves, a worker is lost, or the books do not agree.
    pub fn feed(&self, feeder: &mut Feeder, stop: &AtomicBool) -> Result<Tally, Error> {
        match &self.spec.goal {
            Goal::Train(course) if course.asynchronous => self.train_asynchronously(course, feeder, stop),
            Goal::Train(course) => self.train(course, feeder, stop),
            Goal::Inference { output, overwrite } => self.infer(feeder, output, *overwrite, stop),
        }
    }

    /// Every worker gets its share of each global batch, ahead of the steps.
    fn train(&self, course: &Course, feeder: &mut Feeder, stop: &AtomicBool) -> Result<Tally, Error> {
        let Some((_, first_step)) = feeder.wanted()? else { return feeder.finish_from(None) };
        let workers = feeder.workers();
        let schedule = course.schedule(self.facts.records);
        let first = schedule.records_until(first_step);
        let mut batches = self.batches(course, stop);
        'steps: for step in first_step.. {
            let batch = schedule.batch(step);
            let (begin, count) = (schedule.records_until(step), batch.positions.len());
            if !batches.reach((step, &batch), feeder)? {
                break;
            }
            for worker in 0..workers {
                let rows = Share::rows_of(count, batch.leaves, worker, workers);
                if rows.is_empty() {
                    continue;
                }
                let first = begin + rows.start as u64;
                let bytes = batches.bytes(first..first + rows.len() as u64);
                let portion = Portion { first, count: rows.len() as u32, worker: Some(worker), bytes };
                if feeder.push(portion)? == Progress::Enough {
                    break 'steps;
                }
            }
        }
        feeder.finish_from(Some(first))
    }

    /// Every worker gets the batch whose step it has been given. Records that arrive belong to no step: who asks first gets the next ones, so
    /// that none wait for a worker that is slow.
    fn train_asynchronously(
        &self,
        course: &Course,
        feeder: &mut Feeder,
        stop: &AtomicBool,
    ) -> Result<Tally, Error> {
        let schedule = course.schedule(self.facts.records);
        let (mut batches, mut next, mut first) = (self.batches(course, stop), None, None);
        while let Some((worker, wanted)) = feeder.wanted()? {
            // The workers are given their first steps in their order: worker 0 the first of all.
            let arriving = next.unwrap_or(wanted.saturating_sub(worker as u64));
            let step = if self.spec.follow { arriving } else { wanted };
            next = Some(step + 1);
            let batch = schedule.batch(step);
            let (begin, count) = (schedule.records_until(step), batch.positions.len());
            if !batches.reach((step, &batch), feeder)? {
                break;
            }
            first = Some(first.map_or(begin, |first: u64| first.min(begin)));
            let bytes = batches.bytes(begin..begin + count as u64);
            feeder.push(Portion { first: begin, count: count as u32, worker: Some(worker), bytes })?;
        }
        feeder.finish_from(first)
    }

    fn batches<'a>(&'a self, course: &'a Course, stop: &'a AtomicBool) -> Batches<'a> {
        let schedule = course.schedule(self.facts.records);
        match &self.records {
            Some(records) => {
                Batches::Shuffled(Box::new(Sequence::new(records, course.seed, schedule)), schedule)
            }
            None => Batches::Arriving(Box::new(Stream::new(&self.spec, &self.storage, stop)), schedule),
        }
    }

    /// Part in, part out; any worker takes any portion.
    fn infer(
        &self,
        feeder: &mut Feeder,
        output: &Path,
        overwrite: bool,
        stop: &AtomicBool,
    ) -> Result<Tally, Error> {
        let mut results = Results::begin(&self.storage, output, overwrite, self.spec.follow)?;
        let (mut parts, mut records) = (Stream::new(&self.spec, &self.storage, stop), 0);
        while let Some((name, part)) = parts.next_part(feeder)? {
            let count = part.as_ref().map_or(0, Dataset::len);
            let begin = records;
            for first in (0..count).step_by(INFERENCE_RECORDS) {
                let rows = first..count.min(first + INFERENCE_RECORDS);
                let part = part.as_ref().expect("it has records");
                let (first, count) = (begin + first as u64, rows.len() as u32);
                feeder.push(Portion {
                    first,
                    count,
                    worker: None,
                    bytes: encode(rows.map(|row| (part, row))),
                })?;
            }
            records += count as u64;
            results.expect(name, begin..records);
            results.take(feeder)?;
            if self.spec.follow {
                feeder.settle()?;
                results.take(feeder)?;
            }
        }
        feeder.settle()?;
        results.take(feeder)?;
        let tally = feeder.finish(records)?;
        results.finish()?;
        Ok(tally)
    }
}

/// The shape of a record, by the first part or the manifest beside it; stopped before there is one, what the program says.
fn shape(spec: &FeedSpec, storage: &Storage, stop: &AtomicBool) -> Result<Vec<usize>, Error> {
    loop {
        match spec.find(storage) {
            Ok(source) => return Ok(source.shape().to_vec()),
            Err(error) if !spec.follow || !is_early(&error) => return Err(error),
            Err(_) if stop.load(Ordering::Acquire) => return Ok(spec.shape.clone()),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// The records to train on: in memory, or, where they take too much of it, an index of them.
fn read(spec: &FeedSpec, storage: &Storage) -> Result<Records, Error> {
    let pool = rayon::ThreadPoolBuilder::new().build();
    let pool = pool.map_err(|error| muster::Error::Reading { text: error.to_string() })?;
    let scale = spec.is_bytes.then_some(1.0);
    Ok(Records::of_parts(&spec.features, spec.find(storage)?, scale, spec.cache_bytes, pool)?)
}

/// The bytes of records: the features of all of them, then, where there are labels, those, as `u32` in little endian.
pub(super) fn encode<'d>(records: impl ExactSizeIterator<Item = (&'d Dataset, usize)> + Clone) -> Vec<u8> {
    let length = records.clone().next().map_or(0, |(dataset, row)| dataset.feature_bytes(row).len() + 4);
    let mut bytes = Vec::with_capacity(records.len() * length);
    records.clone().for_each(|(dataset, row)| bytes.extend_from_slice(dataset.feature_bytes(row)));
    let labels = records.filter_map(|(dataset, row)| dataset.label(row));
    labels.for_each(|label| bytes.extend(label.to_le_bytes()));
    bytes
}

/// The records of a training by their places in it.
enum Batches<'a> {
    /// In each epoch's order.
    Shuffled(Box<Sequence<'a>>, Schedule),
    /// In the order in which they arrive.
    Arriving(Box<Stream<'a>>, Schedule),
}

impl Batches<'_> {
    /// Waits for all records of a step; false if they will never come.
    fn reach(&mut self, (step, batch): (u64, &Batch), feeder: &mut Feeder) -> Result<bool, Error> {
        match self {
            Batches::Shuffled(sequence, _) => {
                sequence.prepare(batch)?;
                Ok(true)
            }
            Batches::Arriving(stream, schedule) => stream.reach(schedule.records_until(step + 1), feeder),
        }
    }

    /// The bytes of the records at `places`, all of one step that has been reached.
    fn bytes(&mut self, places: Range<u64>) -> Vec<u8> {
        match self {
            Batches::Shuffled(sequence, schedule) => {
                let in_epoch = |place| (place % schedule.records as u64) as usize;
                let first = in_epoch(places.start);
                encode((first..first + (places.end - places.start) as usize).map(|at| sequence.row(at)))
            }
            Batches::Arriving(stream, _) => stream.bytes(places),
        }
    }
}
