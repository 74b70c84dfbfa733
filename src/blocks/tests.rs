//! Any records, from anywhere in any parts, are those that were written.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::format::{RowSchema, csv};
use crate::parts::Format;
use crate::parts::output::{Output, Plan};
use crate::parts::source::Location;
use crate::records::Records;
use crate::storage::{HadoopConfig, Storage};

pub(crate) const FORMATS: [Format; 4] = [Format::Csv, Format::Csv2, Format::Pickle, Format::TfRecord];
const SCHEMA: RowSchema = RowSchema { width: 6, classes: 3 };
const SCALE: f32 = 1.0 / 255.0;

/// Records, and a directory for their parts.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    storage: Storage,
    rows: Rows<u8>,
}

impl Place {
    /// So many records, no two blocks of them alike.
    pub fn of(count: usize) -> Place {
        // Of the later half few are not 0, so that the first records are not like all.
        let half = count * SCHEMA.width / 2;
        let feature =
            |i: usize| if i < half || i.is_multiple_of(4) { (i * i / 7 + i / 256) as u8 } else { 0 };
        let rows = Rows {
            features: (0..2 * half).map(feature).collect(),
            labels: (0..count).map(|i| (i * i % 3) as u32).collect(),
        };
        Place {
            directory: tempfile::tempdir().unwrap(),
            storage: Storage::new(HadoopConfig::default()),
            rows,
        }
    }

    pub fn records_in_memory(&self) -> Records {
        Dataset::from_rows(Path::new("rows"), self.rows.clone(), SCALE, &[6], 3).unwrap().into()
    }

    /// The records in so many parts, none of them in memory.
    pub fn records_in(&self, format: Format, parts: usize) -> Records {
        let output = Output::begin(&self.storage, &self.path(""), true).unwrap();
        let plan = Plan { dir: "", format, shape: &[6], classes: 3, parts };
        output.write_records(&plan, self.rows.view(), &|_| {}).unwrap();
        output.commit().unwrap();
        self.open(format, if format.has_labels_apart() { ["images", "labels"] } else { ["", ""] })
    }

    /// So many records of numbers, not all of them whole: with an index only, and in memory.
    pub fn numbers(&self, format: Format, count: usize) -> [Records; 2] {
        let rows = Rows {
            features: (0..count * SCHEMA.width).map(|i| (i % 1999) as f32 / 8.0 - 100.0).collect(),
            labels: (0..count).map(|i| (i % 3) as u32).collect(),
        };
        let output = Output::begin(&self.storage, &self.path(""), true).unwrap();
        let plan = Plan { dir: "", format, shape: &[6], classes: 3, parts: 3 };
        output.write_records(&plan, rows.view(), &|_| {}).unwrap();
        output.commit().unwrap();
        let features = self.path("");
        let location = Location { format, features: &features, labels: None, labels_required: true };
        let source = Source::find(&self.storage, location, &[6], 3).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        // One record less than there are would fit.
        let limit = (count as u64 - 1) * (6 * 4 + 4);
        let memory = Dataset::from_rows(Path::new("rows"), rows, 1.0, &[6], 3).unwrap();
        [Records::of_parts(&features, source, None, limit, pool).unwrap(), memory.into()]
    }

    /// Opens parts with an index only.
    fn open(&self, format: Format, dirs: [&str; 2]) -> Records {
        let [features, labels] = dirs.map(|dir| self.path(dir));
        let labels = format.has_labels_apart().then_some(labels.as_path());
        let location = Location { format, features: &features, labels, labels_required: true };
        let source = Source::find(&self.storage, location, &[6], 3).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        Records::of_parts(&self.path(""), source, Some(SCALE), 0, pool).unwrap()
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join("parts").join(relative)
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Writes a part by itself, compressed or not, with `records` of the records.
    fn write_part(&self, name: &str, records: Range<usize>) {
        fs::create_dir_all(self.path("")).unwrap();
        let file = fs::File::create(self.path(name)).unwrap();
        let mut out: Box<dyn Write> = match name.ends_with(".gz") {
            true => Box::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast())),
            false => Box::new(file),
        };
        csv::write_csv2(self.rows.view().slice(records, SCHEMA.width), SCHEMA, &mut out).unwrap();
    }

    /// Reads every 7th record, then some neighbours across a block's end, and compares them.
    fn check(&self, records: &Records) {
        let Records::Blocks(blocks) = records else { panic!("they are in memory") };
        let count = self.rows.labels.len() as u32;
        let neighbours = (1000..1100).chain(2040..2060).chain(count - 3..count).collect();
        for wanted in [(0..count).step_by(7).collect::<Vec<_>>(), neighbours] {
            let read = blocks.read(&wanted).unwrap();
            for (row, &record) in wanted.iter().enumerate() {
                let expected = &self.rows.features[record as usize * SCHEMA.width..][..SCHEMA.width];
                assert_eq!(read.feature_bytes(row), expected, "record {record}");
                assert_eq!(read.label(row), Some(self.rows.labels[record as usize]));
            }
        }
        assert_eq!(records.content(), self.records_in_memory().content());
        assert_eq!(records.kind(), self.records_in_memory().kind());
    }
}

#[test]
fn every_format_is_read_from_the_middle() {
    let place = Place::of(5000);
    for format in FORMATS {
        place.check(&place.records_in(format, 3));
    }
}

#[test]
fn numbers_are_read_from_the_middle_too() {
    for format in [Format::Csv2, Format::TfRecord] {
        let place = Place::of(0);
        let [records, memory] = place.numbers(format, 5000);
        let (Records::Blocks(blocks), Records::Memory(memory)) = (&records, &memory) else { panic!() };
        assert_eq!((blocks.record_bytes(), records.content()), (28, memory.content()), "{format}");
        let wanted: Vec<u32> = (3..5000).step_by(11).collect();
        let read = blocks.read(&wanted).unwrap();
        for (row, &record) in wanted.iter().enumerate() {
            assert_eq!(read.feature_row(row), memory.feature_row(record as usize), "record {record}");
            assert_eq!(read.label(row), memory.label(record as usize));
        }
    }
}

#[test]
fn parts_may_be_compressed_empty_and_of_any_length() {
    let place = Place::of(5000);
    let ends = [0, 700, 700, 2900, 2901, 5000];
    for (part, name) in ["0", "1", "2.gz", "3", "4.gz"].into_iter().enumerate() {
        place.write_part(&format!("part-{name}"), ends[part]..ends[part + 1]);
    }
    place.check(&place.open(Format::Csv2, ["", ""]));
}

#[test]
fn a_part_that_has_changed_is_named_with_the_record() {
    let place = Place::of(3000);
    place.write_part("part-0", 0..3000);
    let Records::Blocks(blocks) = place.open(Format::Csv2, ["", ""]) else { panic!("they are in memory") };
    place.write_part("part-0", 0..2999);
    let error = blocks.read(&[10, 2999]).unwrap_err().to_string();
    assert!(error.contains("part-0") && error.contains("changed"), "{error}");
}

#[test]
fn damage_is_found_before_anything_is_trained_on() {
    let place = Place::of(2500);
    place.write_part("part-0", 0..2500);
    let mut text = fs::read(place.path("part-0")).unwrap();
    let line = text.split_inclusive(|&byte| byte == b'\n').take(2000).map(<[u8]>::len).sum::<usize>();
    text[line] = b'7';
    fs::write(place.path("part-0"), text).unwrap();
    let features = place.path("");
    let location =
        Location { format: Format::Csv2, features: &features, labels: None, labels_required: true };
    let source = Source::find(&place.storage, location, &[6], 3).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let error = Records::of_parts(&features, source, Some(SCALE), 0, pool).err().unwrap().to_string();
    assert!(error.contains("part-0: line 2001: expected a label below 3, found `7`"), "{error}");
}

#[test]
fn what_fits_is_in_memory_and_what_does_not_is_not() {
    let place = Place::of(2000);
    let bytes = 2000 * (6 + 4);
    for with_manifest in [true, false] {
        drop(place.records_in(Format::TfRecord, 2));
        if !with_manifest {
            place.remove("_manifest.json");
        }
        for (limit, fits) in [(bytes, true), (bytes - 1, false)] {
            let features = place.path("");
            let location = Location {
                format: Format::TfRecord,
                features: &features,
                labels: None,
                labels_required: true,
            };
            let source = Source::find(&place.storage, location, &[6], 3).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let records = Records::of_parts(&features, source, Some(SCALE), limit, pool).unwrap();
            assert_eq!(matches!(records, Records::Memory(_)), fits, "manifest: {with_manifest}");
            assert_eq!(
                records.bytes(),
                if fits { bytes } else { 3 * bytes },
                "a window has more records than there are"
            );
            assert_eq!(records.content(), place.records_in_memory().content());
        }
    }
}
