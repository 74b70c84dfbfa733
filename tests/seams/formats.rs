//! What muster writes is what Spark, Python and TensorFlowOnSpark read, and the other way round.

use crate::python::python;
use muster::format::Rows;
use muster::parts::Format;
use muster::parts::manifest::Manifest;
use muster::parts::output::{Output, Plan};
use muster::parts::source::{Location, Source};
use muster::storage::{HadoopConfig, Storage};
use muster_tests::machine::{absent, under_ci};
use muster_tests::program::{Outcome, root, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// MNIST's training set, where `make test` has put its raw files.
fn mnist() -> Option<Rows<u8>> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?.join("muster/mnist");
    let read = |name, header: usize| Some(std::fs::read(cache.join(name)).ok()?.split_off(header));
    let labels = read("train-labels-idx1-ubyte", 8)?;
    Some(Rows {
        features: read("train-images-idx3-ubyte", 16)?,
        labels: labels.into_iter().map(u32::from).collect(),
    })
}

/// Bytes and SHA-256 of the first of 10 parts of MNIST's training set, as made by Python after the seed's
/// `mnist_data_setup.py`.
#[test]
fn csv_and_csv2_are_the_bytes_that_the_seed_writes() {
    let Some(rows) = mnist() else {
        assert!(!under_ci(), "make test fetches MNIST before it tests");
        return absent("MNIST in the cache: the bytes of its csv and csv2");
    };
    let storage = Storage::new(HadoopConfig::default());
    let directory = tempfile::tempdir().unwrap();
    for (format, dir, bytes, sha256) in [
        (
            Format::Csv,
            "images",
            9_338_236,
            "464664029105c175b9adc7e4e9ff8a30d5e1b8e9b414c2e446441fbd71edc449",
        ),
        (Format::Csv, "labels", 204_800, "7125950d2a76b6aad8fd304d2851798347a929f887a9e6d596f3c7fbf2957cf3"),
        (Format::Csv2, "", 9_348_476, "20a235137c3d628039e6133a89c0d5435f4bdbc5eed9bad580945310645a28b6"),
    ] {
        let out = directory.path().join("out");
        let output = Output::begin(&storage, &out, true).unwrap();
        let plan = Plan { dir: "", format, shape: &[28, 28], classes: 10, parts: 10 };
        output.write_records(&plan, rows.view(), &|_| {}).unwrap();
        output.commit().unwrap();
        let manifest = Manifest::read(&storage, &out.join(dir)).unwrap().unwrap();
        assert_eq!((manifest.rows, manifest.parts[0].rows), (60_000, 5120));
        assert_eq!(
            (manifest.parts[0].bytes, manifest.parts[0].sha256.as_str()),
            (bytes, sha256),
            "{format} {dir}"
        );
    }
}

/// The same records as in the scripts of `tests/peers`.
fn records() -> Rows<u8> {
    Rows {
        features: (0..253 * 6).map(|i| (i * 7 % 256) as u8).collect(),
        labels: (0..253).map(|i| i % 3).collect(),
    }
}

/// Writes [`records`] in two parts, and lets one of the scripts look at them.
fn shown_to(script: &str, (storage, python, out): (&Storage, &Path, &Path), format: Format) -> Outcome {
    let output = Output::begin(storage, out, false).unwrap();
    let plan = Plan { dir: "", format, shape: &[6], classes: 3, parts: 2 };
    output.write_records(&plan, records().view(), &|_| {}).unwrap();
    output.commit().unwrap();
    run(Command::new(python).arg(root().join("tests/peers").join(script)).arg(out))
}

/// The records of a file or a directory.
fn read(storage: &Storage, format: Format, features: &Path, labels: Option<&Path>) -> Rows<u8> {
    let location = Location { format, features, labels, labels_required: true };
    Source::find(storage, location, &[6], 3).unwrap().read_all().unwrap()
}

#[test]
fn python_reads_our_pickles_and_we_read_those_of_spark() {
    let Some(python) = python() else {
        return absent("python3 with venv and PyPI: reading our pickles with Python");
    };
    let storage = Storage::new(HadoopConfig::default());
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    shown_to("pickles.py", (&storage, &python, &out), Format::Pickle).succeeds();
    let spark = out.join("spark");
    if !spark.exists() {
        return absent(
            "PySpark (make test-peers installs it): sc.pickleFile on our files, and its files read by us",
        );
    }
    let (features, labels) = (spark.join("images"), spark.join("labels"));
    assert_eq!(read(&storage, Format::Pickle, &features, Some(&labels)), records());
}

#[test]
fn tensorflow_reads_our_records_and_we_read_its_own() {
    let has_tensorflow = |python: &PathBuf| {
        run(Command::new(python).args(["-c", "import importlib.util as u; assert u.find_spec('tensorflow')"]))
            .status
            .success()
    };
    let Some(python) = python().filter(has_tensorflow) else {
        return absent(
            "TensorFlow (make test-peers installs it): its reading of our TFRecords, and its own read by us",
        );
    };
    let storage = Storage::new(HadoopConfig::default());
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    shown_to("tfrecords.py", (&storage, &python, &out), Format::TfRecord).succeeds();
    for labels in ["one-hot", "classes"] {
        let written = out.join("tensorflow").join(labels);
        assert_eq!(read(&storage, Format::TfRecord, &written, None), records(), "{labels}");
    }
}
