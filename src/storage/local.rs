//! The file system of this machine.

use std::fs;
use std::io::{self, BufRead};
use std::ops::Range;
use std::path::Path;

use bytes::{Buf, Bytes};

use super::{Entry, FileSystem, Fill, Source, file};

/// Paths as the operating system knows them.
pub(super) struct Local;

impl FileSystem for Local {
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        fs::read_dir(directory)?.map(|entry| entry_of(&entry?.path())).collect()
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        match entry_of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            entry => entry.map(Some),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>> {
        file::try_map(path).map(|map| Box::new(map) as Box<dyn Source>)
    }

    fn create(&self, path: &Path, fill: &Fill) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        file::try_write_atomic(path, fill)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.stat(to)? {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => fs::rename(from, to),
        }
    }

    fn delete(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
        }
    }
}

fn entry_of(path: &Path) -> io::Result<Entry> {
    let found = fs::metadata(path)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Entry { name, bytes: if found.is_dir() { 0 } else { found.len() }, is_dir: found.is_dir() })
}

/// A whole file, mapped.
impl Source for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.end > self.length() || range.start > range.end {
            return Err(super::beyond_the_end(&range, self.length()));
        }
        Ok(self.slice(range.start as usize..range.end as usize))
    }

    fn reader(&self, range: Range<u64>) -> Box<dyn BufRead + Send> {
        let end = range.end.min(self.length()) as usize;
        Box::new(self.slice((range.start as usize).min(end)..end).reader())
    }
}
