//! Data sets written and read back, and what goes wrong with them, on the local disk.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::manifest::{MANIFEST, Manifest};
use super::output::{Output, Plan};
use super::source::{Location, Source};
use super::*;
use crate::format::{RowSchema, Rows};
use crate::storage::{HadoopConfig, Storage};

const SCHEMA: RowSchema = RowSchema { width: 6, classes: 3 };
const FORMATS: [Format; 4] = [Format::Csv, Format::Csv2, Format::Pickle, Format::TfRecord];

fn records(count: usize) -> Rows<u8> {
    Rows {
        features: (0..count * SCHEMA.width).map(|i| (i * 37 / 5) as u8).collect(),
        labels: (0..count).map(|i| (i * i % 3) as u32).collect(),
    }
}

fn plan(format: Format, parts: usize) -> Plan<'static> {
    Plan { dir: "train", format, shape: &[2, 3], classes: SCHEMA.classes, parts }
}

/// A directory for one test, and paths in it.
struct Place {
    directory: tempfile::TempDir,
    storage: Storage,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap(), storage: Storage::new(HadoopConfig::default()) }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    fn write(&self, out: &str, format: Format, rows: &Rows<u8>, parts: usize, overwrite: bool) -> Result<()> {
        let output = Output::begin(&self.storage, &self.path(out), overwrite)?;
        output.write_records(&plan(format, parts), rows.view(), &|_| {})?;
        output.commit()
    }

    fn read(&self, format: Format, features: &str, labels: Option<&str>) -> Result<Rows<u8>> {
        let (features, labels) = (self.path(features), labels.map(|labels| self.path(labels)));
        let location =
            Location { format, features: &features, labels: labels.as_deref(), labels_required: true };
        Source::find(&self.storage, location, &[SCHEMA.width], SCHEMA.classes)?.read_all()
    }

    fn read_written(&self, out: &str, format: Format) -> Result<Rows<u8>> {
        let dir = |name: &str| format!("{out}/train{name}");
        match format {
            Format::Csv | Format::Pickle => self.read(format, &dir("/images"), Some(&dir("/labels"))),
            _ => self.read(format, &dir(""), None),
        }
    }

    /// All files, as paths below the directory.
    fn files(&self) -> Vec<String> {
        fn visit(dir: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() { visit(&entry, files) } else { files.push(entry) }
            }
        }
        let mut files = Vec::new();
        visit(self.directory.path(), &mut files);
        let mut files: Vec<String> = files
            .iter()
            .map(|file| file.strip_prefix(self.directory.path()).unwrap().to_str().unwrap().into())
            .collect();
        files.sort();
        files
    }
}

fn message(result: Result<Rows<u8>>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn every_format_comes_back_in_order() {
    for format in FORMATS {
        for (count, parts) in [(0, 2), (3, 5), (2500, 4)] {
            let (place, rows) = (Place::new(), records(count));
            place.write("out", format, &rows, parts, false).unwrap();
            assert_eq!(place.read_written("out", format).unwrap(), rows, "{format} {count}");
        }
    }
}

#[test]
fn directories_look_as_spark_leaves_them() {
    let place = Place::new();
    place.write("c", Format::Csv, &records(3), 2, false).unwrap();
    place.write("t", Format::TfRecord, &records(3), 1, false).unwrap();
    let dir = |dir: &str, names: [&str; 4]| names.map(|name| format!("{dir}/{name}"));
    let csv = ["_SUCCESS", MANIFEST, "part-00000", "part-00001"];
    let tf = ["_SUCCESS", MANIFEST, "part-r-00000"].map(|name| format!("t/train/{name}"));
    assert_eq!(place.files(), [&dir("c/train/images", csv)[..], &dir("c/train/labels", csv), &tf].concat());
}

#[test]
fn only_parts_are_read_by_number() {
    let place = Place::new();
    let write = |name: &str, text: &str| fs::write(place.path(name), text).unwrap();
    for name in ["_SUCCESS", ".part-00000.crc", "part-00000.crc", "other"] {
        write(name, "not a record");
    }
    write("part-100000", "2|0,0,0,0,0,3\n");
    write("part-99999", "1|0,0,0,0,0,2\n");
    write("part-00001", "0|0,0,0,0,0,1");
    assert_eq!(place.read(Format::Csv2, "", None).unwrap().labels, [0, 1, 2]);
    assert_eq!(place.read(Format::Csv2, "part-99999", None).unwrap().labels, [1]);
}

#[test]
fn compressed_parts_are_read() {
    let place = Place::new();
    let mut gz = flate2::write::GzEncoder::new(
        fs::File::create(place.path("part-r-00000.gz")).unwrap(),
        Default::default(),
    );
    let rows = records(30);
    crate::format::example::write(rows.view(), SCHEMA, &mut gz).unwrap();
    gz.finish().unwrap().flush().unwrap();
    assert_eq!(place.read(Format::TfRecord, "", None).unwrap(), rows);
}

#[test]
fn a_part_is_streamed_in_batches() {
    let (place, rows) = (Place::new(), records(25));
    place.write("out", Format::Pickle, &rows, 1, false).unwrap();
    let (features, labels) = (place.path("out/train/images"), place.path("out/train/labels"));
    let location = Location {
        format: Format::Pickle,
        features: &features,
        labels: Some(&labels),
        labels_required: true,
    };
    let source = Source::find(&place.storage, location, &[SCHEMA.width], SCHEMA.classes).unwrap();
    let mut part = source.open(0).unwrap();
    let (mut read, mut batches) = (Rows::default(), Vec::new());
    while part.read_rows(10, &mut read).unwrap() > 0 {
        batches.push(read.labels.len());
    }
    assert_eq!((batches, read), (vec![10, 20, 25], rows));
}

#[test]
fn labels_may_be_left_out_only_where_they_are_not_required() {
    let (place, rows) = (Place::new(), records(4));
    let read = |format, features: &str| {
        let features = place.path(features);
        let location = Location { format, features: &features, labels: None, labels_required: false };
        Source::find(&place.storage, location, &[SCHEMA.width], SCHEMA.classes)?.read_all::<u8>()
    };
    for format in [Format::Csv, Format::Pickle] {
        let out = format.to_string();
        place.write(&out, format, &rows, 1, false).unwrap();
        let images = format!("{out}/train/images");
        assert_eq!(read(format, &images).unwrap(), Rows { labels: vec![], ..rows.clone() });
        assert!(message(place.read(format, &images, None)).contains("--labels"));
    }
    fs::write(place.path("part-0"), "2,1,2,3,4,5,6\n").unwrap();
    assert_eq!(place.read(Format::Csv, "part-0", None).unwrap().labels, [2]);
    assert_eq!(read(Format::Csv, "part-0").unwrap().labels, [2]);
    for format in [Format::Csv2, Format::TfRecord] {
        assert!(message(place.read(format, "x", Some("y"))).contains("leave --labels out"));
    }
}

#[test]
fn what_does_not_pair_is_named() {
    let place = Place::new();
    for (out, count, parts) in [("a", 25, 2), ("b", 25, 3), ("c", 24, 2)] {
        place.write(out, Format::Csv, &records(count), parts, false).unwrap();
    }
    let read = |features: &str, labels: &str| {
        message(place.read(
            Format::Csv,
            &format!("{features}/train/images"),
            Some(&format!("{labels}/train/labels")),
        ))
    };
    let parts = read("a", "b");
    assert!(
        parts.contains("a/train/images and ") && parts.contains("b/train/labels do not pair: 2 and 3 parts"),
        "{parts}"
    );
    let rows = read("a", "c");
    assert!(rows.contains("a/train/images/part-00001 and "), "{rows}");
    assert!(rows.contains(
        "c/train/labels/part-00001 do not pair: the labels end after 12 records, the features go on"
    ));
    assert!(read("c", "a").contains("the features end after 12 records, the labels go on"));
}

#[test]
fn errors_name_the_file() {
    let place = Place::new();
    fs::write(place.path("part-00000"), "0|1,2,3,4,5,6\n3|1,2,3,4,5,6\n").unwrap();
    let text = message(place.read(Format::Csv2, "", None));
    assert!(text.ends_with("part-00000: line 2: expected a label below 3, found `3`"), "{text}");
    fs::create_dir(place.path("empty")).unwrap();
    assert!(message(place.read(Format::Csv2, "empty", None)).contains("empty holds no part-* files"));
    assert!(
        message(place.read(Format::Csv2, "absent", None))
            .contains("absent: entity not found; check the path")
    );
}

#[test]
fn a_part_that_shrinks_or_vanishes_while_reading_is_an_error() {
    let place = Place::new();
    let path = place.path("part-00000");
    fs::write(&path, "0|1,2,3,4,5,6\n".repeat(3)).unwrap();
    let location = Location { format: Format::Csv2, features: &path, labels: None, labels_required: true };
    let source = Source::find(&place.storage, location, &[SCHEMA.width], SCHEMA.classes).unwrap();
    fs::write(&path, "0|1,2,3,4,5,6\n").unwrap();
    assert!(
        message(source.read_all())
            .contains("part-00000: expected 28 more bytes: the file changed while it was read")
    );
    fs::remove_file(&path).unwrap();
    assert!(message(source.read_all()).contains("part-00000: No such file"));
}

#[test]
fn an_output_appears_whole_or_not_at_all() {
    let place = Place::new();
    place.write("out", Format::Csv2, &records(3), 1, false).unwrap();
    let before = place.files();
    let exists = place.write("out", Format::Csv2, &records(4), 1, false).unwrap_err().to_string();
    assert!(
        exists.ends_with("out is there already; choose another --output, or replace it with --overwrite"),
        "{exists}"
    );

    let output = Output::begin(&place.storage, &place.path("out"), true).unwrap();
    output.write_records(&plan(Format::Csv2, 2), records(5).view(), &|_| {}).unwrap();
    let failed = output.write_part(Path::new("train/part-00002"), 1, &|out| {
        out.write_all(b"half a reco")?;
        Err(io::Error::other(Error::Invalid("the power went out".into())))
    });
    assert_eq!(failed.unwrap_err().to_string(), "the power went out");
    drop(output);
    assert_eq!(place.files(), before);
    assert_eq!(place.read(Format::Csv2, "out/train", None).unwrap(), records(3));

    place.write("out", Format::Csv2, &records(6), 2, true).unwrap();
    assert_eq!(place.read(Format::Csv2, "out/train", None).unwrap(), records(6));
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 1);
}

#[test]
fn records_that_could_not_be_read_back_are_not_written() {
    let place = Place::new();
    let write = |rows: &Rows<u8>, parts| {
        place.write("out", Format::Csv2, rows, parts, false).unwrap_err().to_string()
    };
    assert_eq!(write(&records(3), 0), "a data set has at least one part");
    assert_eq!(
        write(&Rows { labels: vec![], ..records(3) }, 1),
        "18 features in rows of 6 do not go with 0 labels"
    );
    assert_eq!(write(&Rows { labels: vec![0, 3, 0], ..records(3) }, 1), "label 3 is not below 3");
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn what_a_killed_run_was_replacing_is_put_back() {
    let place = Place::new();
    place.write("out", Format::Csv2, &records(3), 1, false).unwrap();
    fs::rename(place.path("out"), place.path(".out.replaced")).unwrap();
    drop(Output::begin(&place.storage, &place.path("out"), true).unwrap());
    assert_eq!(place.read(Format::Csv2, "out/train", None).unwrap(), records(3));
}

#[test]
fn several_writers_do_not_meddle_with_each_other() {
    let place = Place::new();
    let begin = |overwrite| Output::begin(&place.storage, &place.path("out"), overwrite).unwrap();
    let write = |output: &Output, count| {
        output.write_records(&plan(Format::Csv2, 2), records(count).view(), &|_| {}).unwrap();
    };
    let (first, second, third) = (begin(false), begin(false), begin(true));
    write(&first, 3);
    write(&second, 4);
    first.commit().unwrap();
    assert!(second.commit().unwrap_err().to_string().contains("out is there already"));
    assert_eq!(place.read(Format::Csv2, "out/train", None).unwrap(), records(3));
    write(&third, 5);
    third.commit().unwrap();
    assert_eq!(place.read(Format::Csv2, "out/train", None).unwrap(), records(5));
    assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 1);
}

#[test]
fn what_a_killed_run_was_writing_is_deleted() {
    let place = Place::new();
    let own = crate::storage::owner::this_process();
    let gone = own.replacen(&std::process::id().to_string(), &u32::MAX.to_string(), 1);
    for (name, owner) in [("1", &own), ("2", &gone)] {
        let leftover = place.path(&format!(".out.{name}.partial"));
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join("_owner"), owner).unwrap();
    }
    drop(Output::begin(&place.storage, &place.path("out"), false).unwrap());
    assert_eq!(place.files(), [".out.1.partial/_owner"]);
}

#[test]
fn the_manifest_tells_what_was_written() {
    let place = Place::new();
    place.write("out", Format::Csv2, &records(5), 2, false).unwrap();
    let dir = place.path("out/train");
    let manifest = Manifest::read(&place.storage, &dir).unwrap().unwrap();
    assert_eq!((manifest.rows, manifest.parts.iter().map(|part| part.rows).collect()), (5, vec![2, 3]));
    assert_eq!(manifest.shape, [2, 3]);
    assert_eq!(manifest.parts[1].bytes, place.storage.stat(dir.join("part-00001")).unwrap().unwrap().bytes);
    manifest.verify(&place.storage, &dir).unwrap();
    let path = dir.join("part-00001");
    let damaged = fs::read_to_string(&path).unwrap().replacen('1', "2", 1);
    fs::write(&path, damaged).unwrap();
    let error = manifest.verify(&place.storage, &dir).unwrap_err().to_string();
    assert!(error.contains("part-00001: expected") && error.contains("prepare the data again"), "{error}");
    assert_eq!(Manifest::read(&place.storage, &place.path("")).unwrap(), None);
}

fn lengths(rows: usize, parts: usize) -> Vec<usize> {
    split(rows, parts).iter().map(ExactSizeIterator::len).collect()
}

#[test]
fn parts_are_those_of_spark() {
    assert_eq!(lengths(60_000, 10), [&[5120][..], &[6144; 8], &[5728]].concat());
    assert_eq!(lengths(10_000, 10), [1000; 10]);
    assert_eq!(lengths(3, 5), [0, 1, 0, 1, 1]);
    assert_eq!(lengths(0, 2), [0, 0]);
}

proptest! {
    #[test]
    fn every_row_is_in_one_part(rows in 0usize..200_000, parts in 1usize..50) {
        let ranges = split(rows, parts);
        prop_assert_eq!(ranges.len(), parts);
        prop_assert_eq!((ranges[0].start, ranges[parts - 1].end), (0, rows));
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}

#[test]
fn formats_have_names() {
    for name in ["csv", "csv2", "pickle", "tfr"] {
        assert_eq!(name.parse::<Format>().unwrap().to_string(), name);
    }
    assert_eq!("tf".parse::<Format>().unwrap(), Format::TfRecord);
    assert!("idx".parse::<Format>().unwrap_err().to_string().contains("`idx` is no format"));
}
