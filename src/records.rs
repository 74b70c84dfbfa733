//! The records of a job: in memory where they fit, else read from their parts again and again.

use std::path::Path;
use std::sync::Arc;

use crate::blocks::Blocks;
use crate::dataset::{Content, Dataset};
use crate::error::Result;
use crate::parts::source::Source;

/// Records, wherever they are.
pub enum Records {
    /// All of them in memory.
    Memory(Dataset),
    /// An index of them in memory.
    Blocks(Arc<Blocks>),
}

impl Records {
    /// The labelled records of parts, read by the threads of `pool`: in memory where their features and labels take at most `limit` bytes.
    /// `path` names them in messages; a byte stands for `byte * scale`.
    ///
    /// # Errors
    /// Those of the parts; also when there is no record.
    pub fn of_parts(
        path: &Path,
        source: Source,
        scale: f32,
        limit: u64,
        pool: rayon::ThreadPool,
    ) -> Result<Records> {
        match pool.install(|| source.read_within(limit))? {
            Some(rows) => {
                Dataset::from_rows(path, rows, scale, source.shape(), source.schema().classes).map(Self::from)
            }
            None => Blocks::open(path, source, scale, pool).map(|blocks| Records::Blocks(Arc::new(blocks))),
        }
    }

    /// The number of records.
    #[expect(clippy::len_without_is_empty, reason = "a data set has at least one record")]
    pub fn len(&self) -> usize {
        match self {
            Records::Memory(dataset) => dataset.len(),
            Records::Blocks(blocks) => blocks.len(),
        }
    }

    /// The shape of a record.
    pub fn shape(&self) -> &[usize] {
        match self {
            Records::Memory(dataset) => dataset.shape(),
            Records::Blocks(blocks) => blocks.shape(),
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
        }
    }

    /// The file or directory of the features, for messages.
    pub fn path(&self) -> &Path {
        match self {
            Records::Memory(dataset) => dataset.path(),
            Records::Blocks(blocks) => blocks.path(),
        }
    }

    /// The digests.
    pub fn content(&self) -> &Content {
        match self {
            Records::Memory(dataset) => dataset.content(),
            Records::Blocks(blocks) => blocks.content(),
        }
    }

    /// [`Content::sha256`] of these records.
    pub fn digest(&self) -> String {
        self.content().sha256()
    }

    /// As [`Dataset::sparse_scale`].
    pub fn sparse_scale(&self) -> Option<f32> {
        match self {
            Records::Memory(dataset) => dataset.sparse_scale(),
            Records::Blocks(blocks) => blocks.sparse_scale(),
        }
    }

    /// Bytes that the features and labels keep in memory.
    pub fn bytes(&self) -> u64 {
        match self {
            Records::Memory(dataset) => (dataset.len() * (dataset.width() + size_of::<u32>())) as u64,
            Records::Blocks(_) => 0,
        }
    }
}

impl From<Dataset> for Records {
    fn from(dataset: Dataset) -> Records {
        Records::Memory(dataset)
    }
}
