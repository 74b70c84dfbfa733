//! The records of a job: in memory where they fit, else read from their parts again and again, or fed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::WINDOW;
use crate::blocks::Blocks;
use crate::dataset::{Content, Dataset, Feature, Kind};
use crate::error::Result;
use crate::feed::Facts;
use crate::parts::source::Source;
use crate::windows;

/// Records, wherever they are.
pub enum Records {
    /// All of them in memory.
    Memory(Dataset),
    /// An index of them in memory.
    Blocks(Arc<Blocks>),
    /// None of them: those of each step come by the feed of the job's [`crate::cluster::Cluster`].
    Fed {
        /// Where they come from, for messages.
        path: PathBuf,
        /// What is known of them.
        facts: Facts,
        /// As [`Dataset::kind`].
        kind: Kind,
    },
}

impl Records {
    /// The labelled records of parts, read by the threads of `pool`: in memory where their features and labels take at most `limit` bytes.
    /// `path` names them in messages; a byte stands for `byte * scale`, and without a scale features are `f32`.
    ///
    /// # Errors
    /// Those of the parts; also when there is no record.
    pub fn of_parts(
        path: &Path,
        source: Source,
        scale: Option<f32>,
        limit: u64,
        pool: rayon::ThreadPool,
    ) -> Result<Records> {
        let there = pool.install(|| match scale {
            Some(scale) => in_memory::<u8>(path, &source, scale, limit),
            None => in_memory::<f32>(path, &source, 1.0, limit),
        })?;
        match there {
            Some(records) => Ok(records.into()),
            None => Blocks::open(path, source, scale, pool).map(|blocks| Records::Blocks(Arc::new(blocks))),
        }
    }

    /// Records that a feed brings, where `facts` are known of all of them. `path` names them in messages; a byte stands for `byte * scale`.
    pub fn fed(path: &Path, facts: Facts, scale: f32) -> Records {
        let kind = if facts.is_bytes { Kind::U8 { scale, density: facts.density } } else { Kind::F32 };
        Records::Fed { path: path.to_owned(), facts, kind }
    }

    /// The number of records.
    #[expect(clippy::len_without_is_empty, reason = "a data set has at least one record")]
    pub fn len(&self) -> usize {
        match self {
            Records::Memory(dataset) => dataset.len(),
            Records::Blocks(blocks) => blocks.len(),
            Records::Fed { facts, .. } => facts.records,
        }
    }

    /// The shape of a record.
    pub fn shape(&self) -> &[usize] {
        match self {
            Records::Memory(dataset) => dataset.shape(),
            Records::Blocks(blocks) => blocks.shape(),
            Records::Fed { facts, .. } => &facts.shape,
        }
    }

    /// The number of features of a record.
    pub fn width(&self) -> usize {
        self.shape().iter().product()
    }

    /// The number of classes that labels may name.
    pub fn classes(&self) -> usize {
        match self {
            Records::Memory(dataset) => dataset.classes(),
            Records::Blocks(blocks) => blocks.classes(),
            Records::Fed { facts, .. } => facts.classes,
        }
    }

    /// The file or directory of the features, for messages.
    pub fn path(&self) -> &Path {
        match self {
            Records::Memory(dataset) => dataset.path(),
            Records::Blocks(blocks) => blocks.path(),
            Records::Fed { path, .. } => path,
        }
    }

    /// The digests.
    pub fn content(&self) -> &Content {
        match self {
            Records::Memory(dataset) => dataset.content(),
            Records::Blocks(blocks) => blocks.content(),
            Records::Fed { facts, .. } => &facts.content,
        }
    }

    /// [`Content::sha256`] of these records.
    pub fn digest(&self) -> String {
        self.content().sha256()
    }

    /// As [`Dataset::kind`].
    pub fn kind(&self) -> Kind {
        match self {
            Records::Memory(dataset) => dataset.kind(),
            Records::Blocks(blocks) => blocks.kind(),
            Records::Fed { kind, .. } => *kind,
        }
    }

    /// Bytes that features and labels take in memory at most; of records that are read again and again, as many as a process needs
    /// that needs all of them.
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Records::Memory(dataset) => dataset.len() * (dataset.feature_bytes(0).len() + size_of::<u32>()),
            Records::Blocks(blocks) => windows::HELD * WINDOW.min(blocks.len()) * blocks.record_bytes(),
            Records::Fed { .. } => 0,
        };
        bytes as u64
    }
}

/// All records of `source`, if they take at most `limit` bytes.
fn in_memory<T: Feature>(path: &Path, source: &Source, scale: f32, limit: u64) -> Result<Option<Dataset>> {
    let Some(rows) = source.read_within::<T>(limit)? else { return Ok(None) };
    Dataset::from_rows(path, rows, scale, source.shape(), source.schema().classes).map(Some)
}

impl From<Dataset> for Records {
    fn from(dataset: Dataset) -> Records {
        Records::Memory(dataset)
    }
}
