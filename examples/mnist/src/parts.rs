//! Digits in directories of parts, on this machine or on HDFS.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use muster::dataset::Dataset;
use muster::format::Rows;
use muster::model::Model;
use muster::parts::Format;
use muster::parts::source::{Location, Source};
use muster::records::Records;
use muster::storage::Storage;

use crate::cli;
use crate::source::{CLASSES, SCALE, Training};

/// The shape of a digit where no manifest tells it.
pub const SHAPE: [usize; 2] = [28, 28];
/// Records that are read at a time where not all of them are needed at once.
const PIECE: usize = 8192;

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

/// Reads the digits that `--images` and its companions name; those to train on only if they are not `fed`.
///
/// # Errors
/// When they cannot be found or read, or training and test digits have different shapes.
pub fn training(
    storage: &Storage,
    images: &Path,
    options: &cli::Train,
    fed: Option<Records>,
) -> Result<Training> {
    let (data, mut left) = (&options.data, options.cache_mib.saturating_mul(1 << 20));
    let mut read = |images: &Path, labels: Option<&Path>| -> Result<Records> {
        let source = find(storage, data.format(), (images, labels), true)?;
        let records = Records::of_parts(images, source, Some(SCALE), left, pool(data.readers)?)?;
        left = left.saturating_sub(records.bytes());
        Ok(records)
    };
    let train = fed.map_or_else(|| read(images, data.labels.as_deref()), Ok)?;
    let test = options.test_images.as_deref().map(|images| read(images, options.test_labels.as_deref()));
    Training::of_parts(train, test.transpose()?)
}

/// Reads the digits that `--test-images` and its companion name.
///
/// # Errors
/// When they cannot be found or read.
pub fn test(storage: &Storage, images: &Path, options: &cli::Train) -> Result<Records> {
    let (data, left) = (&options.data, options.cache_mib.saturating_mul(1 << 20));
    let source = find(storage, data.format(), (images, options.test_labels.as_deref()), true)?;
    Ok(Records::of_parts(images, source, Some(SCALE), left, pool(data.readers)?)?)
}

/// Checks that the model at `model_path` takes the records of a data set: `width` features, from `path`.
///
/// # Errors
/// When it does not.
pub fn check_model(model: &Model, (width, path): (usize, &Path), model_path: &Path) -> Result<()> {
    let widths = model.widths();
    ensure!(
        widths[0] == width && widths[widths.len() - 1] == CLASSES,
        "the model {} takes {} features and gives {} classes, but {} has {width} features and {CLASSES} classes; choose another --model",
        model_path.display(),
        widths[0],
        widths[widths.len() - 1],
        path.display(),
    );
    Ok(())
}

/// The records of a part, some thousands at a time. `path` names them in messages.
///
/// # Errors
/// When a file of it cannot be opened.
pub fn pieces<'a>(
    source: &'a Source,
    part: usize,
    path: &'a Path,
) -> Result<impl Iterator<Item = Result<Dataset>> + use<'a>> {
    let mut reader = source.open::<u8>(part)?;
    Ok(std::iter::from_fn(move || {
        let mut rows = Rows::default();
        match reader.read_rows(PIECE, &mut rows) {
            Ok(0) => None,
            Ok(_) => Some(Dataset::from_rows(path, rows, SCALE, source.shape(), CLASSES).map_err(Into::into)),
            Err(error) => Some(Err(error.into())),
        }
    }))
}

/// As many threads as there are readers; as usable cores where none are named.
fn pool(readers: Option<usize>) -> Result<rayon::ThreadPool> {
    match rayon::ThreadPoolBuilder::new().num_threads(readers.unwrap_or(0)).build() {
        Ok(pool) => Ok(pool),
        Err(error) => bail!("cannot start the threads that read ({error}); choose fewer --readers"),
    }
}
