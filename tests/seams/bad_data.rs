//! Data that is not what it should be gets one line that says what, where and what mends it, and changes nothing.

use flate2::Compression;
use flate2::write::GzEncoder;
use muster_tests::digits::{NAMES, SIDE, TEST, TRAIN, idx, pictures};
use muster_tests::program::{Sandbox, run};
use std::fs;
use std::io::Write;
use std::process::Command;

const IMAGES: &str = NAMES[0];
const LABELS: &str = NAMES[1];
const TEST_IMAGES: &str = NAMES[2];
const TEST_LABELS: &str = NAMES[3];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Training on data in which one file is `bytes` is refused with all of `parts`; a model that is there stays as it is.
#[track_caller]
fn refused(name: &str, bytes: &[u8], parts: &[&str]) {
    let sandbox = Sandbox::new();
    sandbox.hash("--hidden none -s 2");
    let model = sandbox.files("mnist_model");
    let path = sandbox.path("data").join(name);
    fs::write(&path, bytes).unwrap();
    if let Some(raw) = name.strip_suffix(".gz") {
        fs::remove_file(sandbox.path("data").join(raw)).unwrap();
    }
    sandbox.train("--hidden none -s 4").refuses(parts).refuses(&[name]);
    sandbox.train("--hidden none -s 4 --no-resume").refuses(parts);
    assert_eq!(sandbox.files("mnist_model"), model);
}

fn images() -> Vec<u8> {
    idx(&[TRAIN, SIDE, SIDE], &pictures(TRAIN, 1).0)
}

fn labels() -> Vec<u8> {
    idx(&[TRAIN], &pictures(TRAIN, 1).1)
}

#[test]
fn wrong_magic() {
    refused(IMAGES, b"\x89PNG rather than IDX", &["magic 0x89504e47", "0x00000803"]);
    refused(LABELS, &images(), &["swapped"]);
    refused(IMAGES, &labels(), &["swapped"]);
}

#[test]
fn truncated_or_over_long() {
    let whole = images();
    refused(IMAGES, &whole[..whole.len() - 1], &["47520 bytes", "47519"]);
    refused(IMAGES, &[&whole[..], b"x"].concat(), &["47520 bytes", "47521"]);
    refused(IMAGES, &whole[..10], &["header of 16 bytes", "10 bytes"]);
    refused(LABELS, b"", &["0 bytes"]);
    refused(TEST_IMAGES, &idx(&[0, SIDE, SIDE], b""), &["at least one record"]);
}

#[test]
fn sizes_that_overflow() {
    let header = idx(&[u32::MAX as usize; 3], b"");
    refused(IMAGES, &header, &["4294967295", "memory"]);
    refused(&format!("{IMAGES}.gz"), &gzip(&header), &["4294967295", "memory"]);
}

#[test]
fn counts_that_differ() {
    let fewer = idx(&[TRAIN - 1], &pictures(TRAIN - 1, 1).1);
    refused(LABELS, &fewer, &["330 records", "329 labels", IMAGES]);
}

#[test]
fn a_label_that_is_no_digit() {
    let mut bytes = labels();
    bytes[8 + 41] = 10;
    refused(LABELS, &bytes, &["record 41", "is 10", "0 to 9"]);
    let mut bytes = idx(&[TEST], &pictures(TEST, 1001).1);
    bytes[8] = 255;
    refused(TEST_LABELS, &bytes, &["record 0", "is 255"]);
}

#[test]
fn damaged_gzip() {
    let name = format!("{IMAGES}.gz");
    let whole = gzip(&images());
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0xff;
    refused(&name, &flipped, &["gzip"]);
    refused(&name, &whole[..whole.len() / 2], &["gzip", "cut off"]);
    refused(&name, b"\x1f\x8bnot really", &["gzip"]);
}

#[test]
fn gzip_that_goes_on_past_its_header_s_count() {
    let bomb = idx(&[TRAIN, SIDE, SIDE], &vec![0; 100 << 20]);
    refused(&format!("{IMAGES}.gz"), &gzip(&bomb), &["47520 bytes", "goes on"]);
}

#[test]
fn test_pictures_of_another_shape() {
    let wide = idx(&[TEST, SIDE, 10], &vec![0; TEST * SIDE * 10]);
    refused(TEST_IMAGES, &wide, &["[12, 12]", "[12, 10]"]);
}

#[test]
fn files_that_cannot_be_read() {
    let sandbox = Sandbox::new();
    run(&mut sandbox.mnist("train --data nowhere")).refuses(&["nowhere", "No such file", "--data"]);
    fs::create_dir(sandbox.path("empty")).unwrap();
    run(&mut sandbox.mnist("train --data empty")).refuses(&["empty", IMAGES, "--data"]);
    let images = sandbox.path("data").join(IMAGES);
    fs::rename(&images, sandbox.path("away")).unwrap();
    sandbox.train("").refuses(&[LABELS, IMAGES]);
    fs::create_dir(&images).unwrap();
    sandbox.train("").refuses(&[IMAGES, "not a regular file"]);
    fs::remove_dir(&images).unwrap();
    // Opening a pipe that nobody writes to would wait for ever.
    assert!(Command::new("mkfifo").arg(&images).status().unwrap().success());
    sandbox.train("").refuses(&[IMAGES, "not a regular file"]);
    fs::remove_file(&images).unwrap();
    fs::rename(sandbox.path("away"), &images).unwrap();
    fs::remove_file(sandbox.path("data").join(LABELS)).unwrap();
    sandbox.train("").refuses(&[LABELS, "training needs it"]);
    assert!(!sandbox.path("mnist_model").exists());
}

#[test]
fn a_batch_larger_than_the_data() {
    let sandbox = Sandbox::new();
    sandbox.train("-b 331").refuses(&["--batch-size 331", "330 records"]);
    sandbox.report("-b 330 -e 1 --hidden none");
}

#[test]
fn compressed_data_is_the_same_data() {
    let sandbox = Sandbox::new();
    let raw = sandbox.report("--hidden none -e 1 -m raw");
    for name in NAMES {
        let path = sandbox.path("data").join(name);
        fs::write(path.with_extension("gz"), gzip(&fs::read(&path).unwrap())).unwrap();
        fs::remove_file(path).unwrap();
    }
    let compressed = sandbox.report("--hidden none -e 1 -m compressed");
    for field in ["dataset_sha256", "weights_sha256", "test_accuracy"] {
        assert_eq!(compressed[field], raw[field]);
    }
}
