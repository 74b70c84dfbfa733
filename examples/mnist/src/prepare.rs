//! `mnist prepare`: the digits as directories of parts, as TensorFlowOnSpark's `mnist_data_setup.py` leaves them.

use crate::cli;
use crate::console::{self, Console};
use crate::digests::Digests;
use crate::parts;
use crate::source::{self, CLASSES, SCALE};
use anyhow::{Context, Result, ensure};
use muster::dataset::{Dataset, Features};
use muster::format::{Rows, RowsView};
use muster::parts::manifest::Manifest;
use muster::parts::output::{Output, Plan};
use muster::parts::source::Source;
use muster::storage::Storage;
use rayon::prelude::*;
use std::path::Path;
use std::process::ExitCode;

/// The directories below the output.
const SPLITS: [&str; 2] = ["train", "test"];
/// Records that are shown after reading.
const SAMPLES: usize = 10;

/// Writes the parts, unless `--read` asks for those that are there; reads them back with `--read` or `--verify`.
pub fn run(options: &cli::Prepare) -> Result<ExitCode> {
    let storage = Storage::from_environment()?;
    let console = Console::new(0, "");
    let written = if options.read { None } else { Some(write(options, &storage)?) };
    if options.read || options.verify {
        let mut found = false;
        for (at, name) in SPLITS.into_iter().enumerate() {
            let dir = options.output.join(name);
            if storage.stat(&dir)?.is_none() {
                continue;
            }
            found = true;
            let dataset = read(options, &storage, &dir, &console)?;
            if let Some(digest) = written.as_ref().and_then(|written| written[at].as_ref()) {
                ensure!(
                    dataset.digest() == *digest,
                    "{} came back different from what was written; check the disks and prepare it again",
                    dir.display()
                );
                console.line(format_args!("{name}: verified, every record came back as it was written"));
            }
        }
        ensure!(
            found,
            "{} holds neither train nor test; name the directory that does with --output, or leave --read out to write it",
            options.output.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes both sets and returns their digests.
fn write(options: &cli::Prepare, storage: &Storage) -> Result<[Option<String>; 2]> {
    let output = Output::begin(storage, &options.output, options.overwrite)?;
    let mnist = source::open(options.data.as_deref(), &|text| console::remark(text), &Digests::default())?;
    if let Some(warning) = &mnist.warning {
        console::remark(warning);
    }
    let sets = [mnist.train.as_ref(), mnist.test.as_ref()];
    let records: usize = sets.iter().flatten().map(|set| set.len()).sum();
    let files = if options.format.has_labels_apart() { 2 } else { 1 };
    let console = Console::new((records * files) as u64, "records");
    for (name, set) in SPLITS.iter().zip(sets).filter_map(|(name, set)| Some((name, set?))) {
        let plan = Plan {
            dir: name,
            format: options.format,
            shape: set.shape(),
            classes: CLASSES,
            parts: options.num_partitions,
        };
        output.write_records(&plan, rows(set)?, &|rows| console.advance(rows as u64))?;
    }
    output.commit()?;
    console.clear();
    for (name, set) in SPLITS.iter().zip(sets).filter_map(|(name, set)| Some((name, set?))) {
        console.line(format_args!(
            "{name}: {} records in {} parts of {} in {}",
            set.len(),
            options.num_partitions,
            options.format,
            options.output.join(name).display()
        ));
    }
    Ok(sets.map(|set| set.map(Dataset::digest)))
}

fn rows(set: &Dataset) -> Result<RowsView<'_, u8>> {
    let labels = set.labels().with_context(|| {
        format!(
            "{} has no labels, and parts without labels cannot be trained on; add them",
            set.path().display()
        )
    })?;
    match set.features() {
        Features::U8 { bytes, .. } => Ok(RowsView { features: bytes, labels }),
        Features::F32(_) => unreachable!("IDX files and drawn digits are bytes"),
    }
}

/// Reads a set back, compares it with its manifests if that is asked for, and shows counts and some records.
fn read(options: &cli::Prepare, storage: &Storage, dir: &Path, console: &Console) -> Result<Dataset> {
    let images = dir.join("images");
    let apart = storage.stat(&images)?.is_some();
    let (images, labels) = if apart { (images, Some(dir.join("labels"))) } else { (dir.to_owned(), None) };
    if options.verify {
        [Some(images.as_path()), labels.as_deref()]
            .into_iter()
            .flatten()
            .try_for_each(|dir| verify(storage, dir, console))?;
    }
    let source = parts::find(storage, options.format, (&images, labels.as_deref()), true)?;
    let set = read_parts(&source, dir)?;
    let (records, labels) = (set.len(), set.labels().expect("labels are required"));
    console.line(format_args!(
        "{}: {records} images, {} labels, {records} records in {} parts",
        dir.display(),
        labels.len(),
        source.parts().len()
    ));
    for (record, label) in labels.iter().enumerate().take(SAMPLES) {
        let pixels: Vec<String> = set.feature_bytes(record).iter().map(u8::to_string).collect();
        console.line(format_args!("{label}|{}", pixels.join(",")));
    }
    Ok(set)
}

/// Reads all parts, with a progress bar.
fn read_parts(source: &Source, dir: &Path) -> Result<Dataset> {
    let bar = Console::new(source.parts().len() as u64, "parts");
    let read = |part| source.read_part::<u8>(part).inspect(|_| bar.advance(1));
    let parts: Vec<_> = (0..source.parts().len()).into_par_iter().map(read).collect();
    let mut all = Rows::default();
    for part in parts {
        let Rows { features, labels } = part?;
        all.features.extend(features);
        all.labels.extend(labels);
    }
    bar.clear();
    Ok(Dataset::from_rows(dir, all, SCALE, source.shape(), CLASSES)?)
}

/// Compares the bytes of all parts with the manifest.
fn verify(storage: &Storage, dir: &Path, console: &Console) -> Result<()> {
    match Manifest::read(storage, dir)? {
        Some(manifest) => Ok(manifest.verify(storage, dir)?),
        None => {
            console.remark(format_args!("{} has no manifest: its bytes are not verified", dir.display()));
            Ok(())
        }
    }
}
