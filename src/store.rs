//! The model directory: checkpoints by step, the newest model, and who may write here.
//!
//! ```text
//! <model>/checkpoints/step-0000001200/{model,state}.safetensors    see [`crate::checkpoint`]
//! <model>/model.safetensors          a copy of the newest model, replaced last
//! <model>/checkpoints.previous/      the old model of a run with --no-resume, until its first checkpoint is whole
//! <model>/.lock                      held by the run that writes here; its process id
//! ```
//! A checkpoint is written under a temporary name, synced and renamed once, so that model and state are never of different
//! steps and a reader never sees half of one.

use crate::checkpoint::{self, Checkpoint, Identity};
use crate::error::Error;
use crate::storage::file;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The file that is locked.
const LOCK: &str = ".lock";

/// A model directory, held by this process alone.
pub struct Store {
    directory: PathBuf,
    keep: usize,
    /// Unlocked when it is closed.
    lock: Mutex<File>,
}

impl Store {
    /// Takes hold of a model directory, which is made if it is not there. `keep` checkpoints are kept.
    ///
    /// # Errors
    /// If it cannot be written, or another run holds it.
    pub fn open(directory: &Path, keep: usize) -> Result<Store, Error> {
        fs::create_dir_all(directory.join("checkpoints")).map_err(Error::io("create", directory))?;
        let lock = lock(directory)?;
        let store = Store { directory: directory.to_owned(), keep, lock: Mutex::new(lock) };
        store.clean_up()?;
        Ok(store)
    }

    fn checkpoints(&self) -> PathBuf {
        self.directory.join("checkpoints")
    }

    fn previous(&self) -> PathBuf {
        self.directory.join("checkpoints.previous")
    }

    /// Makes the directory anew if somebody removed it, unless another run has taken its place.
    fn hold(&self) -> Result<(), Error> {
        let checkpoints = self.checkpoints();
        fs::create_dir_all(&checkpoints).map_err(Error::io("create", &checkpoints))?;
        if !self.is_held() {
            *self.lock.lock().expect("no panic while it is held") = lock(&self.directory)?;
        }
        Ok(())
    }

    /// Whether the file that is locked is the one in the directory.
    fn is_held(&self) -> bool {
        let of =
            |metadata: io::Result<Metadata>| metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok();
        let held = self.lock.lock().expect("no panic while it is held").metadata();
        of(held) == of(fs::metadata(self.directory.join(LOCK)))
    }

    /// Removes what a run left half-written, and puts a model back that it had set aside without finishing one of its own.
    fn clean_up(&self) -> Result<(), Error> {
        let checkpoints = self.checkpoints();
        for name in names(&checkpoints)?.iter().filter(|name| name.starts_with(".tmp-")) {
            let path = checkpoints.join(name);
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        for name in names(&self.directory)?.iter().filter(|name| name.starts_with(".model.safetensors.")) {
            let path = self.directory.join(name);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        let previous = self.previous();
        if !previous.exists() {
            return Ok(());
        }
        if self.steps()?.is_empty() {
            fs::remove_dir(&checkpoints).map_err(Error::io("remove", &checkpoints))?;
            return fs::rename(&previous, &checkpoints).map_err(Error::io("rename", &previous));
        }
        fs::remove_dir_all(&previous).map_err(Error::io("remove", &previous))
    }

    /// Checkpoints that are there, by step, the newest last.
    fn steps(&self) -> Result<Vec<u64>, Error> {
        let step = |name: &String| name.strip_prefix("step-")?.parse().ok();
        let mut steps: Vec<u64> = names(&self.checkpoints())?.iter().filter_map(step).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn path(&self, steps: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{steps:010}"))
    }

    /// The newest checkpoint that is whole. `warn` is told of damaged ones.
    ///
    /// # Errors
    /// If there are checkpoints, but none is whole.
    pub fn newest(&self, mut warn: impl FnMut(&Error)) -> Result<Option<Checkpoint>, Error> {
        let mut damaged = None;
        for &steps in self.steps()?.iter().rev() {
            match read(&self.path(steps)) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => {
                    warn(&error);
                    damaged = Some(error);
                }
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Where a training of `identity` begins: at the newest checkpoint, or, where there is none or `resume` is not wanted, at the start.
    /// `warn` is told of damaged checkpoints and of another arithmetic, which `same_bits` makes an error.
    ///
    /// # Errors
    /// If the model there is of another training, or none of its checkpoints is whole.
    pub fn start(
        &self,
        identity: Identity,
        resume: bool,
        same_bits: bool,
        mut warn: impl FnMut(&Error),
    ) -> Result<Checkpoint, Error> {
        if !resume {
            self.set_aside()?;
            return Ok(Checkpoint::start(identity));
        }
        let Some(mut newest) = self.newest(&mut warn)? else { return Ok(Checkpoint::start(identity)) };
        let differences = newest.identity.differences(&identity);
        if !differences.is_empty() {
            let (directory, differences) = (self.directory.clone(), differences.join(", "));
            return Err(Error::OtherTraining { directory, differences });
        }
        if newest.identity.arithmetic != identity.arithmetic {
            let was = newest.identity.arithmetic.clone();
            let error = Error::OtherArithmetic { was, is: identity.arithmetic.clone() };
            if same_bits {
                return Err(error);
            }
            warn(&error);
        }
        newest.identity = identity;
        Ok(newest)
    }

    /// Moves all checkpoints aside, until the next one is saved.
    fn set_aside(&self) -> Result<(), Error> {
        if self.steps()?.is_empty() {
            return Ok(());
        }
        let (checkpoints, previous) = (self.checkpoints(), self.previous());
        fs::rename(&checkpoints, &previous).map_err(Error::io("rename", &checkpoints))?;
        fs::create_dir(&checkpoints).map_err(Error::io("create", &checkpoints))
    }

    /// Writes a checkpoint, makes its model the newest, and removes the oldest ones; returns where it lies.
    ///
    /// # Errors
    /// If it cannot be written; what was there before stays as it was.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf, Error> {
        self.hold()?;
        let (checkpoints, path) = (self.checkpoints(), self.path(checkpoint.progress.steps));
        let temporary = tempfile::Builder::new().prefix(".tmp-").tempdir_in(&checkpoints);
        let temporary = temporary.map_err(Error::io("create a directory in", &checkpoints))?;
        let model = checkpoint::encode_model(checkpoint);
        file::write_atomic(&temporary.path().join("model.safetensors"), |out| out.write_all(&model))?;
        let state = checkpoint::encode_state(checkpoint);
        file::write_atomic(&temporary.path().join("state.safetensors"), |out| out.write_all(&state))?;
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io("replace", &path))?;
        }
        fs::rename(temporary.path(), &path).map_err(Error::io("rename to", &path))?;
        let _ = temporary.keep();
        file::sync_directory(&checkpoints)?;
        file::write_atomic(&self.directory.join("model.safetensors"), |out| out.write_all(&model))?;
        self.remove_old()?;
        Ok(path)
    }

    fn remove_old(&self) -> Result<(), Error> {
        let steps = self.steps()?;
        let old = steps[..steps.len().saturating_sub(self.keep)].iter().map(|&steps| self.path(steps));
        for path in old.chain(Some(self.previous()).filter(|previous| previous.exists())) {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.is_held() {
            // What cannot be put back now is put back when the directory is opened again.
            let _ = self.clean_up();
        }
    }
}

fn read(directory: &Path) -> Result<Checkpoint, Error> {
    let model = file::map(&directory.join("model.safetensors"))?;
    let state = file::map(&directory.join("state.safetensors"))?;
    checkpoint::decode(&model, &state, directory)
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(directory).map_err(Error::io("list", directory))?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(Error::io("list", directory))
}

/// Locks a model directory until the file is closed, which the end of the process does too, however it ends.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let options = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options().map_err(Error::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(Error::io("write", &path))?;
            writeln!(file, "{}", std::process::id()).map_err(Error::io("write", &path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(Error::io("read", &path))?;
            Err(Error::Locked { directory: directory.to_owned(), pid: pid.trim().to_owned() })
        }
        Err(TryLockError::Error(cause)) => Err(Error::Io { action: "lock", path, cause }),
    }
}
