//! Records in memory: their order, their digest, and what is wrong with them.

use super::*;
use crate::storage::file::write_atomic;
use sha2::{Digest, Sha256};
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
    assert_eq!(read.content().features_sha256, of_file(&images));
    assert_eq!(read.content().labels_sha256, Some(of_file(&labels)));
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
    let expected = format!("{} holds 3 records but {} holds 2 labels", images.display(), labels.display());
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
    let (wide, high) = ((Path::new("wide"), &[1, 4][..]), (Path::new("high"), &[4, 1][..]));
    let error = check_same_shape(wide, high).unwrap_err().to_string();
    assert!(error.starts_with("wide has records of [1, 4] but high of [4, 1]"), "{error}");
    assert!(check_same_shape(wide, wide).is_ok());
}
