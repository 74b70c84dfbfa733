//! What can go wrong in the library: each variant prints as one line that says what was tried, on what, and
//! what mends it.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation on a file or directory.
    #[error("cannot {action} {}: {cause}{}", path.display(), io_mend(cause))]
    Io {
        /// What was tried, as a verb: `read`, `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system answered; part of the message, therefore not its `source`.
        cause: io::Error,
    },

    /// The content of a file is not what its format demands.
    #[error("{}: expected {expected}, found {found}; {mend}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the format demands there.
        expected: String,
        /// What the file holds instead.
        found: String,
        /// What the user can do.
        mend: &'static str,
    },

    /// Features and labels of one data set have different numbers of records.
    #[error(
        "{} holds {feature_count} records but {} holds {label_count} labels; \
         take both files from the same data set",
        features.display(), labels.display()
    )]
    CountsDiffer {
        /// The file of features.
        features: PathBuf,
        /// Records in it.
        feature_count: usize,
        /// The file of labels.
        labels: PathBuf,
        /// Records in it.
        label_count: usize,
    },

    /// A label names a class that the data set does not have.
    #[error(
        "{}: the label of record {record} (counted from 0) is {label}, expected 0 to {}; \
         correct the file or take another", path.display(), classes.saturating_sub(1)
    )]
    LabelOutOfRange {
        /// The file of labels.
        path: PathBuf,
        /// Index of the record, from 0.
        record: usize,
        /// What stands there.
        label: u32,
        /// The number of classes.
        classes: usize,
    },

    /// Two data sets that are to feed one model have records of different shapes.
    #[error(
        "{} has records of {left_shape:?} but {} of {right_shape:?}; take both from the same data set",
        left.display(), right.display()
    )]
    ShapesDiffer {
        /// One file of features.
        left: PathBuf,
        /// The shape of its records.
        left_shape: Vec<usize>,
        /// The other file of features.
        right: PathBuf,
        /// The shape of its records.
        right_shape: Vec<usize>,
    },

    /// A model or a checkpoint is not what it should be.
    #[error("{}: not a whole model: {found}; take another one, or start anew with --no-resume", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },

    /// Another run writes to the model directory.
    #[error(
        "the model directory {} is in use by process {pid}; wait for it, or choose another one with --model",
        directory.display()
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// The process that holds it.
        pid: String,
    },

    /// The model directory holds the model of another training.
    #[error(
        "{} holds the model of another training ({differences}); start anew with --no-resume, or choose another --model",
        directory.display()
    )]
    OtherTraining {
        /// The directory.
        directory: PathBuf,
        /// What differs.
        differences: String,
    },

    /// A checkpoint was made in another arithmetic.
    #[error(
        "the checkpoint was made with the arithmetic {was}, this run has {is}: its bits will differ from a run that was not interrupted; \
         choose the kernels with MUSTER_KERNELS"
    )]
    OtherArithmetic {
        /// The checkpoint's.
        was: String,
        /// This run's.
        is: String,
    },

    /// What a reader of one file says of it.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it; part of the message, therefore not its `source`.
        error: Box<Error>,
    },

    /// Bytes that are not what their format demands, in a file that the reader of bytes does not know.
    #[error("{unit} {index}: {what}")]
    Malformed {
        /// What `index` counts: `line`, `record`, `value`.
        unit: &'static str,
        /// Counted from 1.
        index: u64,
        /// What was expected and what was found.
        what: String,
    },

    /// Reading or writing failed, of a file that the reader of bytes does not know.
    #[error(transparent)]
    Stream(#[from] io::Error),

    /// Features and labels that do not pair record by record.
    #[error(
        "{} and {} do not pair: {what}; prepare them together, from the same records",
        features.display(), labels.display()
    )]
    Unpaired {
        /// File or directory of the features.
        features: PathBuf,
        /// File or directory of the labels.
        labels: PathBuf,
        /// The two counts.
        what: String,
    },

    /// The output is there already.
    #[error(
        "the output {} is there already; choose another --output, or replace it with --overwrite",
        _0.display()
    )]
    OutputExists(PathBuf),

    /// A request that contradicts itself or its data.
    #[error("{0}")]
    Invalid(String),

    /// Records could not be read, or did not come by their feed, while they were needed.
    #[error("{text}")]
    Reading {
        /// The message of the error, which all threads of a team get.
        text: String,
    },

    /// The loss is no longer a finite number.
    #[error(
        "the loss is {loss} at step {step} with a learning rate of {learning_rate}; \
         try a smaller --learning-rate (the last checkpoint is kept)"
    )]
    Diverged {
        /// Steps, from 1.
        step: u64,
        /// The batch's loss.
        loss: f64,
        /// The learning rate of that step.
        learning_rate: f32,
    },

    /// A rank of the world cannot take part.
    #[error("{text}")]
    NotReady {
        /// Which rank, unless it is all of them, and why.
        text: String,
    },

    /// The ranks of the world do not want the same.
    #[error("the ranks differ: {text}; start all of them with the same program, options and data")]
    RanksDiffer {
        /// In what, and which ranks.
        text: String,
    },

    /// The job ended because of a rank.
    #[error(transparent)]
    Collective(#[from] muster_collective::Error),
}

impl Error {
    /// `action` (a verb) failed on `path`; made for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |cause| Error::Io { action, path, cause }
    }

    /// The same error, said of the file at `path`, which was being read.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Error {
        match self {
            Error::Stream(cause) => Error::io("read", path)(cause),
            error => Error::InFile { path: path.to_owned(), error: Box::new(error) },
        }
    }
}

/// The advice that goes with the kinds of I/O errors a user can mend.
fn io_mend(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; check the permissions, or choose another place",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, or choose another place"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; a file is in the way: choose another place"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; choose another place",
        _ => "",
    }
}
