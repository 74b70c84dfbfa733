//! Ranks of one job and the parameter server between them: f32 ranges only, no model, no files.
//!
//! # Layout
//! - [`shared`]: one flat f32 buffer that threads borrow by blocks.
//! - [`wait`]: a counter that ranks wait for: spin, then yield, then nap.
//! - [`tree`]: the fixed tree in which the gradients of micro-batches are added, whoever computed them.
//! - [`threads`]: a server and its workers in one process.
//!
//! # Example
//! ```
//! use muster_collective::tree::{self, Node};
//!
//! // Five micro-batches on two workers: who holds which complete subtrees?
//! assert_eq!(tree::subtrees(0..2, 5), [Node { level: 1, index: 0 }]);
//! assert_eq!(tree::subtrees(2..5, 5), [Node { level: 1, index: 1 }, Node { level: 2, index: 1 }]);
//! ```

pub mod shared;
pub mod threads;

pub mod tree;
pub mod wait;

pub use shared::Shared;

/// What ends a job.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A rank has failed, this one or another.
    #[error("{reason}")]
    Failed {
        /// Which rank, and what it said.
        reason: String,
    },
}
