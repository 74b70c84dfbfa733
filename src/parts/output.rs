//! Writing directories that appear whole or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use super::manifest::{Checksum, MANIFEST, Manifest, PartEntry};
use super::{Format, SUCCESS, split};
use crate::error::{Error, Result};
use crate::format::{Element, RowSchema, RowsView, csv, example, pickle};
use crate::storage::{Fill, Storage, owner};

/// Says that all parts are there.
/// The end of the name of a directory on its way.
const PARTIAL: &str = ".partial";
/// Says in such a directory whose it is.
const OWNER: &str = "_owner";

/// Writes the records of one file.
type WriteRows<T> = fn(RowsView<'_, T>, RowSchema, &mut dyn Write) -> io::Result<()>;

/// One kind of file of a format: the directory below the data set's, what names begin with, and how it is written.
struct FileKind<T> {
    dir: &'static str,
    prefix: &'static str,
    write: WriteRows<T>,
}

fn file_kinds<T: Element>(format: Format) -> Vec<FileKind<T>> {
    let kind = |dir, prefix, write| FileKind { dir, prefix, write };
    match format {
        Format::Csv => vec![
            kind("images", "part-", csv::write_features as WriteRows<T>),
            kind("labels", "part-", csv::write_labels),
        ],
        Format::Csv2 => vec![kind("", "part-", csv::write_csv2)],
        Format::Pickle => vec![
            kind("images", "part-", pickle::write_features as WriteRows<T>),
            kind("labels", "part-", pickle::write_labels),
        ],
        Format::TfRecord => vec![kind("", "part-r-", example::write)],
    }
}

/// Refuses what would be written and could not be read.
fn check<T>(rows: RowsView<'_, T>, schema: RowSchema, parts: usize) -> Result<()> {
    let RowSchema { width, classes } = schema;
    let invalid = |what: String| Err(Error::Invalid(what));
    if parts == 0 {
        return invalid("a data set has at least one part".into());
    }
    if rows.features.len() != rows.labels.len() * width {
        let (features, labels) = (rows.features.len(), rows.labels.len());
        return invalid(format!("{features} features in rows of {width} do not go with {labels} labels"));
    }
    match rows.labels.iter().find(|&&label| label as usize >= classes) {
        Some(label) => invalid(format!("label {label} is not below {classes}")),
        None => Ok(()),
    }
}

/// What a data set is to look like.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Where, relative to the output; may be empty.
    pub dir: &'a str,
    /// How its files are written.
    pub format: Format,
    /// The shape of a record.
    pub shape: &'a [usize],
    /// Classes a label tells apart.
    pub classes: usize,
    /// In how many parts.
    pub parts: usize,
}

/// A directory on its way: everything is written under a temporary name beside it, which one rename turns into its own.
/// Dropped before [`commit`](Output::commit) it leaves nothing behind, and what was there before is still there. Several may be on
/// their way to one place; each has a name of its own.
pub struct Output<'a> {
    storage: &'a Storage,
    target: PathBuf,
    /// Where it is written.
    staging: PathBuf,
    /// Where what it replaces is kept until it is in place.
    replaced: PathBuf,
    overwrite: bool,
    /// Whether this is the one that began it, and ends it.
    is_own: bool,
}

impl<'a> Output<'a> {
    /// Begins to write the directory `target`.
    ///
    /// # Errors
    /// When there is something at `target` already and `overwrite` does not allow to replace it, and when nothing can be
    /// written there.
    pub fn begin(storage: &'a Storage, target: &Path, overwrite: bool) -> Result<Output<'a>> {
        let nameless = || Error::Invalid(format!("the output {} names no directory", target.display()));
        let name = target.file_name().ok_or_else(nameless)?.to_string_lossy();
        let owner = owner::this_process();
        let beside = |suffix: &str| target.with_file_name(format!(".{name}.{suffix}"));
        let staging = beside(&format!("{}{PARTIAL}", owner::unique_name(&owner)));
        let replaced = beside("replaced");
        let target = target.to_owned();
        if storage.stat(&target)?.is_none() && storage.stat(&replaced)?.is_some() {
            // An earlier run died between the two renames of `commit`.
            storage.rename(&replaced, &target)?;
        }
        if !overwrite && storage.stat(&target)?.is_some() {
            return Err(Error::OutputExists(target));
        }
        delete_leftovers(storage, &target, &format!(".{name}."))?;
        let output = Output { storage, target, staging, replaced, overwrite, is_own: true };
        // Better now than after hours of work.
        storage.create(output.staging.join(OWNER), &|out| out.write_all(owner.as_bytes()))?;
        Ok(output)
    }

    /// Takes part in writing a directory that another process has begun and will commit, which has told its [`Output::staging`].
    pub fn join(storage: &'a Storage, target: &Path, staging: &Path) -> Output<'a> {
        let (target, staging) = (target.to_owned(), staging.to_owned());
        Output { storage, target, staging, replaced: PathBuf::new(), overwrite: false, is_own: false }
    }

    /// The temporary name that it is written under.
    pub fn staging(&self) -> &Path {
        &self.staging
    }

    /// Whether the file `path` (relative to the output) has been written, by whichever process.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn has(&self, path: &Path) -> Result<bool> {
        Ok(self.storage.stat(self.staging.join(path))?.is_some())
    }

    /// Writes `rows` as a data set, several files at a time; calls `written` with the number of records of each file that
    /// is done.
    ///
    /// # Errors
    /// When the records could not be read back, and those of the storage.
    pub fn write_records<T: Element>(
        &self,
        plan: &Plan,
        rows: RowsView<'_, T>,
        written: &(dyn Fn(usize) + Sync),
    ) -> Result<()> {
        let schema = RowSchema { width: plan.shape.iter().product(), classes: plan.classes };
        check(rows, schema, plan.parts)?;
        let ranges = split(rows.labels.len(), plan.parts);
        for kind in file_kinds::<T>(plan.format) {
            let dir = Path::new(plan.dir).join(kind.dir);
            let entries = ranges.par_iter().enumerate().map(|(part, range)| {
                let name = format!("{}{part:05}", kind.prefix);
                let part_rows = rows.slice(range.clone(), schema.width);
                let entry = self.write_part(&dir.join(name), range.len() as u64, &|out| {
                    (kind.write)(part_rows, schema, out)
                });
                entry.inspect(|_| written(range.len()))
            });
            let parts = entries.collect::<Result<Vec<_>>>()?;
            self.write_manifest(
                &dir,
                &Manifest { rows: rows.labels.len() as u64, shape: plan.shape.to_vec(), parts },
            )?;
            self.finish(&dir)?;
        }
        Ok(())
    }

    /// Writes the file `path` (relative to the output) of `rows` records, and returns its entry of the manifest.
    ///
    /// # Errors
    /// Those of `fill` and of the storage.
    pub fn write_part(&self, path: &Path, rows: u64, fill: &Fill) -> Result<PartEntry> {
        let sum = Mutex::new((0, String::new()));
        self.storage.create(self.staging.join(path), &|out| {
            let mut checked = Checksum::new(out);
            fill(&mut checked)?;
            // A panic elsewhere does not make this sum wrong.
            *sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = checked.finish();
            Ok(())
        })?;
        let (bytes, sha256) = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(PartEntry { name, rows, bytes, sha256 })
    }

    fn write_manifest(&self, dir: &Path, manifest: &Manifest) -> Result<()> {
        let json = serde_json::to_vec_pretty(manifest).map_err(io::Error::from)?;
        self.storage.create(self.staging.join(dir).join(MANIFEST), &|out| out.write_all(&json))
    }

    /// Says that all parts in `dir` (relative to the output) are there, by an empty `_SUCCESS`.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn finish(&self, dir: &Path) -> Result<()> {
        self.storage.create(self.staging.join(dir).join(SUCCESS), &|_| Ok(()))
    }

    /// Makes the directory appear at its place; what was there before is deleted after that.
    ///
    /// # Errors
    /// When it cannot be moved there; what was there before is then put back.
    pub fn commit(self) -> Result<()> {
        let replaces = self.storage.stat(&self.target)?.is_some();
        if replaces && !self.overwrite {
            return Err(Error::OutputExists(self.target.clone()));
        }
        self.storage.delete(self.staging.join(OWNER))?;
        if replaces {
            self.storage.delete(&self.replaced)?;
            self.storage.rename(&self.target, &self.replaced)?;
        }
        let moved = self.storage.rename(&self.staging, &self.target);
        if replaces && moved.is_err() {
            self.storage.rename(&self.replaced, &self.target)?;
        }
        moved?;
        if replaces { self.storage.delete(&self.replaced) } else { Ok(()) }
    }
}

/// Deletes what killed processes of this host were writing to `target`; its names begin with `prefix`.
fn delete_leftovers(storage: &Storage, target: &Path, prefix: &str) -> Result<()> {
    let parent = target.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    if storage.stat(parent)?.is_none() {
        return Ok(());
    }
    for entry in storage.list(parent)? {
        let leftover = target.with_file_name(&entry.name);
        let is_partial = entry.is_dir && entry.name.starts_with(prefix) && entry.name.ends_with(PARTIAL);
        // Whoever is at work may be done with it by now: what cannot be read is left alone.
        if is_partial
            && let Ok(Some(owner)) = owner::read(storage, &leftover.join(OWNER))
            && owner::is_gone(&owner)
        {
            storage.delete(&leftover)?;
        }
    }
    Ok(())
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        // The error that stopped the writing is the one to tell; a leftover is deleted by the next attempt on this host.
        if self.is_own {
            drop(self.storage.delete(&self.staging));
        }
    }
}
