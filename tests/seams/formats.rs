//! What muster writes is what Spark, Python and TensorFlowOnSpark read, and the other way round.

use crate::python::python;
use muster::format::Rows;
use muster::parts::Format;
use muster::parts::manifest::Manifest;
use muster::parts::output::{Output, Plan};
use muster::parts::source::{Location, Source};
use muster::storage::{HadoopConfig, Storage};
use muster_tests::machine::{absent, under_ci};
use muster_tests::program::run;
use std::path::PathBuf;
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

#[test]
fn python_reads_our_pickles_and_we_read_those_of_spark() {
    let Some(python) = python() else {
        return absent("python3 with venv and PyPI: reading our pickles with Python");
    };
    // The same records as in the script.
    let rows = Rows {
        features: (0..253 * 6).map(|i| (i * 7 % 256) as u8).collect(),
        labels: (0..253).map(|i| i % 3).collect(),
    };
    let storage = Storage::new(HadoopConfig::default());
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let output = Output::begin(&storage, &out, false).unwrap();
    let plan = Plan { dir: "", format: Format::Pickle, shape: &[6], classes: 3, parts: 2 };
    output.write_records(&plan, rows.view(), &|_| {}).unwrap();
    output.commit().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/pickles.py");
    run(Command::new(python).arg(script).arg(&out)).succeeds();

    let spark = out.join("spark");
    if !spark.exists() {
        return absent(
            "PySpark (make test-peers installs it): sc.pickleFile on our files, and its files read by us",
        );
    }
    let (features, labels) = (spark.join("images"), spark.join("labels"));
    let location = Location {
        format: Format::Pickle,
        features: &features,
        labels: Some(&labels),
        labels_required: true,
    };
    assert_eq!(Source::find(&storage, location, &[6], 3).unwrap().read_all::<u8>().unwrap(), rows);
}
