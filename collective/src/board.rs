//! Server and workers over memory that all of them see: threads of one process, or processes of one node.
//!
//! Nothing is copied in synchronous training: a worker fills its slot and raises its counter, the server sums the slots, updates the
//! weights in place and raises each worker's counter. These counters order the phases, so that no block is written while it is read.
//! Workers can take a share of the update: the slots and the optimizer's buffers are there for all.
//! Asynchronous workers read copies of the weights of their own, which the server fills before it gives the next order.
//!
//! ```text
//! head | mailboxes, one a worker | words of the pushes | weights | copies of the weights | optimizer's slots | slots
//! ```

#![allow(unsafe_code)] // Counters and floats lie in one allocation that several processes may map, at offsets all of them compute.

use crate::end::{self, Arrival, Commons, Shape};
use crate::message::{Order, Push};
use crate::wait::Counter;
use crate::{Error, Shared};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Every part begins on a cache line of its own.
const LINE: usize = 64;

/// The longest message of a failure, in bytes; what is longer is cut.
const REASON: usize = 1016;

/// The first failure, for all ranks.
#[repr(C, align(64))]
struct Head {
    /// 0: none, 1: being written, 2: there.
    state: AtomicU32,
    length: AtomicU32,
    reason: [AtomicU8; REASON],
    /// Grows while the server does something that may take long.
    beats: Counter,
}

/// What server and one worker tell each other.
#[repr(C, align(64))]
struct Mailbox {
    /// Number of orders given.
    given: Counter,
    /// The last one.
    order: AtomicU64,
    /// Number of pushes made.
    pushed: Counter,
}

/// Where everything lies, in bytes.
struct Layout {
    words: usize,
    words_each: usize,
    weights: usize,
    weights_each: usize,
    copies: usize,
    optimizer_slots: usize,
    slots: usize,
    slot_each: usize,
    end: usize,
}

/// The memory, as one of its processes maps it.
pub struct Board {
    base: *mut u8,
    layout: Layout,
    workers: usize,
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the board's memory is reached through atomics, and through `Shared`, whose users the counters order.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

/// The server's end.
pub struct ServerEnd {
    board: Arc<Board>,
    weights: Arc<Shared>,
    copies: Vec<Arc<Shared>>,
    commons: Commons,
}

/// A worker's end.
pub struct WorkerEnd {
    board: Arc<Board>,
    index: usize,
    weights: Arc<Shared>,
    commons: Commons,
    /// The server's signs of life that have been seen.
    beats: AtomicU64,
}

impl Layout {
    fn of(shape: &Shape) -> Layout {
        let lines = |bytes: usize| bytes.next_multiple_of(LINE);
        let words = size_of::<Head>() + shape.workers() * size_of::<Mailbox>();
        let words_each = lines(8 * Push::words_max(shape.nodes, shape.leaves));
        let weights = words + shape.workers() * words_each;
        let weights_each = lines(4 * shape.floats());
        let copies = weights + weights_each;
        let optimizer_slots = copies + if shape.copies { shape.workers() * weights_each } else { 0 };
        let slots = optimizer_slots + shape.optimizer_slots * weights_each;
        let slot_each = shape.nodes * weights_each;
        let end = slots + shape.workers() * slot_each;
        Layout { words, words_each, weights, weights_each, copies, optimizer_slots, slots, slot_each, end }
    }
}

/// A line of zeros, the unit of allocation within one process.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// What keeps a process's own board alive: never touched but to be dropped.
struct Lines(#[allow(dead_code, reason = "held for its drop")] Box<[Line]>);

impl Board {
    /// Bytes that a job of this shape takes.
    pub fn bytes(shape: &Shape) -> usize {
        Layout::of(shape).end
    }

    /// A board for the threads of this process.
    pub fn here(shape: &Shape) -> Arc<Board> {
        let mut lines = vec![Line([0; LINE]); Board::bytes(shape) / LINE].into_boxed_slice();
        let base = lines.as_mut_ptr().cast();
        // SAFETY: the lines are as many as the shape takes, aligned, zero, and live as long as their owner.
        unsafe { Board::over(base, shape, Arc::new(Lines(lines))) }
    }

    /// The same over memory that somebody else allocated.
    ///
    /// # Safety
    /// `base` is aligned to 64 bytes and points to `Board::bytes(shape)` bytes that live as long as `owner`, are zero before any rank
    /// uses them, and are reached only through boards of the same shape.
    pub unsafe fn over(base: *mut u8, shape: &Shape, owner: Arc<dyn Any + Send + Sync>) -> Arc<Board> {
        Arc::new(Board { base, layout: Layout::of(shape), workers: shape.workers(), owner })
    }

    /// The server's end.
    pub fn server(self: &Arc<Self>, shape: &Shape) -> ServerEnd {
        let copies = if shape.copies { 0..self.workers } else { 0..0 };
        ServerEnd {
            board: self.clone(),
            weights: self.floats(self.layout.weights, shape, 1),
            copies: copies.map(|index| self.copy(shape, index)).collect(),
            commons: self.commons(shape),
        }
    }

    fn commons(&self, shape: &Shape) -> Commons {
        let Layout { optimizer_slots, weights_each, .. } = self.layout;
        let optimizer_slot = |index| self.floats(optimizer_slots + index * weights_each, shape, 1);
        Commons {
            slots: (0..self.workers).map(|index| self.slot(shape, index)).collect(),
            optimizer_slots: (0..shape.optimizer_slots).map(optimizer_slot).collect(),
        }
    }

    /// The end of worker `index`. In one process the ends share their buffers with the server, so that conflicting borrows are seen.
    pub fn worker(self: &Arc<Self>, shape: &Shape, index: usize, server: Option<&ServerEnd>) -> WorkerEnd {
        let weights = match server {
            Some(server) if shape.copies => server.copies[index].clone(),
            Some(server) => server.weights.clone(),
            None if shape.copies => self.copy(shape, index),
            None => self.floats(self.layout.weights, shape, 1),
        };
        let commons = server.map_or_else(|| self.commons(shape), |server| server.commons.clone());
        WorkerEnd { board: self.clone(), index, weights, commons, beats: AtomicU64::new(0) }
    }

    fn copy(&self, shape: &Shape, index: usize) -> Arc<Shared> {
        self.floats(self.layout.copies + index * self.layout.weights_each, shape, 1)
    }

    fn slot(&self, shape: &Shape, index: usize) -> Arc<Shared> {
        self.floats(self.layout.slots + index * self.layout.slot_each, shape, shape.nodes)
    }

    fn floats(&self, at: usize, shape: &Shape, times: usize) -> Arc<Shared> {
        let lengths = (0..times).flat_map(|_| shape.lengths.iter().copied());
        // SAFETY: the layout has room for these blocks at `at`; every process's ranks keep to the counters' order.
        Arc::new(unsafe { Shared::over(self.base.add(at).cast(), lengths, Box::new(self.owner.clone())) })
    }

    fn head(&self) -> &Head {
        // SAFETY: the head lies at the start; it consists of atomics, for which every bit pattern is valid.
        unsafe { &*self.base.cast::<Head>() }
    }

    fn mailbox(&self, worker: usize) -> &Mailbox {
        assert!(worker < self.workers);
        // SAFETY: as many mailboxes as workers follow the head; they consist of atomics.
        unsafe { &*self.base.add(size_of::<Head>()).cast::<Mailbox>().add(worker) }
    }

    fn words(&self, worker: usize) -> &[AtomicU64] {
        assert!(worker < self.workers);
        let Layout { words, words_each, .. } = self.layout;
        // SAFETY: the layout has room for `words_each` bytes a worker here; atomics are valid for every bit pattern.
        unsafe {
            let first = self.base.add(words + worker * words_each).cast::<AtomicU64>();
            std::slice::from_raw_parts(first, words_each / size_of::<AtomicU64>())
        }
    }

    /// Only the first failure is the cause; what follows it is noise.
    pub(crate) fn fail(&self, reason: &str) {
        let head = self.head();
        if head.state.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let length = reason.len().min(REASON);
        for (to, &byte) in head.reason.iter().zip(&reason.as_bytes()[..length]) {
            to.store(byte, Ordering::Relaxed);
        }
        head.length.store(length as u32, Ordering::Relaxed);
        head.state.store(2, Ordering::Release);
    }

    fn failure(&self) -> Result<(), Error> {
        let head = self.head();
        if head.state.load(Ordering::Acquire) != 2 {
            return Ok(());
        }
        let length = head.length.load(Ordering::Relaxed) as usize;
        let bytes: Vec<u8> = head.reason[..length].iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        Err(Error::Failed { reason: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

impl end::ServerEnd for ServerEnd {
    fn weights(&self) -> &Arc<Shared> {
        &self.weights
    }

    fn slots(&self) -> &[Arc<Shared>] {
        &self.commons.slots
    }

    fn commons(&self) -> Option<&Commons> {
        Some(&self.commons)
    }

    fn copies(&self) -> &[Arc<Shared>] {
        &self.copies
    }

    fn arrival(&self, worker: usize) -> Result<Arrival, Error> {
        let mailbox = self.board.mailbox(worker);
        let is_answered = mailbox.pushed.get() >= mailbox.given.get();
        Ok(if is_answered { Arrival::Complete } else { Arrival::Nothing })
    }

    fn take(&self, worker: usize, push: &mut Push) {
        push.set(self.board.words(worker).iter().map(|word| word.load(Ordering::Relaxed)));
    }

    fn give(&self, worker: usize, order: Order) -> Result<(), Error> {
        let mailbox = self.board.mailbox(worker);
        mailbox.order.store(order.word(), Ordering::Relaxed);
        mailbox.given.set(mailbox.given.get() + 1);
        Ok(())
    }

    fn beat(&self) -> Result<(), Error> {
        self.board.head().beats.increment();
        Ok(())
    }

    fn fail(&self, reason: &str) {
        self.board.fail(reason);
    }

    fn failure(&self) -> Result<(), Error> {
        self.board.failure()
    }
}

impl end::WorkerEnd for WorkerEnd {
    fn weights(&self) -> &Arc<Shared> {
        &self.weights
    }

    fn slot(&self) -> &Arc<Shared> {
        &self.commons.slots[self.index]
    }

    fn commons(&self) -> Option<&Commons> {
        Some(&self.commons)
    }

    fn order(&self) -> Result<(Arrival, Option<Order>), Error> {
        let mailbox = self.board.mailbox(self.index);
        if mailbox.given.get() <= mailbox.pushed.get() {
            return Ok((Arrival::Nothing, None));
        }
        Ok((Arrival::Complete, Some(Order::of(mailbox.order.load(Ordering::Relaxed)))))
    }

    fn has_beaten(&self) -> Result<bool, Error> {
        let beats = self.board.head().beats.get();
        Ok(self.beats.swap(beats, Ordering::Relaxed) != beats)
    }

    fn push(&self, words: &[u64], _nodes: usize) -> Result<(), Error> {
        for (to, &word) in self.board.words(self.index).iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
        let mailbox = self.board.mailbox(self.index);
        mailbox.pushed.set(mailbox.pushed.get() + 1);
        Ok(())
    }

    fn fail(&self, reason: &str) {
        self.board.fail(reason);
    }

    fn failure(&self) -> Result<(), Error> {
        self.board.failure()
    }
}
