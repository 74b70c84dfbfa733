//! Small data sets of every format, and ways to damage them.

use flate2::Compression;
use flate2::write::GzEncoder;
use muster::dataset::Dataset;
use muster::format::{RowSchema, Rows, csv, example, idx, java_serial, pickle, sequence_file, tfrecord};
use muster::parts::Format;
use muster::parts::source::{Location, Source};
use muster::storage::{HadoopConfig, Storage};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub const PIXELS: usize = 784;
const SCHEMA: RowSchema = RowSchema { width: PIXELS, classes: 10 };
/// Records of each of the two parts.
const ROWS: usize = 3;

/// What is done to a file.
pub type Damage = fn(&mut Vec<u8>);

pub fn cut(bytes: &mut Vec<u8>, count: usize) {
    bytes.truncate(bytes.len() - count);
}

/// Counts from the end where `at` is negative.
pub fn flip(bytes: &mut [u8], at: isize) {
    let at = if at < 0 { bytes.len() - at.unsigned_abs() } else { at as usize };
    bytes[at] ^= 1;
}

/// Adds to the highest byte of both lengths of the first value of a SequenceFile.
pub fn lengthen(bytes: &mut [u8], by: u8) {
    let at = sequence_file::HEADER_BYTES as usize;
    for length in [at, at + 8] {
        bytes[length] += by;
    }
}

pub fn with_returns(bytes: &mut Vec<u8>) {
    *bytes = String::from_utf8(std::mem::take(bytes)).unwrap().replace('\n', "\r\n").into();
}

/// An empty SequenceFile has a header.
pub fn empty(bytes: &mut Vec<u8>) {
    bytes.truncate(if bytes.starts_with(b"SEQ") { sequence_file::HEADER_BYTES as usize } else { 0 });
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn pixels(count: usize, width: usize) -> Vec<f32> {
    vec![7.0; count * width]
}

/// An IDX file whose header says `said` pictures and that holds `count`.
pub fn idx_images(said: usize, count: usize) -> Vec<u8> {
    [idx::header(idx::Element::U8, &[said, 28, 28]), vec![7; count * PIXELS]].concat()
}

pub fn idx_shape(count: usize, shape: [usize; 2]) -> Vec<u8> {
    let dims = [count, shape[0], shape[1]];
    [idx::header(idx::Element::U8, &dims), vec![7; dims.iter().product()]].concat()
}

/// Examples of so many classes, labelled with the last.
pub fn examples(pixels: &[f32], classes: usize) -> Vec<u8> {
    let count = if pixels.len().is_multiple_of(3) { 3 } else { 2 };
    let rows = Rows { features: pixels.to_vec(), labels: vec![classes as u32 - 1; count] };
    let mut file = Vec::new();
    example::write(rows.view(), RowSchema { width: pixels.len() / count, classes }, &mut file).unwrap();
    file
}

pub fn frame(example: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    tfrecord::write_record(example, &mut file).unwrap();
    file
}

/// A frame that says it is so long, with the right checksum of that, and goes on for some bytes.
pub fn long_frame(length: u64) -> Vec<u8> {
    let length = length.to_le_bytes();
    let of_length = frame(&length);
    [&length[..], &of_length[of_length.len() - 4..], &[0; 40]].concat()
}

pub fn pickled_pixels(pixels: &[f32]) -> Vec<u8> {
    let (mut file, width) = (Vec::new(), pixels.len() / ROWS);
    let rows = Rows { features: pixels.to_vec(), labels: vec![0; ROWS] };
    pickle::write_features(rows.view(), RowSchema { width, classes: 10 }, &mut file).unwrap();
    file
}

/// Pickled labels of so many classes.
pub fn pickled(label: u32, count: usize, classes: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let rows = Rows::<u8> { features: vec![0; count], labels: vec![label; count] };
    pickle::write_labels(rows.view(), RowSchema { width: 1, classes }, &mut file).unwrap();
    file
}

/// A SequenceFile with this pickle.
pub fn value_of(pickle: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    sequence_file::write(std::iter::once(java_serial::write(&[pickle.to_vec()])), &mut file).unwrap();
    file
}

/// A data set of two parts of three records, without a manifest, as Spark would leave it.
pub struct Set {
    pub directory: TempDir,
    format: &'static str,
}

impl Set {
    pub fn new(format: &'static str) -> Set {
        let set = Set { directory: tempfile::tempdir().unwrap(), format };
        for part in ["part-00000", "part-00001"] {
            let rows: Rows<u8> =
                Rows { features: vec![7; ROWS * PIXELS], labels: (0..ROWS as u32).collect() };
            let (mut first, mut second) = (Vec::new(), Vec::new());
            match format {
                "csv" => {
                    csv::write_features(rows.view(), SCHEMA, &mut first).unwrap();
                    csv::write_labels(rows.view(), SCHEMA, &mut second).unwrap();
                }
                "pickle" => {
                    pickle::write_features(rows.view(), SCHEMA, &mut first).unwrap();
                    pickle::write_labels(rows.view(), SCHEMA, &mut second).unwrap();
                }
                "csv2" | "csv of 2.x" => csv::write_csv2(rows.view(), SCHEMA, &mut first).unwrap(),
                "tfr" => example::write(rows.view(), SCHEMA, &mut first).unwrap(),
                _ => {}
            }
            if format == "csv of 2.x" {
                first.iter_mut().filter(|byte| **byte == b'|').for_each(|byte| *byte = b',');
            }
            match format {
                "csv" | "pickle" => {
                    set.write(&format!("images/{part}"), &first);
                    set.write(&format!("labels/{part}"), &second);
                }
                "idx" | "idx.gz" => {}
                _ => set.write(part, &first),
            }
        }
        if format.starts_with("idx") {
            let labels = [idx::header(idx::Element::U8, &[6]), vec![1; 6]].concat();
            for (name, file) in [("images", idx_images(6, 6)), ("labels", labels)] {
                set.write(name, &if format == "idx" { file } else { gzip(&file) });
            }
        }
        set
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn damage(&self, file: &str, damage: Damage) {
        let mut bytes = fs::read(self.path(file)).unwrap();
        let before = bytes.clone();
        damage(&mut bytes);
        assert!(bytes != before, "{} {file}: nothing is damaged", self.format);
        self.write(file, &bytes);
    }

    pub fn find(&self) -> Result<Source, muster::Error> {
        let storage = Storage::new(HadoopConfig::default());
        let (format, apart) = match self.format {
            "csv" => (Format::Csv, true),
            "csv of 2.x" => (Format::Csv, false),
            "csv2" => (Format::Csv2, false),
            "pickle" => (Format::Pickle, true),
            _ => (Format::TfRecord, false),
        };
        let features = if apart { self.path("images") } else { self.path("") };
        let labels = apart.then(|| self.path("labels"));
        let location =
            Location { format, features: &features, labels: labels.as_deref(), labels_required: true };
        Source::find(&storage, location, &[28, 28], 10)
    }

    /// Reads all of it; gives the number of records or the message.
    pub fn read(&self) -> Result<usize, String> {
        let read = || -> Result<Dataset, muster::Error> {
            if self.format.starts_with("idx") {
                let set = Dataset::from_idx(&self.path("images"), Some(&self.path("labels")), 1.0, 10)?;
                let shape = (set.path(), set.shape());
                muster::dataset::check_same_shape(shape, (Path::new("test images"), &[28, 28]))?;
                return Ok(set);
            }
            Dataset::from_rows(self.directory.path(), self.find()?.read_all::<u8>()?, 1.0, &[28, 28], 10)
        };
        read().map(|set| set.len()).map_err(|error| error.to_string())
    }
}
