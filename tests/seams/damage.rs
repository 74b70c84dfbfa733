//! Whatever is wrong with a data set is found in every format, and said with the file, the place in it and what belongs there; what
//! is only unusual is read.

mod sets;

use muster::format::{Rows, sequence_file};
use muster_tests::program::{Sandbox, run};
use sets::*;
use std::collections::BTreeSet;
use std::fs;

const FORMATS: [&str; 7] = ["idx", "idx.gz", "csv", "csv2", "csv of 2.x", "pickle", "tfr"];

/// What is wrong; the format; the file; what is done to it; what the message says besides the file's name.
type Case = (&'static str, &'static str, &'static str, Damage, &'static [&'static str]);

const IMAGES: &str = "images/part-00001";
const LABELS: &str = "labels/part-00001";
const WHOLE: &str = "part-00001";

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("cut off", "idx", "images", |b| cut(b, 1), &["expected 4704 bytes after the header", "found 4703"]),
    ("cut off", "idx.gz", "images", |b| cut(b, 9), &["expected a whole gzip stream, found one that is cut off"]),
    ("cut off", "csv", IMAGES, |b| cut(b, 100), &["line 3: expected 784 columns, found"]),
    ("cut off", "csv", LABELS, |b| cut(b, 5), &["line 3: expected a one-hot label of 10 columns, found 9"]),
    ("cut off", "csv2", WHOLE, |b| cut(b, 100), &["line 3: expected 784 columns, found"]),
    ("cut off", "csv of 2.x", WHOLE, |b| cut(b, 100), &["line 3: expected 784 columns, found"]),
    ("cut off", "pickle", IMAGES, |b| cut(b, 1), &["value 1: expected", "the file ends after"]),
    ("cut off", "tfr", WHOLE, |b| cut(b, 1), &["record 3: expected", "the file ends after"]),

    ("wrong counts", "idx", "labels", |b| { b[7] = 5; cut(b, 1); }, &["images holds 6 records but", "5 labels"]),
    ("wrong counts", "idx.gz", "images", |b| *b = gzip(&idx_images(5, 6)), &["a gzip stream that goes on"]),
    ("wrong counts", "csv", LABELS, |b| cut(b, 40), &["do not pair: the labels end after 2 records"]),
    ("wrong counts", "pickle", LABELS, |b| *b = pickled(0, 2, 10), &["do not pair: the labels end after 2 records"]),
    ("wrong counts", "csv2", WHOLE, |b| b.insert(2, b','), &["line 1: expected 784 columns, found 785"]),
    ("wrong counts", "csv of 2.x", WHOLE, |b| b.insert(2, b','), &["line 1: expected 784 columns, found 785"]),
    ("wrong counts", "tfr", WHOLE, |b| *b = examples(&pixels(2, PIXELS + 1), 10), &["record 1: `image`: expected 784 values, found 785"]),

    ("no numbers", "idx", "images", |b| b[2] = 0x0d, &["magic 0x00000803", "found magic 0x00000d03"]),
    ("no numbers", "idx.gz", "images", |b| *b = gzip(b"<html>"), &["magic 0x00000803", "found magic 0x3c68746d"]),
    ("no numbers", "csv", IMAGES, |b| b[0] = b'x', &["line 1: column 1: expected an integer from 0 to 255, found `x`"]),
    ("no numbers", "csv", LABELS, |b| b[0] = b'x', &["line 1: expected a one-hot label"]),
    ("no numbers", "csv2", WHOLE, |b| b[2] = b'-', &["line 1: column 1: expected an integer from 0 to 255, found `-`"]),
    ("no numbers", "csv2", WHOLE, |b| b[0] = b'x', &["line 1: expected a label below 10, found `x`"]),
    ("no numbers", "csv of 2.x", WHOLE, |b| b[2] = b' ', &["line 1: column 1: expected an integer from 0 to 255, found ` `"]),
    ("no numbers", "pickle", IMAGES, |b| *b = value_of(b"](](Nee."), &["value 1: pickle 1: expected a number in each column of a row"]),
    ("no numbers", "tfr", WHOLE, |b| *b = frame(b"\x0a\x0e\x0a\x0c\x0a\x05image\x12\x03\x0a\x01x"), &["record 1: expected a feature `label`"]),

    ("783 columns", "idx", "images", |b| *b = idx_shape(6, [27, 29]), &["[27, 29]", "[28, 28]"]),
    ("783 columns", "idx.gz", "images", |b| *b = gzip(&idx_shape(6, [27, 29])), &["[27, 29]", "[28, 28]"]),
    ("783 columns", "csv", IMAGES, |b| drop(b.drain(..2)), &["line 1: expected 784 columns, found 783"]),
    ("783 columns", "csv2", WHOLE, |b| drop(b.drain(2..4)), &["line 1: expected 784 columns, found 783"]),
    ("783 columns", "csv of 2.x", WHOLE, |b| drop(b.drain(2..4)), &["line 1: expected a label and 784 columns, found 784 in all"]),
    ("783 columns", "pickle", IMAGES, |b| *b = pickled_pixels(&pixels(3, 783)), &["value 1: pickle 1, row 1: expected 784 values, found 783"]),
    ("783 columns", "tfr", WHOLE, |b| *b = examples(&pixels(3, 783), 10), &["record 1: `image`: expected 784 values, found 783"]),

    ("a pixel above 255", "csv", IMAGES, |b| drop(b.splice(..1, *b"256")), &["line 1: column 1: expected an integer from 0 to 255, found `256`"]),
    ("a pixel above 255", "csv2", WHOLE, |b| drop(b.splice(2..3, *b"256")), &["line 1: column 1: expected an integer from 0 to 255, found `256`"]),
    ("a pixel above 255", "csv of 2.x", WHOLE, |b| drop(b.splice(2..3, *b"256")), &["line 1: column 1: expected an integer from 0 to 255, found `256`"]),
    ("a pixel above 255", "pickle", IMAGES, |b| *b = pickled_pixels(&[256.0; 3 * PIXELS]), &["value 1: pickle 1, row 1: value 1: expected an integer from 0 to 255"]),
    ("a pixel above 255", "tfr", WHOLE, |b| *b = examples(&[256.0; 3 * PIXELS], 10), &["record 1: `image`: value 1: expected an integer from 0 to 255"]),

    ("label 10", "idx", "labels", |b| b[12] = 10, &["the label of record 4 (counted from 0) is 10, expected 0 to 9"]),
    ("label 10", "idx.gz", "labels", |b| *b = gzip(&[&[0, 0, 8, 1, 0, 0, 0, 6][..], &[10; 6]].concat()), &["the label of record 0", "expected 0 to 9"]),
    ("label 10", "csv", LABELS, |b| drop(b.splice(..3, *b"0.0,0.0")), &["line 1: expected a one-hot label of 10 columns, found 11"]),
    ("label 10", "csv2", WHOLE, |b| drop(b.splice(..1, *b"10")), &["line 1: expected a label below 10, found `10`"]),
    ("label 10", "csv of 2.x", WHOLE, |b| drop(b.splice(..1, *b"10")), &["line 1: expected a label below 10, found `10`"]),
    ("label 10", "pickle", LABELS, |b| *b = pickled(0, 3, 11), &["value 1: pickle 1, row 1: expected a one-hot label of 10 columns, found 11"]),
    ("label 10", "tfr", WHOLE, |b| *b = examples(&pixels(3, PIXELS), 11), &["record 1: `label`: expected 1 or 10 values, found 11"]),

    ("a wrong checksum", "idx.gz", "images", |b| flip(b, -8), &["expected a whole gzip stream, found a damaged one"]),
    ("a wrong checksum", "tfr", WHOLE, |b| flip(b, 0), &["record 1: the checksum of its length"]),
    ("a wrong checksum", "tfr", WHOLE, |b| flip(b, 8), &["record 1: the checksum of its length"]),
    ("a wrong checksum", "tfr", WHOLE, |b| flip(b, 700), &["record 1: the checksum of its data"]),
    ("a wrong checksum", "tfr", WHOLE, |b| flip(b, -1), &["record 3: the checksum of its data"]),

    ("a length beyond the file", "idx", "images", |b| b[7] = 7, &["expected 5488 bytes after the header", "found 4704"]),
    ("a length beyond the file", "idx.gz", "images", |b| *b = gzip(&idx_images(7, 6)), &["expected 5488 bytes after the header", "found 4704"]),
    ("a length beyond the file", "pickle", IMAGES, |b| lengthen(b, 1), &["value 1: expected", "the file ends after"]),
    ("a length beyond the file", "pickle", IMAGES, |b| *b = value_of(b"B\xff\xff\x00\x00."), &["value 1: pickle 1: byte 0 of the pickle: the pickle ends inside"]),
    ("a length beyond the file", "tfr", WHOLE, |b| *b = long_frame(1 << 20), &["record 1: expected 1048576 bytes and a checksum, the file ends after"]),

    ("a length beyond memory", "idx", "images", |b| b[4..16].fill(0xff), &["expected sizes that fit into memory", "4294967295"]),
    ("a length beyond memory", "idx.gz", "images", |b| *b = gzip(&[&[0, 0, 8, 3][..], &[0xff; 12]].concat()), &["expected sizes that fit into memory"]),
    ("a length beyond memory", "csv", IMAGES, |b| *b = vec![b'1'; 1 << 20], &["line 1: expected 784 columns, found no line end"]),
    ("a length beyond memory", "csv2", WHOLE, |b| *b = vec![b'1'; 1 << 20], &["line 1: expected 784 columns, found no line end"]),
    ("a length beyond memory", "csv of 2.x", WHOLE, |b| *b = vec![b'1'; 1 << 20], &["line 1: expected 784 columns, found no line end"]),
    ("a length beyond memory", "pickle", IMAGES, |b| lengthen(b, 0x7f), &["value 1: expected at most 268435456 bytes"]),
    ("a length beyond memory", "pickle", IMAGES, |b| *b = value_of(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."), &["value 1: pickle 1: byte 0 of the pickle: the pickle ends inside"]),
    ("a length beyond memory", "tfr", WHOLE, |b| *b = long_frame(u64::MAX), &["record 1: expected at most 268435456 bytes"]),

    ("a hostile pickle", "pickle", IMAGES, |b| *b = value_of(b"cos\nsystem\n(S'id > owned'\ntR."), &["value 1:", "os.system"]),
    ("a hostile pickle", "pickle", LABELS, |b| *b = value_of(b"c__builtin__\neval\n(S'1'\ntR."), &["value 1:", "__builtin__.eval"]),
    ("a hostile pickle", "pickle", IMAGES, |b| *b = value_of(b"(ios\nsystem\n."), &["value 1:", "INST"]),
    ("a hostile pickle", "pickle", IMAGES, |b| *b = value_of(b"\x80\x04\x8c\x05posix\x8c\x06system\x93."), &["value 1:", "posix.system"]),
    ("a hostile pickle", "pickle", IMAGES, |b| *b = value_of(b"Pid\n."), &["value 1:", "PERSID"]),
];

/// Cells of the table without a case, and why.
#[rustfmt::skip]
const IMPOSSIBLE: &[(&str, &[&str], &str)] = &[
    ("a pixel above 255", &["idx", "idx.gz"], "a pixel is a byte"),
    ("a wrong checksum", &["idx", "csv", "csv2", "csv of 2.x", "pickle"], "the format has none; the manifest has one for --verify"),
    ("a length beyond the file", &["csv", "csv2", "csv of 2.x"], "text has no lengths; the manifest has"),
    ("a hostile pickle", &["idx", "idx.gz", "csv", "csv2", "csv of 2.x", "tfr"], "there is no program in it"),
];

/// What is unusual and right: what it is; the format; the file; what is done to it; records that are then read.
type Harmless = (&'static str, &'static str, &'static str, Damage, usize);

#[rustfmt::skip]
const HARMLESS: &[Harmless] = &[
    ("\\r\\n", "csv", IMAGES, with_returns, 6),
    ("\\r\\n", "csv", LABELS, with_returns, 6),
    ("\\r\\n", "csv2", WHOLE, with_returns, 6),
    ("\\r\\n", "csv of 2.x", WHOLE, with_returns, 6),
    ("no final newline", "csv", IMAGES, |b| cut(b, 1), 6),
    ("no final newline", "csv", LABELS, |b| cut(b, 1), 6),
    ("no final newline", "csv2", WHOLE, |b| cut(b, 1), 6),
    ("no final newline", "csv of 2.x", WHOLE, |b| cut(b, 1), 6),
    ("an empty part", "csv2", WHOLE, Vec::clear, 3),
    ("an empty part", "csv of 2.x", WHOLE, Vec::clear, 3),
    ("an empty part", "tfr", WHOLE, Vec::clear, 3),
];

#[test]
fn what_is_wrong_is_found_and_named_in_every_format() {
    for &(what, format, file, damage, words) in CASES {
        let set = Set::new(format);
        assert_eq!(set.read(), Ok(6), "{format} is whole at first");
        set.damage(file, damage);
        let message = set.read().expect_err(&format!("{what}, {format}: it was not found"));
        for word in words.iter().copied().chain([file]) {
            assert!(message.contains(word), "{what}, {format}: no {word:?} in: {message}");
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn every_cell_of_the_table_is_filled() {
    let items: BTreeSet<&str> = CASES.iter().map(|case| case.0).collect();
    for item in items {
        for format in FORMATS {
            let tested = CASES.iter().any(|case| (case.0, case.1) == (item, format));
            let impossible =
                IMPOSSIBLE.iter().any(|(what, formats, _)| *what == item && formats.contains(&format));
            assert!(tested != impossible, "{item}, {format}: tested {tested}, impossible {impossible}");
        }
    }
}

#[test]
fn what_is_only_unusual_is_read() {
    for &(what, format, file, change, records) in HARMLESS {
        let set = Set::new(format);
        set.damage(file, change);
        assert_eq!(set.read(), Ok(records), "{what}, {format}");
    }
    for format in ["csv", "pickle"] {
        let set = Set::new(format);
        for file in [IMAGES, LABELS] {
            set.damage(file, empty);
        }
        assert_eq!(set.read(), Ok(3), "an empty part, {format}");
    }
}

#[test]
fn a_data_set_without_any_record_is_refused() {
    for format in FORMATS {
        let set = Set::new(format);
        let files: &[&str] = match format {
            "idx" | "idx.gz" => &["images"],
            "csv" | "pickle" => &["images/part-00000", IMAGES, "labels/part-00000", LABELS],
            _ => &["part-00000", WHOLE],
        };
        for file in files {
            match format.starts_with("idx") {
                true => set.write(file, &idx_images(0, 0)),
                false => set.damage(file, empty),
            }
        }
        let message = set.read().unwrap_err();
        assert!(
            message.contains("expected at least one record, each of shape [28, 28]"),
            "{format}: {message}"
        );
    }
}

#[test]
fn images_and_labels_that_do_not_pair_are_named() {
    for format in ["csv", "pickle"] {
        let set = Set::new(format);
        fs::remove_file(set.path(LABELS)).unwrap();
        let message = set.read().unwrap_err();
        assert!(message.contains("do not pair: 2 and 1 parts"), "{format}: {message}");
        let set = Set::new(format);
        set.damage(IMAGES, empty);
        let message = set.read().unwrap_err();
        assert!(
            message.contains("the features end after 0 records, the labels go on"),
            "{format}: {message}"
        );
        assert!(message.contains(IMAGES) && message.contains(LABELS), "{format}: {message}");
    }
}

/// After the parts were found: one goes, is cut off before it is read, and is cut off while it is read.
#[test]
fn a_part_that_vanishes_while_reading_is_named() {
    for format in FORMATS.into_iter().filter(|format| !format.starts_with("idx")) {
        let file = if ["csv", "pickle"].contains(&format) { IMAGES } else { WHOLE };
        let set = Set::new(format);
        let source = set.find().unwrap();
        fs::remove_file(set.path(file)).unwrap();
        let message = source.read_all::<u8>().unwrap_err().to_string();
        assert!(message.contains(&format!("{file}: No such file")), "{format}: {message}");

        let set = Set::new(format);
        let source = set.find().unwrap();
        set.damage(file, |bytes| cut(bytes, 7));
        let message = source.read_all::<u8>().unwrap_err().to_string();
        assert!(message.contains(file), "{format}: {message}");
        assert!(
            message.contains("expected 7 more bytes: the file changed while it was read"),
            "{format}: {message}"
        );

        // Longer than what is read ahead, so that the reader meets the new end.
        let set = Set::new(format);
        for file in if ["csv", "pickle"].contains(&format) { &[IMAGES, LABELS][..] } else { &[WHOLE] } {
            set.damage(file, |bytes| {
                let once = bytes.clone();
                let rest = if once.starts_with(b"SEQ") { sequence_file::HEADER_BYTES as usize } else { 0 };
                (0..400).for_each(|_| bytes.extend(&once[rest..]));
            });
        }
        let mut reader = set.find().unwrap().open::<u8>(1).unwrap();
        assert_eq!(reader.read_rows(1, &mut Rows::default()).unwrap(), 1);
        fs::File::options().write(true).open(set.path(file)).unwrap().set_len(5000).unwrap();
        let message = reader.read_rows(usize::MAX, &mut Rows::default()).unwrap_err().to_string();
        assert!(
            message.contains(file) && message.contains("the file changed while it was read"),
            "{format}: {message}"
        );
    }
}

#[test]
fn a_manifest_that_tells_otherwise_is_believed() {
    let (sandbox, parts) = (Sandbox::new(), "parts/train");
    run(&mut sandbox.mnist("prepare --data data -f csv2 -n 3 -o parts")).succeeds();
    let train = || run(&mut sandbox.mnist(&format!("train --hidden none -s 2 -f csv2 -i {parts}")));
    let (path, manifest) =
        (sandbox.path("parts/train/part-00001"), sandbox.path("parts/train/_manifest.json"));
    let (part, told) = (fs::read(&path).unwrap(), fs::read_to_string(&manifest).unwrap());
    let lines: Vec<&[u8]> = part.split_inclusive(|&byte| byte == b'\n').collect();
    fs::write(&path, lines[1..].concat()).unwrap();
    train().refuses(&["parts/train/part-00001", &format!("expected {} bytes", part.len())]);
    fs::remove_file(&path).unwrap();
    train().refuses(&["parts/train/part-00001", "expected a part of", "found none"]);
    fs::write(&path, &part).unwrap();
    fs::write(sandbox.path("parts/train/part-00007"), &part).unwrap();
    train().refuses(&["parts/train/part-00007", "expected no such part"]);
    fs::remove_file(sandbox.path("parts/train/part-00007")).unwrap();
    for (from, to, words) in [
        ("\"rows\"", "\"lines\"", "missing field `rows`"),
        ("12,12", "4294967296,4294967296", "expected a shape of 1 to"),
        ("12,12", "12,0", "expected a shape of 1 to"),
        ("part-00001", "../part-00001", "expected the names of files"),
    ] {
        let compact = told.split_whitespace().collect::<String>();
        assert!(compact.contains(from));
        fs::write(&manifest, compact.replacen(from, to, 1)).unwrap();
        train().refuses(&["parts/train/_manifest.json", words, "prepare the data again"]);
    }
    fs::write(&manifest, told).unwrap();
    train().succeeds();
}
