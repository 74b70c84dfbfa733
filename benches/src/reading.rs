//! Reading data sets: bytes as they are, then records out of them, then training on these; on this machine, and on HDFS where the
//! Hadoop configuration leads to one. On one thread but for writing.

use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use muster::format::{Rows, idx};
use muster::parts::Format;
use muster::parts::output::{Output, Plan};
use muster::parts::source::{Location, Source};
use muster::records::Records;
use muster::storage::{HadoopConfig, Storage};

use crate::bare_hdfs::BareHdfs;
use crate::kernels::DENSITY;
use crate::measure::{Limit, Probe, Sample, steps};
use crate::report::{Group, Unit};
use crate::suite::Bench;
use crate::trainer::{Trainer, random_images};
use crate::training::{SHAPE, TRIAL, counted, model, steps_of};
use crate::{Error, training};

/// Records of a data set: as many as training is measured on.
const RECORDS: usize = training::IMAGES;
/// What is read at a time.
const BUFFER: usize = 1 << 16;
/// The figure of bytes from this machine's files.
const LOCAL_BYTES: &str = "bytes of files";
/// That of the HDFS client without what storage does on top of it.
const BARE_BYTES: &str = "bytes of HDFS, hdfs-native alone";
/// The model of the seed, which is trained on the records that are read.
const HIDDEN: &[usize] = &[128];

/// Data sets of both formats in a directory that goes when this is dropped.
struct Sets {
    storage: Storage,
    directory: PathBuf,
    rows: Rows<u8>,
    /// Keeps a directory of this machine.
    _temporary: Option<tempfile::TempDir>,
}

impl Drop for Sets {
    fn drop(&mut self) {
        // Where the storage is gone by now, nothing can be done about it.
        _ = self.storage.delete(&self.directory);
    }
}

/// From this machine's files.
///
/// # Errors
/// If no temporary files can be written.
pub fn local(bench: &Bench) -> Result<Vec<Probe<'static>>, Error> {
    let temporary = tempfile::tempdir().map_err(Error::io("make a directory in", &std::env::temp_dir()))?;
    let zipped = temporary.path().join("images.gz");
    let storage = Storage::new(HadoopConfig::default());
    let sets = Rc::new(Sets::write(storage, temporary.path().join("sets"), Some(temporary))?);
    let write = |file: &mut dyn Write| idx::write(file, &[RECORDS, SHAPE.0, 1], &sets.rows.features);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = write(&mut encoder).and_then(|()| encoder.finish());
    std::fs::write(&zipped, written.map_err(Error::io("compress", &zipped))?)
        .map_err(Error::io("write", &zipped))?;
    let memory = Limit::Times(Bench::memory_name(1), 1.0);
    let mut probes = probes(bench, &sets, "", LOCAL_BYTES, memory)?;
    probes.push(probe("pixels of idx.gz", Unit::Gbytes, None, read_idx(bench, sets.clone(), zipped)));
    Ok(probes)
}

/// From the HDFS that the environment's Hadoop configuration names; none where it names none.
///
/// # Errors
/// If there is none, or it does not answer.
pub fn hdfs(bench: &Bench) -> Result<Vec<Probe<'static>>, Error> {
    let storage = Storage::from_environment()?;
    let default = storage.config().default_fs().to_owned();
    if !default.starts_with("hdfs://") && !default.starts_with("viewfs://") {
        let what = "HADOOP_CONF_DIR names no Hadoop configuration whose fs.defaultFS is an HDFS";
        return Err(Error::Usage(what.to_owned()));
    }
    let inner = format!("/tmp/muster-bench-{}", std::process::id());
    let bare = BareHdfs::connect(storage.config())?;
    let sets = Sets::write(storage, format!("{}{inner}", default.trim_end_matches('/')).into(), None)?;
    let time = bench.sample;
    let alone: Sample = Box::new(move || {
        let (start, mut bytes, mut buffer) = (Instant::now(), 0, vec![0; BUFFER]);
        while start.elapsed() < time {
            bytes += bare.read(&format!("{inner}/csv2/part-00000"), &mut buffer)?;
        }
        Ok(bytes as f64 / start.elapsed().as_secs_f64() / 1e9)
    });
    let files = Some(Limit::Times(LOCAL_BYTES.to_owned(), 1.0));
    let mut all = vec![probe(BARE_BYTES, Unit::Gbytes, files, alone)];
    let bare = Limit::Times(BARE_BYTES.to_owned(), 1.0);
    all.extend(probes(bench, &Rc::new(sets), " from HDFS", "bytes of HDFS", bare)?);
    Ok(all)
}

fn probe(name: &str, unit: Unit, limit: Option<Limit>, sample: Sample<'static>) -> Probe<'static> {
    Probe { group: Group::Reading, name: name.to_owned(), unit, limit, intensity: None, sample }
}

impl Sets {
    const FORMATS: [(Format, &str); 2] = [(Format::Csv2, "csv2"), (Format::TfRecord, "tfr")];

    fn write(
        storage: Storage,
        directory: PathBuf,
        temporary: Option<tempfile::TempDir>,
    ) -> Result<Sets, Error> {
        let (features, labels) = random_images(RECORDS, SHAPE.0, SHAPE.1, DENSITY);
        let rows = Rows { features, labels: labels.into_iter().map(u32::from).collect() };
        let sets = Sets { storage, directory, rows, _temporary: temporary };
        for (format, dir) in Sets::FORMATS {
            sets.prepare(format, dir, 1)?;
        }
        Ok(sets)
    }

    /// Writes the records as parts, in a directory of their own.
    fn prepare(&self, format: Format, dir: &str, parts: usize) -> Result<(), Error> {
        let output = Output::begin(&self.storage, &self.directory.join(dir), true)?;
        let plan = Plan { dir: "", format, shape: &[SHAPE.0], classes: SHAPE.1, parts };
        output.write_records(&plan, self.rows.view(), &|_| {})?;
        Ok(output.commit()?)
    }

    fn source(&self, format: Format, dir: &str) -> Result<Source, Error> {
        let features = &self.directory.join(dir);
        let location = Location { format, features, labels: None, labels_required: true };
        Ok(Source::find(&self.storage, location, &[SHAPE.0], SHAPE.1)?)
    }
}

/// Reads data sets, writes one, and trains on one.
fn probes(
    bench: &Bench,
    sets: &Rc<Sets>,
    from: &str,
    bytes_name: &str,
    bytes_limit: Limit,
) -> Result<Vec<Probe<'static>>, Error> {
    let csv = sets.directory.join("csv2").join("part-00000");
    let raw = read_bytes(bench, sets.clone(), csv);
    let mut probes = vec![probe(bytes_name, Unit::Gbytes, Some(bytes_limit), raw)];
    for (format, dir) in Sets::FORMATS {
        let bytes = sets.source(format, dir)?.parts()[0].features.bytes as f64 / RECORDS as f64;
        // Text is compared by its bytes, records by their number.
        let (unit, value) = match format {
            Format::TfRecord => (Unit::Records, 1.0),
            _ => (Unit::Gbytes, bytes / 1e9),
        };
        let limit = Limit::Times(bytes_name.to_owned(), 1e9 / bytes * value);
        let sample = read_records(bench, sets.clone(), (format, dir), value);
        probes.push(probe(&format!("{format}{from}"), unit, Some(limit), sample));
    }
    let written = write_records(bench, sets.clone());
    let (to, place) = if from.is_empty() { ("", " from files") } else { (" to HDFS", from) };
    probes.push(probe(&format!("csv written{to}, all cores"), Unit::Records, None, written));
    probes.extend(trainings(bench, sets, place)?);
    Ok(probes)
}

/// Copies the bytes of a file into a buffer, over and over for a sample; GB/s.
fn read_bytes(bench: &Bench, sets: Rc<Sets>, path: PathBuf) -> Sample<'static> {
    let (time, mut buffer) = (bench.sample, vec![0; BUFFER]);
    Box::new(move || {
        let (start, mut bytes) = (Instant::now(), 0);
        while start.elapsed() < time {
            let mut file = sets.storage.open(&path, 0..u64::MAX)?;
            loop {
                match file.read(&mut buffer).map_err(Error::io("read", &path))? {
                    0 => break,
                    read => bytes += black_box(&buffer[..read]).len(),
                }
            }
        }
        Ok(bytes as f64 / start.elapsed().as_secs_f64() / 1e9)
    })
}

/// Reads the records of a data set, over and over for a sample; records a second, each of them counted as `value`.
fn read_records(
    bench: &Bench,
    sets: Rc<Sets>,
    (format, dir): (Format, &'static str),
    value: f64,
) -> Sample<'static> {
    let time = bench.sample;
    Box::new(move || {
        let source = sets.source(format, dir)?;
        let (start, mut records) = (Instant::now(), 0);
        while start.elapsed() < time {
            let rows: Rows<u8> = source.read_part(0)?;
            records += black_box(rows).labels.len();
        }
        Ok(records as f64 * value / start.elapsed().as_secs_f64())
    })
}

/// Decompresses a file of images; GB/s of pixels.
fn read_idx(bench: &Bench, sets: Rc<Sets>, path: PathBuf) -> Sample<'static> {
    let time = bench.sample;
    Box::new(move || {
        let (start, mut bytes) = (Instant::now(), 0);
        while start.elapsed() < time {
            bytes += black_box(idx::read(&path, idx::Kind::Images)?).data.len();
        }
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(bytes % sets.rows.features.len(), 0, "all pixels were read each time");
        Ok(bytes as f64 / seconds / 1e9)
    })
}

/// Writes images and labels as `mnist prepare` does by default, in ten parts; records a second.
fn write_records(bench: &Bench, sets: Rc<Sets>) -> Sample<'static> {
    let time = bench.sample;
    Box::new(move || {
        let (start, mut records) = (Instant::now(), 0);
        while start.elapsed() < time {
            sets.prepare(Format::Csv, "written", 10)?;
            records += RECORDS;
        }
        Ok(records as f64 / start.elapsed().as_secs_f64())
    })
}

/// Training on the csv2, which is in memory after the first epoch or read anew in each; beside training from memory.
fn trainings(bench: &Bench, sets: &Rc<Sets>, from: &str) -> Result<Vec<Probe<'static>>, Error> {
    let from_memory = format!("{}, {}", model(HIDDEN), counted(1, "thread"));
    let mut probes = Vec::new();
    for (limit, how) in [(u64::MAX, "kept"), (0, "read anew in each epoch")] {
        let source = sets.source(Format::Csv2, "csv2")?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let pool =
            pool.map_err(|error| Error::Usage(format!("cannot start a thread that reads: {error}")))?;
        let records = Records::of_parts(Path::new("csv2"), source, Some(1.0 / 255.0), limit, pool)?;
        let trainer = Trainer::over(bench.kernels, HIDDEN, records);
        let (time, sets) = (bench.sample, sets.clone());
        let run = move |steps| {
            // The parts stay as long as they are read.
            let _ = &sets;
            Ok(trainer.images_per_second(1, steps)?)
        };
        let sample = steps(TRIAL, move |rate| steps_of(time, rate), run);
        let limit = Limit::Times(from_memory.clone(), 1.0);
        let name = format!("{} on csv2{from}, {how}", training::model(HIDDEN));
        probes.push(probe(&name, Unit::Records, Some(limit), sample));
    }
    Ok(probes)
}
