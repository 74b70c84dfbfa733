//! The server's end.

#![allow(unsafe_code)] // MPI writes to buffers after the call that lent them has returned.

use super::{BEAT, GRADIENTS, ORDER, WEIGHTS, WORDS, abandon, buffer, locked};
use crate::end::{Arrival, ServerEnd, Shape};
use crate::letter::{Cut, Letter};
use crate::message::{self, Order, Push};
use crate::mpi::call::Comm;
use crate::mpi::exposed::Exposed;
use crate::mpi::requests::Requests;
use crate::mpi::vigil::Calling;
use crate::mpi::window::Window;
use crate::{Error, Shared};
use std::sync::{Arc, Mutex};

/// The server's end.
pub struct MessageServer {
    comm: Comm,
    _calling: Calling,
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
    cut: Cut,
    order: Letter,
    /// Pieces of the weights of the next order that have been sent before it.
    offered: usize,
    sends: Requests,
    /// The words of a push, with its first gradient if that is small and the worker on another node.
    words: Letter,
    words_receive: Requests,
    /// The gradients that these words tell of, and the rest of their pieces.
    nodes: usize,
    receives: Requests,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Words,
    Gradients,
    Complete,
}

impl MessageServer {
    /// The end for the workers of `shape`; the weights lie in a buffer of somebody else's, or in one of its own.
    /// Workers for which `is_near` is true are on its node.
    pub fn new(
        comm: (Comm, Calling),
        shape: &Shape,
        weights: Option<Arc<Shared>>,
        is_near: impl Fn(usize) -> bool,
    ) -> MessageServer {
        let copies = if shape.copies { shape.workers() } else { 0 };
        let copies = (0..copies).map(|_| buffer(shape, 1)).collect();
        MessageServer::over(comm, shape, (weights.unwrap_or_else(|| buffer(shape, 1)), copies), None, is_near)
    }

    /// The end for workers that get their weights by themselves, as the server gets their gradients.
    pub fn exposing(comm: (Comm, Calling), shape: &Shape) -> Result<MessageServer, Error> {
        let (copies, floats) = (if shape.copies { shape.workers() } else { 0 }, shape.floats());
        let exposed = Exposed::new(comm.0, (1 + copies) * floats)?;
        let buffer = |index| exposed.buffer(index * floats, shape.lengths.iter().copied());
        let weights = (buffer(0), (1..=copies).map(buffer).collect());
        Ok(MessageServer::over(comm, shape, weights, Some(exposed), |_| true))
    }

    fn over(
        (comm, calling): (Comm, Calling),
        shape: &Shape,
        (weights, copies): (Arc<Shared>, Vec<Arc<Shared>>),
        exposed: Option<Exposed>,
        is_near: impl Fn(usize) -> bool,
    ) -> MessageServer {
        let words_max = Push::words_max(shape.nodes, shape.leaves);
        let is_exposed = exposed.is_some();
        let mail = |&rank: &usize| {
            let cut = Cut::new(shape.floats(), is_near(rank));
            let with_words = if is_exposed { 0 } else { cut.with_words() };
            Mail {
                cut,
                order: Letter::new(1, with_words),
                offered: 0,
                sends: Requests::default(),
                words: Letter::new(words_max, with_words),
                words_receive: Requests::default(),
                nodes: 0,
                receives: Requests::default(),
                stage: Stage::Complete,
            }
        };
        MessageServer {
            comm,
            _calling: calling,
            ranks: shape.ranks.to_vec(),
            weights,
            copies,
            slots: (0..shape.workers()).map(|_| buffer(shape, shape.nodes)).collect(),
            floats: shape.floats(),
            exposed,
            mail: shape.ranks.iter().map(mail).map(Mutex::new).collect(),
            beats: Mutex::default(),
        }
    }

    /// The window of exposed memory.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.exposed.as_ref().map(Exposed::window)
    }

    /// Sends a worker the pieces of its weights that end within the first `floats`.
    fn send_weights(&self, worker: usize, mail: &mut Mail, floats: usize) -> Result<(), Error> {
        let weights = self.copies.get(worker).unwrap_or(&self.weights);
        let ready = mail.cut.pieces(mail.cut.with_words()).skip(mail.offered);
        for piece in ready.take_while(|piece| piece.end <= floats) {
            let (blocks, start) = weights.around(&piece);
            // SAFETY: the weights live as long as this end, and are not written before this worker's answer to the order has come.
            unsafe {
                let piece = &blocks[piece.start - start..][..piece.len()];
                mail.sends.send_floats(self.comm, piece, self.ranks[worker], WEIGHTS)?;
            }
            mail.offered += 1;
        }
        Ok(())
    }

    /// Begins to receive or get the gradients that a worker's words tell of.
    fn expect_gradients(&self, worker: usize, mail: &mut Mail) -> Result<(), Error> {
        let (rank, mut slot) = (self.ranks[worker], self.slots[worker].write_all());
        for (index, gradient) in slot.chunks_mut(self.floats.max(1)).take(mail.nodes).enumerate() {
            // SAFETY: the slot lives as long as this end, and what has not come of it is not read; the worker writes to its own when it
            // has the next order.
            unsafe {
                if let Some(exposed) = &self.exposed {
                    exposed.get(&mut mail.receives, gradient, rank, index * self.floats)?;
                    continue;
                }
                let first = if index == 0 { mail.cut.with_words() } else { 0 };
                for piece in mail.cut.pieces(first) {
                    mail.receives.receive_floats(self.comm, &mut gradient[piece], rank, GRADIENTS)?;
                }
            }
        }
        if mail.nodes > 0 && self.exposed.is_none() {
            let with_words = mail.cut.with_words();
            let words = Push::words_of(mail.words.words().next().unwrap_or(0));
            slot[..with_words].copy_from_slice(&mail.words.floats(words)[..with_words]);
        }
        Ok(())
    }

    fn advance(&self, worker: usize, mail: &mut Mail) -> Result<(), Error> {
        // The worker has answered the last order, so that it has received what was sent with it.
        if mail.stage == Stage::Words && mail.words_receive.are_done()? && mail.sends.are_done()? {
            message::failure_of(mail.words.words())?;
            mail.nodes = Push::nodes_of(mail.words.words().next().unwrap_or(0));
            self.expect_gradients(worker, mail)?;
            mail.stage = Stage::Gradients;
        }
        if mail.stage == Stage::Gradients && mail.receives.are_done()? {
            mail.stage = Stage::Complete;
        }
        Ok(())
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
        let mail = &mut *mail;
        mail.stage = Stage::Words;
        if order != Order::Stop {
            // SAFETY: the letter lives as long as this end and is not read before all of it has come.
            unsafe { mail.words_receive.receive_floats(self.comm, mail.words.buffer(), rank, WORDS)? };
        }
        let weights = self.copies.get(worker).unwrap_or(&self.weights).read_all();
        let with_words = match &self.exposed {
            Some(exposed) => {
                exposed.publish()?;
                &[]
            }
            None => {
                self.send_weights(worker, mail, self.floats)?;
                &weights[..mail.cut.with_words()]
            }
        };
        mail.offered = 0;
        let letter = mail.order.write([order.word()], with_words);
        // SAFETY: the letter lives as long as this end and is not written before this worker's answer has come.
        unsafe { mail.sends.send_floats(self.comm, letter, rank, ORDER) }
    }

    fn sends_ahead(&self) -> bool {
        self.exposed.is_none() && self.copies.is_empty()
    }

    fn offer(&self, floats: usize) -> Result<(), Error> {
        let mut others = (0..self.ranks.len()).filter(|&worker| self.ranks[worker] != 0);
        others.try_for_each(|worker| self.send_weights(worker, &mut locked(&self.mail[worker]), floats))
    }

    fn arrival(&self, worker: usize) -> Result<Arrival, Error> {
        let mut mail = locked(&self.mail[worker]);
        self.advance(worker, &mut mail)?;
        Ok(match mail.stage {
            Stage::Words => Arrival::Nothing,
            Stage::Gradients => Arrival::Begun,
            Stage::Complete => Arrival::Complete,
        })
    }

    fn received(&self, worker: usize) -> Result<usize, Error> {
        let mut mail = locked(&self.mail[worker]);
        if mail.stage == Stage::Complete {
            return Ok(self.floats);
        }
        if self.exposed.is_some() || mail.stage == Stage::Words {
            self.advance(worker, &mut mail)?;
            return Ok(if mail.stage == Stage::Complete { self.floats } else { 0 });
        }
        // Of the last gradient; what lies before its pieces came before them.
        let pieces = mail.cut.pieces(if mail.nodes == 1 { mail.cut.with_words() } else { 0 });
        let to_come = mail.receives.count() - mail.receives.leading()?;
        if to_come == 0 {
            self.advance(worker, &mut mail)?;
            return Ok(self.floats);
        }
        let come = pieces.len().saturating_sub(to_come);
        Ok(pieces.take(come).last().map_or(0, |piece| piece.end))
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
        push.set(locked(&self.mail[worker]).words.words());
    }
}

impl Drop for MessageServer {
    fn drop(&mut self) {
        for (index, mail) in self.mail.drain(..).enumerate() {
            let mut mail = mail.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
            let Mail { sends, words_receive, receives, .. } = &mut mail;
            let are_done = [sends.are_done(), words_receive.are_done(), receives.are_done()];
            if !matches!(are_done, [Ok(true), Ok(true), Ok(true)]) {
                abandon(mail);
                abandon((self.weights.clone(), self.copies.get(index).cloned(), self.slots[index].clone()));
            }
        }
    }
}
