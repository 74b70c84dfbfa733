//! Weights and gradients between the server and each worker, as nonblocking messages or as memory that the other side gets by itself.
//!
//! Both go in pieces, so that what has come is worked on, and sent back, while the rest is under way:
//!
//! ```text
//! server ─► worker   weights, piece by piece, then the order
//! worker ─► server   the words of a push, then its gradients, piece by piece
//! ```
//!
//! Between nodes, the weights of a small model go with the order and the first gradient with the words, as one message. Receives are posted before the
//! other side can send, but for the gradients, whose number the words tell first. With [`Exposed`] memory only order and words are messages; weights and gradients are got when these have come.
//!
//! [`Exposed`]: super::exposed::Exposed

mod server;
mod worker;

pub use server::MessageServer;
pub use worker::MessageWorker;

use crate::Shared;
use crate::end::Shape;
use std::sync::{Arc, Mutex, MutexGuard};

/// Tags of what is sent.
const ORDER: i32 = 1;
const WEIGHTS: i32 = 2;
const WORDS: i32 = 3;
const GRADIENTS: i32 = 4;
const BEAT: i32 = 5;

/// Floats of a message's buffer.
pub fn buffer(shape: &Shape, times: usize) -> Arc<Shared> {
    Arc::new(Shared::new((0..times).flat_map(|_| shape.lengths.iter().copied())))
}

fn locked<T>(mail: &Mutex<T>) -> MutexGuard<'_, T> {
    mail.lock().expect("no panic while it is held")
}

/// Leaves buffers to transfers that never end because a rank has failed; the process is about to end too.
fn abandon<T>(buffers: T) {
    std::mem::forget(buffers);
}
