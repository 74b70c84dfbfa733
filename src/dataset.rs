//! A data set in memory: one row of features a record, a class for each where it is labelled, and its digest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::format::{Rows, idx};

/// Share of zeros from which on it is faster to leave them out than to multiply by them.
const SPARSE: f64 = 0.5;

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
    /// They are not here: records come one portion after another, see [`crate::feed`].
    Elsewhere {
        /// What [`Dataset::sparse_scale`] says of them.
        sparse_scale: Option<f32>,
    },
}

/// What is known of a data set whose records are elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Its number of records.
    pub records: usize,
    /// The shape of a record.
    pub shape: Vec<usize>,
    /// Classes that labels may name.
    pub classes: usize,
    /// [`Dataset::features_sha256`]
    pub features_sha256: [u8; 32],
    /// [`Dataset::labels_sha256`]
    pub labels_sha256: Option<[u8; 32]>,
    /// Whether [`Dataset::sparse_scale`] is some.
    pub is_sparse: bool,
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
            Features::Elsewhere { .. } => 0,
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

    /// The data set that `facts` are known of. It answers as the whole one does, but for its records. `path` names it in messages; a
    /// byte of a feature stands for `byte * scale`.
    pub fn elsewhere(path: &Path, facts: &Facts, scale: f32) -> Dataset {
        let labels_sha256 = facts.labels_sha256.map_or(OnceLock::new(), OnceLock::from);
        Dataset {
            path: path.to_owned(),
            features: Features::Elsewhere { sparse_scale: facts.is_sparse.then_some(scale) },
            shape: facts.shape.clone(),
            records: facts.records,
            classes: facts.classes,
            // Labels that are elsewhere, too.
            labels: facts.labels_sha256.map(|_| Vec::new()),
            features_sha256: facts.features_sha256.into(),
            labels_sha256,
        }
    }

    /// What others have to know of these records who get them one by one.
    pub fn facts(&self) -> Facts {
        Facts {
            records: self.records,
            shape: self.shape.clone(),
            classes: self.classes,
            features_sha256: self.features_sha256(),
            labels_sha256: self.labels_sha256(),
            is_sparse: self.sparse_scale().is_some(),
        }
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

    /// The records that were read from parts, with their labels where they have some. `path` names the data set in messages.
    ///
    /// # Errors
    /// Those of [`Dataset::from_features`] and [`Dataset::with_labels`].
    pub fn from_rows(
        path: &Path,
        rows: Rows<u8>,
        scale: f32,
        shape: &[usize],
        classes: usize,
    ) -> Result<Dataset, Error> {
        let features = Features::U8 { bytes: rows.features.into(), scale };
        let dataset = Dataset::from_features(path, features, shape, classes)?;
        if rows.labels.is_empty() { Ok(dataset) } else { dataset.with_labels(path, rows.labels) }
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
            Features::Elsewhere { .. } => unreachable!("records that are elsewhere come by a feed"),
        }
    }

    /// The scale of the bytes, where the features are bytes of which many are 0: then it pays to leave zeros out. Samples up to 500
    /// records, and changes no result, only the way to it.
    pub fn sparse_scale(&self) -> Option<f32> {
        let (bytes, scale) = match &self.features {
            Features::U8 { bytes, scale } => (bytes, scale),
            Features::F32(_) => return None,
            Features::Elsewhere { sparse_scale } => return *sparse_scale,
        };
        let sample = bytes.chunks_exact(self.width()).step_by(self.records.div_ceil(500));
        let (zeros, all) = sample.fold((0, 0), |(zeros, all), row| {
            (zeros + row.iter().filter(|&&byte| byte == 0).count(), all + row.len())
        });
        (zeros as f64 >= SPARSE * all as f64).then_some(*scale)
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

    /// SHA-256 of the features written as an IDX file `[len, shape…]`, so it does not depend on the format
    /// they came in. Computed when first asked for.
    pub fn features_sha256(&self) -> [u8; 32] {
        let dims: Vec<usize> = [self.records].into_iter().chain(self.shape.iter().copied()).collect();
        *self.features_sha256.get_or_init(|| match &self.features {
            Features::U8 { bytes, .. } => sha256(&[&idx::header(idx::Element::U8, &dims), bytes]),
            Features::F32(numbers) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
                sha256(&[&idx::header(idx::Element::F32, &dims), &bytes])
            }
            Features::Elsewhere { .. } => unreachable!("the digest came with the facts"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file::write_atomic;
    use tempfile::{TempDir, tempdir};

    const CLASSES: usize = 10;

    /// Three records of 2×2, labelled 0, 9 and 5, in memory.
    fn three() -> Dataset {
        let features = Features::U8 { bytes: (0..12).collect::<Vec<u8>>().into(), scale: 0.5 };
        let dataset = Dataset::from_features(Path::new("images"), features, &[2, 2], CLASSES).unwrap();
        dataset.with_labels(Path::new("labels"), vec![0, 9, 5]).unwrap()
    }

    fn write_idx(directory: &TempDir, name: &str, dims: &[usize], data: &[u8]) -> PathBuf {
        let path = directory.path().join(name);
        write_atomic(&path, |out| idx::write(out, dims, data)).unwrap();
        path
    }

    #[test]
    fn rows_and_labels_are_in_the_order_of_the_file() {
        let three = three();
        assert_eq!((three.len(), three.width(), three.shape(), three.classes()), (3, 4, &[2, 2][..], 10));
        assert_eq!(three.feature_row(1), FeatureRow::U8 { bytes: &[4, 5, 6, 7], scale: 0.5 });
        assert_eq!([0, 1, 2].map(|i| three.label(i)), [Some(0), Some(9), Some(5)]);
        let numbers = Dataset::from_features(Path::new(""), Features::F32(vec![1.0, 2.0]), &[1], 2).unwrap();
        assert_eq!((numbers.feature_row(1), numbers.label(1)), (FeatureRow::F32(&[2.0]), None));
    }

    #[test]
    fn the_digests_are_those_of_the_idx_files() {
        let directory = tempdir().unwrap();
        let images = write_idx(&directory, "images", &[3, 2, 2], &(0..12).collect::<Vec<u8>>());
        let labels = write_idx(&directory, "labels", &[3], &[0, 9, 5]);
        let read = Dataset::from_idx(&images, Some(&labels), 0.5, CLASSES).unwrap();
        let of_file = |path| <[u8; 32]>::from(Sha256::digest(std::fs::read(path).unwrap()));
        assert_eq!(read.features_sha256(), of_file(&images));
        assert_eq!(read.labels_sha256(), Some(of_file(&labels)));
        assert_eq!(read.digest(), three().digest());
        assert_eq!(read.digest(), hex(&Sha256::digest([of_file(&images), of_file(&labels)].concat())));
    }

    #[test]
    fn the_digest_changes_with_the_content_and_the_shape() {
        let digest = |features: Features, shape: &[usize], labels: &[u32], classes: usize| {
            let dataset = Dataset::from_features(Path::new(""), features, shape, classes).unwrap();
            dataset.with_labels(Path::new(""), labels.to_vec()).unwrap().digest()
        };
        let bytes = |bytes: [u8; 4]| Features::U8 { bytes: bytes.to_vec().into(), scale: 1.0 };
        let digests = [
            digest(bytes([1, 2, 3, 4]), &[2], &[0, 1], 2),
            digest(bytes([1, 2, 3, 5]), &[2], &[0, 1], 2),
            digest(bytes([1, 2, 3, 4]), &[1, 2], &[0, 1], 2),
            digest(bytes([1, 2, 3, 4]), &[2], &[1, 1], 2),
            digest(bytes([1, 2, 3, 4]), &[2], &[0, 1], 1000),
            digest(Features::F32(vec![1.0, 2.0, 3.0, 4.0]), &[2], &[0, 1], 2),
        ];
        let distinct: std::collections::HashSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }

    #[test]
    fn counts_that_differ_name_both_files() {
        let directory = tempdir().unwrap();
        let images = write_idx(&directory, "images", &[3, 2, 2], &[0; 12]);
        let labels = write_idx(&directory, "labels", &[2], &[0; 2]);
        let error = Dataset::from_idx(&images, Some(&labels), 1.0, CLASSES).unwrap_err().to_string();
        let expected =
            format!("{} holds 3 records but {} holds 2 labels", images.display(), labels.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn a_label_that_is_no_class_is_named_with_its_record() {
        let directory = tempdir().unwrap();
        let images = write_idx(&directory, "images", &[3, 2, 2], &[0; 12]);
        let labels = write_idx(&directory, "labels", &[3], &[0, 10, 200]);
        let error = Dataset::from_idx(&images, Some(&labels), 1.0, CLASSES).unwrap_err().to_string();
        let expected =
            format!("{}: the label of record 1 (counted from 0) is 10, expected 0 to 9", labels.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn a_set_without_records_or_features_is_an_error() {
        let directory = tempdir().unwrap();
        for dims in [[0, 2, 2], [5, 0, 2]] {
            let images = write_idx(&directory, "images", &dims, &[]);
            let error = Dataset::from_idx(&images, None, 1.0, CLASSES).unwrap_err().to_string();
            assert!(error.contains("expected at least one record"), "{error}");
        }
        let uneven = Features::F32(vec![0.0; 5]);
        assert!(Dataset::from_features(Path::new(""), uneven, &[2], CLASSES).is_err());
    }

    #[test]
    fn shapes_that_differ_name_both_files() {
        let features = || Features::F32(vec![0.0; 4]);
        let wide = Dataset::from_features(Path::new("wide"), features(), &[1, 4], 2).unwrap();
        let high = Dataset::from_features(Path::new("high"), features(), &[4, 1], 2).unwrap();
        let error = wide.check_same_shape(&high).unwrap_err().to_string();
        assert!(error.starts_with("wide has records of [1, 4] but high of [4, 1]"), "{error}");
        assert!(wide.check_same_shape(&wide).is_ok());
    }
}
