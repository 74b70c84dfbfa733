//! What a person is told while a job runs.

use crate::feed::Tally;
use crate::message::{ClusterSpec, Role, Score};
use std::fmt;
use std::net::SocketAddr;

/// Something happened that a person may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The driver takes registrations there.
    Listening(SocketAddr),
    /// An attempt begins.
    Attempt(u32),
    /// The processes are being started.
    Spawned,
    /// A process has registered: its ranks and place.
    Registered(Vec<usize>, String),
    /// Somebody was not let in.
    Refused(String),
    /// Still waiting for somebody.
    Waiting(String),
    /// All ranks are there.
    Reserved(ClusterSpec),
    /// All ranks were told to begin.
    Started,
    /// All ranks were told to end, for this reason.
    Stopping(String),
    /// The ranks were fed, and have used this.
    Fed(Tally),
    /// All ranks that train or infer have done their work.
    Finished,
    /// How right they were, where there were labels.
    Scored(Score),
    /// A role's ranks have ended.
    Released(Role),
    /// All processes have ended.
    Ended,
    /// An attempt has failed, and another one follows.
    Restarting(String),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Listening(address) => write!(f, "the driver listens on {address}"),
            Notice::Attempt(0) => f.write_str("reserve"),
            Notice::Attempt(number) => write!(f, "reserve (restart {number})"),
            Notice::Spawned => f.write_str("processes started"),
            Notice::Registered(ranks, place) => match &ranks[..] {
                [rank] => write!(f, "rank {rank} registered: {place}"),
                ranks => write!(f, "ranks {}-{} registered: {place}", ranks[0], ranks[ranks.len() - 1]),
            },
            Notice::Refused(reason) => write!(f, "refused: {reason}"),
            Notice::Waiting(text) => write!(f, "{text}"),
            Notice::Reserved(spec) => {
                let role = |role: Role| spec.nodes.iter().filter(|node| node.role == role).count();
                let ranks = spec.nodes.len();
                write!(
                    f,
                    "reserved {ranks} ranks: {} ps, {} workers",
                    role(Role::Ps),
                    role(Role::Chief) + role(Role::Worker)
                )?;
                if role(Role::Evaluator) > 0 { f.write_str(", 1 evaluator") } else { Ok(()) }
            }
            Notice::Started => f.write_str("start"),
            Notice::Stopping(reason) => write!(f, "stopping: {reason}"),
            Notice::Fed(tally) => write!(f, "fed {} records, digest {}", tally.records, tally.hex()),
            Notice::Finished => f.write_str("all ranks are done"),
            Notice::Scored(Score { labelled, right }) => {
                let share = 100.0 * *right as f64 / *labelled as f64;
                write!(f, "accuracy {share:.2} %: {right} of {labelled} records")
            }
            Notice::Released(role) => write!(f, "{} released", role.name()),
            Notice::Ended => f.write_str("shut down"),
            Notice::Restarting(reason) => write!(f, "restarting: {reason}"),
        }
    }
}
