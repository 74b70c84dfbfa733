//! The model directory: checkpoints by step, the newest model, and who may write here.
//!
//! ```text
//! <model>/checkpoints/step-0000001200/{model,state}.safetensors    see [`crate::checkpoint`]
//! <model>/model.safetensors          a copy of the newest model, replaced last
//! <model>/checkpoints.previous/      the old model of a run with --no-resume, until its first checkpoint is whole
//! <model>/.lock                      held by the run that writes here; its process id
//! ```
//! A checkpoint is written under a temporary name, synced and renamed once, so that model and state are never of different
//! steps and a reader never sees half of one. The directory may lie on this machine or on HDFS.

use crate::checkpoint::{self, Checkpoint, Identity};
use crate::error::Error;
use crate::storage::path::Location;
use crate::storage::{Bytes, Storage, file};
use lock::Lock;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

mod lock;

/// The model's file in a checkpoint, and that of the newest one in the model directory.
pub const MODEL_FILE: &str = "model.safetensors";

/// The steps of the checkpoints in a model directory, the newest last; nothing when there is no such directory.
///
/// # Errors
/// Those of the storage.
pub fn steps(storage: &Storage, directory: &Path) -> Result<Vec<u64>, Error> {
    let step = |name: &String| name.strip_prefix("step-")?.parse().ok();
    let mut steps: Vec<u64> = names(storage, &checkpoints(directory))?.iter().filter_map(step).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// The checkpoint of so many steps in a model directory.
pub fn checkpoint_path(directory: &Path, steps: u64) -> PathBuf {
    checkpoints(directory).join(format!("step-{steps:010}"))
}

fn checkpoints(directory: &Path) -> PathBuf {
    directory.join("checkpoints")
}

/// What lies in a directory; nothing when it is absent, or goes meanwhile.
fn names(storage: &Storage, directory: &Path) -> Result<Vec<String>, Error> {
    if storage.stat(directory)?.is_none() {
        return Ok(Vec::new());
    }
    match storage.list(directory) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
        Err(_) if storage.stat(directory)?.is_none() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A model directory, held by this process alone.
pub struct Store {
    storage: Arc<Storage>,
    directory: PathBuf,
    keep: usize,
    lock: Mutex<Lock>,
}

impl Store {
    /// Takes hold of a model directory, which is made if it is not there. `keep` checkpoints are kept.
    ///
    /// # Errors
    /// If it cannot be written, or another run holds it.
    pub fn open(storage: Arc<Storage>, directory: &Path, keep: usize) -> Result<Store, Error> {
        let lock = Mutex::new(Lock::take(&storage, directory)?);
        let store = Store { storage, directory: directory.to_owned(), keep, lock };
        store.clean_up()?;
        Ok(store)
    }

    fn checkpoints(&self) -> PathBuf {
        checkpoints(&self.directory)
    }

    fn previous(&self) -> PathBuf {
        self.directory.join("checkpoints.previous")
    }

    /// Makes the directory anew if somebody removed it, unless another run has taken its place.
    fn hold(&self) -> Result<(), Error> {
        let mut lock = self.lock.lock().expect("no panic while it is held");
        if !lock.is_held() {
            *lock = Lock::take(&self.storage, &self.directory)?;
        }
        Ok(())
    }

    /// Removes what a run left half-written, and puts a model back that it had set aside without finishing one of its own.
    fn clean_up(&self) -> Result<(), Error> {
        let checkpoints = self.checkpoints();
        for name in names(&self.storage, &checkpoints)?.iter().filter(|name| name.starts_with(".tmp-")) {
            self.storage.delete(checkpoints.join(name))?;
        }
        for name in names(&self.storage, &self.directory)?
            .iter()
            .filter(|name| name.starts_with(".model.safetensors."))
        {
            self.storage.delete(self.directory.join(name))?;
        }
        let previous = self.previous();
        if self.storage.stat(&previous)?.is_none() {
            return Ok(());
        }
        if steps(&self.storage, &self.directory)?.is_empty() {
            if !names(&self.storage, &checkpoints)?.is_empty() {
                return Err(Error::io("replace", &checkpoints)(io::ErrorKind::DirectoryNotEmpty.into()));
            }
            self.storage.delete(&checkpoints)?;
            return self.storage.rename(&previous, &checkpoints);
        }
        self.storage.delete(&previous)
    }

    /// The newest checkpoint that is whole. `warn` is told of damaged ones.
    ///
    /// # Errors
    /// If there are checkpoints, but none is whole.
    pub fn newest(&self, mut warn: impl FnMut(&Error)) -> Result<Option<Checkpoint>, Error> {
        let mut damaged = None;
        for &steps in steps(&self.storage, &self.directory)?.iter().rev() {
            match self.read(&checkpoint_path(&self.directory, steps)) {
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
        if steps(&self.storage, &self.directory)?.is_empty() {
            return Ok(());
        }
        self.storage.rename(self.checkpoints(), self.previous())
    }

    fn read(&self, checkpoint: &Path) -> Result<Checkpoint, Error> {
        let model = read(&self.storage, &checkpoint.join(MODEL_FILE))?;
        let state = read(&self.storage, &checkpoint.join("state.safetensors"))?;
        checkpoint::decode(&model, &state, checkpoint)
    }

    /// Writes a checkpoint, makes its model the newest, and removes the oldest ones; returns where it lies.
    ///
    /// # Errors
    /// If it cannot be written; what was there before stays as it was.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf, Error> {
        self.hold()?;
        let (checkpoints, path) =
            (self.checkpoints(), checkpoint_path(&self.directory, checkpoint.progress.steps));
        let temporary = checkpoints.join(format!(".tmp-{:016x}", RandomState::new().build_hasher().finish()));
        let [model, state] = [checkpoint::encode_model(checkpoint), checkpoint::encode_state(checkpoint)];
        let storage = &self.storage;
        let placed = storage
            .create(temporary.join(MODEL_FILE), &|out| out.write_all(&model))
            .and_then(|()| storage.create(temporary.join("state.safetensors"), &|out| out.write_all(&state)))
            // Removed meanwhile, the directory was made anew by the files above: no checkpoint appears in it without its lock.
            .and_then(|()| self.hold())
            .and_then(|()| storage.delete(&path))
            .and_then(|()| storage.rename(&temporary, &path));
        if let Err(error) = placed {
            // What stays behind is deleted when the directory is opened again.
            let _ = storage.delete(&temporary);
            return Err(error);
        }
        if let Location::Local(checkpoints) = storage.locate(&checkpoints)? {
            file::sync_directory(&checkpoints)?;
        }
        storage.create(self.directory.join(MODEL_FILE), &|out| out.write_all(&model))?;
        self.remove_old()?;
        Ok(path)
    }

    fn remove_old(&self) -> Result<(), Error> {
        let steps = steps(&self.storage, &self.directory)?;
        let old = steps[..steps.len().saturating_sub(self.keep)]
            .iter()
            .map(|&steps| checkpoint_path(&self.directory, steps));
        old.chain([self.previous()]).try_for_each(|path| self.storage.delete(path))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.lock.lock().is_ok_and(|lock| lock.is_held()) {
            // What cannot be put back now is put back when the directory is opened again.
            let _ = self.clean_up();
        }
    }
}

/// A file in a checkpoint.
fn read(storage: &Storage, path: &Path) -> Result<Bytes, Error> {
    let file = storage.file(path)?;
    file.bytes(0..file.length()).map_err(Error::io("read", path))
}
