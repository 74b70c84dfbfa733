//! The file system of this machine.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{Entry, FileSystem, Fill, Source, file};

/// Readers of records have windows of this size, which their reads then go to directly.
const BUFFER_BYTES: usize = 256 << 10;

/// Paths as the operating system knows them.
pub(super) struct Local;

impl FileSystem for Local {
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let path = entry?.path();
            match entry_of(&path) {
                // It went while the directory was read. A link to nothing is still there.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() =>
                {
                    Ok(None)
                }
                entry => entry.map(Some),
            }
        };
        fs::read_dir(directory)?.filter_map(|found| entry(found).transpose()).collect()
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        match entry_of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            entry => entry.map(Some),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>> {
        let file = file::open_regular(path)?;
        let map = file::map_open(&file)?;
        Ok(Box::new(LocalFile { file: Arc::new(file), map }))
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

/// An open file. Ranges that are asked for at once are parts of a map; streams are read, so that a file which is cut off meanwhile, as
/// data may be and a model never is, ends them with an error and not the process with SIGBUS.
struct LocalFile {
    file: Arc<File>,
    map: Bytes,
}

impl Source for LocalFile {
    fn length(&self) -> u64 {
        self.map.len() as u64
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.end > self.length() || range.start > range.end {
            return Err(super::beyond_the_end(&range, self.length()));
        }
        Ok(self.map.slice(range.start as usize..range.end as usize))
    }

    fn reader(&self, range: Range<u64>) -> Box<dyn BufRead + Send> {
        let stream = Stream { file: self.file.clone(), range: range.start..range.end.min(self.length()) };
        Box::new(BufReader::with_capacity(BUFFER_BYTES, stream))
    }
}

/// What is left to be read of a file.
struct Stream {
    file: Arc<File>,
    range: Range<u64>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(self.range.end.saturating_sub(self.range.start) as usize);
        let count = self.file.read_at(&mut buffer[..wanted], self.range.start)?;
        self.range.start += count as u64;
        Ok(count)
    }
}
