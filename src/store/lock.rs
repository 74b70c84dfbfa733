//! Who may write to a model directory.
//!
//! On this machine the operating system locks a file, until it is closed, which the end of the process does too, however it ends. HDFS
//! has no such lock. There `.lock` names its owner: a rename makes it, which fails where it is already, so that of two runs one gets it.
//! It stays behind when its owner is killed, and is then taken over by a run on the same host, which sees that the owner is gone; on
//! another host nobody can know, and the error says what to delete.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::storage::path::Location;
use crate::storage::{Storage, owner};

/// The file that is locked.
const LOCK: &str = ".lock";

/// A lock that is held; dropping it gives it back.
pub(super) enum Lock {
    /// Unlocked when it is closed.
    Local { file: File, path: PathBuf },
    /// Deleted when it is dropped.
    Hdfs { storage: Arc<Storage>, path: PathBuf, owner: String },
}

impl Lock {
    /// Takes the lock of a directory, which is made, with `checkpoints` in it, if it is not there.
    pub(super) fn take(storage: &Arc<Storage>, directory: &Path) -> Result<Lock, Error> {
        match storage.locate(directory)? {
            Location::Local(local) => take_local(&local),
            Location::Hdfs { .. } => take_hdfs(storage, directory),
        }
    }

    /// Whether what is locked is still what lies in the directory.
    pub(super) fn is_held(&self) -> bool {
        match self {
            Lock::Local { file, path } => {
                let of = |metadata: io::Result<Metadata>| {
                    metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok()
                };
                of(file.metadata()) == of(fs::metadata(path))
            }
            Lock::Hdfs { storage, path, owner } => {
                owner::read(storage, path).is_ok_and(|found| found.as_ref() == Some(owner))
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_held()
            && let Lock::Hdfs { storage, path, .. } = self
        {
            // What stays behind is taken over by the next run on this host.
            let _ = storage.delete(path);
        }
    }
}

fn take_local(directory: &Path) -> Result<Lock, Error> {
    let checkpoints = directory.join("checkpoints");
    fs::create_dir_all(&checkpoints).map_err(Error::io("create", &checkpoints))?;
    let path = directory.join(LOCK);
    let options = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options().map_err(Error::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(Error::io("write", &path))?;
            writeln!(file, "{}", std::process::id()).map_err(Error::io("write", &path))?;
            Ok(Lock::Local { file, path })
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(Error::io("read", &path))?;
            Err(Error::Locked { directory: directory.to_owned(), pid: pid.trim().to_owned() })
        }
        Err(TryLockError::Error(cause)) => Err(Error::Io { action: "lock", path, cause }),
    }
}

fn take_hdfs(storage: &Arc<Storage>, directory: &Path) -> Result<Lock, Error> {
    let path = directory.join(LOCK);
    let owner = owner::this_process();
    let offer = directory.join(format!("{LOCK}.{}", owner::unique_name(&owner)));
    storage.create(&offer, &|out| out.write_all(owner.as_bytes()))?;
    let taken = match owner::read(storage, &path) {
        Ok(Some(found)) if !owner::is_gone(&found) => Err(held_by(directory, &path, &found)),
        Ok(found) => found.map_or(Ok(()), |_| storage.delete(&path)).and_then(|()| {
            storage.rename(&offer, &path).map_err(|error| match owner::read(storage, &path) {
                Ok(Some(found)) => held_by(directory, &path, &found),
                _ => error,
            })
        }),
        Err(error) => Err(error),
    };
    if let Err(error) = taken {
        // The reason why it cannot be taken is the one to tell.
        let _ = storage.delete(&offer);
        return Err(error);
    }
    Ok(Lock::Hdfs { storage: Arc::clone(storage), path, owner })
}

fn held_by(directory: &Path, lock: &Path, owner: &str) -> Error {
    let mut words = owner.split(' ');
    let (pid, host) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let pid = format!("{pid} on {host} (if that is gone, delete {})", lock.display());
    Error::Locked { directory: directory.to_owned(), pid }
}
