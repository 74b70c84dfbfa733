//! Where the ranks' logs are: in a directory of this machine as they grow, or, where the run's directory is on HDFS, whose files do not
//! grow, there at the end.

use crate::error::Error;
use muster::storage::Storage;
use muster::storage::path::Location;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The directory of the logs in a run's directory.
const LOGS: &str = "logs";

/// See the module.
pub struct Logs {
    directory: PathBuf,
    /// What has them at the end, and where they are until then.
    remote: Option<(Storage, PathBuf, TempDir)>,
}

impl Logs {
    /// Those of a run in `run_directory`, which is made if it is not there.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub fn open(run_directory: &Path) -> Result<Logs, Error> {
        let (storage, place) = (Storage::from_environment()?, run_directory.join(LOGS));
        if let Location::Local(directory) = storage.locate(&place)? {
            fs::create_dir_all(&directory).map_err(Error::io("create", directory.display()))?;
            return Ok(Logs { directory, remote: None });
        }
        // What cannot be written at the end is known now.
        storage.create(place.join("driver.log"), &|out| writeln!(out, "process {}", std::process::id()))?;
        let waiting = tempfile::tempdir().map_err(Error::io("create", "a temporary directory"))?;
        Ok(Logs { directory: waiting.path().to_owned(), remote: Some((storage, place, waiting)) })
    }

    /// Where logs are written.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Logs {
    /// Copies the logs to where they belong; if that fails, they stay where they are, and a line says so.
    fn drop(&mut self) {
        let Some((storage, place, waiting)) = self.remote.take() else { return };
        if let Err(error) = copy(&storage, &place, waiting.path()) {
            eprintln!("muster: warning: {error}; the logs of the ranks are in {}", waiting.keep().display());
        }
    }
}

fn copy(storage: &Storage, place: &Path, from: &Path) -> Result<(), Error> {
    let read = || Error::io("read", from.display());
    for entry in fs::read_dir(from).map_err(read())? {
        let entry = entry.map_err(read())?;
        let log = fs::read(entry.path()).map_err(read())?;
        storage.create(place.join(entry.file_name()), &|out| out.write_all(&log))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_this_machine_are_where_they_belong_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let logs = Logs::open(&directory.path().join("run")).unwrap();
        fs::write(logs.directory().join("rank-0.log"), "x").unwrap();
        drop(logs);
        assert_eq!(fs::read(directory.path().join("run/logs/rank-0.log")).unwrap(), b"x");
        fs::write(directory.path().join("file"), "").unwrap();
        let error = Logs::open(&directory.path().join("file")).err().unwrap().to_string();
        assert!(error.contains("file/logs"), "{error}");
    }

    #[test]
    fn what_cannot_be_copied_stays() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("rank-1.log"), "y").unwrap();
        let storage = Storage::from_environment().unwrap();
        fs::write(to.path().join("file"), "").unwrap();
        assert!(copy(&storage, &to.path().join("file"), from.path()).is_err());
        copy(&storage, &to.path().join("logs"), from.path()).unwrap();
        assert_eq!(fs::read(to.path().join("logs/rank-1.log")).unwrap(), b"y");
        assert!(from.path().join("rank-1.log").exists());
    }
}
