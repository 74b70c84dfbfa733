//! Who may write to a model directory.
//!
//! On this machine the operating system locks a file, until it is closed, which the end of the process does too, however it ends. HDFS
//! has no such lock. There `.lock` names its owner: a rename makes it, which fails where it is already, so that of two runs one gets it.
//! It stays behind when its owner is killed, and is then taken over by a run on the same host, which sees that the owner is gone; on
//! another host nobody can know, and the error says what to delete.

use std::fs::{self, File, Metadata, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::storage::Storage;
use crate::storage::path::Location;

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
                owner_of(storage, path).is_ok_and(|found| found.as_ref() == Some(owner))
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
    let pid = std::process::id();
    // One process may take the lock several times, and must not take one for another.
    let random = RandomState::new().build_hasher().finish();
    let owner = format!("{pid} {} {} {random:016x}", host(), started(pid).unwrap_or_default());
    let offer = directory.join(format!("{LOCK}.{random:016x}"));
    storage.create(&offer, &|out| out.write_all(owner.as_bytes()))?;
    let taken = match owner_of(storage, &path) {
        Ok(Some(found)) if !is_gone(&found) => Err(held_by(directory, &path, &found)),
        Ok(found) => found.map_or(Ok(()), |_| storage.delete(&path)).and_then(|()| {
            storage.rename(&offer, &path).map_err(|error| match owner_of(storage, &path) {
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

fn owner_of(storage: &Storage, path: &Path) -> Result<Option<String>, Error> {
    let Some(entry) = storage.stat(path)? else { return Ok(None) };
    let bytes = storage.file(path)?.bytes(0..entry.bytes).map_err(Error::io("read", path))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Whether the owner was a process of this host that has ended.
fn is_gone(owner: &str) -> bool {
    let mut words = owner.split(' ');
    let pid = words.next().and_then(|pid| pid.parse().ok());
    match (pid, words.next(), words.next()) {
        (Some(pid), Some(of), Some(since)) => of == host() && started(pid).as_deref() != Some(since),
        _ => false,
    }
}

/// The host's name and the boot's identity: process ids of containers that share a name are not mistaken for each other's.
fn host() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    format!("{}/{}/{number}", read("/proc/sys/kernel/hostname"), read("/proc/sys/kernel/random/boot_id"))
}

/// When a process of this host started, in ticks after the boot; none when there is no such process.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may itself hold blanks and parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_this_host_that_ended_is_gone() {
        let own = std::process::id();
        let since = started(own).unwrap();
        assert!(!is_gone(&format!("{own} {} {since}", host())));
        assert!(is_gone(&format!("{own} {} {since}1", host())), "another process has that number now");
        assert!(is_gone(&format!("{} {} {since}", u32::MAX, host())));
        assert!(!is_gone(&format!("{} elsewhere {since}", u32::MAX)));
        assert!(!is_gone("damaged"));
    }
}
