//! A data set in memory: one row of features a record, a class for each where it is labelled, and its digest.

mod density;
mod digest;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;

pub(crate) use density::Density;
pub(crate) use digest::Hasher;
pub use digest::{Content, hex};

use crate::error::Error;
use crate::format::{Element, Rows, idx};

/// What features are, as far as it decides how a first layer reads them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Floats.
    F32,
    /// Bytes, which stand for `byte * scale`.
    U8 {
        /// What a byte is multiplied with.
        scale: f32,
        /// Per cent of them that are not 0, rounded up; see [`Dataset::kind`].
        density: u8,
    },
}

/// The features of all records, `[records, width]` row-major.
pub enum Features {
    /// Bytes that stand for `byte as f32 * scale`.
    U8 {
        /// `records * width` bytes.
        bytes: Bytes,
        /// What one step of a byte is worth.
        scale: f32,
    },
    /// Numbers as they are.
    F32(Vec<f32>),
}

/// One record's features, `[width]`; see [`Features`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FeatureRow<'a> {
    /// Bytes and the data set's scale.
    U8 {
        /// `width` bytes.
        bytes: &'a [u8],
        /// What one step of a byte is worth.
        scale: f32,
    },
    /// `width` numbers.
    F32(&'a [f32]),
}

/// What features are read as: bytes, or numbers.
pub trait Feature: Element {
    /// The features of records as a data set holds them; a byte stands for `byte * scale`.
    fn features(values: Vec<Self>, scale: f32) -> Features;
}

impl Feature for u8 {
    fn features(values: Vec<u8>, scale: f32) -> Features {
        Features::U8 { bytes: values.into(), scale }
    }
}

impl Feature for f32 {
    fn features(values: Vec<f32>, _: f32) -> Features {
        Features::F32(values)
    }
}

/// Records in the order of their file, with or without labels.
pub struct Dataset {
    path: PathBuf,
    features: Features,
    shape: Vec<usize>,
    records: usize,
    classes: usize,
    labels: Option<Vec<u32>>,
    content: OnceLock<Content>,
}

impl Dataset {
    /// Records without labels. `path` names their file in messages, `shape` is the shape of one record, such
    /// as `[rows, cols]`, and `classes` the number of classes that labels may name.
    ///
    /// # Errors
    /// [`Error::Format`] when there is no record, a record has no features, or `features` is not a whole
    /// number of records.
    pub fn from_features(
        path: &Path,
        features: Features,
        shape: &[usize],
        classes: usize,
    ) -> Result<Dataset, Error> {
        let width: usize = shape.iter().product();
        let len = match &features {
            Features::U8 { bytes, .. } => bytes.len(),
            Features::F32(numbers) => numbers.len(),
        };
        if width == 0 || len == 0 || !len.is_multiple_of(width) {
            return Err(Error::Format {
                path: path.to_owned(),
                expected: format!("at least one record, each of shape {shape:?}"),
                found: format!("{len} numbers"),
                mend: "take another file",
            });
        }
        Ok(Dataset {
            path: path.to_owned(),
            features,
            shape: shape.to_owned(),
            records: len / width,
            classes,
            labels: None,
            content: OnceLock::new(),
        })
    }

    /// The same records, each with its label. `path` names the labels' file in messages.
    ///
    /// # Errors
    /// [`Error::CountsDiffer`] or [`Error::LabelOutOfRange`].
    pub fn with_labels(mut self, path: &Path, labels: Vec<u32>) -> Result<Dataset, Error> {
        if labels.len() != self.records {
            return Err(Error::CountsDiffer {
                features: self.path,
                feature_count: self.records,
                labels: path.to_owned(),
                label_count: labels.len(),
            });
        }
        if let Some(record) = labels.iter().position(|&label| label as usize >= self.classes) {
            let (path, label) = (path.to_owned(), labels[record]);
            return Err(Error::LabelOutOfRange { path, record, label, classes: self.classes });
        }
        self.labels = Some(labels);
        self.content = OnceLock::new();
        Ok(self)
    }

    /// Reads a pair of IDX files, raw or gzip, or images alone. A pixel stands for `byte * scale`.
    ///
    /// # Errors
    /// Those of [`idx::read`], [`Dataset::from_features`] and [`Dataset::with_labels`].
    pub fn from_idx(
        images: &Path,
        labels: Option<&Path>,
        scale: f32,
        classes: usize,
    ) -> Result<Dataset, Error> {
        let idx = idx::read(images, idx::Kind::Images)?;
        let features = Features::U8 { bytes: idx.data, scale };
        let dataset = Dataset::from_features(images, features, &idx.dims[1..], classes)?;
        let Some(path) = labels else { return Ok(dataset) };
        let labels = idx::read(path, idx::Kind::Labels)?;
        dataset.with_labels(path, labels.data.iter().map(|&label| u32::from(label)).collect())
    }

    /// The records that were read from parts, with their labels where they have some. `path` names the data set in messages; a byte
    /// stands for `byte * scale`.
    ///
    /// # Errors
    /// Those of [`Dataset::from_features`] and [`Dataset::with_labels`].
    pub fn from_rows<T: Feature>(
        path: &Path,
        rows: Rows<T>,
        scale: f32,
        shape: &[usize],
        classes: usize,
    ) -> Result<Dataset, Error> {
        let features = T::features(rows.features, scale);
        let dataset = Dataset::from_features(path, features, shape, classes)?;
        if rows.labels.is_empty() { Ok(dataset) } else { dataset.with_labels(path, rows.labels) }
    }

    /// The number of records.
    #[expect(clippy::len_without_is_empty, reason = "a data set has at least one record")]
    pub fn len(&self) -> usize {
        self.records
    }

    /// The number of features of a record.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// The shape of a record; its product is [`Dataset::width`].
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of classes that labels may name.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The file of the features, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All features, `[len, width]` row-major.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The features of record `i`.
    ///
    /// # Panics
    /// When there is no record `i`.
    pub fn feature_row(&self, i: usize) -> FeatureRow<'_> {
        let row = i * self.width()..(i + 1) * self.width();
        match &self.features {
            Features::U8 { bytes, scale } => FeatureRow::U8 { bytes: &bytes[row], scale: *scale },
            Features::F32(numbers) => FeatureRow::F32(&numbers[row]),
        }
    }

    /// What the features are. The density of bytes is that of a sample of up to 500 records all over the data set.
    pub fn kind(&self) -> Kind {
        let &Features::U8 { scale, .. } = &self.features else { return Kind::F32 };
        let mut density = Density::new(self.records);
        density.add(self);
        Kind::U8 { scale, density: density.percent() }
    }

    /// Where the features of record `i` lie in memory.
    ///
    /// # Panics
    /// When there is no record `i`.
    pub fn feature_bytes(&self, i: usize) -> &[u8] {
        match self.feature_row(i) {
            FeatureRow::U8 { bytes, .. } => bytes,
            FeatureRow::F32(numbers) => bytemuck::cast_slice(numbers),
        }
    }

    /// The class of each record, each less than [`Dataset::classes`]; `None` when the data set is not
    /// labelled.
    pub fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }

    /// The class of record `i`, `None` when the data set is not labelled.
    ///
    /// # Panics
    /// When it is labelled and there is no record `i`.
    pub fn label(&self, i: usize) -> Option<u32> {
        self.labels.as_ref().map(|labels| labels[i])
    }

    /// The digest of the content, computed when first asked for; it does not depend on the format that the records came in.
    pub fn content(&self) -> &Content {
        self.content.get_or_init(|| {
            let element = match self.features {
                Features::U8 { .. } => idx::Element::U8,
                Features::F32(_) => idx::Element::F32,
            };
            let mut hasher = Hasher::new(element, self.records, &self.shape, self.classes);
            hasher.add(self);
            hasher.finish()
        })
    }

    /// Takes the digests from who has computed them of the same content, unless they are known already.
    pub fn know(&self, content: Content) {
        let _known_already = self.content.set(content);
    }

    /// [`Content::sha256`] of these records.
    pub fn digest(&self) -> String {
        self.content().sha256()
    }
}

/// Checks that records have the shape of others, so that one model takes both; each is named by a path.
///
/// # Errors
/// [`Error::ShapesDiffer`].
pub fn check_same_shape(
    (left, left_shape): (&Path, &[usize]),
    (right, right_shape): (&Path, &[usize]),
) -> Result<(), Error> {
    if left_shape == right_shape {
        return Ok(());
    }
    let (left, right) = (left.to_owned(), right.to_owned());
    let (left_shape, right_shape) = (left_shape.to_owned(), right_shape.to_owned());
    Err(Error::ShapesDiffer { left, left_shape, right, right_shape })
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({} records of {:?} from {})", self.records, self.shape, self.path.display())
    }
}
