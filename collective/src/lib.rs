//! Ranks of one job and the parameter server between them: f32 ranges only, no model, no files.
//!
//! # Layout
//! - [`shared`]: one flat f32 buffer that threads borrow by blocks.
//! - [`wait`]: a counter that ranks wait for: spin, then yield, then nap.
//! - [`tree`]: the fixed tree in which the gradients of micro-batches are added, whoever computed them.
//! - [`message`]: what a worker says of a gradient, and what the server answers.
//! - [`board`]: server and workers over memory that all of them see: threads of one process, or processes of one node.
//! - [`end`]: what a transport is.
//! - [`link`](mod@link): [`Server`] and [`Worker`], whatever lies between them; [`Times`]: how long they waited for whom.
//! - `leaders`: memory within each node, one leader's messages between them; with MPI, and in the tests without it.
//! - `letter`: words and floats in one message.
//! - [`fabric`]: what carries MPI's messages.
//! - [`launched`]: what the environment says of a launcher such as mpirun; [`roster`]: the ranks by name, node and core.
//! - [`World`]: the ranks that a launcher started, with the cargo feature `mpi`; without it, an error that says so.
//!
//! # Example
//! ```
//! use muster_collective::tree::{self, Node};
//!
//! // Five micro-batches on two workers: who holds which complete subtrees?
//! assert_eq!(tree::subtrees(0..2, 5), [Node { level: 1, index: 0 }]);
//! assert_eq!(tree::subtrees(2..5, 5), [Node { level: 1, index: 1 }, Node { level: 2, index: 1 }]);
//! ```

mod account;
pub mod board;
pub mod end;
pub mod fabric;
pub mod launched;
#[cfg(any(feature = "mpi", test))]
mod leaders;
#[cfg(any(feature = "mpi", test))]
mod letter;
pub mod link;
pub mod message;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(not(feature = "mpi"))]
#[path = "without_mpi.rs"]
mod mpi;
pub mod roster;
pub mod shared;
pub mod tree;
pub mod wait;

pub use account::Times;
pub use end::{Commons, Shape};
pub use fabric::Fabric;
pub use link::{Server, Worker};
pub use message::{Order, Push};
pub use mpi::World;
pub use roster::Roster;
pub use shared::Shared;

use std::time::Duration;

/// How gradients and weights travel between the ranks of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Memory that all ranks of one node map.
    Shared,
    /// Nonblocking sends and receives.
    Messages,
    /// Memory within each node, messages between the server and one leader a node, who adds up the gradients of its node.
    Leaders,
    /// Puts and gets on windows of MPI.
    Rma,
}

impl Transport {
    /// As options and reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Shared => "shared",
            Transport::Messages => "messages",
            Transport::Leaders => "leaders",
            Transport::Rma => "rma",
        }
    }
}

/// What ends a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A rank has failed, this one or another.
    #[error("{reason}")]
    Failed {
        /// Which rank, and what it said.
        reason: String,
    },

    /// A rank does not go on.
    #[error("{who} has sent nothing for {limit:?}: it is stopped or stuck; --step-timeout sets the limit")]
    Stuck {
        /// The rank.
        who: String,
        /// How long it was waited for.
        limit: Duration,
    },

    /// A build without MPI is one of several processes that a launcher started.
    #[error(
        "{launcher} started {} this program, which was built without MPI: they would all work on their own; \
         start it without {launcher}, or build it with the cargo feature `mpi`",
        size.map_or("several processes of".to_owned(), |size| format!("{size} processes of"))
    )]
    WithoutMpi {
        /// Whose environment this is.
        launcher: &'static str,
        /// Processes of the job, where the environment tells.
        size: Option<usize>,
    },

    /// The launcher belongs to another MPI than the program.
    #[error(
        "{launcher} started {expected} processes, but to {library} this one is a world of {found}; \
         start it with the mpirun of the MPI that it was built with"
    )]
    OtherLauncher {
        /// Whose environment this is.
        launcher: &'static str,
        /// Processes of the job by the environment.
        expected: usize,
        /// Ranks of the world by MPI.
        found: usize,
        /// The MPI library.
        library: String,
    },

    /// The MPI library found at run time is not the one built with.
    #[error(
        "the program was built with {built}, but the library found is {found}; set LD_LIBRARY_PATH to the former, or build it anew"
    )]
    OtherLibrary {
        /// Built with.
        built: &'static str,
        /// What the library says it is.
        found: String,
    },

    /// A transport that this world does not have.
    #[error("--transport {}: {reason}; choose another one, or auto", transport.name())]
    Unavailable {
        /// What was asked for.
        transport: Transport,
        /// Why it cannot be had.
        reason: String,
    },

    /// Messages go another way than they have to.
    #[error(
        "{wanted} is required as the fabric between the ranks, but what was found is {found}; start the job on nodes that have it, \
         with an MPI built for it, or leave out --fabric and --rdma"
    )]
    OtherFabric {
        /// What was asked for.
        wanted: String,
        /// What there is, in words.
        found: String,
    },

    /// A call of MPI failed.
    #[error("MPI: {call} failed: {text}")]
    Mpi {
        /// The function.
        call: &'static str,
        /// What MPI says of it.
        text: String,
    },
}
