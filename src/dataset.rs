//! A data set in memory: one row of features a record, a class for each where it is labelled, and its digest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::format::idx;

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

/// Records in the order of their file, with or without labels.
pub struct Dataset {
    path: PathBuf,
    features: Features,
    shape: Vec<usize>,
    records: usize,
    classes: usize,
    labels: Option<Vec<u32>>,
    features_sha256: OnceLock<[u8; 32]>,
    labels_sha256: OnceLock<[u8; 32]>,
}

impl Dataset {
    /// Records without labels. `path` names their file in messages, `shape` is the shape of one record, such as
    /// `[rows, cols]`, and `classes` the number of classes that labels may name.
    ///
    /// # Errors
    /// [`Error::Format`] when there is no record, a record has no features, or `features` is not a whole number of records.
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
            features_sha256: OnceLock::new(),
            labels_sha256: OnceLock::new(),
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
        self.labels_sha256 = OnceLock::new();
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

    /// Checks that the records of `other` have the shape of these, so that one model takes both.
    ///
    /// # Errors
    /// [`Error::ShapesDiffer`].
    pub fn check_same_shape(&self, other: &Dataset) -> Result<(), Error> {
        if self.shape == other.shape {
            return Ok(());
        }
        Err(Error::ShapesDiffer {
            left: self.path.clone(),
            left_shape: self.shape.clone(),
            right: other.path.clone(),
            right_shape: other.shape.clone(),
        })
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

    /// The class of each record, each less than [`Dataset::classes`]; `None` when the data set is not labelled.
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

    /// SHA-256 of the features written as an IDX file `[len, shape…]`, so it does not depend on the format they came in.
    /// Computed when first asked for.
    pub fn features_sha256(&self) -> [u8; 32] {
        let dims: Vec<usize> = [self.records].into_iter().chain(self.shape.iter().copied()).collect();
        *self.features_sha256.get_or_init(|| match &self.features {
            Features::U8 { bytes, .. } => sha256(&[&idx::header(idx::Element::U8, &dims), bytes]),
            Features::F32(numbers) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
                sha256(&[&idx::header(idx::Element::F32, &dims), &bytes])
            }
        })
    }

    /// SHA-256 of the labels written as an IDX file, of bytes where 256 classes suffice, else of `i32`.
    /// Computed when first asked for.
    pub fn labels_sha256(&self) -> Option<[u8; 32]> {
        let labels = self.labels.as_ref()?;
        Some(*self.labels_sha256.get_or_init(|| {
            let (element, bytes): (_, Vec<u8>) = if self.classes <= 256 {
                (idx::Element::U8, labels.iter().map(|&label| label as u8).collect())
            } else {
                (idx::Element::I32, labels.iter().flat_map(|label| label.to_be_bytes()).collect())
            };
            sha256(&[&idx::header(element, &[self.records]), &bytes])
        }))
    }

    /// The digest of the content: hexadecimal SHA-256 of [`Dataset::features_sha256`] followed by
    /// [`Dataset::labels_sha256`].
    pub fn digest(&self) -> String {
        let labels = self.labels_sha256();
        hex(&sha256(&[&self.features_sha256(), labels.as_ref().map_or(&[][..], |digest| digest)]))
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({} records of {:?} from {})", self.records, self.shape, self.path.display())
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// The bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
