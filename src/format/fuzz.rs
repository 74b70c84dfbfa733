//! Every reader as a plain function of bytes: whatever they are, it comes back, with records or an error.
//!
//! The test below mutates real files for a while; a coverage-guided fuzzer calls the same [`TARGETS`].

use super::{
    Element, ReadRows, RowSchema, Rows, csv, example, java_serial, pickle, pickle_machine, sequence_file,
    tfrecord,
};

/// Small, so that mutations reach every column.
pub const SCHEMA: RowSchema = RowSchema { width: 12, classes: 4 };

/// A function of bytes.
pub type Target = fn(&[u8]);

/// The readers by name.
pub const TARGETS: [(&str, Target); 11] = [
    ("csv", |data| read::<u8>(csv::Reader::new(data, csv::Layout::FeaturesOrLabelFirst, SCHEMA))),
    ("csv of floats", |data| read::<f32>(csv::Reader::new(data, csv::Layout::Features, SCHEMA))),
    ("csv labels", |data| read::<u8>(csv::Reader::new(data, csv::Layout::OneHot, SCHEMA))),
    ("csv2", |data| read::<u8>(csv::Reader::new(data, csv::Layout::LabelBar, SCHEMA))),
    ("tfrecord", |data| read::<u8>(example::Reader::new(data, SCHEMA))),
    ("example", |data| {
        // A frame of its own, because a mutation does not get past the checksums.
        let mut frame = Vec::new();
        tfrecord::write_record(data, &mut frame).expect("a Vec takes all bytes");
        read::<u8>(example::Reader::new(frame.as_slice(), SCHEMA));
        read::<f32>(example::Reader::new(frame.as_slice(), SCHEMA));
    }),
    ("sequence file", |data| read::<u8>(pickle::Reader::new(data, pickle::Content::Features, SCHEMA))),
    ("sequence file of labels", |data| {
        read::<u8>(pickle::Reader::new(data, pickle::Content::Labels, SCHEMA))
    }),
    ("java", |data| drop(java_serial::read(data))),
    ("pickle", |data| drop(pickle_machine::read_rows(data))),
    ("pickle in its file", |data| {
        let mut file = Vec::new();
        let value = java_serial::write(&[data.to_vec()]);
        sequence_file::write(std::iter::once(value), &mut file).expect("a Vec takes all bytes");
        read::<u8>(pickle::Reader::new(file.as_slice(), pickle::Content::Features, SCHEMA));
        read::<f32>(pickle::Reader::new(file.as_slice(), pickle::Content::Features, SCHEMA));
    }),
];

/// Reads all records, each of which must be whole.
fn read<T: Element>(mut reader: impl ReadRows<T>) {
    let mut rows = Rows::default();
    while reader.read_row(&mut rows).unwrap_or(false) {
        assert!(rows.features.len() == SCHEMA.width || rows.features.is_empty());
        assert!(rows.labels.iter().all(|&label| (label as usize) < SCHEMA.classes));
        assert_eq!(rows.labels.len().max(rows.features.len() / SCHEMA.width), 1);
        rows.clear();
    }
}

#[cfg(test)]
mod tests {
    // A global allocator is unsafe to implement; this one counts and passes on.
    #![allow(unsafe_code)]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use rayon::prelude::*;

    use super::super::window::MESSAGE_BYTES_MAX;
    use super::*;

    /// How long each target is tried.
    const TRIED: Duration = Duration::from_millis(1500);
    /// Inputs stay this short.
    const INPUT_BYTES_MAX: usize = 4096;
    /// Windows, their growth, and a factor for what a byte of a pickle may turn into; a hostile length would be far above.
    const ALLOCATED_BYTES_MAX: usize = 3 << 20;

    /// Counts the bytes that each thread holds.
    struct Counting;

    thread_local! {
        static HELD: Cell<usize> = const { Cell::new(0) };
        static PEAK: Cell<usize> = const { Cell::new(0) };
    }

    // SAFETY: every call goes to the system's allocator unchanged; the counters neither allocate nor panic.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            HELD.set(HELD.get().wrapping_add(layout.size()));
            PEAK.set(PEAK.get().max(HELD.get()));
            // SAFETY: the caller keeps the contract of `alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            HELD.set(HELD.get().saturating_sub(layout.size()));
            // SAFETY: the caller keeps the contract of `dealloc`.
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    fn corpus() -> Vec<Vec<u8>> {
        let rows = Rows {
            features: (0..30 * SCHEMA.width).map(|i| (i * i % 256) as u8).collect(),
            labels: (0..30).map(|i| i % 4).collect(),
        };
        let floats: Rows<f32> = Rows {
            features: rows.features.iter().map(|&x| f32::from(x) / 3.0).collect(),
            labels: rows.labels.clone(),
        };
        let mut files = vec![Vec::new(); 9];
        csv::write_features(rows.view(), SCHEMA, &mut files[0]).unwrap();
        csv::write_labels(rows.view(), SCHEMA, &mut files[1]).unwrap();
        csv::write_csv2(rows.view(), SCHEMA, &mut files[2]).unwrap();
        csv::write_features(floats.view(), SCHEMA, &mut files[3]).unwrap();
        example::write(rows.view(), SCHEMA, &mut files[4]).unwrap();
        pickle::write_features(rows.view(), SCHEMA, &mut files[5]).unwrap();
        pickle::write_labels(rows.view(), SCHEMA, &mut files[6]).unwrap();
        pickle::write_features(floats.view(), SCHEMA, &mut files[7]).unwrap();
        example::write(floats.view(), SCHEMA, &mut files[8]).unwrap();
        // What the outer layers hold goes to the inner readers by itself.
        let frames = [4, 8].map(|file| {
            tfrecord::Reader::new(files[file].as_slice()).next_record().unwrap().unwrap().to_vec()
        });
        let value = sequence_file::Reader::new(files[5].as_slice()).next_value().unwrap().unwrap().to_vec();
        files.push(java_serial::read(&value).unwrap()[0].to_vec());
        files.push(value);
        files.extend(frames);
        let pickles = include_str!("testdata/pickles.txt").lines().filter_map(|line| line.split(' ').nth(3));
        let hex = |hex: &str| {
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).ok()).collect()
        };
        files.extend(pickles.filter_map(hex));
        files.extend([vec![], endless_frame(), endless_value()]);
        files
    }

    /// A frame that says it is as long as a frame may be.
    fn endless_frame() -> Vec<u8> {
        let length = (MESSAGE_BYTES_MAX as u64).to_le_bytes();
        let mut frame = Vec::new();
        tfrecord::write_record(&length, &mut frame).unwrap();
        let crc = frame[frame.len() - 4..].to_vec();
        [length.to_vec(), crc, vec![0; 40]].concat()
    }

    /// A SequenceFile whose value says the same.
    fn endless_value() -> Vec<u8> {
        let mut file = Vec::new();
        sequence_file::write(std::iter::empty(), &mut file).unwrap();
        let length = MESSAGE_BYTES_MAX as u32;
        file.extend([(length + 4).to_be_bytes(), [0; 4], length.to_be_bytes(), [0; 4]].concat());
        file
    }

    /// A file of the corpus with some of its bytes changed, removed, doubled, or taken from another one.
    fn mutated(corpus: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
        const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b',', b'|', b'\n', b'\r', b'.', b'(', b'R'];
        let mut below = |bound: usize| random.next_u64() as usize % bound.max(1);
        let mut data = corpus[below(corpus.len())].clone();
        for _ in 0..=below(4) {
            let at = below(data.len());
            let length = below(24).min(data.len() - at);
            match below(6) {
                0 if at < data.len() => data[at] ^= 1 << below(8),
                1 if at < data.len() => data[at] = TELLING[below(TELLING.len())],
                2 => data.truncate(at),
                3 => drop(data.drain(at..at + length)),
                4 => {
                    let again = data[at..at + length].repeat(1 + below(20));
                    drop(data.splice(at..at, again));
                }
                _ => {
                    let other = &corpus[below(corpus.len())];
                    let from = below(other.len());
                    data.splice(at.., other[from..].iter().copied());
                }
            }
        }
        data.truncate(INPUT_BYTES_MAX);
        data
    }

    fn check(name: &str, target: Target, data: &[u8]) {
        let (held, begun) = (HELD.get(), Instant::now());
        PEAK.set(held);
        let outcome = std::panic::catch_unwind(|| target(data));
        let allocated = PEAK.get() - held;
        assert!(outcome.is_ok(), "{name} panics on {}", data.escape_ascii());
        assert!(allocated < ALLOCATED_BYTES_MAX, "{name} allocates {allocated} B on {}", data.escape_ascii());
        assert!(begun.elapsed() < Duration::from_secs(2), "{name} hangs on {}", data.escape_ascii());
    }

    fn try_target(name: &str, target: Target, corpus: &[Vec<u8>]) -> u64 {
        let mut random = ChaCha8Rng::seed_from_u64(name.bytes().map(u64::from).sum());
        let (start, mut tries) = (Instant::now(), 0);
        while start.elapsed() < TRIED {
            let data = mutated(corpus, &mut random);
            check(name, target, &data);
            tries += 1;
        }
        tries
    }

    #[test]
    fn no_bytes_panic_hang_or_take_memory() {
        let corpus = corpus();
        for (name, target) in TARGETS {
            corpus.iter().for_each(|data| check(name, target, data));
        }
        TARGETS.par_iter().for_each(|&(name, target)| {
            assert!(try_target(name, target, &corpus) > 100, "{name} was hardly tried");
        });
    }
}
