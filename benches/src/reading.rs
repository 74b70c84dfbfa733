//! Reading csv and TFRecord on one thread: bytes as they are, then records out of them; on this machine, and on HDFS where the
//! Hadoop configuration leads to one.

use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use muster::format::Rows;
use muster::parts::Format;
use muster::parts::output::{Output, Plan};
use muster::parts::source::{Location, Source};
use muster::storage::{HadoopConfig, Storage};

use crate::Error;
use crate::kernels::DENSITY;
use crate::measure::{Limit, Probe};
use crate::report::{Group, Unit};
use crate::suite::Bench;
use crate::trainer::random_images;
use crate::training::SHAPE;

/// Records of a data set: some megabytes.
const RECORDS: usize = 2000;
/// What is read at a time.
const BUFFER: usize = 1 << 16;
/// The figure of bytes from this machine's files.
const LOCAL_BYTES: &str = "bytes of files";

/// Data sets of both formats in a directory that goes when this is dropped.
struct Sets {
    storage: Storage,
    directory: PathBuf,
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
    let storage = Storage::new(HadoopConfig::default());
    let directory = temporary.path().join("sets");
    let sets = Sets { storage, directory, _temporary: Some(temporary) };
    let memory = Limit::Times(Bench::memory_name(1), 1.0);
    probes(bench, Rc::new(sets), "", LOCAL_BYTES, memory)
}

/// From the HDFS that the environment's Hadoop configuration names; none where it names none.
///
/// # Errors
/// If there is none, or it does not answer.
pub fn hdfs(bench: &Bench) -> Result<Vec<Probe<'static>>, Error> {
    let storage = Storage::from_environment()?;
    let default = storage.config().default_fs();
    if !default.starts_with("hdfs://") && !default.starts_with("viewfs://") {
        let what = "HADOOP_CONF_DIR names no Hadoop configuration whose fs.defaultFS is an HDFS";
        return Err(Error::Usage(what.to_owned()));
    }
    let directory = format!("{}/tmp/muster-bench-{}", default.trim_end_matches('/'), std::process::id());
    let sets = Sets { storage, directory: directory.into(), _temporary: None };
    let files = Limit::Times(LOCAL_BYTES.to_owned(), 1.0);
    probes(bench, Rc::new(sets), " from HDFS", "bytes of HDFS", files)
}

/// Writes the data sets, and reads them.
fn probes(
    bench: &Bench,
    sets: Rc<Sets>,
    from: &str,
    bytes_name: &str,
    bytes_limit: Limit,
) -> Result<Vec<Probe<'static>>, Error> {
    let (features, labels) = random_images(RECORDS, SHAPE.0, SHAPE.1, DENSITY);
    let rows = Rows { features, labels: labels.into_iter().map(u32::from).collect() };
    let output = Output::begin(&sets.storage, &sets.directory, true)?;
    let formats = [(Format::Csv2, "csv2"), (Format::TfRecord, "tfr")];
    for (format, dir) in formats {
        let plan = Plan { dir, format, shape: &[SHAPE.0], classes: SHAPE.1, parts: 1 };
        output.write_records(&plan, rows.view(), &|_| {})?;
    }
    output.commit()?;
    let csv = sets.directory.join("csv2").join("part-00000");
    let probe = |name: String, unit, limit, sample| Probe {
        group: Group::Reading,
        name,
        unit,
        limit: Some(limit),
        intensity: None,
        sample,
    };
    let raw = read_bytes(bench, sets.clone(), csv);
    let mut probes = vec![probe(bytes_name.to_owned(), Unit::Gbytes, bytes_limit, raw)];
    for (format, dir) in formats {
        let directory = sets.directory.join(dir);
        let file = &source(&sets.storage, format, &directory)?.parts()[0].features.clone();
        let limit = Limit::Times(bytes_name.to_owned(), 1e9 * RECORDS as f64 / file.bytes as f64);
        let sample = read_records(bench, sets.clone(), format, directory);
        probes.push(probe(format!("{format}{from}"), Unit::Records, limit, sample));
    }
    Ok(probes)
}

fn source(storage: &Storage, format: Format, directory: &Path) -> Result<Source, Error> {
    let location = Location { format, features: directory, labels: None, labels_required: true };
    Ok(Source::find(storage, location, &[SHAPE.0], SHAPE.1)?)
}

/// Copies the bytes of a file into a buffer, over and over for a sample; GB/s.
fn read_bytes(bench: &Bench, sets: Rc<Sets>, path: PathBuf) -> crate::measure::Sample<'static> {
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

/// Reads the records of a data set, over and over for a sample; records a second.
fn read_records(
    bench: &Bench,
    sets: Rc<Sets>,
    format: Format,
    directory: PathBuf,
) -> crate::measure::Sample<'static> {
    let time = bench.sample;
    Box::new(move || {
        let source = source(&sets.storage, format, &directory)?;
        let (start, mut records) = (Instant::now(), 0);
        while start.elapsed() < time {
            let rows: Rows<u8> = source.read_part(0)?;
            records += black_box(rows).labels.len();
        }
        Ok(records as f64 / start.elapsed().as_secs_f64())
    })
}
