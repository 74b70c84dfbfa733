//! Files of the local file system.

// A memory map is unsafe because the file may change under it; `map` states what that means here.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;

use crate::error::Error;

/// Maps a whole regular file, read-only; nothing is copied and pages are read as they are touched.
///
/// The file must not be changed in place while it is mapped: bytes then change under the reader, and one that
/// is truncated by another process ends this one with SIGBUS. Replacing it by a rename, as [`write_atomic`]
/// does, is safe: the map keeps the old file.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened or is no regular file.
pub fn map(path: &Path) -> Result<Bytes, Error> {
    try_map(path).map_err(Error::io("read", path))
}

fn try_map(path: &Path) -> io::Result<Bytes> {
    open_regular(path).and_then(|file| map_open(&file))
}

pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    // Asked before it is opened: opening a pipe waits for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    File::open(path)
}

pub(super) fn map_open(file: &File) -> io::Result<Bytes> {
    // SAFETY: the map is private to this process and read-only. What remains is another process that writes
    // or truncates the file meanwhile; the documentation of `map` makes that the caller's contract, as no system
    // call can prevent it.
    let map = unsafe { memmap2::Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}

/// Writes a file so that readers and a crash at any moment see the old content or the whole new one.
///
/// `content` writes into a buffered temporary file beside `path` (its name begins with `.`); it is then
/// synced, renamed to `path`, and the directory is synced. On failure the temporary file is removed and
/// `path` is as it was.
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
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    let mut writer = BufWriter::with_capacity(256 << 10, temporary);
    content(&mut writer)?;
    let temporary = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    File::open(directory)?.sync_all()
}

/// Makes sure that the names in a directory outlive a crash.
///
/// # Errors
/// [`Error::Io`] when it cannot be opened or synced.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::tempdir;

    #[test]
    fn a_sub_range_of_a_map_shares_it_and_outlives_it() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("file");
        write_atomic(&path, |out| out.write_all(b"0123456789")).unwrap();
        let whole = map(&path).unwrap();
        let part = whole.slice(3..7);
        assert_eq!(part.as_ptr(), whole[3..].as_ptr());
        drop(whole);
        assert_eq!(&part[..], b"3456");
    }

    #[test]
    fn a_replaced_file_stays_as_it_was_in_its_map() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("file");
        write_atomic(&path, |out| out.write_all(b"old")).unwrap();
        let old = map(&path).unwrap();
        write_atomic(&path, |out| out.write_all(b"")).unwrap();
        assert_eq!((&old[..], map(&path).unwrap().len()), (&b"old"[..], 0));
    }

    #[test]
    fn what_cannot_be_mapped_is_named() {
        let directory = tempdir().unwrap();
        let message = |path: &Path| map(path).unwrap_err().to_string();
        let missing = directory.path().join("missing");
        let expected = format!("cannot read {}: No such file", missing.display());
        assert!(message(&missing).starts_with(&expected), "{}", message(&missing));
        assert!(message(&missing).ends_with("; check the path"));
        assert!(message(directory.path()).ends_with("it is not a regular file"));
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_nothing_else() {
        let directory = tempdir().unwrap();
        let path = directory.path().join("file");
        write_atomic(&path, |out| out.write_all(b"old")).unwrap();
        let error = write_atomic(&path, |out| {
            out.write_all(&vec![1; 1 << 20])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("free some space"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let directory = tempdir().unwrap();
        for path in ["no/such/directory/file", "file/..", "/"] {
            let path = directory.path().join(path);
            let error = write_atomic(&path, |out| out.write_all(b"x")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        }
    }
}
