//! The file by which `muster status` and `muster stop` find a job: its address and key, readable by its owner alone.

use crate::channel::{self, Side};
use crate::driver::Driver;
use crate::error::Error;
use crate::key::JobKey;
use crate::message::{self, Hello, MESSAGE_MAX, Status};
use crate::process::start_time;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a driver may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What the file holds, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The job's name.
    pub job: String,
    /// The driver's process.
    pub pid: u32,
    /// When that process began; a file whose process is not there any more is stale.
    pub start_time: u64,
    /// Of the control channel.
    pub address: SocketAddr,
    /// Of the job, as hexadecimal digits.
    pub key: String,
    /// The program and its arguments.
    pub program: Vec<String>,
}

/// A job's file; it is removed when this is dropped.
pub struct JobFile(PathBuf);

impl JobFile {
    /// Writes the file of a driver of this process.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(driver: &Driver) -> Result<JobFile, Error> {
        let pid = std::process::id();
        let port = driver.address().port();
        let name = Path::new(&driver.job.program[0]).file_name().unwrap_or_default().to_string_lossy();
        let entry = Entry {
            job: format!("{name}-{port}"),
            pid,
            start_time: start_time(pid).unwrap_or(0),
            address: driver.address(),
            key: driver.key().to_hex(),
            program: driver.job.program.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        };
        JobFile::write(&directory()?, &entry)
    }

    fn write(directory: &Path, entry: &Entry) -> Result<JobFile, Error> {
        let failed = |path: &Path| Error::io("write the job's file", path.display().to_string());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
        let path = directory.join(format!("{}-{}.json", entry.job, entry.pid));
        // A file of the same name can only be a stale one. It is never opened: its mode could be another.
        let _ = fs::remove_file(&path);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let json = serde_json::to_vec_pretty(entry).expect("an entry has a JSON form");
        file.and_then(|mut file| file.write_all(&json)).map_err(failed(&path))?;
        Ok(JobFile(path))
    }
}

impl Drop for JobFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Where job files lie: `$XDG_RUNTIME_DIR/muster`, else `~/.local/state/muster`.
///
/// # Errors
/// If neither XDG_RUNTIME_DIR nor HOME is set.
pub fn directory() -> Result<PathBuf, Error> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || given("HOME").map(|home| home.join(".local/state"));
    let base = given("XDG_RUNTIME_DIR").filter(|base| base.is_absolute()).or_else(home);
    base.map(|base| base.join("muster")).ok_or_else(|| Error::Usage {
        what: "there is no place for the job's file".to_owned(),
        mend: "set HOME or XDG_RUNTIME_DIR",
    })
}

/// All jobs of this user whose driver runs, by name. Stale files are removed, and so is nothing else.
///
/// # Errors
/// If the directory cannot be read.
pub fn list(directory: &Path) -> Result<Vec<Entry>, Error> {
    let files = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files.map_err(Error::io("read", directory.display()))?,
    };
    let mut entries = Vec::new();
    for path in
        files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        let Some(entry) = fs::read(&path).ok().and_then(|json| serde_json::from_slice::<Entry>(&json).ok())
        else {
            continue;
        };
        if start_time(entry.pid) == Some(entry.start_time) {
            entries.push(entry);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
    entries.sort_by(|a, b| a.job.cmp(&b.job));
    Ok(entries)
}

impl Entry {
    /// Asks the driver how the job is, or to stop it ([`Hello::Stop`]).
    ///
    /// # Errors
    /// If it does not answer.
    pub fn ask(&self, hello: &Hello) -> Result<Status, Error> {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let key: JobKey = self.key.parse().map_err(|_| self.silent("its file holds no key"))?;
        let stream =
            TcpStream::connect_timeout(&address, ANSWER_MAX).map_err(Error::io("connect to", address))?;
        let (mut sender, mut receiver) = channel::open(stream, &key, Side::Connector, MESSAGE_MAX)?;
        receiver.set_timeout(Some(ANSWER_MAX)).map_err(Error::io("connect to", address))?;
        message::send(&mut sender, hello).map_err(Error::io("ask", address))?;
        message::receive(&mut receiver)?.ok_or_else(|| self.silent("it has just ended"))
    }

    fn silent(&self, reason: &str) -> Error {
        Error::DriverLost { address: self.address.to_string(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry(job: &str, start_time: u64) -> Entry {
        let (job, key) = (job.to_owned(), JobKey::random().to_hex());
        let address = "127.0.0.1:1".parse().unwrap();
        Entry { job, pid: std::process::id(), start_time, address, key, program: vec!["mnist".to_owned()] }
    }

    #[test]
    fn only_the_owner_reads_it_and_it_is_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("muster");
        let start = start_time(std::process::id()).unwrap();
        let (a, b) = (
            JobFile::write(&place, &entry("a", start)).unwrap(),
            JobFile::write(&place, &entry("b", start)).unwrap(),
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&a.0), mode(&place)), (0o600, 0o700));
        let names = || list(&place).unwrap().into_iter().map(|entry| entry.job).collect::<Vec<_>>();
        assert_eq!(names(), ["a", "b"]);
        drop(a);
        assert_eq!(names(), ["b"]);
        drop(b);
        assert!(names().is_empty());
    }

    #[test]
    fn a_stale_file_is_known_by_its_process_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let stale = JobFile::write(directory.path(), &entry("a", 1)).unwrap();
        fs::write(directory.path().join("other.json"), "{}").unwrap();
        assert!(list(directory.path()).unwrap().is_empty());
        assert!(!stale.0.exists());
        assert!(directory.path().join("other.json").exists());
        assert!(list(&directory.path().join("none")).unwrap().is_empty());
    }
}
