//! What a transport is: the server's end and a worker's end, whatever lies between them.

use crate::message::{Order, Push};
use crate::{Error, Shared};
use std::sync::Arc;
use std::time::Duration;

/// What a link has to hold.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The rank of each worker, in the order of their shares of a batch: those of one node are neighbours, the server's come first.
    /// Rank 0 is among them if the server trains.
    pub ranks: &'a [usize],
    /// Floats of each block of the weights.
    pub lengths: &'a [usize],
    /// The most gradients that a worker pushes at a time.
    pub nodes: usize,
    /// The most gradients that are left when those of one node are added up.
    pub nodes_of_leader: usize,
    /// The most micro-batches of a batch.
    pub leaves: usize,
    /// Whether every worker has weights of its own, as asynchronous training needs.
    pub copies: bool,
    /// How many buffers the optimizer has, each of as many floats as the weights, where workers update weights, too.
    pub optimizer_slots: usize,
    /// The longest that a rank waits for another.
    pub step_timeout: Duration,
}

impl Shape<'_> {
    /// Workers, the server among them if it trains.
    pub fn workers(&self) -> usize {
        self.ranks.len()
    }

    /// Floats of the weights.
    pub fn floats(&self) -> usize {
        self.lengths.iter().sum()
    }
}

/// What server and workers all see, so that each of them can update some of the weights.
#[derive(Clone)]
pub struct Commons {
    /// Each worker's gradients.
    pub slots: Vec<Arc<Shared>>,
    /// The optimizer's buffers.
    pub optimizer_slots: Vec<Arc<Shared>>,
}

/// What has come from the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing yet.
    Nothing,
    /// The other side has sent, and it is being transferred.
    Begun,
    /// All of it.
    Complete,
}

/// The server's end. Workers are counted as [`Shape::ranks`] are.
pub trait ServerEnd: Send + Sync {
    /// The weights, in place.
    fn weights(&self) -> &Arc<Shared>;

    /// Each worker's gradients.
    fn slots(&self) -> &[Arc<Shared>];

    /// Each worker's own weights; empty in synchronous training.
    fn copies(&self) -> &[Arc<Shared>];

    /// What workers need beside the weights to update them; none where they cannot.
    fn commons(&self) -> Option<&Commons> {
        None
    }

    /// Whether this worker's gradients come by themselves, not added to those of the leader of its node.
    fn hears(&self, _worker: usize) -> bool {
        true
    }

    /// What has come of a worker's answer to its last order.
    ///
    /// # Errors
    /// If MPI fails, or the worker says that it has failed.
    fn arrival(&self, worker: usize) -> Result<Arrival, Error>;

    /// How many floats of each gradient of a worker's answer, from the first on, are in its slot. The answer has at least begun to come.
    ///
    /// # Errors
    /// If MPI fails.
    fn received(&self, _worker: usize) -> Result<usize, Error> {
        Ok(self.weights().range(0..self.weights().blocks()).len())
    }

    /// What the worker said in an answer that has begun to come.
    fn take(&self, worker: usize, push: &mut Push);

    /// Gives a worker an order, to be carried out at the weights as they are now.
    ///
    /// # Errors
    /// If MPI fails.
    fn give(&self, worker: usize, order: Order) -> Result<(), Error>;

    /// Whether weights can leave before their order.
    fn sends_ahead(&self) -> bool {
        false
    }

    /// The first `floats` weights are already those of the next order, which all workers get: they may leave before it.
    ///
    /// # Errors
    /// If MPI fails.
    fn offer(&self, _floats: usize) -> Result<(), Error> {
        Ok(())
    }

    /// Whether all that was given to a worker has left this process.
    ///
    /// # Errors
    /// If MPI fails.
    fn has_sent(&self, _worker: usize) -> Result<bool, Error> {
        Ok(true)
    }

    /// Gives the workers a sign of life. May be called in another thread while the one that joined the world makes no call.
    ///
    /// # Errors
    /// If MPI fails.
    fn beat(&self) -> Result<(), Error>;

    /// Tells the workers that the job has failed, where they do not end with the server anyway.
    fn fail(&self, _reason: &str) {}

    /// A failure that a rank has told of outside of its answers.
    ///
    /// # Errors
    /// That failure.
    fn failure(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A worker's end.
pub trait WorkerEnd: Send + Sync {
    /// The weights of the last order.
    fn weights(&self) -> &Arc<Shared>;

    /// Where the gradients go.
    fn slot(&self) -> &Arc<Shared>;

    /// What this worker needs beside the weights to update them; none where it is never asked to.
    fn commons(&self) -> Option<&Commons> {
        None
    }

    /// What has come of the next order, and that order when all of it has.
    ///
    /// # Errors
    /// If MPI fails.
    fn order(&self) -> Result<(Arrival, Option<Order>), Error>;

    /// Whether the server has given a sign of life since this was asked before.
    ///
    /// # Errors
    /// If MPI fails.
    fn has_beaten(&self) -> Result<bool, Error>;

    /// Announces the gradients in the slot, in answer to the last order.
    ///
    /// # Errors
    /// If MPI fails.
    fn push(&self, words: &[u64], nodes: usize) -> Result<(), Error>;

    /// Workers from this one on whose gradients it adds up and sends on, itself among them.
    fn members(&self) -> usize {
        0
    }

    /// Whether one of them has pushed.
    fn has_pushed(&self, _member: usize) -> bool {
        true
    }

    /// Adds up what all of them have pushed, and sends it on.
    ///
    /// # Errors
    /// If MPI fails.
    fn send_on(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Tells the others that this rank has failed.
    fn fail(&self, reason: &str);

    /// A failure that a rank has told of.
    ///
    /// # Errors
    /// That failure.
    fn failure(&self) -> Result<(), Error> {
        Ok(())
    }
}
