//! What muster writes is what Spark, Python and TensorFlowOnSpark read, and the other way round.

use std::path::PathBuf;
use std::process::Command;

use muster::format::{RowSchema, Rows};
use muster::parts::Format;
use muster::parts::manifest::Manifest;
use muster::parts::output::Output;
use muster::parts::source::{Location, Source};
use muster::storage::{HadoopConfig, Storage};

fn storage() -> Storage {
    Storage::new(HadoopConfig::default())
}

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
        assert!(std::env::var_os("CI").is_none(), "make test fetches MNIST before it tests");
        return eprintln!("not on this machine: MNIST in the cache directory");
    };
    let schema = RowSchema { width: 784, classes: 10 };
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
        let storage = storage();
        let output = Output::begin(&storage, &out, true).unwrap();
        output.write_records("", format, schema, rows.view(), 10, &|_| {}).unwrap();
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
    let numpy = Command::new("python3").args(["-c", "import numpy"]).output();
    if !numpy.is_ok_and(|done| done.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "python3 with numpy is needed: pip install numpy pyspark");
        return eprintln!("not on this machine: python3 with numpy");
    }
    // The same records as in the script.
    let schema = RowSchema { width: 6, classes: 3 };
    let rows = Rows {
        features: (0..253 * 6).map(|i| (i * 7 % 256) as u8).collect(),
        labels: (0..253).map(|i| i % 3).collect(),
    };
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let storage = storage();
    let output = Output::begin(&storage, &out, false).unwrap();
    output.write_records("", Format::Pickle, schema, rows.view(), 2, &|_| {}).unwrap();
    output.commit().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/pickles.py");
    let python = Command::new("python3").arg(script).arg(&out).output().unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));

    let spark = out.join("spark");
    if !spark.exists() {
        return eprintln!("not on this machine: PySpark");
    }
    let (features, labels) = (spark.join("images"), spark.join("labels"));
    let location = Location {
        format: Format::Pickle,
        features: &features,
        labels: Some(&labels),
        labels_required: true,
    };
    assert_eq!(Source::find(&storage, location, schema).unwrap().read_all::<u8>().unwrap(), rows);
}
