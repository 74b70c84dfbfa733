//! Weights and gradients between the server and each worker, as nonblocking messages or as memory that the other side gets by itself.
//!
//! An order is a word and the weights; its answer the words of a push and as many gradients as they tell of. Receives are posted before
//! the other side can send, but for the gradients, whose number the words tell first. With [`Exposed`] memory only the words are
//! messages; weights and gradients are got when the words have come.

#![allow(unsafe_code)] // MPI writes to buffers after the call that lent them has returned.

use super::call::{Comm, Requests};
use super::exposed::Exposed;
use super::window::Window;
use crate::end::{Arrival, ServerEnd, Shape, WorkerEnd};
use crate::leaders::Upward;
use crate::message::{self, Order, Push};
use crate::shared::Ref;
use crate::{Error, Shared};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

/// Tags of what is sent.
const ORDER: i32 = 1;
const WEIGHTS: i32 = 2;
const WORDS: i32 = 3;
const GRADIENTS: i32 = 4;
const BEAT: i32 = 5;

/// The server's end.
pub struct MessageServer {
    comm: Comm,
    ranks: Vec<usize>,
    weights: Arc<Shared>,
    copies: Vec<Arc<Shared>>,
    slots: Vec<Arc<Shared>>,
    /// Floats of one gradient.
    floats: usize,
    /// Where weights and copies lie if the workers get them.
    exposed: Option<Exposed>,
    mail: Vec<Mutex<Mail>>,
    /// Signs of life under way; they carry nothing.
    beats: Mutex<Requests>,
}

/// What is under way between the server and one worker.
struct Mail {
    order: Box<[u64]>,
    sends: Requests,
    words: Box<[u64]>,
    receives: Requests,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Words,
    Gradients,
    Complete,
}

/// A worker's end.
pub struct MessageWorker {
    comm: Comm,
    weights: Arc<Shared>,
    slot: Arc<Shared>,
    floats: usize,
    /// Where the slot lies if the server gets it, and the server's float from which on this worker's weights lie.
    exposed: Option<(Exposed, usize)>,
    mail: Mutex<WorkerMail>,
}

/// What is under way between a worker and the server.
struct WorkerMail {
    order: Box<[u64]>,
    order_receive: Requests,
    weights_receive: Requests,
    /// Whether the weights of this order are being got.
    is_getting: bool,
    words: Vec<u64>,
    sends: Requests,
}

/// Floats of a message's buffer.
pub fn buffer(shape: &Shape, times: usize) -> Arc<Shared> {
    Arc::new(Shared::new((0..times).flat_map(|_| shape.lengths.iter().copied())))
}

fn locked<T>(mail: &Mutex<T>) -> MutexGuard<'_, T> {
    mail.lock().expect("no panic while it is held")
}

impl MessageServer {
    /// The end for the workers of `shape`; the weights lie in a buffer of somebody else's, or in one of its own.
    pub fn new(comm: Comm, shape: &Shape, weights: Option<Arc<Shared>>) -> MessageServer {
        let copies = if shape.copies { shape.workers() } else { 0 };
        let copies = (0..copies).map(|_| buffer(shape, 1)).collect();
        MessageServer::over(comm, shape, (weights.unwrap_or_else(|| buffer(shape, 1)), copies), None)
    }

    /// The end for workers that get their weights by themselves, as the server gets their gradients.
    pub fn exposing(comm: Comm, shape: &Shape) -> Result<MessageServer, Error> {
        let (copies, floats) = (if shape.copies { shape.workers() } else { 0 }, shape.floats());
        let exposed = Exposed::new(comm, (1 + copies) * floats)?;
        let buffer = |index| exposed.buffer(index * floats, shape.lengths.iter().copied());
        let weights = (buffer(0), (1..=copies).map(buffer).collect());
        Ok(MessageServer::over(comm, shape, weights, Some(exposed)))
    }

    fn over(
        comm: Comm,
        shape: &Shape,
        (weights, copies): (Arc<Shared>, Vec<Arc<Shared>>),
        exposed: Option<Exposed>,
    ) -> MessageServer {
        let words_max = Push::words_max(shape.nodes, shape.leaves);
        let mail = || Mail {
            order: vec![0].into(),
            sends: Requests::default(),
            words: vec![0; words_max].into(),
            receives: Requests::default(),
            stage: Stage::Complete,
        };
        MessageServer {
            comm,
            ranks: shape.ranks.to_vec(),
            weights,
            copies,
            slots: (0..shape.workers()).map(|_| buffer(shape, shape.nodes)).collect(),
            floats: shape.floats(),
            exposed,
            mail: (0..shape.workers()).map(|_| Mutex::new(mail())).collect(),
            beats: Mutex::default(),
        }
    }

    /// The window of exposed memory.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.exposed.as_ref().map(Exposed::window)
    }
}

impl ServerEnd for MessageServer {
    fn weights(&self) -> &Arc<Shared> {
        &self.weights
    }

    fn slots(&self) -> &[Arc<Shared>] {
        &self.slots
    }

    fn copies(&self) -> &[Arc<Shared>] {
        &self.copies
    }

    fn give(&self, worker: usize, order: Order) -> Result<(), Error> {
        let (mut mail, rank) = (locked(&self.mail[worker]), self.ranks[worker]);
        // The worker has answered the last order, so that it has received what was sent with it.
        while !mail.sends.are_done()? {}
        mail.order[0] = order.word();
        mail.stage = Stage::Words;
        let Mail { order: word, sends, words, receives, .. } = &mut *mail;
        let weights = self.copies.get(worker).unwrap_or(&self.weights).read_all();
        // SAFETY: the buffers belong to this end and live as long as it does. The weights (or this worker's copy) are not written before
        // this worker's answer has come, the words not read.
        unsafe {
            if order != Order::Stop {
                receives.receive_words(self.comm, words, rank, WORDS)?;
            }
            if let Some(exposed) = &self.exposed {
                exposed.publish()?;
                return sends.send_words(self.comm, word, rank, ORDER);
            }
            sends.send_words(self.comm, word, rank, ORDER)?;
            sends.send_floats(self.comm, &weights, rank, WEIGHTS)
        }
    }

    fn arrival(&self, worker: usize) -> Result<Arrival, Error> {
        let mut mail = locked(&self.mail[worker]);
        if mail.stage == Stage::Words && mail.receives.are_done()? {
            message::failure_of(&mail.words)?;
            let (nodes, mut slot) = (Push::nodes_of(mail.words[0]), self.slots[worker].write_all());
            let rank = self.ranks[worker];
            for (index, gradient) in slot.chunks_mut(self.floats.max(1)).take(nodes).enumerate() {
                // SAFETY: the slot lives as long as this end and is not read before all has come; the worker writes to its own when it
                // has the next order.
                unsafe {
                    match &self.exposed {
                        Some(exposed) => {
                            exposed.get(&mut mail.receives, gradient, rank, index * self.floats)?
                        }
                        None => mail.receives.receive_floats(self.comm, gradient, rank, GRADIENTS)?,
                    }
                }
            }
            mail.stage = Stage::Gradients;
        }
        if mail.stage == Stage::Gradients && mail.receives.are_done()? {
            mail.stage = Stage::Complete;
        }
        Ok(match mail.stage {
            Stage::Words => Arrival::Nothing,
            Stage::Gradients => Arrival::Begun,
            Stage::Complete => Arrival::Complete,
        })
    }

    fn has_sent(&self, worker: usize) -> Result<bool, Error> {
        locked(&self.mail[worker]).sends.are_done()
    }

    fn beat(&self) -> Result<(), Error> {
        let mut beats = locked(&self.beats);
        // An earlier one that is still under way will do.
        if !beats.are_done()? {
            return Ok(());
        }
        let mut others = self.ranks.iter().filter(|&&rank| rank != 0);
        // SAFETY: there are no words that would have to live.
        others.try_for_each(|&rank| unsafe { beats.send_words(self.comm, &[], rank, BEAT) })
    }

    fn take(&self, worker: usize, push: &mut Push) {
        push.set(locked(&self.mail[worker]).words.iter().copied());
    }
}

impl Drop for MessageServer {
    fn drop(&mut self) {
        for (index, mail) in self.mail.iter_mut().enumerate() {
            let mail = mail.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
            if !matches!((mail.sends.are_done(), mail.receives.are_done()), (Ok(true), Ok(true))) {
                abandon((std::mem::take(&mut mail.order), std::mem::take(&mut mail.words)));
                abandon((self.weights.clone(), self.copies.get(index).cloned(), self.slots[index].clone()));
            }
        }
    }
}

impl Drop for MessageWorker {
    fn drop(&mut self) {
        let mail = self.mail.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        let receives = [mail.order_receive.are_done(), mail.weights_receive.are_done()];
        if !matches!((mail.sends.are_done(), receives), (Ok(true), [Ok(true), Ok(true)])) {
            abandon((std::mem::take(&mut mail.order), std::mem::take(&mut mail.words)));
            abandon((self.weights.clone(), self.slot.clone()));
        }
    }
}

/// Leaves buffers to transfers that never end because a rank has failed; the process is about to end too.
fn abandon<T>(buffers: T) {
    std::mem::forget(buffers);
}

impl MessageWorker {
    /// An end whose weights and slot lie in these buffers.
    pub fn new(comm: Comm, weights: Arc<Shared>, slot: Arc<Shared>) -> Result<MessageWorker, Error> {
        MessageWorker::over(comm, weights, slot, None)
    }

    /// The end of worker `index` that gets its weights by itself, as the server gets its gradients.
    pub fn exposing(comm: Comm, shape: &Shape, index: usize) -> Result<MessageWorker, Error> {
        let exposed = Exposed::new(comm, shape.nodes * shape.floats())?;
        let slot = exposed.buffer(0, (0..shape.nodes).flat_map(|_| shape.lengths.iter().copied()));
        let first = if shape.copies { (1 + index) * shape.floats() } else { 0 };
        MessageWorker::over(comm, buffer(shape, 1), slot, Some((exposed, first)))
    }

    fn over(
        comm: Comm,
        weights: Arc<Shared>,
        slot: Arc<Shared>,
        exposed: Option<(Exposed, usize)>,
    ) -> Result<MessageWorker, Error> {
        let mail = WorkerMail {
            order: vec![0].into(),
            order_receive: Requests::default(),
            weights_receive: Requests::default(),
            is_getting: false,
            words: Vec::new(),
            sends: Requests::default(),
        };
        let floats = weights.range(0..weights.blocks()).len();
        let end = MessageWorker { comm, weights, slot, floats, exposed, mail: Mutex::new(mail) };
        end.expect_order(&mut locked(&end.mail))?;
        Ok(end)
    }

    /// The window of exposed memory.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.exposed.as_ref().map(|(exposed, _)| exposed.window())
    }

    fn expect_order(&self, mail: &mut WorkerMail) -> Result<(), Error> {
        let mut weights = self.weights.write_all();
        mail.is_getting = false;
        // SAFETY: the buffers live as long as this end; nobody reads them before the order has come.
        unsafe {
            mail.order_receive.receive_words(self.comm, &mut mail.order, 0, ORDER)?;
            match self.exposed {
                Some(_) => Ok(()),
                None => mail.weights_receive.receive_floats(self.comm, &mut weights, 0, WEIGHTS),
            }
        }
    }

    /// Begins to get the weights of an order that has come, once.
    fn get_weights(&self, mail: &mut WorkerMail) -> Result<(), Error> {
        let Some((exposed, first)) = self.exposed.as_ref().filter(|_| !mail.is_getting) else {
            return Ok(());
        };
        mail.is_getting = true;
        let mut weights = self.weights.write_all();
        // SAFETY: as above; the server does not write to its own before this worker has answered.
        unsafe { exposed.get(&mut mail.weights_receive, &mut weights, 0, *first) }
    }

    /// Sends a push and its gradients.
    ///
    /// # Safety
    /// Nobody writes to the gradients before the next order, which waits until they have left.
    unsafe fn send_all(
        &self,
        words: &[u64],
        gradients: impl Iterator<Item = impl Deref<Target = [f32]>>,
    ) -> Result<(), Error> {
        let mut mail = locked(&self.mail);
        let WorkerMail { words: kept, sends, .. } = &mut *mail;
        kept.clear();
        kept.extend_from_slice(words);
        // SAFETY: the words live as long as this end and are not written before the next order, nor are the gradients.
        unsafe {
            if let Some((exposed, _)) = &self.exposed {
                exposed.publish()?;
                sends.send_words(self.comm, kept, 0, WORDS)?;
                return self.expect_order(&mut mail);
            }
            sends.send_words(self.comm, kept, 0, WORDS)?;
            for gradient in gradients {
                sends.send_floats(self.comm, &gradient, 0, GRADIENTS)?;
            }
        }
        self.expect_order(&mut mail)
    }
}

impl Upward for MessageWorker {
    unsafe fn send(&self, words: &[u64], gradients: &mut dyn Iterator<Item = Ref<'_>>) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.send_all(words, gradients) }
    }
}

impl WorkerEnd for MessageWorker {
    fn weights(&self) -> &Arc<Shared> {
        &self.weights
    }

    fn slot(&self) -> &Arc<Shared> {
        &self.slot
    }

    fn order(&self) -> Result<(Arrival, Option<Order>), Error> {
        let mut mail = locked(&self.mail);
        if !mail.order_receive.are_done()? {
            return Ok((Arrival::Nothing, None));
        }
        self.get_weights(&mut mail)?;
        if !(mail.weights_receive.are_done()? && mail.sends.are_done()?) {
            return Ok((Arrival::Begun, None));
        }
        Ok((Arrival::Complete, Some(Order::of(mail.order[0]))))
    }

    fn has_beaten(&self) -> Result<bool, Error> {
        let mut any = false;
        while self.comm.take_empty(0, BEAT)? {
            any = true;
        }
        Ok(any)
    }

    fn push(&self, words: &[u64], nodes: usize) -> Result<(), Error> {
        let slot = self.slot.read_all();
        let gradients = slot.chunks(self.floats.max(1)).take(nodes);
        // SAFETY: the slot is written when the next order has come.
        unsafe { self.send_all(words, gradients) }
    }

    fn fail(&self, reason: &str) {
        let mut mail = locked(&self.mail);
        let WorkerMail { words, sends, .. } = &mut *mail;
        message::failure_to_words(reason, words);
        // SAFETY: the words live as long as this end. If MPI fails, the job ends for want of an answer.
        let _ = unsafe { sends.send_words(self.comm, words, 0, WORDS) };
        let _ = sends.are_done();
    }
}
