//! The error of the library: every message says where it happened, what was expected, and what mends it.

use std::io;

/// Result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between storage and records.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of one file.
    #[error("{path}: {error}")]
    InFile {
        /// The file, as it was named.
        path: String,
        /// What went wrong in it.
        error: Box<Error>,
    },

    /// Bytes that are not what their format demands.
    #[error("{unit} {index}: {what}")]
    Malformed {
        /// What `index` counts: `line`, `record`, `value`.
        unit: &'static str,
        /// Counted from 1.
        index: u64,
        /// What was expected and what was found.
        what: String,
    },

    /// Features and labels that do not pair record by record.
    #[error("{features} and {labels} do not pair: {what}; prepare them together, from the same records")]
    Unpaired {
        /// File or directory of the features.
        features: String,
        /// File or directory of the labels.
        labels: String,
        /// The two counts.
        what: String,
    },

    /// A request that contradicts itself or its data.
    #[error("{0}")]
    Invalid(String),

    /// The output is there already.
    #[error("{0} exists already: name another output or replace it with --overwrite")]
    OutputExists(String),

    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// The same error, said of the file at `path`.
    #[must_use]
    pub fn in_file(self, path: impl Into<String>) -> Error {
        Error::InFile { path: path.into(), error: Box::new(self) }
    }
}
