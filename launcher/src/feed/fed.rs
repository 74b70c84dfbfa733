//! What a program that is fed has in place of a data set.

use super::ledger::Tally;
use super::spec::{FeedSpec, Goal};
use super::{Batch, Inlet};
use crate::error::Error;
use muster::dataset::{Dataset, Features};
use muster::feed::{Facts, Feed};
use muster::records::Records;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// The records that the driver sends to the workers of this process.
pub struct Fed {
    /// By worker.
    seats: BTreeMap<usize, Mutex<Seat>>,
    spec: FeedSpec,
    facts: Facts,
    scale: f32,
    timeout: Duration,
}

/// One worker's.
struct Seat {
    inlet: Inlet,
    /// What it works on.
    held: Option<Batch>,
    /// It has said which step is its first.
    has_begun: bool,
    /// The driver has sent all there is.
    has_ended: bool,
}

impl Fed {
    /// `inlets` by worker. A byte of a feature stands for `byte * scale`.
    pub(crate) fn new(
        inlets: impl IntoIterator<Item = (usize, Inlet)>,
        (spec, facts): (FeedSpec, Facts),
        scale: f32,
        timeout: Duration,
    ) -> Fed {
        let seat = |inlet| Mutex::new(Seat { inlet, held: None, has_begun: false, has_ended: false });
        let seats = inlets.into_iter().map(|(worker, inlet)| (worker, seat(inlet))).collect();
        // Nobody knows when the next part of a directory that is followed will appear.
        let timeout = if spec.follow { Duration::from_secs(u32::MAX.into()) } else { timeout };
        Fed { seats, spec, facts, scale, timeout }
    }

    /// All records, as far as they are known beforehand. In a job that follows a directory their number means nothing.
    pub fn records(&self) -> Records {
        Records::fed(&self.spec.features, self.facts.clone(), self.scale)
    }

    /// Workers of this process.
    pub fn workers(&self) -> impl Iterator<Item = usize> {
        self.seats.keys().copied()
    }

    /// Calls `classify` for one portion of records after the other, on the calling thread; it gives a line for each record. Returns what
    /// this worker has classified.
    ///
    /// # Errors
    /// That of `classify`, and if the driver is lost.
    pub fn infer(
        &self,
        worker: usize,
        mut classify: impl FnMut(&Dataset) -> Result<String, muster::Error>,
    ) -> Result<Tally, Error> {
        let mut seat = self.seat(worker);
        while let Some(mut batch) = seat.inlet.next(self.timeout)? {
            let lines = classify(&self.decode(&mut batch)?)?;
            seat.inlet.used(&batch, lines.lines().count() as u32, lines.as_bytes())?;
        }
        Ok(seat.inlet.tally())
    }

    fn seat(&self, worker: usize) -> MutexGuard<'_, Seat> {
        self.seats[&worker].lock().expect("no panic while it is held")
    }

    /// The records of a portion, whose bytes are taken out of it.
    fn decode(&self, batch: &mut Batch) -> Result<Dataset, Error> {
        let (count, mut bytes) = (batch.portion.count as usize, std::mem::take(&mut batch.portion.bytes));
        let size = if self.spec.is_bytes { 1 } else { 4 };
        let length = count * size * self.facts.shape.iter().product::<usize>();
        let labels = match bytes.len().checked_sub(length) {
            Some(0) => None,
            Some(rest) if rest == 4 * count => {
                let label = |word: &[u8]| u32::from_le_bytes(word.try_into().expect("chunks of four"));
                Some(bytes[length..].chunks_exact(4).map(label).collect())
            }
            _ => {
                let found = format!("{} bytes for {count} records of {:?}", bytes.len(), self.facts.shape);
                return Err(Error::Protocol { peer: "the driver".to_owned(), found });
            }
        };
        bytes.truncate(length);
        let features = if self.spec.is_bytes {
            Features::U8 { bytes: bytes.into(), scale: self.scale }
        } else {
            let number = |word: &[u8]| f32::from_le_bytes(word.try_into().expect("chunks of four"));
            Features::F32(bytes.chunks_exact(4).map(number).collect())
        };
        let name = Path::new("the records that were fed");
        let records = Dataset::from_features(name, features, &self.facts.shape, self.facts.classes)?;
        Ok(match labels {
            Some(labels) => records.with_labels(name, labels)?,
            None => records,
        })
    }

    fn take_portion(&self, worker: usize, step: u64, rows: usize) -> Result<Option<Dataset>, Error> {
        let mut seat = self.seat(worker);
        seat.acknowledge()?;
        let asynchronous = matches!(&self.spec.goal, Goal::Train(course) if course.asynchronous);
        if asynchronous || !seat.has_begun {
            seat.inlet.want(step, self.timeout)?;
            seat.has_begun = true;
        }
        let Some(mut batch) = seat.inlet.next(self.timeout)? else {
            seat.has_ended = true;
            return Ok(None);
        };
        if batch.portion.count as usize != rows {
            let found = format!("{} records for step {step}, which needs {rows}", batch.portion.count);
            return Err(Error::Protocol { peer: "the driver".to_owned(), found });
        }
        let records = self.decode(&mut batch)?;
        seat.held = Some(batch);
        Ok(Some(records))
    }
}

impl Seat {
    /// What it has worked on is used.
    fn acknowledge(&mut self) -> Result<(), Error> {
        self.held.take().map_or(Ok(()), |batch| self.inlet.used(&batch, 0, &[]))
    }
}

impl Feed for Fed {
    fn take(&self, worker: usize, step: u64, rows: usize) -> Result<Option<Dataset>, muster::Error> {
        self.take_portion(worker, step, rows)
            .map_err(|error| muster::Error::Reading { text: error.to_string() })
    }

    fn is_open(&self) -> bool {
        self.spec.follow
    }

    fn finish(&self, worker: usize) -> Result<(), muster::Error> {
        let finish = || {
            let mut seat = self.seat(worker);
            if seat.has_ended {
                return Ok(());
            }
            seat.acknowledge()?;
            seat.inlet.enough(self.timeout)?;
            while seat.inlet.next(self.timeout)?.is_some() {}
            Ok::<_, Error>(())
        };
        finish().map_err(|error| muster::Error::Reading { text: error.to_string() })
    }
}
