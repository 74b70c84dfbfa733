//! Files of the local file system.

// A memory map is unsafe because the file may change under it; `map` states what that means here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;

use crate::error::Error;

/// Maps a whole regular file, read-only; nothing is copied and pages are read as they are touched.
///
/// The file must not be changed in place while it is mapped: bytes then change under the reader, and one that is
/// truncated by another process ends this one with SIGBUS. Replacing it by a rename, as [`write_atomic`] does, is safe:
/// the map keeps the old file.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened or is no regular file.
pub fn map(path: &Path) -> Result<Bytes, Error> {
    try_map(path).map_err(Error::io("read", path))
}

pub(super) fn try_map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // SAFETY: the map is private to this process and read-only. What remains is another process that writes or truncates
    // the file meanwhile; the documentation above makes that the caller's contract, as no system call can prevent it.
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    Ok(Bytes::from_owner(map))
}

/// Writes a file so that readers and a crash at any moment see the old content or the whole new one.
///
/// `content` writes into a buffered temporary file beside `path` (its name begins with `.`); it is then synced, renamed to
/// `path`, and the directory is synced. On failure the temporary file is removed and `path` is as it was.
///
/// # Errors
/// [`Error::Io`] naming `path`, whether `content` or the file system failed.
pub fn write_atomic(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    try_write_atomic(path, content).map_err(Error::io("write", path))
}

pub(super) fn try_write_atomic(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_string_lossy();
    let temporary = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        // As `File::create` would: the umask decides, and not tempfile's rule of "owner only".
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    let mut writer = BufWriter::with_capacity(256 << 10, temporary);
    content(&mut writer)?;
    let temporary = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    File::open(directory)?.sync_all()
}
