//! Reading the formats of the data from memory, one thread: bytes and records a second.
//!
//! Digits like MNIST's (four fifths zero, in runs), or MNIST itself where its raw files lie in the cache directory.

use std::hint::black_box;
use std::io::Write;
use std::path::PathBuf;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use muster::format::{ReadRows, RowSchema, Rows, RowsView, csv, example, pickle};

const SCHEMA: RowSchema = RowSchema { width: 784, classes: 10 };
const RECORDS: usize = 10_000;

/// MNIST's training images when they are there, else strokes of random brightness on black.
fn records() -> Rows<u8> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let path = cache.map(|dir| dir.join("muster/mnist/train-images-idx3-ubyte"));
    let features = match path.and_then(|path| std::fs::read(path).ok()) {
        Some(idx) => idx[16..][..RECORDS * SCHEMA.width].to_vec(),
        None => strokes(RECORDS * SCHEMA.width),
    };
    Rows { features, labels: (0..RECORDS).map(|row| (row % SCHEMA.classes) as u32).collect() }
}

fn strokes(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut pixels = Vec::with_capacity(count + 64);
    while pixels.len() < count {
        pixels.extend(std::iter::repeat_n(0, random() % 64));
        pixels.extend((0..random() % 15).map(|_| [random() as u8, 253][random() % 2]));
    }
    pixels.truncate(count);
    pixels
}

type WriteRows = fn(RowsView<'_, u8>, RowSchema, &mut dyn Write) -> std::io::Result<()>;
type OpenRows = fn(&[u8]) -> Box<dyn ReadRows<u8> + '_>;

fn formats(criterion: &mut Criterion) {
    let sparse = records();
    let dense = Rows {
        features: (0..sparse.features.len()).map(|i| (i * 167 % 256) as u8).collect(),
        ..sparse.clone()
    };
    let formats: [(&str, WriteRows, OpenRows); 4] = [
        ("csv", csv::write_features, |bytes| {
            Box::new(csv::Reader::new(bytes, csv::Layout::Features, SCHEMA))
        }),
        ("csv2", csv::write_csv2, |bytes| Box::new(csv::Reader::new(bytes, csv::Layout::LabelBar, SCHEMA))),
        ("tfr", example::write, |bytes| Box::new(example::Reader::new(bytes, SCHEMA))),
        ("pickle", pickle::write_features, |bytes| {
            Box::new(pickle::Reader::new(bytes, pickle::Content::Features, SCHEMA))
        }),
    ];
    for (format, write, open) in formats {
        let mut group = criterion.benchmark_group(format);
        for (data, rows) in [("digits", &sparse), ("dense", &dense)] {
            let mut bytes = Vec::new();
            write(rows.view(), SCHEMA, &mut bytes).unwrap();
            group.throughput(Throughput::ElementsAndBytes {
                elements: RECORDS as u64,
                bytes: bytes.len() as u64,
            });
            let mut read = Rows::default();
            group.bench_function(BenchmarkId::new("read", data), |bencher| {
                bencher.iter(|| {
                    let mut reader = open(black_box(&bytes));
                    loop {
                        read.clear();
                        if reader.read_rows(100, &mut read).unwrap() == 0 {
                            break;
                        }
                    }
                });
            });
            let mut written = Vec::with_capacity(bytes.len());
            group.bench_function(BenchmarkId::new("write", data), |bencher| {
                bencher.iter(|| {
                    written.clear();
                    write(black_box(rows.view()), SCHEMA, &mut written).unwrap();
                });
            });
        }
        group.finish();
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(20); targets = formats }
criterion_main!(benches);
