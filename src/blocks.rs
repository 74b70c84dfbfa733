//! Records that lie in parts and are read again whenever they are needed, because there are too many of them for the memory.
//!
//! One pass over the parts finds where every [`BLOCK`]-th record of a part begins; a second one reads all records, so that what is
//! damaged is found before the first step, and takes their digest. After that any records are read from the beginning of
//! their blocks, several blocks at a time; those between them are passed over without being decoded where the format allows it.

#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::batch::BLOCK;
use crate::dataset::{Content, Dataset, Density, Feature, Hasher, Kind};
use crate::error::{Error, Result};
use crate::format::{Element, Rows, idx};
use crate::parts::source::{PartPosition, Source};
use crate::windows::Shelf;

/// Blocks that are in memory at once while the digest is taken.
const BLOCKS_AT_ONCE: usize = 32;

/// Where reading can begin.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Its first record.
    first: usize,
    part: usize,
    position: PartPosition,
}

impl Block {
    /// Whether reading both begins at the same place, as it does everywhere in a compressed part.
    fn begins_like(&self, other: &Block) -> bool {
        let begin = |block: &Block| (block.part, block.position.features.bytes, block.position.labels.bytes);
        begin(self) == begin(other)
    }
}

/// A data set in parts, of which only an index is in memory.
pub struct Blocks {
    path: PathBuf,
    source: Source,
    blocks: Vec<Block>,
    records: usize,
    /// What one step of a byte is worth; without it features are `f32`.
    scale: Option<f32>,
    content: Content,
    kind: Kind,
    /// The threads that read.
    pub(crate) pool: rayon::ThreadPool,
    pub(crate) shelf: Shelf,
}

impl Blocks {
    /// Finds and checks all records of `source`, on the threads of `pool`. `path` names them in messages; a byte stands for
    /// `byte * scale`, and without a scale features are `f32`.
    ///
    /// # Errors
    /// Those of the parts; also when there is no record, or more than 2³² − 1.
    pub fn open(path: &Path, source: Source, scale: Option<f32>, pool: rayon::ThreadPool) -> Result<Blocks> {
        let (blocks, records) = pool.install(|| match scale {
            Some(_) => index::<u8>(&source),
            None => index::<f32>(&source),
        })?;
        if u32::try_from(records).is_err() {
            let what =
                format!("{} holds {records} records; at most {} are possible", path.display(), u32::MAX);
            return Err(Error::Invalid(what));
        }
        let content = Content { features_sha256: [0; 32], labels_sha256: None };
        let (path, shelf) = (path.to_owned(), Shelf::default());
        let mut blocks =
            Blocks { path, source, blocks, records, scale, content, kind: Kind::F32, pool, shelf };
        (blocks.content, blocks.kind) = blocks.pool.install(|| blocks.survey())?;
        Ok(blocks)
    }

    /// The number of records.
    #[expect(clippy::len_without_is_empty, reason = "a data set has at least one record")]
    pub fn len(&self) -> usize {
        self.records
    }

    /// The shape of a record.
    pub fn shape(&self) -> &[usize] {
        self.source.shape()
    }

    /// The number of classes that labels may name.
    pub fn classes(&self) -> usize {
        self.source.schema().classes
    }

    /// Bytes that features and label of a record take in memory.
    pub fn record_bytes(&self) -> usize {
        let feature = if self.scale.is_some() { size_of::<u8>() } else { size_of::<f32>() };
        self.source.schema().width * feature + size_of::<u32>()
    }

    /// The directory, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The digests.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// As [`Dataset::kind`].
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads a run of records.
    ///
    /// # Errors
    /// Those of the parts.
    pub fn read_range(&self, records: Range<usize>) -> Result<Dataset> {
        self.read(&records.map(|record| record as u32).collect::<Vec<_>>())
    }

    /// Reads some records, of ascending numbers.
    ///
    /// # Errors
    /// Those of the parts; also when one has changed and ends too early.
    pub fn read(&self, records: &[u32]) -> Result<Dataset> {
        match self.scale {
            Some(scale) => self.read_as::<u8>(records, scale),
            None => self.read_as::<f32>(records, 1.0),
        }
    }

    fn read_as<T: Feature>(&self, records: &[u32], scale: f32) -> Result<Dataset> {
        let rows = self.pool.install(|| self.read_rows::<T>(records))?;
        Dataset::from_rows(&self.path, rows, scale, self.shape(), self.classes())
    }

    fn read_rows<T: Element>(&self, records: &[u32]) -> Result<Rows<T>> {
        let width = self.source.schema().width;
        let mut features = vec![T::default(); records.len() * width];
        let mut labels = vec![0; records.len()];
        let (mut free_features, mut free_labels) = (&mut features[..], &mut labels[..]);
        let mut runs = Vec::new();
        for run in records.chunk_by(|&a, &b| self.block_of(a).begins_like(self.block_of(b))) {
            let (features, rest) = free_features.split_at_mut(run.len() * width);
            let (labels, others) = free_labels.split_at_mut(run.len());
            (free_features, free_labels) = (rest, others);
            runs.push((run, features, labels));
        }
        runs.into_par_iter().try_for_each(|(run, features, labels)| self.read_run(run, features, labels))?;
        Ok(Rows { features, labels })
    }

    /// The block of a record.
    fn block_of(&self, record: u32) -> &Block {
        &self.blocks[self.blocks.partition_point(|block| block.first <= record as usize) - 1]
    }

    /// Reads records of one part from the block of the first of them on.
    fn read_run<T: Element>(&self, records: &[u32], features: &mut [T], labels: &mut [u32]) -> Result<()> {
        let block = self.block_of(records[0]);
        let mut reader = self.source.open_at(block.part, block.position)?;
        let (mut next, mut row) = (block.first, Rows::<T>::default());
        let width = self.source.schema().width;
        for ((&record, features), label) in records.iter().zip(features.chunks_exact_mut(width)).zip(labels) {
            while next < record as usize && reader.skip_row()? {
                next += 1;
            }
            row.clear();
            if reader.read_rows(1, &mut row)? == 0 || row.labels.is_empty() {
                let path = &self.source.parts()[block.part].features.path;
                let what =
                    format!("record {record} of the data set is no longer in it: the file has changed");
                return Err(Error::Invalid(what).in_file(path));
            }
            features.copy_from_slice(&row.features);
            *label = row.labels[0];
            next += 1;
        }
        Ok(())
    }

    /// Reads everything, the next records while the digest of the last ones is taken and their zeros are counted.
    fn survey(&self) -> Result<(Content, Kind)> {
        let element = if self.scale.is_some() { idx::Element::U8 } else { idx::Element::F32 };
        let mut hasher = Hasher::new(element, self.records, self.shape(), self.classes());
        let mut density = Density::new(self.records);
        let mut add = |records: &Dataset| {
            hasher.add(records);
            density.add(records);
        };
        let read = |first: usize| self.read_range(first..self.records.min(first + BLOCKS_AT_ONCE * BLOCK));
        let mut records = read(0)?;
        let mut done = records.len();
        while done < self.records {
            let (next, ()) = rayon::join(|| read(done), || add(&records));
            records = next?;
            done += records.len();
        }
        add(&records);
        let kind = self.scale.map_or(Kind::F32, |scale| Kind::U8 { scale, density: density.percent() });
        Ok((hasher.finish(), kind))
    }
}

/// Where the blocks of all parts begin, and the number of records.
fn index<T: Element>(source: &Source) -> Result<(Vec<Block>, usize)> {
    let of_part = |part| {
        let (mut reader, mut begins, mut records) = (source.open::<T>(part)?, Vec::new(), 0);
        loop {
            let position = reader.position();
            if !reader.skip_row()? {
                return Ok((begins, records));
            }
            if records % BLOCK == 0 {
                begins.push(position);
            }
            records += 1;
        }
    };
    let parts: Vec<Result<(Vec<PartPosition>, usize)>> =
        (0..source.parts().len()).into_par_iter().map(of_part).collect();
    let (mut blocks, mut records) = (Vec::new(), 0);
    for (part, found) in parts.into_iter().enumerate() {
        let (begins, count) = found?;
        let block = |(at, position)| Block { first: records + at * BLOCK, part, position };
        blocks.extend(begins.into_iter().enumerate().map(block));
        records += count;
    }
    Ok((blocks, records))
}
