//! Every reader as a plain function of bytes: whatever they are, it comes back, with records or an error.
//!
//! The package `muster-fuzz` runs the [`TARGETS`] on mutations of the [`seeds`]: for seconds in its tests, for hours under a
//! coverage-guided fuzzer.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::window::MESSAGE_BYTES_MAX;
use super::{
    Element, ReadRows, RowSchema, Rows, csv, example, idx, java_serial, pickle, pickle_machine,
    sequence_file, tfrecord,
};

/// Small, so that mutations reach every column.
const SCHEMA: RowSchema = RowSchema { width: 12, classes: 4 };

/// What is written here can be read here.
const WHOLE: &str = "the seeds are whole";

/// A function of bytes.
pub type Target = fn(&[u8]);

/// The readers by name.
pub const TARGETS: [(&str, Target); 14] = [
    ("idx-images", |data| read_idx(data, idx::Kind::Images)),
    ("idx-labels", |data| read_idx(data, idx::Kind::Labels)),
    ("csv", |data| read_csv::<u8>(data, csv::Layout::FeaturesOrLabelFirst)),
    ("csv-floats", |data| read_csv::<f32>(data, csv::Layout::Features)),
    ("csv-labels", |data| read_csv::<u8>(data, csv::Layout::OneHot)),
    ("csv-label-first", |data| read_csv::<u8>(data, csv::Layout::LabelFirst)),
    ("csv2", |data| read_csv::<u8>(data, csv::Layout::LabelBar)),
    ("tfrecord", |data| read::<u8, _>(|| example::Reader::new(data, SCHEMA))),
    ("example", |data| {
        // A frame of its own, because a mutation does not get past the checksums.
        let mut frame = Vec::new();
        tfrecord::write_record(data, &mut frame).expect("a Vec takes all bytes");
        read::<u8, _>(|| example::Reader::new(frame.as_slice(), SCHEMA));
        read::<f32, _>(|| example::Reader::new(frame.as_slice(), SCHEMA));
    }),
    ("sequence-file", |data| read_pickles::<u8>(data, pickle::Content::Features)),
    ("sequence-file-labels", |data| read_pickles::<u8>(data, pickle::Content::Labels)),
    ("java", |data| drop(java_serial::read(data))),
    ("pickle", |data| drop(pickle_machine::read_rows(data))),
    ("pickle-in-its-file", |data| {
        let mut file = Vec::new();
        let value = java_serial::write(&[data.to_vec()]);
        sequence_file::write(std::iter::once(value), &mut file).expect("a Vec takes all bytes");
        read_pickles::<u8>(&file, pickle::Content::Features);
        read_pickles::<f32>(&file, pickle::Content::Features);
    }),
];

fn read_idx(data: &[u8], kind: idx::Kind) {
    if let Ok(idx) = idx::parse(Path::new(""), data.to_vec().into(), kind) {
        assert_eq!(idx.data.len(), idx.dims.iter().product::<usize>());
    }
}

fn read_csv<T: Element>(data: &[u8], layout: csv::Layout) {
    read::<T, _>(|| csv::Reader::new(data, layout, SCHEMA));
}

fn read_pickles<T: Element>(data: &[u8], content: pickle::Content) {
    read::<T, _>(|| pickle::Reader::new(data, content, SCHEMA));
}

/// Reads all records, each of which must be whole; where none is damaged, as many can be passed over.
fn read<T: Element, R: ReadRows<T>>(open: impl Fn() -> R) {
    let (mut reader, mut rows, mut count) = (open(), Rows::default(), 0);
    let undamaged = loop {
        match reader.read_row(&mut rows) {
            Ok(true) => {
                assert!(rows.features.len() == SCHEMA.width || rows.features.is_empty());
                assert!(rows.labels.iter().all(|&label| (label as usize) < SCHEMA.classes));
                assert_eq!(rows.labels.len().max(rows.features.len() / SCHEMA.width), 1);
                rows.clear();
                count += 1;
            }
            end => break end.is_ok(),
        }
    };
    let mut reader = open();
    let skipped =
        std::iter::repeat_with(|| reader.skip_row()).take_while(|row| matches!(row, Ok(true))).count();
    assert!(skipped == count || !undamaged, "{count} records are read but {skipped} passed over");
}

/// Whole files of every format, what their outer layers hold, and lengths that nothing follows: what mutations begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let rows = Rows {
        features: (0..30 * SCHEMA.width).map(|i| (i * i % 256) as u8).collect(),
        labels: (0..30).map(|i| i % 4).collect(),
    };
    let floats: Rows<f32> = Rows {
        features: rows.features.iter().map(|&x| f32::from(x) / 3.0).collect(),
        labels: rows.labels.clone(),
    };
    let mut files = vec![Vec::new(); 9];
    csv::write_features(rows.view(), SCHEMA, &mut files[0]).expect(WHOLE);
    csv::write_labels(rows.view(), SCHEMA, &mut files[1]).expect(WHOLE);
    csv::write_csv2(rows.view(), SCHEMA, &mut files[2]).expect(WHOLE);
    csv::write_features(floats.view(), SCHEMA, &mut files[3]).expect(WHOLE);
    example::write(rows.view(), SCHEMA, &mut files[4]).expect(WHOLE);
    pickle::write_features(rows.view(), SCHEMA, &mut files[5]).expect(WHOLE);
    pickle::write_labels(rows.view(), SCHEMA, &mut files[6]).expect(WHOLE);
    pickle::write_features(floats.view(), SCHEMA, &mut files[7]).expect(WHOLE);
    example::write(floats.view(), SCHEMA, &mut files[8]).expect(WHOLE);
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    idx::write(&mut images, &[30, 3, 4], &rows.features).expect(WHOLE);
    idx::write(&mut labels, &[30], &rows.features[..30]).expect(WHOLE);
    let zipped = [&images, &labels].map(|file| gzip(file));
    files.extend(zipped.into_iter().chain([images, labels, b"2,1,2,3,4,5,6,7,8,9,10,11,12\r\n3,".to_vec()]));
    // What the outer layers hold goes to the inner readers by itself.
    let frames = [4, 8].map(|file| {
        tfrecord::Reader::new(files[file].as_slice()).next_record().expect(WHOLE).expect(WHOLE).to_vec()
    });
    let value =
        sequence_file::Reader::new(files[5].as_slice()).next_value().expect(WHOLE).expect(WHOLE).to_vec();
    files.push(java_serial::read(&value).expect(WHOLE)[0].to_vec());
    files.push(value);
    files.extend(frames);
    let pickles = include_str!("testdata/pickles.txt").lines().filter_map(|line| line.split(' ').nth(3));
    let hex =
        |hex: &str| (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).ok()).collect();
    files.extend(pickles.filter_map(hex));
    files.extend([vec![], endless_frame(), endless_value()]);
    files
}

/// A frame that says it is as long as a frame may be.
fn endless_frame() -> Vec<u8> {
    let length = (MESSAGE_BYTES_MAX as u64).to_le_bytes();
    let mut frame = Vec::new();
    tfrecord::write_record(&length, &mut frame).expect(WHOLE);
    let crc = frame[frame.len() - 4..].to_vec();
    [length.to_vec(), crc, vec![0; 40]].concat()
}

/// A SequenceFile whose value says the same.
fn endless_value() -> Vec<u8> {
    let mut file = Vec::new();
    sequence_file::write(std::iter::empty(), &mut file).expect(WHOLE);
    let length = MESSAGE_BYTES_MAX as u32;
    file.extend([(length + 4).to_be_bytes(), [0; 4], length.to_be_bytes(), [0; 4]].concat());
    file
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect(WHOLE);
    encoder.finish().expect(WHOLE)
}
