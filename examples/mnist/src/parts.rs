//! Digits in directories of parts, on this machine or on HDFS.

use std::path::Path;

use anyhow::{Result, bail};
use muster::format::Rows;
use muster::parts::Format;
use muster::parts::source::{Location, Source};
use muster::records::Records;
use muster::storage::Storage;
use rayon::prelude::*;

use crate::cli;
use crate::source::{CLASSES, SCALE, Training};

/// The shape of a digit where no manifest tells it.
const SHAPE: [usize; 2] = [28, 28];

/// Finds the parts of `images`, and of `labels` where they lie apart.
///
/// # Errors
/// When there are none, or they do not pair.
pub fn find(
    storage: &Storage,
    format: Format,
    (images, labels): (&Path, Option<&Path>),
    labels_required: bool,
) -> Result<Source> {
    let location = Location { format, features: images, labels, labels_required };
    Ok(Source::find(storage, location, &SHAPE, CLASSES)?)
}

/// Reads the digits that `--images` and its companions name.
///
/// # Errors
/// When they cannot be found or read, or training and test digits have different shapes.
pub fn training(storage: &Storage, images: &Path, options: &cli::Train) -> Result<Training> {
    let (data, mut left) = (&options.data, options.cache_mib.saturating_mul(1 << 20));
    let mut read = |images: &Path, labels: Option<&Path>| -> Result<Records> {
        let source = find(storage, data.format(), (images, labels), true)?;
        let records = Records::of_parts(images, source, SCALE, left, pool(data.readers)?)?;
        left = left.saturating_sub(records.bytes());
        Ok(records)
    };
    let train = read(images, data.labels.as_deref())?;
    let test = options.test_images.as_deref().map(|images| read(images, options.test_labels.as_deref()));
    Training::of_parts(train, test.transpose()?)
}

/// Calls `each` with the records of each part, in order. As many parts as there are readers are read at a time, and no others are
/// in memory.
///
/// # Errors
/// The first of a part or of `each`.
pub fn for_each(
    source: &Source,
    readers: Option<usize>,
    mut each: impl FnMut(usize, Rows<u8>) -> Result<()>,
) -> Result<()> {
    let pool = pool(readers)?;
    let (count, at_once) = (source.parts().len(), pool.current_num_threads());
    for first in (0..count).step_by(at_once) {
        let parts = first..count.min(first + at_once);
        let read: Vec<_> =
            pool.install(|| parts.into_par_iter().map(|part| source.read_part(part)).collect());
        for (part, rows) in (first..).zip(read) {
            each(part, rows?)?;
        }
    }
    Ok(())
}

/// As many threads as there are readers; as usable cores where none are named.
fn pool(readers: Option<usize>) -> Result<rayon::ThreadPool> {
    match rayon::ThreadPoolBuilder::new().num_threads(readers.unwrap_or(0)).build() {
        Ok(pool) => Ok(pool),
        Err(error) => bail!("cannot start the threads that read ({error}); choose fewer --readers"),
    }
}
