//! A worker's end.

#![allow(unsafe_code)] // MPI writes to buffers after the call that lent them has returned.

use super::{BEAT, GRADIENTS, ORDER, WEIGHTS, WORDS, abandon, buffer, locked};
use crate::end::{Arrival, Shape, WorkerEnd};
use crate::leaders::Upward;
use crate::letter::{Cut, Letter};
use crate::message::{self, Order, Push};
use crate::mpi::call::Comm;
use crate::mpi::exposed::Exposed;
use crate::mpi::requests::Requests;
use crate::mpi::vigil::Calling;
use crate::mpi::window::Window;
use crate::shared::Ref;
use crate::{Error, Shared};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// A worker's end.
pub struct MessageWorker {
    comm: Comm,
    _calling: Calling,
    weights: Arc<Shared>,
    slot: Arc<Shared>,
    floats: usize,
    cut: Cut,
    /// Where the slot lies if the server gets it, and the server's float from which on this worker's weights lie.
    exposed: Option<(Exposed, usize)>,
    mail: Mutex<Mail>,
}

/// What is under way between a worker and the server.
struct Mail {
    /// The order, with its weights if they are small and the server is on another node.
    order: Letter,
    order_receive: Requests,
    /// The weights otherwise.
    weights_receive: Requests,
    /// Whether the weights of this order are being got.
    is_getting: bool,
    words: Letter,
    sends: Requests,
}

impl MessageWorker {
    /// An end whose weights and slot lie in these buffers, on the server's node or not.
    pub fn new(
        comm: (Comm, Calling),
        shape: &Shape,
        buffers: (Arc<Shared>, Arc<Shared>),
        is_near: bool,
    ) -> Result<MessageWorker, Error> {
        MessageWorker::over(comm, shape, buffers, None, is_near)
    }

    /// The end of worker `index` that gets its weights by itself, as the server gets its gradients.
    pub fn exposing(comm: (Comm, Calling), shape: &Shape, index: usize) -> Result<MessageWorker, Error> {
        let exposed = Exposed::new(comm.0, shape.nodes * shape.floats())?;
        let slot = exposed.buffer(0, (0..shape.nodes).flat_map(|_| shape.lengths.iter().copied()));
        let first = if shape.copies { (1 + index) * shape.floats() } else { 0 };
        MessageWorker::over(comm, shape, (buffer(shape, 1), slot), Some((exposed, first)), true)
    }

    fn over(
        (comm, calling): (Comm, Calling),
        shape: &Shape,
        (weights, slot): (Arc<Shared>, Arc<Shared>),
        exposed: Option<(Exposed, usize)>,
        is_near: bool,
    ) -> Result<MessageWorker, Error> {
        let (floats, cut) = (shape.floats(), Cut::new(shape.floats(), is_near));
        let with_words = if exposed.is_some() { 0 } else { cut.with_words() };
        let mail = Mail {
            order: Letter::new(1, with_words),
            order_receive: Requests::default(),
            weights_receive: Requests::default(),
            is_getting: false,
            words: Letter::new(Push::words_max(shape.nodes, shape.leaves), with_words),
            sends: Requests::default(),
        };
        let end = MessageWorker {
            comm,
            _calling: calling,
            weights,
            slot,
            floats,
            cut,
            exposed,
            mail: Mutex::new(mail),
        };
        end.expect_order(&mut locked(&end.mail))?;
        Ok(end)
    }

    /// The window of exposed memory.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.exposed.as_ref().map(|(exposed, _)| exposed.window())
    }

    fn expect_order(&self, mail: &mut Mail) -> Result<(), Error> {
        mail.is_getting = false;
        // SAFETY: the buffers live as long as this end; nobody reads them before the order has come.
        unsafe {
            if self.exposed.is_none() {
                let mut weights = self.weights.write_all();
                for piece in self.cut.pieces(self.cut.with_words()) {
                    mail.weights_receive.receive_floats(self.comm, &mut weights[piece], 0, WEIGHTS)?;
                }
            }
            mail.order_receive.receive_floats(self.comm, mail.order.buffer(), 0, ORDER)
        }
    }

    /// What has come of the weights' pieces, or of the weights that are got once the order has come, and whether that is all.
    fn weights_arrival(&self, mail: &mut Mail) -> Result<(Arrival, bool), Error> {
        let Some((exposed, first)) = &self.exposed else {
            let come = mail.weights_receive.leading()?;
            let arrival = if come > 0 { Arrival::Begun } else { Arrival::Nothing };
            let all = come == mail.weights_receive.count()
                && mail.weights_receive.are_done()?
                && mail.order_receive.are_done()?;
            return Ok((arrival, all));
        };
        if !mail.order_receive.are_done()? {
            return Ok((Arrival::Nothing, false));
        }
        if !mail.is_getting {
            mail.is_getting = true;
            let mut weights = self.weights.write_all();
            // SAFETY: the weights live as long as this end; the server does not write to its own before this worker has answered.
            unsafe { exposed.get(&mut mail.weights_receive, &mut weights, 0, *first)? };
        }
        Ok((Arrival::Begun, mail.weights_receive.are_done()?))
    }

    /// Sends a push and its gradients.
    ///
    /// # Safety
    /// Nobody writes to the gradients before the next order, which waits until they have left.
    unsafe fn send_all(
        &self,
        words: &[u64],
        mut gradients: impl Iterator<Item = impl Deref<Target = [f32]>>,
    ) -> Result<(), Error> {
        let mut mail = locked(&self.mail);
        let mail = &mut *mail;
        self.expect_order(mail)?;
        let first = match &self.exposed {
            Some((exposed, _)) => {
                exposed.publish()?;
                None
            }
            None => gradients.next(),
        };
        let with_words = first.as_ref().map_or(&[][..], |first| &first[..self.cut.with_words()]);
        let letter = mail.words.write(words.iter().copied(), with_words);
        // SAFETY: the letter lives as long as this end and is not written before the next order, nor are the gradients.
        unsafe {
            mail.sends.send_floats(self.comm, letter, 0, WORDS)?;
            let mut send = |piece: &[f32]| mail.sends.send_floats(self.comm, piece, 0, GRADIENTS);
            let Some(first) = first else { return Ok(()) };
            self.cut.pieces(self.cut.with_words()).try_for_each(|piece| send(&first[piece]))?;
            for gradient in gradients {
                self.cut.pieces(0).try_for_each(|piece| send(&gradient[piece]))?;
            }
        }
        Ok(())
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
        let (arrival, is_all) = self.weights_arrival(&mut mail)?;
        if !is_all {
            return Ok((arrival, None));
        }
        if !mail.sends.are_done()? {
            return Ok((Arrival::Begun, None));
        }
        if self.exposed.is_none() {
            let with_words = self.cut.with_words();
            let floats = &mail.order.floats(1)[..with_words];
            self.weights.write_all()[..with_words].copy_from_slice(floats);
        }
        Ok((Arrival::Complete, mail.order.words().next().map(Order::of)))
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
        let (mut mail, mut words) = (locked(&self.mail), Vec::new());
        message::failure_to_words(reason, &mut words);
        let Mail { words: letter, sends, .. } = &mut *mail;
        let letter = letter.write(words, &[]);
        // SAFETY: the letter lives as long as this end. If MPI fails, the job ends for want of an answer.
        let _ = unsafe { sends.send_floats(self.comm, letter, 0, WORDS) };
        let _ = sends.are_done();
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
