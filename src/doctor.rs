//! Checks what a run needs of its storage, and says what is wrong and what mends it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::storage::Storage;
use crate::storage::path::Location;

/// One thing that was checked; prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as a run needs it.
    pub good: bool,
    /// What was found and, where it is not good, what mends it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.good { "ok   " } else { "WRONG" }, self.what)
    }
}

/// Checks the configuration of `storage`, then each path: whether its file system answers, and whether what lies there can
/// be listed and read, written, renamed and deleted. A path that does not exist yet is checked in the nearest directory
/// above it that does. What the checks write is deleted again.
#[must_use]
pub fn examine(storage: &Storage, paths: &[PathBuf]) -> Vec<Finding> {
    let mut findings = configuration(storage);
    for path in paths {
        examine_path(storage, path, &mut findings);
    }
    findings
}

fn configuration(storage: &Storage) -> Vec<Finding> {
    let config = storage.config();
    let files: Vec<_> = config.files().iter().map(|file| file.display().to_string()).collect();
    let configuration = if files.is_empty() {
        "no Hadoop configuration: paths without a scheme are of this machine; for HDFS set HADOOP_CONF_DIR to the \
         directory of core-site.xml, or write hdfs://HOST:PORT/PATH"
            .to_owned()
    } else {
        format!("Hadoop configuration: {}; fs.defaultFS is {}", files.join(", "), config.default_fs())
    };
    let secure = config.get("hadoop.security.authentication").is_some_and(|method| method != "simple");
    let user = match config.user() {
        _ if secure => "the user on HDFS is that of the Kerberos ticket, which `klist` shows".to_owned(),
        Some(user) => format!("the user on HDFS is {user}, by HADOOP_USER_NAME"),
        None => "the user on HDFS is that of the operating system; HADOOP_USER_NAME names another".to_owned(),
    };
    [configuration, user].map(|what| Finding { good: true, what }).into()
}

/// Each step needs the one before, so the first that fails ends the examination of the path.
fn examine_path(storage: &Storage, path: &Path, findings: &mut Vec<Finding>) {
    let mut steps = || -> Result<(), Error> {
        let mut good = |what: String| findings.push(Finding { good: true, what });
        match storage.locate(path)? {
            Location::Local(local) => {
                good(format!("{}: on this machine, {}", path.display(), local.display()))
            }
            Location::Hdfs { filesystem, path: inner } => {
                good(format!("{}: on {filesystem}, {inner}", path.display()));
            }
        }
        let directory = match storage.stat(path)? {
            Some(entry) if !entry.is_dir => {
                let file = storage.file(path)?;
                file.bytes(0..file.length().min(1)).map_err(Error::io("read", path))?;
                good(format!("{}: a file of {} bytes that can be read", path.display(), entry.bytes));
                return Ok(());
            }
            Some(_) => path.to_owned(),
            None => nearest_directory(storage, path)?,
        };
        let entries = storage.list(&directory)?.len();
        good(format!("{}: can be listed; {entries} entries", directory.display()));
        try_out(storage, &directory)?;
        good(format!("{}: files in it can be written, read, renamed and deleted", directory.display()));
        Ok(())
    };
    if let Err(error) = steps() {
        findings.push(Finding { good: false, what: mend(storage, &error) });
    }
}

fn nearest_directory(storage: &Storage, path: &Path) -> Result<PathBuf, Error> {
    let above =
        path.ancestors().skip(1).map(|above| if above == Path::new("") { Path::new(".") } else { above });
    for directory in above {
        if storage.stat(directory)?.is_some_and(|entry| entry.is_dir) {
            return Ok(directory.to_owned());
        }
    }
    Err(Error::io("find a directory above", path)(io::ErrorKind::NotFound.into()))
}

/// Writes, reads, renames and deletes a small file. What is left of it after a failure is deleted where possible.
fn try_out(storage: &Storage, directory: &Path) -> Result<(), Error> {
    let (written, renamed) = [".written", ".renamed"]
        .map(|end| directory.join(format!(".muster-doctor-{}{end}", std::process::id())))
        .into();
    let probe = b"muster doctor";
    let tried = (|| {
        storage.create(&written, &|writer| writer.write_all(probe))?;
        let bytes =
            storage.file(&written)?.bytes(0..probe.len() as u64).map_err(Error::io("read", &written))?;
        if bytes[..] != probe[..] {
            let what = "other bytes came back than were written; check the disks with `hdfs fsck`";
            return Err(Error::io("read", &written)(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        storage.rename(&written, &renamed)?;
        storage.delete(&renamed)
    })();
    if tried.is_err() {
        // The first error is the one to report.
        let _ = storage.delete(&written).and_then(|()| storage.delete(&renamed));
    }
    tried
}

/// The error with the advice that only an examination of storage can give.
fn mend(storage: &Storage, error: &Error) -> String {
    let Error::Io { cause, .. } = error else { return error.to_string() };
    let advice = match cause.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => {
            format!(
                "; see that the NameNode and the DataNodes run and that host and port are right (fs.defaultFS is {})",
                storage.config().default_fs()
            )
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; wait for the end of safe mode, or `hdfs dfsadmin -safemode leave`".to_owned()
        }
        _ => String::new(),
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::HadoopConfig;

    fn examined(path: &Path) -> Vec<Finding> {
        examine(&Storage::new(HadoopConfig::default()), &[path.to_owned()])
    }

    #[test]
    fn a_good_directory_is_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().to_owned(), directory.path().join("not/yet/there")] {
            let findings = examined(&path);
            assert!(findings.iter().all(|finding| finding.good), "{findings:?}");
            assert!(findings.last().unwrap().what.contains("written, read, renamed and deleted"));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_read_and_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "1234").unwrap();
        let findings = examined(&path);
        assert!(findings.last().unwrap().what.contains("a file of 4 bytes that can be read"), "{findings:?}");
    }

    #[test]
    fn what_is_wrong_comes_last_and_says_what_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        for (path, word) in
            [(directory.path().join("file/below"), "file"), (PathBuf::from("s3://bucket/x"), "hdfs://")]
        {
            let findings = examined(&path);
            let last = findings.last().unwrap();
            assert!(
                !last.good && last.to_string().starts_with("WRONG") && last.what.contains(word),
                "{findings:?}"
            );
        }
    }
}
