//! Where files lie: one interface over the local disk and, beside it, HDFS.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the directory.
    pub name: String,
    /// Length of a file.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Writes the contents of a file; called again from the beginning when the storage has to write the file anew.
pub type Fill<'a> = dyn Fn(&mut dyn Write) -> Result<()> + Sync + 'a;

/// What data sets, checkpoints and predictions need of a file system. Paths are text with `/` between names; every error
/// names its path.
pub trait Storage: Send + Sync {
    /// The entries of a directory, in any order.
    ///
    /// # Errors
    /// When there is no such directory, or it may not be read.
    fn list(&self, dir: &str) -> Result<Vec<Entry>>;

    /// What lies at `path`; `None` when nothing does.
    ///
    /// # Errors
    /// When that cannot be told.
    fn stat(&self, path: &str) -> Result<Option<Entry>>;

    /// Reads the bytes `range` of a file, which holds all of them.
    ///
    /// # Errors
    /// When there is no such file, or it may not be read.
    fn open(&self, path: &str, range: Range<u64>) -> Result<Box<dyn Read + Send>>;

    /// Writes a file whole or not at all, and the directories that lead to it: under a temporary name, then renamed.
    ///
    /// # Errors
    /// Those of `fill`, and those of writing.
    fn create(&self, path: &str, fill: &Fill) -> Result<()>;

    /// Moves a file or a directory to a path where nothing is.
    ///
    /// # Errors
    /// When it cannot be moved.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Deletes a file, or a directory with all that is in it; nothing there is no error.
    ///
    /// # Errors
    /// When it cannot be deleted.
    fn delete(&self, path: &str) -> Result<()>;
}

/// The local disk.
pub struct Local;

impl Storage for Local {
    fn list(&self, dir: &str) -> Result<Vec<Entry>> {
        let entries =
            fs::read_dir(dir).and_then(|entries| entries.map(|entry| entry_of(&entry?.path())).collect());
        named(dir, entries)
    }

    fn stat(&self, path: &str) -> Result<Option<Entry>> {
        match entry_of(Path::new(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            entry => named(path, entry.map(Some)),
        }
    }

    fn open(&self, path: &str, range: Range<u64>) -> Result<Box<dyn Read + Send>> {
        let mut file = named(path, File::open(path))?;
        named(path, file.seek(SeekFrom::Start(range.start)))?;
        Ok(Box::new(file.take(range.end - range.start)))
    }

    fn create(&self, path: &str, fill: &Fill) -> Result<()> {
        let (dir, name) = parent_and_name(path);
        named(dir, fs::create_dir_all(dir))?;
        let temporary = format!("{dir}/.{name}.partial");
        let written = named(&temporary, File::create(&temporary)).and_then(|file| {
            let mut file = BufWriter::with_capacity(256 << 10, file);
            fill(&mut file)?;
            named(path, file.flush())?;
            self.rename(&temporary, path)
        });
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        named(to, fs::rename(from, to))
    }

    fn delete(&self, path: &str) -> Result<()> {
        match self.stat(path)? {
            None => Ok(()),
            Some(entry) if entry.is_dir => named(path, fs::remove_dir_all(path)),
            Some(_) => named(path, fs::remove_file(path)),
        }
    }
}

/// Directory and name of `path`; a trailing `/` does not count.
pub fn parent_and_name(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
        None => (".", path),
    }
}

fn entry_of(path: &Path) -> io::Result<Entry> {
    let metadata = fs::metadata(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Entry { name, bytes: metadata.len(), is_dir: metadata.is_dir() })
}

fn named<T>(path: &str, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::from(error).in_file(path))
}
