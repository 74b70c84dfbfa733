//! The one error type.

use std::io;
use std::path::{Path, PathBuf};

/// What keeps a benchmark from running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },

    /// A file is no report, or is damaged.
    #[error("{} is no whole report of `muster bench`: {what}; measure anew, or name another file", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// A report of a program that is newer than this one.
    #[error(
        "{} is a report of version {found}, and this muster {} knows versions up to {known}; compare by the newer muster",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version known here.
        known: u64,
    },

    /// Options that do not go together.
    #[error("{0}")]
    Usage(String),

    /// A program that was measured did not do its work.
    #[error("{program} failed: {what}")]
    Program {
        /// Its command line.
        program: String,
        /// The last line of what it said.
        what: String,
    },

    /// From the library.
    #[error(transparent)]
    Muster(#[from] muster::error::Error),

    /// From the ranks.
    #[error(transparent)]
    Collective(#[from] muster_collective::Error),

    /// From the choice of kernels.
    #[error(transparent)]
    Kernels(#[from] muster_kernels::Error),
}

impl Error {
    /// The error of `action` on `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |cause| Error::Io { action, path, cause }
    }
}
