//! Where bytes lie: files of this machine and of HDFS behind one [`Storage`], read by ranges and written atomically.
//!
//! A path is a [`Path`] of the standard library that may begin with a scheme, so `join` and `file_name` work on every
//! path alike; [`path::locate`] has the rules. [`Bytes`] is a range of a memory map or of a buffer; a sub-range shares it
//! instead of copying.

mod hadoop;
mod hdfs;
mod local;
pub(crate) mod owner;

pub mod file;
pub mod path;

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use bytes::Bytes;
pub use hadoop::HadoopConfig;

use crate::error::Error;
use path::Location;

/// A file or a directory in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in its directory.
    pub name: String,
    /// Length of a file; 0 for a directory.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// An open file, whose content must not change while it is open. A replacement by [`Storage::create`] leaves a file of
/// this machine open as it was; on HDFS the blocks of the old file go after a while, and reading it then fails.
pub trait Source: Send + Sync {
    /// Bytes in the file.
    fn length(&self) -> u64;

    /// The bytes of `range` at once.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range ends beyond the file; else what the file system says.
    fn bytes(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// The bytes of `range` one after the other, read ahead by a bounded amount; a range that ends beyond the file ends
    /// with it.
    fn reader(&self, range: Range<u64>) -> Box<dyn BufRead + Send>;
}

/// Writes the content of a file. It is called again, from the start, when a first attempt broke off, and must then write
/// the same bytes. An [`Error`] that it wraps by [`io::Error::other`] comes out of [`Storage::create`] as it is.
pub type Fill<'a> = dyn Fn(&mut dyn Write) -> io::Result<()> + 'a;

/// What each file system does; paths are those of the file system itself.
trait FileSystem: Send + Sync {
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>>;
    fn stat(&self, path: &Path) -> io::Result<Option<Entry>>;
    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>>;
    fn create(&self, path: &Path, fill: &Fill) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn delete(&self, path: &Path) -> io::Result<()>;
}

/// All file systems: each call finds the one that its path means. Clones share their connections.
#[derive(Clone)]
pub struct Storage {
    config: HadoopConfig,
    /// Those that were used, by scheme and authority; this machine's is `file://`.
    file_systems: Arc<Mutex<BTreeMap<String, Arc<dyn FileSystem>>>>,
}

impl Storage {
    /// The storage that the environment's Hadoop configuration describes; see [`HadoopConfig::from_environment`].
    ///
    /// # Errors
    /// [`Error::Io`] when the configuration cannot be read.
    pub fn from_environment() -> Result<Storage, Error> {
        HadoopConfig::from_environment().map(Storage::new)
    }

    /// The storage of a Hadoop configuration; the default one leaves paths without a scheme on this machine.
    #[must_use]
    pub fn new(config: HadoopConfig) -> Storage {
        Storage { config, file_systems: Arc::default() }
    }

    /// The configuration in use.
    #[must_use]
    pub fn config(&self) -> &HadoopConfig {
        &self.config
    }

    /// Where `path` lies.
    ///
    /// # Errors
    /// [`Error::Io`] when the path has an unknown scheme.
    pub fn locate(&self, path: impl AsRef<Path>) -> Result<Location, Error> {
        path::locate(path.as_ref(), self.config.default_fs()).map_err(Error::io("use", path.as_ref()))
    }

    /// What lies in a directory, sorted by name.
    ///
    /// # Errors
    /// [`Error::Io`] when `directory` is absent, is a file, or may not be read.
    pub fn list(&self, directory: impl AsRef<Path>) -> Result<Vec<Entry>, Error> {
        let mut entries = self.on("list", directory.as_ref(), |fs, directory| fs.list(directory))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The file or directory at `path`, none when it is absent.
    ///
    /// # Errors
    /// [`Error::Io`] when the file system does not answer or does not allow it.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Option<Entry>, Error> {
        self.on("look up", path.as_ref(), |fs, path| fs.stat(path))
    }

    /// Opens a file for several readings.
    ///
    /// # Errors
    /// [`Error::Io`] when `path` is absent, is a directory, or may not be read.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<Box<dyn Source>, Error> {
        self.on("read", path.as_ref(), |fs, path| fs.open(path))
    }

    /// Reads the bytes `range` of a file one after the other, as [`Source::reader`] does.
    ///
    /// # Errors
    /// Those of [`Storage::file`].
    pub fn open(&self, path: impl AsRef<Path>, range: Range<u64>) -> Result<Box<dyn BufRead + Send>, Error> {
        Ok(self.file(path)?.reader(range))
    }

    /// Writes a file whole or not at all, and the directories that lead to it: under a temporary name that begins with
    /// `.`, renamed at the end. Whoever reads meanwhile, or finds what a crash left, sees the old file or the new one.
    ///
    /// # Errors
    /// That of `fill`, or [`Error::Io`] naming `path`; what was at `path` is then as it was.
    pub fn create(&self, path: impl AsRef<Path>, fill: &Fill) -> Result<(), Error> {
        let path = path.as_ref();
        let (file_system, inner) = self.file_system(path)?;
        file_system.create(&inner, fill).map_err(|error| match error.downcast::<Error>() {
            Ok(of_fill) => of_fill,
            Err(error) => Error::io("write", path)(error),
        })
    }

    /// Renames a file or directory; nothing may be at `to`, and both must be on one file system.
    ///
    /// # Errors
    /// [`Error::Io`] naming `to` when it exists or lies elsewhere, and when renaming fails.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), Error> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (source, inner_from) = self.file_system(from)?;
        let (target, inner_to) = self.file_system(to)?;
        if !Arc::ptr_eq(&source, &target) {
            let why = format!("{} lies on another file system", from.display());
            return Err(Error::io("rename to", to)(io::Error::new(io::ErrorKind::CrossesDevices, why)));
        }
        source.rename(&inner_from, &inner_to).map_err(Error::io("rename to", to))
    }

    /// Deletes a file, or a directory with all that is in it; nothing happens when `path` is absent.
    ///
    /// # Errors
    /// [`Error::Io`] when that is not allowed.
    pub fn delete(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.on("delete", path.as_ref(), |fs, path| fs.delete(path))
    }

    fn on<T>(
        &self,
        action: &'static str,
        path: &Path,
        call: impl FnOnce(&dyn FileSystem, &Path) -> io::Result<T>,
    ) -> Result<T, Error> {
        let (file_system, inner) = self.file_system(path)?;
        call(&*file_system, &inner).map_err(Error::io(action, path))
    }

    /// The file system of `path` and what the path is called there.
    fn file_system(&self, path: &Path) -> Result<(Arc<dyn FileSystem>, PathBuf), Error> {
        let (key, inner) = match self.locate(path)? {
            Location::Local(inner) => ("file://".to_owned(), inner),
            Location::Hdfs { filesystem, path } => (filesystem, PathBuf::from(path)),
        };
        let mut file_systems = self.file_systems.lock().unwrap_or_else(PoisonError::into_inner);
        if !file_systems.contains_key(&key) {
            let new: Arc<dyn FileSystem> = match key.as_str() {
                "file://" => Arc::new(local::Local),
                filesystem => Arc::new(hdfs::Hdfs::new(filesystem, &self.config)),
            };
            file_systems.insert(key.clone(), new);
        }
        Ok((Arc::clone(&file_systems[&key]), inner))
    }
}

fn beyond_the_end(range: &Range<u64>, length: u64) -> io::Error {
    let what = format!("bytes {} to {} were asked for, but the file has {length}", range.start, range.end);
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn storage() -> (tempfile::TempDir, Storage) {
        (tempfile::tempdir().unwrap(), Storage::new(HadoopConfig::default()))
    }

    #[test]
    fn what_is_written_is_read_in_ranges() {
        let (directory, storage) = storage();
        let path = directory.path().join("new/dir/file");
        storage.create(&path, &|writer| writer.write_all(b"0123456789")).unwrap();
        let file = storage.file(&path).unwrap();
        assert_eq!(file.length(), 10);
        assert_eq!(&file.bytes(3..7).unwrap()[..], b"3456");
        assert_eq!(file.bytes(10..10).unwrap().len(), 0);
        assert_eq!(file.bytes(9..11).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut tail = String::new();
        file.reader(8..u64::MAX).read_to_string(&mut tail).unwrap();
        assert_eq!(tail, "89");
        assert_eq!(file.reader(11..12).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_scheme_makes_no_difference() {
        let (directory, storage) = storage();
        let plain = directory.path().join("file");
        let with_scheme = PathBuf::from(format!("file://{}", plain.display()));
        storage.create(&with_scheme, &|writer| writer.write_all(b"!")).unwrap();
        assert_eq!(storage.stat(&plain).unwrap(), storage.stat(&with_scheme).unwrap());
    }

    #[test]
    fn listings_are_sorted_and_know_sizes() {
        let (directory, storage) = storage();
        for (name, len) in [("b", 2), ("a", 1), ("c", 0)] {
            std::fs::write(directory.path().join(name), vec![0; len]).unwrap();
        }
        std::fs::create_dir(directory.path().join("d")).unwrap();
        let entries = storage.list(directory.path()).unwrap();
        let found: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.bytes, e.is_dir)).collect();
        assert_eq!(found, [("a", 1, false), ("b", 2, false), ("c", 0, false), ("d", 0, true)]);
        assert!(storage.list(directory.path().join("a")).is_err());
        assert!(storage.list(directory.path().join("absent")).is_err());
    }

    #[test]
    fn what_goes_while_a_directory_is_listed_is_left_out() {
        let (directory, storage) = storage();
        std::fs::write(directory.path().join("stays"), "!").unwrap();
        std::thread::scope(|scope| {
            let coming_and_going = scope.spawn(|| {
                let file = |n: usize| directory.path().join(format!("goes-{n}"));
                for _ in 0..20 {
                    (0..200).for_each(|n| std::fs::write(file(n), "").unwrap());
                    (0..200).for_each(|n| std::fs::remove_file(file(n)).unwrap());
                }
            });
            while !coming_and_going.is_finished() {
                assert!(storage.list(directory.path()).unwrap().iter().any(|entry| entry.name == "stays"));
            }
        });
        std::os::unix::fs::symlink("nothing", directory.path().join("link")).unwrap();
        assert!(storage.list(directory.path()).is_err(), "a link to nothing is there");
    }

    #[test]
    fn the_error_of_the_content_comes_out() {
        let (directory, storage) = storage();
        let path = directory.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let own = || Error::io("read", Path::new("/source"))(io::ErrorKind::NotFound.into());
        let failed = storage.create(&path, &|_| Err(io::Error::other(own()))).unwrap_err();
        assert_eq!(failed.to_string(), own().to_string());
        let failed = storage.create(&path, &|_| Err(io::Error::other("no more"))).unwrap_err();
        assert!(failed.to_string().contains("no more") && failed.to_string().contains("file"), "{failed}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn renaming_spares_what_is_there() {
        let (directory, storage) = storage();
        let [a, b, c] = ["a", "b", "c"].map(|name| directory.path().join(name));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        assert!(storage.rename(&a, &b).unwrap_err().to_string().contains("exists"));
        storage.rename(&a, &c).unwrap();
        assert_eq!(std::fs::read_to_string(&c).unwrap(), "a");
        assert_eq!(storage.stat(&a).unwrap(), None);
    }

    #[test]
    fn deleting_takes_all_and_forgives_absence() {
        let (directory, storage) = storage();
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(tree.join("below")).unwrap();
        std::fs::write(tree.join("below/file"), "!").unwrap();
        for _ in 0..2 {
            storage.delete(&tree).unwrap();
            assert!(!tree.exists());
        }
    }
}
