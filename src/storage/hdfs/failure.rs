//! Which failures of HDFS pass by themselves, how long they are waited for, and what the rest are called.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use hdfs_native::HdfsError;

/// How long a NameNode that has answered before is waited for: it restarts within a minute or two.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long one that never answered is waited for.
const FIRST_PATIENCE: Duration = Duration::from_secs(15);

/// However long an attempt takes, so many are made.
const ATTEMPTS_MIN: u32 = 3;

/// Waiting times between attempts double from the first to the last of these.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Counts failed attempts in a row.
pub(super) struct Patience {
    /// What is attempted, for messages.
    what: String,
    limit: Duration,
    first_failure: Option<Instant>,
    attempts: u32,
}

impl Patience {
    pub(super) fn new(what: String, answered_before: bool) -> Patience {
        let limit = if answered_before { PATIENCE } else { FIRST_PATIENCE };
        Patience { what, limit, first_failure: None, attempts: 0 }
    }

    /// Something went well: what fails from here on is waited for as long again.
    pub(super) fn restore(&mut self) {
        (self.first_failure, self.attempts) = (None, 0);
    }

    /// Waits before the next attempt, or says why there should be none.
    pub(super) async fn wait_after(&mut self, error: HdfsError) -> Result<(), HdfsError> {
        if !is_transient(&error) {
            return Err(error);
        }
        self.attempts += 1;
        let past = self.first_failure.get_or_insert_with(Instant::now).elapsed();
        if past >= self.limit && self.attempts > ATTEMPTS_MIN {
            let error = to_io(error);
            let message = format!(
                "{} failed {} times in {} s, at last: {error}",
                self.what,
                self.attempts,
                past.as_secs()
            );
            return Err(HdfsError::IOError(io::Error::new(error.kind(), message)));
        }
        if self.attempts == 1 {
            log::warn!("{} failed, trying again for {} s: {}", self.what, self.limit.as_secs(), to_io(error));
        }
        tokio::time::sleep(PAUSE_MAX.min(PAUSE_MIN * 2_u32.pow(self.attempts.min(10) - 1))).await;
        Ok(())
    }
}

/// The outcome of `work`, or an error that names who was silent for so long.
pub(super) async fn bounded<T>(
    limit: Duration,
    who: &str,
    work: impl Future<Output = Result<T, HdfsError>>,
) -> Result<T, HdfsError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_elapsed| {
        let what = format!("{who} did not answer within {} s", limit.as_secs_f32());
        Err(HdfsError::IOError(io::Error::new(io::ErrorKind::TimedOut, what)))
    })
}

/// Whether the same request may succeed later, by itself.
pub(super) fn is_transient(error: &HdfsError) -> bool {
    match error {
        HdfsError::IOError(_)
        | HdfsError::DataTransferError(_)
        | HdfsError::ChecksumError
        | HdfsError::BlocksNotFound(_)
        | HdfsError::OperationFailed(_)
        | HdfsError::InvalidRPCResponse(_)
        | HdfsError::InternalError(_) => true,
        HdfsError::RPCError(class, message) | HdfsError::FatalRPCError(class, message) => {
            let busy =
                ["SafeModeException", "RetriableException", "StandbyException", "NotReplicatedYetException"];
            // No DataNode has room or is known, as in the first seconds of a NameNode; the class is IOException.
            busy.contains(&simple_name(class)) || message.contains("could only be written to 0 of")
        }
        _ => false,
    }
}

/// An I/O error of the kind that the operating system would report, with the words of HDFS.
pub(super) fn to_io(error: HdfsError) -> io::Error {
    use io::ErrorKind as Kind;
    let kind = match &error {
        HdfsError::IOError(error) => error.kind(),
        HdfsError::FileNotFound(_) => Kind::NotFound,
        HdfsError::AlreadyExists(_) => Kind::AlreadyExists,
        HdfsError::IsADirectoryError(_) => Kind::IsADirectory,
        HdfsError::InvalidPath(_) | HdfsError::InvalidArgument(_) | HdfsError::UrlParseError(_) => {
            Kind::InvalidInput
        }
        HdfsError::UnsupportedFeature(_) | HdfsError::UnsupportedErasureCodingPolicy(_) => Kind::Unsupported,
        HdfsError::RPCError(class, _) | HdfsError::FatalRPCError(class, _) => kind_of(simple_name(class)),
        _ => Kind::Other,
    };
    let what = match &error {
        // A Java exception's further lines are its stack.
        HdfsError::RPCError(class, message) | HdfsError::FatalRPCError(class, message) => {
            format!("{}: {}", simple_name(class), message.lines().next().unwrap_or_default())
        }
        HdfsError::IOError(error) => error.to_string(),
        HdfsError::GSSAPIError(_, _, message) => with_ticket(message),
        HdfsError::SASLError(message) => with_ticket(message),
        HdfsError::NoSASLMechanism => with_ticket("the NameNode offers no way to log in that is known here"),
        HdfsError::FileNotFound(_) => "no such file or directory".to_owned(),
        error => error.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    io::Error::new(kind, what)
}

/// What mends a failed login: nothing but a ticket, where the library that reads it is there.
fn with_ticket(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default().trim();
    format!(
        "Kerberos: {message}; `klist` shows the ticket, `kinit` gets one (needs libgssapi_krb5: libgssapi-krb5-2 on Debian, krb5-libs on Red Hat)"
    )
}

fn kind_of(java_exception: &str) -> io::ErrorKind {
    use io::ErrorKind as Kind;
    match java_exception {
        "FileNotFoundException" => Kind::NotFound,
        "AccessControlException" | "AuthorizationException" | "SaslException" => Kind::PermissionDenied,
        "DSQuotaExceededException" | "NSQuotaExceededException" | "QuotaByStorageTypeExceededException" => {
            Kind::QuotaExceeded
        }
        "PathIsNotDirectoryException" | "ParentNotDirectoryException" => Kind::NotADirectory,
        "PathIsNotEmptyDirectoryException" => Kind::DirectoryNotEmpty,
        "InvalidPathException" => Kind::InvalidInput,
        "SafeModeException" => Kind::ReadOnlyFilesystem,
        _ => Kind::Other,
    }
}

/// `org.apache.hadoop.ipc.StandbyException` → `StandbyException`; inner classes stand behind `$`.
fn simple_name(class: &str) -> &str {
    class.rsplit(['.', '$']).next().unwrap_or(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(class: &str, message: &str) -> HdfsError {
        HdfsError::RPCError(class.to_owned(), message.to_owned())
    }

    #[test]
    fn exceptions_of_java_become_kinds_of_errors() {
        let error = to_io(rpc("java.io.FileNotFoundException", "File does not exist: /x\n\tat org.apache…"));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), "FileNotFoundException: File does not exist: /x");
        let kind = |class| to_io(rpc(class, "")).kind();
        assert_eq!(
            kind("org.apache.hadoop.security.AccessControlException"),
            io::ErrorKind::PermissionDenied
        );
        assert_eq!(
            kind("org.apache.hadoop.hdfs.protocol.DSQuotaExceededException"),
            io::ErrorKind::QuotaExceeded
        );
        assert_eq!(kind("java.lang.IllegalStateException"), io::ErrorKind::Other);
    }

    #[test]
    fn a_failed_login_says_how_to_get_a_ticket() {
        let message = to_io(HdfsError::SASLError("no ticket\nsecond line".to_owned())).to_string();
        assert!(message.starts_with("Kerberos: no ticket; ") && message.contains("`kinit`"), "{message}");
        assert!(!is_transient(&HdfsError::NoSASLMechanism));
    }

    #[test]
    fn refusals_are_final_and_disturbances_are_not() {
        assert!(is_transient(&rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "")));
        assert!(is_transient(&rpc(
            "java.io.IOException",
            "File /x could only be written to 0 of the 1 minReplication nodes"
        )));
        assert!(is_transient(&HdfsError::IOError(io::ErrorKind::ConnectionAborted.into())));
        assert!(!is_transient(&rpc("java.io.FileNotFoundException", "")));
        assert!(!is_transient(&rpc("org.apache.hadoop.security.AccessControlException", "")));
        assert!(!is_transient(&HdfsError::AlreadyExists(String::new())));
    }
}
