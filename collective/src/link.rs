//! The two ends of a parameter server, whatever lies between them: orders and weights one way, gradients the other.
//!
//! The server gives every worker orders, those to compute with weights; a worker answers each with one push. In synchronous training all
//! workers get the same order at once, in asynchronous training each gets its own when its gradient has been applied. Waiting
//! has a limit, and both ends keep account of it.

use crate::account::{Account, Times};
use crate::board::Board;
use crate::end::{Arrival, Commons, ServerEnd, Shape, WorkerEnd};
use crate::message::{Order, Push};
use crate::{Error, Roster, Shared};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Rank 0: keeps the weights.
pub struct Server {
    end: Box<dyn ServerEnd>,
    account: Account,
    limit: Duration,
    /// The rank of each worker.
    ranks: Vec<usize>,
    /// The workers that are other ranks and speak for themselves.
    others: Vec<usize>,
    /// When each worker got its last order.
    given: Vec<Mutex<Instant>>,
    /// When the last sign of life was given while nothing was ordered.
    beaten: Mutex<Instant>,
}

/// A rank that computes gradients.
pub struct Worker {
    end: Box<dyn WorkerEnd>,
    account: Account,
    step_timeout: Duration,
    words: Mutex<Vec<u64>>,
    /// This worker's rank and those of the workers that it sends on for.
    ranks: Vec<usize>,
    /// The rank that its orders come from.
    from: usize,
}

/// A server and its workers as threads of this process. If the server trains, the first worker is the server itself and is left out.
pub fn threads(shape: &Shape) -> (Server, Vec<Worker>) {
    let board = Board::here(shape);
    let first = usize::from(shape.ranks.first() == Some(&0));
    let roster = Arc::new(Roster::of_threads(shape.workers() + 1 - first));
    let end = board.server(shape);
    let worker = |index| {
        let end = Box::new(board.worker(shape, index, Some(&end)));
        Worker::new(end, roster.clone(), shape, index, 0)
    };
    let workers = (first..shape.workers()).map(worker).collect();
    (Server::new(Box::new(end), roster.clone(), shape), workers)
}

impl Server {
    /// Rank 0 behind an end.
    pub(crate) fn new(end: Box<dyn ServerEnd>, roster: Arc<Roster>, shape: &Shape) -> Server {
        let others = (0..shape.workers()).filter(|&worker| shape.ranks[worker] != 0 && end.hears(worker));
        Server {
            others: others.collect(),
            end,
            account: Account::new(roster),
            limit: shape.step_timeout,
            ranks: shape.ranks.to_vec(),
            given: (0..shape.workers()).map(|_| Mutex::new(Instant::now())).collect(),
            beaten: Mutex::new(Instant::now()),
        }
    }

    /// The weights, in place.
    pub fn weights(&self) -> &Arc<Shared> {
        self.end.weights()
    }

    /// Each worker's gradients: block `node * blocks + b`. If the server trains, its own come first.
    pub fn slots(&self) -> &[Arc<Shared>] {
        self.end.slots()
    }

    /// Each worker's own weights, which go with its next order; empty in synchronous training, where `weights` go with it.
    pub fn copies(&self) -> &[Arc<Shared>] {
        self.end.copies()
    }

    /// What workers need beside the weights to update them; none where they cannot. Then they may be ordered to, between a push and
    /// the next order to compute.
    pub fn commons(&self) -> Option<&Commons> {
        self.end.commons()
    }

    /// The workers that are other ranks and whose pushes come, counted as [`Server::slots`] are. Those that are left out have a leader
    /// who adds their gradients to its own.
    pub fn others(&self) -> &[usize] {
        &self.others
    }

    /// Waits until a worker has pushed, and for what it said. Its gradients may still be on their way: [`Server::receive`].
    ///
    /// # Errors
    /// If a rank has failed, or this one is stuck.
    pub fn collect(&self, worker: usize, push: &mut Push) -> Result<(), Error> {
        self.wait(worker, || Ok(arrival(self.end.arrival(worker)? != Arrival::Nothing)))?;
        self.end.take(worker, push);
        Ok(())
    }

    /// Waits until the first `floats` floats of every gradient are there, of all [`Server::others`], which have been collected. Returns how many
    /// are, which may be more.
    ///
    /// # Errors
    /// If a rank has failed, or one of them is stuck.
    pub fn receive(&self, floats: usize) -> Result<usize, Error> {
        let mut least = usize::MAX;
        for &worker in &self.others {
            let mut received = self.end.received(worker)?;
            if received < floats {
                self.wait(worker, || {
                    received = self.end.received(worker)?;
                    Ok(if received < floats { Arrival::Begun } else { Arrival::Complete })
                })?;
            }
            least = least.min(received);
        }
        Ok(least)
    }

    /// The first `floats` weights are those of the next order, which is published: they may leave already. What is offered is not written
    /// before all workers have answered that order.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn offer(&self, floats: usize) -> Result<(), Error> {
        if self.end.sends_ahead() {
            self.account.communicate(|| self.end.offer(floats))?;
        }
        Ok(())
    }

    /// Waits for the first of some workers to push; they are not empty.
    ///
    /// # Errors
    /// If a rank has failed, or one of them is stuck, even if others go on.
    pub fn collect_any(&self, workers: &[usize], push: &mut Push) -> Result<usize, Error> {
        for &worker in workers {
            let since = *self.given[worker].lock().expect("no panic while it is held");
            if since.elapsed() > self.limit && self.end.arrival(worker)? == Arrival::Nothing {
                return Err(self.account.stuck(self.ranks[worker], self.limit));
            }
        }
        let mut found = None;
        let poll = || {
            for &worker in workers {
                if self.end.arrival(worker)? == Arrival::Complete {
                    found = Some(worker);
                    return Ok(Arrival::Complete);
                }
            }
            Ok(Arrival::Nothing)
        };
        self.wait(workers[0], poll)?;
        let worker = found.expect("the wait ended with one");
        self.end.take(worker, push);
        Ok(worker)
    }

    /// Of some workers, one that has pushed already, with what it said.
    ///
    /// # Errors
    /// If a rank has failed.
    pub fn collect_now(&self, workers: &[usize], push: &mut Push) -> Result<Option<usize>, Error> {
        for &worker in workers {
            if self.end.arrival(worker)? == Arrival::Complete {
                self.end.take(worker, push);
                return Ok(Some(worker));
            }
        }
        Ok(None)
    }

    /// Gives one worker an order.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn give(&self, worker: usize, order: Order) -> Result<(), Error> {
        *self.given[worker].lock().expect("no panic while it is held") = Instant::now();
        self.account.communicate(|| self.end.give(worker, order))
    }

    /// Gives all workers the same order.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn publish(&self, order: Order) -> Result<(), Error> {
        self.others.iter().try_for_each(|&worker| self.give(worker, order))
    }

    /// Tells all workers that there is nothing more to do, and waits until that has left this end.
    ///
    /// # Errors
    /// If MPI fails, or a rank is stuck.
    pub fn stop(&self) -> Result<(), Error> {
        self.publish(Order::Stop)?;
        self.others.iter().try_for_each(|&worker| {
            let has_sent = || Ok(arrival(self.end.has_sent(worker)?));
            self.wait(worker, has_sent)
        })
    }

    /// Ends the job on all ranks.
    pub fn fail(&self, reason: &str) {
        self.end.fail(reason);
    }

    /// Goes on without an order, from step to step: now and then the workers are given a sign of life.
    ///
    /// # Errors
    /// If a rank has failed.
    pub fn go_on(&self) -> Result<(), Error> {
        let mut beaten = self.beaten.lock().expect("no panic while it is held");
        if beaten.elapsed() > self.limit / 8 {
            *beaten = Instant::now();
            self.account.communicate(|| self.end.beat())?;
        }
        self.end.failure()
    }

    /// Does what may take longer than workers wait, such as an evaluation: they are given signs of life. Nothing else of this end is used
    /// meanwhile.
    pub fn pausing<T>(&self, work: impl FnOnce() -> T) -> T {
        let (over, has_ended) = (Mutex::new(false), Condvar::new());
        let beat = || {
            let mut over = over.lock().expect("no panic while it is held");
            while !*over {
                // A failure shows at the next order.
                let _ = self.end.beat();
                over = has_ended.wait_timeout(over, self.limit / 8).expect("no panic while it is held").0;
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(beat);
            let done = catch_unwind(AssertUnwindSafe(work));
            *over.lock().expect("no panic while it is held") = true;
            has_ended.notify_one();
            done.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Where the time went so far.
    pub fn times(&self) -> Times {
        self.account.times()
    }

    /// Seconds of communication and of waiting for all ranks together, so far.
    pub fn spent(&self) -> (f64, f64) {
        self.account.spent()
    }

    /// Whatever a worker computes has to end within the limit: there are no signs of life but pushes.
    fn wait(&self, worker: usize, poll: impl FnMut() -> Result<Arrival, Error>) -> Result<(), Error> {
        self.account.wait((self.ranks[worker], self.limit), poll, || self.end.failure().map(|()| false))
    }
}

fn arrival(is_complete: bool) -> Arrival {
    if is_complete { Arrival::Complete } else { Arrival::Nothing }
}

impl Worker {
    /// Worker `index` behind an end, whose orders come from the rank `from`.
    pub(crate) fn new(
        end: Box<dyn WorkerEnd>,
        roster: Arc<Roster>,
        shape: &Shape,
        index: usize,
        from: usize,
    ) -> Worker {
        let ranks = shape.ranks[index..][..end.members().max(1)].to_vec();
        let step_timeout = shape.step_timeout;
        Worker { end, account: Account::new(roster), step_timeout, words: Mutex::default(), ranks, from }
    }

    /// The weights of the last order.
    pub fn weights(&self) -> &Arc<Shared> {
        self.end.weights()
    }

    /// Where this worker's gradients go: block `node * blocks + b`.
    pub fn slot(&self) -> &Arc<Shared> {
        self.end.slot()
    }

    /// What this worker needs beside the weights to update them, where the server may order it to.
    pub fn commons(&self) -> Option<&Commons> {
        self.end.commons()
    }

    /// Waits for the next order and its weights. It gives the server some time more than the server gives it: when another rank is
    /// stuck, the server is the one to say so.
    ///
    /// # Errors
    /// If a rank has failed, or the server is stuck.
    pub fn pull(&self) -> Result<Order, Error> {
        let mut order = None;
        let limit = self.step_timeout.mul_f64(1.25) + Duration::from_millis(500);
        let poll = || {
            let (arrival, complete) = self.end.order()?;
            order = complete;
            Ok(arrival)
        };
        let lives = || {
            self.end.failure()?;
            self.end.has_beaten()
        };
        self.account.wait((self.from, limit), poll, lives)?;
        Ok(order.expect("the wait ended with one"))
    }

    /// Sends the gradients in the slot, in answer to the last order. A node's leader waits for the others first, and gives them less
    /// time than the server gives it: the leader knows who is stuck.
    ///
    /// # Errors
    /// If MPI fails, or a rank of this leader's node has failed or is stuck.
    pub fn push(&self, push: &Push) -> Result<(), Error> {
        let mut words = self.words.lock().expect("no panic while it is held");
        self.account.communicate(|| {
            push.to_words(&mut words);
            self.end.push(&words, push.nodes.len())
        })?;
        let limit = self.step_timeout.mul_f64(0.9);
        for member in 1..self.end.members() {
            let has_pushed = || Ok(arrival(self.end.has_pushed(member)));
            self.account
                .wait((self.ranks[member], limit), has_pushed, || self.end.failure().map(|()| false))?;
        }
        self.account.communicate(|| self.end.send_on())
    }

    /// Ends the job on all ranks, with a reason that names this one, unless another one has failed before.
    pub fn fail(&self, reason: &str) {
        match self.end.failure() {
            Ok(()) => self.end.fail(&format!("{}: {reason}", self.account.roster.name(self.ranks[0]))),
            Err(first) => self.end.fail(&first.to_string()),
        }
    }

    /// Where the time went so far.
    pub fn times(&self) -> Times {
        self.account.times()
    }
}

#[cfg(test)]
mod tests;
