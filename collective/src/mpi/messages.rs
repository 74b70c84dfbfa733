//! Weights and gradients as nonblocking messages between the server and each worker.
//!
//! An order is a word and the weights; its answer the words of a push and as many gradients as they tell of. Receives are posted before
//! the other side can send, but for the gradients, whose number the words tell first.

#![allow(unsafe_code)] // MPI writes to buffers after the call that lent them has returned.

use super::call::{Comm, Requests};
use crate::link::{Arrival, Shape};
use crate::message::{Order, Push};
use crate::{Error, Shared};
use std::sync::{Arc, Mutex, MutexGuard};

/// Tags of what is sent.
const ORDER: i32 = 1;
const WEIGHTS: i32 = 2;
const WORDS: i32 = 3;
const GRADIENTS: i32 = 4;
const BEAT: i32 = 5;

/// The first word of a push that tells of a failure; its text follows, its length first.
const FAILURE: u64 = u64::MAX;
/// The longest text of a failure, in words.
const REASON_WORDS: usize = 125;

/// The server's end.
pub struct MessageServer {
    comm: Comm,
    first_rank: usize,
    pub(crate) weights: Arc<Shared>,
    pub(crate) copies: Vec<Arc<Shared>>,
    pub(crate) slots: Vec<Arc<Shared>>,
    /// Floats of one gradient.
    floats: usize,
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
    pub(crate) weights: Arc<Shared>,
    pub(crate) slot: Arc<Shared>,
    floats: usize,
    mail: Mutex<WorkerMail>,
}

/// What is under way between a worker and the server.
struct WorkerMail {
    order: Box<[u64]>,
    order_receive: Requests,
    weights_receive: Requests,
    words: Vec<u64>,
    sends: Requests,
}

fn words_max(shape: &Shape) -> usize {
    Push::words_max(shape.nodes, shape.leaves).max(2 + REASON_WORDS)
}

fn buffer(shape: &Shape, times: usize) -> Arc<Shared> {
    Arc::new(Shared::new((0..times).flat_map(|_| shape.lengths.iter().copied())))
}

fn locked<T>(mail: &Mutex<T>) -> MutexGuard<'_, T> {
    mail.lock().expect("no panic while it is held")
}

impl MessageServer {
    pub fn new(comm: Comm, shape: &Shape) -> MessageServer {
        let mail = || Mail {
            order: vec![0].into(),
            sends: Requests::default(),
            words: vec![0; words_max(shape)].into(),
            receives: Requests::default(),
            stage: Stage::Complete,
        };
        let copies = if shape.copies { shape.workers } else { 0 };
        MessageServer {
            comm,
            first_rank: shape.first_rank,
            weights: buffer(shape, 1),
            copies: (0..copies).map(|_| buffer(shape, 1)).collect(),
            slots: (0..shape.workers).map(|_| buffer(shape, shape.nodes)).collect(),
            floats: shape.floats(),
            mail: (0..shape.workers).map(|_| Mutex::new(mail())).collect(),
            beats: Mutex::default(),
        }
    }

    /// Gives all workers a sign of life, unless an earlier one is still under way. May be called in another thread while the one that
    /// joined the world makes no call.
    pub fn beat(&self) -> Result<(), Error> {
        let mut beats = locked(&self.beats);
        if !beats.are_done()? {
            return Ok(());
        }
        let others = 1 - self.first_rank..self.mail.len();
        // SAFETY: there are no words that would have to live.
        others
            .map(|worker| worker + self.first_rank)
            .try_for_each(|rank| unsafe { beats.send_words(self.comm, &[], rank, BEAT) })
    }

    pub fn give(&self, worker: usize, order: Order) -> Result<(), Error> {
        let (mut mail, rank) = (locked(&self.mail[worker]), worker + self.first_rank);
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
            sends.send_words(self.comm, word, rank, ORDER)?;
            sends.send_floats(self.comm, &weights, rank, WEIGHTS)
        }
    }

    pub fn arrival(&self, worker: usize) -> Result<Arrival, Error> {
        let mut mail = locked(&self.mail[worker]);
        if mail.stage == Stage::Words && mail.receives.are_done()? {
            if mail.words[0] == FAILURE {
                return Err(Error::Failed { reason: text(&mail.words[1..]) });
            }
            let floats = Push::nodes_of(mail.words[0]) * self.floats;
            let slot = &mut self.slots[worker].write_all()[..floats];
            // SAFETY: the slot lives as long as this end and is not read before all has come.
            unsafe { mail.receives.receive_floats(self.comm, slot, worker + self.first_rank, GRADIENTS)? };
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

    /// Whether all that was sent to a worker has left this end's buffers.
    pub fn has_sent(&self, worker: usize) -> Result<bool, Error> {
        locked(&self.mail[worker]).sends.are_done()
    }

    pub fn take(&self, worker: usize, push: &mut Push) {
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
    pub fn new(comm: Comm, shape: &Shape) -> Result<MessageWorker, Error> {
        let mail = WorkerMail {
            order: vec![0].into(),
            order_receive: Requests::default(),
            weights_receive: Requests::default(),
            words: Vec::new(),
            sends: Requests::default(),
        };
        let (weights, slot) = (buffer(shape, 1), buffer(shape, shape.nodes));
        let end = MessageWorker { comm, weights, slot, floats: shape.floats(), mail: Mutex::new(mail) };
        end.expect_order(&mut locked(&end.mail))?;
        Ok(end)
    }

    fn expect_order(&self, mail: &mut WorkerMail) -> Result<(), Error> {
        let mut weights = self.weights.write_all();
        // SAFETY: the buffers live as long as this end; nobody reads them before the order has come.
        unsafe {
            mail.order_receive.receive_words(self.comm, &mut mail.order, 0, ORDER)?;
            mail.weights_receive.receive_floats(self.comm, &mut weights, 0, WEIGHTS)
        }
    }

    pub fn arrival(&self, order: &mut Option<Order>) -> Result<Arrival, Error> {
        let mut mail = locked(&self.mail);
        if !mail.order_receive.are_done()? {
            return Ok(Arrival::Nothing);
        }
        if !(mail.weights_receive.are_done()? && mail.sends.are_done()?) {
            return Ok(Arrival::Begun);
        }
        *order = Some(Order::of(mail.order[0]));
        Ok(Arrival::Complete)
    }

    /// Whether the server has given a sign of life since this was asked before.
    pub fn has_beaten(&self) -> Result<bool, Error> {
        let mut any = false;
        while self.comm.take_empty(0, BEAT)? {
            any = true;
        }
        Ok(any)
    }

    pub fn push(&self, words: &[u64], nodes: usize) -> Result<(), Error> {
        let mut mail = locked(&self.mail);
        let WorkerMail { words: kept, sends, .. } = &mut *mail;
        kept.clear();
        kept.extend_from_slice(words);
        let slot = &self.slot.read_all()[..nodes * self.floats];
        // SAFETY: words and slot live as long as this end and are not written before the next order, which waits for these requests.
        unsafe {
            sends.send_words(self.comm, kept, 0, WORDS)?;
            sends.send_floats(self.comm, slot, 0, GRADIENTS)?;
        }
        self.expect_order(&mut mail)
    }

    pub fn fail(&self, reason: &str) {
        let mut mail = locked(&self.mail);
        let reason = &reason.as_bytes()[..reason.len().min(8 * REASON_WORDS)];
        mail.words = [FAILURE, reason.len() as u64].into_iter().chain(words_of(reason)).collect();
        let WorkerMail { words, sends, .. } = &mut *mail;
        // SAFETY: the words live as long as this end. If MPI fails, the job ends for want of an answer.
        let _ = unsafe { sends.send_words(self.comm, words, 0, WORDS) };
        let _ = sends.are_done();
    }
}

fn words_of(text: &[u8]) -> impl Iterator<Item = u64> {
    text.chunks(8).map(|chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(bytes)
    })
}

fn text(words: &[u64]) -> String {
    let mut bytes: Vec<u8> = words[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(words[0] as usize);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_s_text_comes_back() {
        for reason in ["", "rank 2: no", "rank 2: größer als acht Byte"] {
            let words: Vec<u64> =
                std::iter::once(reason.len() as u64).chain(words_of(reason.as_bytes())).collect();
            assert_eq!(text(&words), reason);
        }
    }
}
