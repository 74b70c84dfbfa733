//! Parts one after the other, as they are there or as they appear.

use super::Feeder;
use super::spec::FeedSpec;
use super::supply::encode;
use crate::error::Error;
use muster::dataset::{Dataset, Feature};
use muster::format::Rows;
use muster::parts::source::{Part, Source};
use muster::storage::Storage;
use std::collections::{HashSet, VecDeque};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a directory is looked at for new parts.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// The parts of a directory, each read once, in the order of their names.
pub struct Stream<'a> {
    spec: &'a FeedSpec,
    storage: &'a Storage,
    stop: &'a AtomicBool,
    /// What was found when the directory was last looked at.
    source: Option<Source>,
    /// Parts read so far.
    read: HashSet<PathBuf>,
    /// Parts that still hold records to be used, each with the place of its first record.
    waiting: VecDeque<(u64, Dataset)>,
    /// Records that have been read.
    records: u64,
}

impl<'a> Stream<'a> {
    /// Nothing is read yet. A directory that is followed ends when `stop` says so, another one with its last part.
    pub fn new(spec: &'a FeedSpec, storage: &'a Storage, stop: &'a AtomicBool) -> Stream<'a> {
        let (source, read) = Default::default();
        Stream { spec, storage, stop, source, read, waiting: VecDeque::new(), records: 0 }
    }

    /// The next part, with its name; an empty one has no data set. None if there is no further one.
    ///
    /// # Errors
    /// If it cannot be read, or a worker is lost meanwhile.
    pub fn next_part(&mut self, feeder: &mut Feeder) -> Result<Option<(String, Option<Dataset>)>, Error> {
        loop {
            if let Some(source) = &self.source {
                let is_new = |part: &Part| !self.read.contains(&part.features.path);
                if let Some(number) = source.parts().iter().position(is_new) {
                    let part = self.read_part(source, number)?;
                    let name = format!("part-{:05}", self.read.len());
                    self.read.insert(source.parts()[number].features.path.clone());
                    return Ok(Some((name, part)));
                }
                let is_over = !self.spec.follow || self.stop.load(Ordering::Acquire);
                if is_over || feeder.pause(LOOK)? {
                    return Ok(None);
                }
            }
            self.source = match self.spec.find(self.storage) {
                Ok(source) => Some(source),
                Err(error) if !self.spec.follow || !is_early(&error) => return Err(error),
                Err(_) if self.stop.load(Ordering::Acquire) || feeder.pause(LOOK)? => return Ok(None),
                Err(_) => None,
            };
        }
    }

    fn read_part(&self, source: &Source, number: usize) -> Result<Option<Dataset>, Error> {
        if self.spec.is_bytes {
            self.records(source, number, source.read_part::<u8>(number)?)
        } else {
            self.records(source, number, source.read_part::<f32>(number)?)
        }
    }

    fn records<T: Feature>(
        &self,
        source: &Source,
        number: usize,
        rows: Rows<T>,
    ) -> Result<Option<Dataset>, Error> {
        let path = &source.parts()[number].features.path;
        let is_empty = rows.features.is_empty();
        let part = || Dataset::from_rows(path, rows, 1.0, source.shape(), self.spec.classes);
        Ok((!is_empty).then(part).transpose()?)
    }

    /// Reads on until all records before `end` are there; false if they will never come.
    ///
    /// # Errors
    /// As [`Stream::next_part`].
    pub fn reach(&mut self, end: u64, feeder: &mut Feeder) -> Result<bool, Error> {
        while self.records < end {
            let Some((_, part)) = self.next_part(feeder)? else { return Ok(false) };
            let Some(part) = part else { continue };
            let first = self.records;
            self.records += part.len() as u64;
            self.waiting.push_back((first, part));
        }
        Ok(true)
    }

    /// The bytes of the records at `places`, counted over all parts, which have been reached. Later calls ask for later places.
    pub fn bytes(&mut self, places: Range<u64>) -> Vec<u8> {
        while self.waiting.front().is_some_and(|(first, part)| first + part.len() as u64 <= places.start) {
            self.waiting.pop_front();
        }
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        for (first, part) in &self.waiting {
            let of_part = |place: u64| place.saturating_sub(*first).min(part.len() as u64) as usize;
            let rows = of_part(places.start)..of_part(places.end);
            if rows.is_empty() {
                continue;
            }
            let length = rows.len() * part.feature_bytes(0).len();
            let bytes = encode(rows.map(|row| (part, row)));
            features.extend_from_slice(&bytes[..length]);
            labels.extend_from_slice(&bytes[length..]);
        }
        features.append(&mut labels);
        features
    }
}

/// Whether an error means that what is looked for may still come: no directory, no part in it, features whose labels are missing.
pub(super) fn is_early(error: &Error) -> bool {
    match error {
        Error::Data(muster::Error::Io { cause, .. }) => cause.kind() == ErrorKind::NotFound,
        Error::Data(muster::Error::Invalid(_) | muster::Error::Unpaired { .. }) => true,
        _ => false,
    }
}
