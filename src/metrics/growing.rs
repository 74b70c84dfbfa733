//! A file that grows while it is read.

use crate::error::Error;
use crate::storage::Storage;
use crate::storage::path::Location;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that wait for room on a full disk; more are given up.
const PENDING_MAX: usize = 16 << 20;
/// The least time between two replacements of a file that cannot grow.
const REPLACE_EVERY: Duration = Duration::from_secs(10);
/// A replacement may take this share of the time.
const REPLACE_SHARE: u32 = 20;

/// A file to which bytes are appended. On this machine it grows; elsewhere it is replaced as a whole from time to time.
pub struct Growing {
    path: PathBuf,
    place: Place,
    /// What is not in the file yet.
    pending: Vec<u8>,
}

enum Place {
    /// The file and its length without what was cut.
    Local(File, u64),
    /// What is in the file, and when it may be replaced again.
    Remote { storage: Arc<Storage>, written: Vec<u8>, not_before: Instant },
}

impl Growing {
    /// Opens a file, and makes the directories that lead to it. What is in it stays, up to the end of its last line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open(storage: &Arc<Storage>, path: &Path) -> Result<Growing, Error> {
        let place = match storage.locate(path)? {
            Location::Local(path) => open_local(&path).map_err(Error::io("write", &path))?,
            Location::Hdfs { .. } => {
                let mut written = Vec::new();
                if storage.stat(path)?.is_some() {
                    let file = storage.file(path)?;
                    let all = file.bytes(0..file.length()).map_err(Error::io("read", path))?;
                    written.extend_from_slice(&all[..whole_lines(&all)]);
                }
                Place::Remote { storage: storage.clone(), written, not_before: Instant::now() }
            }
        };
        Ok(Growing { path: path.to_owned(), place, pending: Vec::new() })
    }

    /// What is to be appended next.
    pub fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Brings the file up to date; one that is replaced only when it is due, unless this is the `last` time.
    ///
    /// # Errors
    /// If it cannot be written. What was to be written then waits for the next time, unless it has become too much.
    pub fn flush(&mut self, last: bool) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let done = match &mut self.place {
            Place::Local(file, length) => append(&self.path, file, length, &self.pending)
                .map(|()| self.pending.clear())
                .map_err(Error::io("write", &self.path)),
            Place::Remote { not_before, .. } if !last && Instant::now() < *not_before => Ok(()),
            Place::Remote { storage, written, not_before } => {
                let (begin, length) = (Instant::now(), written.len());
                written.append(&mut self.pending);
                let done = storage.create(&self.path, &|out| out.write_all(written));
                if done.is_err() {
                    self.pending.extend(written.drain(length..));
                }
                *not_before = Instant::now() + REPLACE_EVERY.max(REPLACE_SHARE * begin.elapsed());
                done
            }
        };
        if self.pending.len() > PENDING_MAX {
            self.pending.clear();
        }
        done
    }
}

fn open_local(path: &Path) -> io::Result<Place> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut content = Vec::new();
    io::Read::read_to_end(&mut file, &mut content)?;
    let length = whole_lines(&content) as u64;
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(Place::Local(file, length))
}

/// Bytes up to the end of the last line that has one.
fn whole_lines(content: &[u8]) -> usize {
    memchr::memrchr(b'\n', content).map_or(0, |at| at + 1)
}

/// Appends all of it or nothing.
fn append(path: &Path, file: &mut File, length: &mut u64, bytes: &[u8]) -> io::Result<()> {
    // A file that was deleted goes on taking bytes; nobody would read them.
    fs::symlink_metadata(path)?;
    match file.write_all(bytes) {
        Ok(()) => {
            *length += bytes.len() as u64;
            Ok(())
        }
        Err(error) => {
            file.set_len(*length)?;
            file.seek(SeekFrom::Start(*length))?;
            Err(error)
        }
    }
}
