//! Memory within each node, messages between them: one leader a node adds up what its node has computed and sends it to the server.
//!
//! The server's own node has no leader; its workers lie in memory that the server sees. Of every other node the first worker leads. An
//! order and its weights come to the leader, who receives the weights right into its node's memory and gives the others their order there.
//! When all of them have pushed, it adds their gradients in place, as far as the tree allows, and sends what is left.

#![allow(unsafe_code)] // Messages are sent out of the slots of several ranks.

use crate::board::{self, Board};
use crate::end::{Arrival, ServerEnd, Shape, WorkerEnd};
use crate::message::{Order, Push};
use crate::shared::Ref;
use crate::tree::{self, Node};
use crate::{Error, Shared};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A leader's end towards the server. It has no slot of its own: what it sends lies in the slots of its node.
pub trait Upward: WorkerEnd {
    /// Sends a push and its gradients, each of as many floats as the weights.
    ///
    /// # Errors
    /// If MPI fails.
    ///
    /// # Safety
    /// Nobody writes to the gradients before the next order, which waits until they have left.
    unsafe fn send(&self, words: &[u64], gradients: &mut dyn Iterator<Item = Ref<'_>>) -> Result<(), Error>;
}

/// How the server reaches a worker.
#[derive(Clone, Copy)]
enum Way {
    /// By the memory of its own node, there as this worker.
    Memory(usize),
    /// By messages, there as this worker: it leads its node.
    Messages(usize),
    /// By the leader of its node.
    Leader,
}

/// The server's end.
pub struct LeadersServer {
    near: board::ServerEnd,
    far: Box<dyn ServerEnd>,
    ways: Vec<Way>,
    slots: Vec<Arc<Shared>>,
}

impl LeadersServer {
    /// The end of a server whose own node has this memory, and the first workers; `far` has the leaders of the workers of each other node.
    pub fn new(near: board::ServerEnd, far: Box<dyn ServerEnd>, nodes: &[Range<usize>]) -> LeadersServer {
        let mut ways: Vec<Way> = (0..near.slots().len()).map(Way::Memory).collect();
        for (leader, node) in nodes.iter().enumerate() {
            ways.push(Way::Messages(leader));
            ways.extend(node.clone().skip(1).map(|_| Way::Leader));
        }
        let nothing = Arc::new(Shared::new([]));
        let slot = |way: &Way| match *way {
            Way::Memory(worker) => near.slots()[worker].clone(),
            Way::Messages(leader) => far.slots()[leader].clone(),
            Way::Leader => nothing.clone(),
        };
        let slots = ways.iter().map(slot).collect();
        LeadersServer { near, far, ways, slots }
    }

    /// The end that reaches a worker, and which one it is there.
    fn end(&self, worker: usize) -> (&dyn ServerEnd, usize) {
        match self.ways[worker] {
            Way::Memory(worker) => (&self.near, worker),
            Way::Messages(leader) => (&*self.far, leader),
            Way::Leader => unreachable!("worker {worker} speaks through the leader of its node"),
        }
    }
}

impl ServerEnd for LeadersServer {
    fn weights(&self) -> &Arc<Shared> {
        self.near.weights()
    }

    fn slots(&self) -> &[Arc<Shared>] {
        &self.slots
    }

    fn copies(&self) -> &[Arc<Shared>] {
        &[]
    }

    fn hears(&self, worker: usize) -> bool {
        !matches!(self.ways[worker], Way::Leader)
    }

    fn arrival(&self, worker: usize) -> Result<Arrival, Error> {
        let (end, worker) = self.end(worker);
        end.arrival(worker)
    }

    fn received(&self, worker: usize) -> Result<usize, Error> {
        let (end, worker) = self.end(worker);
        end.received(worker)
    }

    fn take(&self, worker: usize, push: &mut Push) {
        let (end, worker) = self.end(worker);
        end.take(worker, push);
    }

    fn give(&self, worker: usize, order: Order) -> Result<(), Error> {
        let (end, worker) = self.end(worker);
        end.give(worker, order)
    }

    fn sends_ahead(&self) -> bool {
        self.far.sends_ahead()
    }

    fn offer(&self, floats: usize) -> Result<(), Error> {
        self.far.offer(floats)
    }

    fn has_sent(&self, worker: usize) -> Result<bool, Error> {
        let (end, worker) = self.end(worker);
        end.has_sent(worker)
    }

    fn beat(&self) -> Result<(), Error> {
        self.near.beat()?;
        self.far.beat()
    }

    fn fail(&self, reason: &str) {
        self.near.fail(reason);
    }

    fn failure(&self) -> Result<(), Error> {
        self.near.failure()
    }
}

/// The end of a worker that leads its node, the first of its workers.
pub struct LeaderWorker {
    server: Box<dyn Upward>,
    node: board::ServerEnd,
    own: board::WorkerEnd,
    sums: Mutex<Sums>,
}

/// What the node's workers have pushed; kept, so that a step allocates nothing.
#[derive(Default)]
struct Sums {
    pushes: Vec<Push>,
    /// Where each sum lies: whose slot, and which of its gradients.
    merged: Vec<(Node, (usize, usize))>,
    whole: Push,
    words: Vec<u64>,
}

impl LeaderWorker {
    /// The leader of the workers of `board`; `connect` makes the end towards the server over its weights and its slot.
    pub fn new(
        board: &Arc<Board>,
        shape: &Shape,
        connect: impl FnOnce(Arc<Shared>, Arc<Shared>) -> Result<Box<dyn Upward>, Error>,
    ) -> Result<LeaderWorker, Error> {
        let node = board.server(shape);
        let own = board.worker(shape, 0, Some(&node));
        let server = connect(node.weights().clone(), own.slot().clone())?;
        let pushes = vec![Push::default(); shape.workers()];
        Ok(LeaderWorker { server, node, own, sums: Mutex::new(Sums { pushes, ..Sums::default() }) })
    }

    /// The blocks of a worker's slot that hold one of its gradients.
    fn blocks(&self, gradient: usize) -> Range<usize> {
        let blocks = self.node.weights().blocks();
        gradient * blocks..(gradient + 1) * blocks
    }

    /// Adds the gradient at `from` to the one at `to`.
    fn add(&self, to: (usize, usize), from: (usize, usize)) {
        let mut sum = self.node.slots()[to.0].write(self.blocks(to.1));
        let part = self.node.slots()[from.0].read(self.blocks(from.1));
        sum.iter_mut().zip(part.iter()).for_each(|(sum, part)| *sum += part);
    }
}

impl Sums {
    /// All of the node's pushes as one, whose gradients are those that `merged` tells of.
    fn join(&mut self) {
        let Sums { pushes, merged, whole, words } = self;
        whole.leaves = pushes[0].leaves;
        whole.nodes.clear();
        whole.nodes.extend(merged.iter().map(|(node, _)| *node));
        whole.losses.clear();
        whole.losses.extend(pushes.iter().flat_map(|push| &push.losses));
        whole.hits.clear();
        whole.hits.extend(pushes.iter().flat_map(|push| &push.hits));
        whole.to_words(words);
    }
}

impl WorkerEnd for LeaderWorker {
    fn weights(&self) -> &Arc<Shared> {
        self.node.weights()
    }

    fn slot(&self) -> &Arc<Shared> {
        self.own.slot()
    }

    fn order(&self) -> Result<(Arrival, Option<Order>), Error> {
        let (arrival, order) = self.server.order()?;
        if let Some(order) = order {
            (0..self.members()).try_for_each(|member| self.node.give(member, order))?;
        }
        Ok((arrival, order))
    }

    /// The node's other workers wait for their leader, who passes on what it hears.
    fn has_beaten(&self) -> Result<bool, Error> {
        let has_beaten = self.server.has_beaten()?;
        if has_beaten {
            self.node.beat()?;
        }
        Ok(has_beaten)
    }

    fn push(&self, words: &[u64], nodes: usize) -> Result<(), Error> {
        self.own.push(words, nodes)
    }

    fn members(&self) -> usize {
        self.node.slots().len()
    }

    fn has_pushed(&self, member: usize) -> bool {
        self.node.arrival(member) == Ok(Arrival::Complete)
    }

    fn send_on(&self) -> Result<(), Error> {
        let mut sums = self.sums.lock().expect("no panic while it is held");
        for (member, push) in sums.pushes.iter_mut().enumerate() {
            self.node.take(member, push);
        }
        let Sums { pushes, merged, .. } = &mut *sums;
        let gradients = pushes.iter().enumerate().flat_map(|(member, push)| {
            push.nodes.iter().enumerate().map(move |(gradient, &node)| (node, (member, gradient)))
        });
        tree::merge(gradients, pushes[0].leaves, merged, |to, from| self.add(to, from));
        sums.join();
        let slots = self.node.slots();
        let mut left = sums.merged.iter().map(|&(_, (member, at))| slots[member].read(self.blocks(at)));
        // SAFETY: the slots are written when the next order has come, which waits until they have left.
        unsafe { self.server.send(&sums.words, &mut left) }
    }

    fn fail(&self, reason: &str) {
        self.node.fail(reason);
        self.server.fail(reason);
    }

    fn failure(&self) -> Result<(), Error> {
        self.node.failure()
    }
}

#[cfg(test)]
mod tests;
