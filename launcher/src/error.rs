//! What can go wrong in the launcher: each variant prints as one line that says what was tried, on what, and what mends it.

use std::io;
use std::time::Duration;

/// An error of the launcher.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused an operation.
    #[error("cannot {action} {on}: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// A file, a program, an address.
        on: String,
        /// What the operating system answered.
        cause: io::Error,
    },

    /// Another side of a connection could not be trusted.
    #[error("{peer} was refused: {cause}")]
    Handshake {
        /// Its address.
        peer: String,
        /// Why.
        cause: io::Error,
    },

    /// A peer that has the key sends what it should not.
    #[error("{peer} sent {found}; use the same version of muster on all hosts")]
    Protocol {
        /// Who.
        peer: String,
        /// What.
        found: String,
    },

    /// An option or a file of options is not what it should be.
    #[error("{what}; {mend}")]
    Usage {
        /// What was given, and where.
        what: String,
        /// What the user can do.
        mend: &'static str,
    },

    /// No port of the range is free.
    #[error("no free port in {range} on {host}: {cause}; choose others with --port or MUSTER_SERVER_PORT")]
    Port {
        /// The range.
        range: String,
        /// The address that was to be bound.
        host: String,
        /// The last port's error.
        cause: io::Error,
    },

    /// Ranks did not register in time, or cannot any more.
    #[error("{missing} did not register: {reason}")]
    Missing {
        /// Which ranks, and on which hosts.
        missing: String,
        /// What is known of the reason.
        reason: String,
    },

    /// The driver does not take this rank.
    #[error("the driver refused this rank: {0}")]
    Refused(String),

    /// A rank failed.
    #[error(transparent)]
    Rank(#[from] Failure),

    /// The engine failed while all ranks did what they should.
    #[error("{engine} ended with {status}")]
    Engine {
        /// Its command.
        engine: String,
        /// Exit code or signal, and the last it wrote.
        status: String,
    },

    /// A signal came before all ranks had registered.
    #[error("interrupted by signal {signal} before the start")]
    Interrupted {
        /// Its number.
        signal: usize,
    },

    /// The job took longer than it may.
    #[error("the job was ended after {} s, while {doing}; allow more with {option}", time.as_secs_f64())]
    Timeout {
        /// What it was doing.
        doing: String,
        /// How long it may take.
        time: Duration,
        /// The option that says so.
        option: &'static str,
    },

    /// A directory cannot be reported on.
    #[error("no report of {directory}: {found}; {mend}")]
    NoRun {
        /// The directory.
        directory: String,
        /// What is there, or is not.
        found: String,
        /// What the user can do.
        mend: &'static str,
    },
    /// The records that ranks are to be fed with cannot be had, or their results not be written.
    #[error(transparent)]
    Data(#[from] muster::Error),

    /// A rank has lost its driver.
    #[error("the driver at {address} is gone: {reason}")]
    DriverLost {
        /// Where it was.
        address: String,
        /// What was observed.
        reason: String,
    },
}

/// The first thing that went wrong in a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank} on {host} (process {pid}): {reason}")]
pub struct Failure {
    /// The rank.
    pub rank: usize,
    /// Its host.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// What it said, or what was observed.
    pub reason: String,
}

impl Error {
    /// `action` failed on `on`; made for `map_err`.
    pub(crate) fn io<T: ToString>(action: &'static str, on: T) -> impl FnOnce(io::Error) -> Error {
        let on = on.to_string();
        move |cause| Error::Io { action, on, cause }
    }
}
