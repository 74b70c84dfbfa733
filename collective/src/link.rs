//! The two ends of a parameter server, whatever lies between them: orders and weights one way, gradients the other.
//!
//! The server gives every worker orders, each with weights; a worker answers each with one push. In synchronous training all
//! workers get the same order at once, in asynchronous training each gets its own when its gradient has been applied. Waiting
//! has a limit, and both ends keep account of it.

use crate::board::{self, Board};
use crate::message::{Order, Push};
use crate::mpi;
use crate::wait::Patience;
use crate::{Error, Roster, Shared};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What a link has to hold.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Workers, the server among them if it trains.
    pub workers: usize,
    /// The rank of the first worker: 0 if the server trains, otherwise 1.
    pub first_rank: usize,
    /// Floats of each block of the weights.
    pub lengths: &'a [usize],
    /// The most gradients that a worker pushes at a time.
    pub nodes: usize,
    /// The most micro-batches that a worker computes at a time.
    pub leaves: usize,
    /// Whether every worker has weights of its own, as asynchronous training needs.
    pub copies: bool,
    /// The longest that a rank waits for another.
    pub step_timeout: Duration,
}

/// Where a rank's time went, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// Sending and receiving.
    pub communication: f64,
    /// Waiting for each rank.
    pub waiting: Vec<f64>,
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

/// Rank 0: keeps the weights.
pub struct Server {
    end: ServerEnd,
    common: Common,
    /// When each worker got its last order.
    given: Vec<Mutex<Instant>>,
}

/// A rank that computes gradients.
pub struct Worker {
    end: WorkerEnd,
    common: Common,
    words: Mutex<Vec<u64>>,
    rank: usize,
    /// Signs of life of the server that have been seen.
    beats: AtomicU64,
}

/// What lies between the server and its workers.
pub enum ServerEnd {
    /// Memory.
    Board(board::ServerEnd),
    /// Messages of MPI.
    Messages(mpi::MessageServer),
}

/// What lies between a worker and its server.
pub enum WorkerEnd {
    /// Memory.
    Board(board::WorkerEnd),
    /// Messages of MPI.
    Messages(mpi::MessageWorker),
}

/// What both ends have.
struct Common {
    roster: Arc<Roster>,
    first_rank: usize,
    limit: Duration,
    times: Mutex<Times>,
}

impl Shape<'_> {
    /// Floats of the weights.
    pub fn floats(&self) -> usize {
        self.lengths.iter().sum()
    }
}

/// A server and its workers as threads of this process. If the server trains, the first worker is the server itself and is left out.
pub fn threads(shape: &Shape) -> (Server, Vec<Worker>) {
    let board = Board::here(shape);
    let roster = Arc::new(Roster::of_threads(shape.workers + shape.first_rank));
    let end = board.server(shape);
    let worker = |index| {
        Worker::new(WorkerEnd::Board(board.worker(shape, index, Some(&end))), roster.clone(), shape, index)
    };
    let workers = (1 - shape.first_rank..shape.workers).map(worker).collect();
    (Server::new(ServerEnd::Board(end), roster.clone(), shape), workers)
}

impl Common {
    fn new(roster: Arc<Roster>, shape: &Shape, limit: Duration) -> Common {
        let times = Times { communication: 0.0, waiting: vec![0.0; roster.len()] };
        Common { roster, first_rank: shape.first_rank, limit, times: Mutex::new(times) }
    }

    /// Waits for a rank until `poll` says that all has come; when the wait grows long, `lives` is asked for failures and whether the
    /// rank has given a new sign of life.
    fn wait(
        &self,
        rank: usize,
        mut poll: impl FnMut() -> Result<Arrival, Error>,
        lives: impl Fn() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let (start, mut patience, mut begun) = (Instant::now(), Patience::default(), None);
        let mut heard = start;
        loop {
            match poll()? {
                Arrival::Complete => break,
                Arrival::Begun => _ = begun.get_or_insert_with(Instant::now),
                Arrival::Nothing => {}
            }
            if patience.is_long() {
                if lives()? {
                    heard = Instant::now();
                }
                if heard.elapsed() > self.limit {
                    return Err(self.stuck(rank));
                }
            }
            patience.pause();
        }
        let end = Instant::now();
        let mut times = self.times.lock().expect("no panic while it is held");
        times.waiting[rank] += (begun.unwrap_or(end) - start).as_secs_f64();
        times.communication += (end - begun.unwrap_or(end)).as_secs_f64();
        Ok(())
    }

    fn stuck(&self, rank: usize) -> Error {
        Error::Stuck { who: self.roster.name(rank), limit: self.limit }
    }

    /// Does what counts as communication.
    fn communicate<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.times.lock().expect("no panic while it is held").communication += start.elapsed().as_secs_f64();
        done
    }

    fn times(&self) -> Times {
        self.times.lock().expect("no panic while it is held").clone()
    }
}

impl Server {
    /// Rank 0 behind an end.
    pub fn new(end: ServerEnd, roster: Arc<Roster>, shape: &Shape) -> Server {
        let given = (0..shape.workers).map(|_| Mutex::new(Instant::now())).collect();
        Server { end, common: Common::new(roster, shape, shape.step_timeout), given }
    }

    /// The weights, in place.
    pub fn weights(&self) -> &Arc<Shared> {
        match &self.end {
            ServerEnd::Board(end) => &end.weights,
            ServerEnd::Messages(end) => &end.weights,
        }
    }

    /// Each worker's gradients: block `node * blocks + b`. If the server trains, its own come first.
    pub fn slots(&self) -> &[Arc<Shared>] {
        match &self.end {
            ServerEnd::Board(end) => &end.slots,
            ServerEnd::Messages(end) => &end.slots,
        }
    }

    /// Each worker's own weights, which go with its next order; empty in synchronous training, where `weights` go with it.
    pub fn copies(&self) -> &[Arc<Shared>] {
        match &self.end {
            ServerEnd::Board(end) => &end.copies,
            ServerEnd::Messages(end) => &end.copies,
        }
    }

    /// The workers that are other ranks, counted as [`Server::slots`] are.
    pub fn others(&self) -> std::ops::Range<usize> {
        1 - self.common.first_rank..self.slots().len()
    }

    /// Waits for a worker's push.
    ///
    /// # Errors
    /// If a rank has failed, or this one is stuck.
    pub fn collect(&self, worker: usize, push: &mut Push) -> Result<(), Error> {
        self.common.wait(worker + self.common.first_rank, || self.arrival(worker), || self.failure())?;
        self.take(worker, push);
        Ok(())
    }

    /// Waits for the first of some workers to push; they are not empty.
    ///
    /// # Errors
    /// If a rank has failed, or one of them is stuck, even if others go on.
    pub fn collect_any(&self, workers: &[usize], push: &mut Push) -> Result<usize, Error> {
        for &worker in workers {
            let since = *self.given[worker].lock().expect("no panic while it is held");
            if since.elapsed() > self.common.limit && self.arrival(worker)? == Arrival::Nothing {
                return Err(self.common.stuck(worker + self.common.first_rank));
            }
        }
        let mut found = None;
        let poll = || {
            for &worker in workers {
                if self.arrival(worker)? == Arrival::Complete {
                    found = Some(worker);
                    return Ok(Arrival::Complete);
                }
            }
            Ok(Arrival::Nothing)
        };
        self.common.wait(workers[0] + self.common.first_rank, poll, || self.failure())?;
        let worker = found.expect("the wait ended with one");
        self.take(worker, push);
        Ok(worker)
    }

    /// Of some workers, one that has pushed already, with what it said.
    ///
    /// # Errors
    /// If a rank has failed.
    pub fn collect_now(&self, workers: &[usize], push: &mut Push) -> Result<Option<usize>, Error> {
        for &worker in workers {
            if self.arrival(worker)? == Arrival::Complete {
                self.take(worker, push);
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
        self.common.communicate(|| match &self.end {
            ServerEnd::Board(end) => {
                end.give(worker, order);
                Ok(())
            }
            ServerEnd::Messages(end) => end.give(worker, order),
        })
    }

    /// Gives all workers the same order.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn publish(&self, order: Order) -> Result<(), Error> {
        self.others().try_for_each(|worker| self.give(worker, order))
    }

    /// Tells all workers that there is nothing more to do, and waits until that has left this end.
    ///
    /// # Errors
    /// If MPI fails, or a rank is stuck.
    pub fn stop(&self) -> Result<(), Error> {
        self.publish(Order::Stop)?;
        let ServerEnd::Messages(end) = &self.end else { return Ok(()) };
        self.others().try_for_each(|worker| {
            let poll = || Ok(if end.has_sent(worker)? { Arrival::Complete } else { Arrival::Nothing });
            self.common.wait(worker + self.common.first_rank, poll, || self.failure())
        })
    }

    /// Ends the job on all ranks.
    pub fn fail(&self, reason: &str) {
        if let ServerEnd::Board(end) = &self.end {
            end.fail(reason);
        }
    }

    /// Does what may take longer than workers wait, such as an evaluation: they are given signs of life. Nothing else of this end is used
    /// meanwhile.
    pub fn pausing<T>(&self, work: impl FnOnce() -> T) -> T {
        let (over, has_ended) = (Mutex::new(false), Condvar::new());
        let beat = || {
            let mut over = over.lock().expect("no panic while it is held");
            while !*over {
                // A failure shows at the next order.
                let _ = self.beat();
                over =
                    has_ended.wait_timeout(over, self.common.limit / 8).expect("no panic while it is held").0;
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

    fn beat(&self) -> Result<(), Error> {
        match &self.end {
            ServerEnd::Board(end) => {
                end.beat();
                Ok(())
            }
            ServerEnd::Messages(end) => end.beat(),
        }
    }

    /// Where the time went so far.
    pub fn times(&self) -> Times {
        self.common.times()
    }

    fn arrival(&self, worker: usize) -> Result<Arrival, Error> {
        match &self.end {
            ServerEnd::Board(end) if end.has_pushed(worker) => Ok(Arrival::Complete),
            ServerEnd::Board(_) => Ok(Arrival::Nothing),
            ServerEnd::Messages(end) => end.arrival(worker),
        }
    }

    fn take(&self, worker: usize, push: &mut Push) {
        match &self.end {
            ServerEnd::Board(end) => end.take(worker, push),
            ServerEnd::Messages(end) => end.take(worker, push),
        }
    }

    /// Whatever a worker computes has to end within the limit: there are no signs of life but pushes.
    fn failure(&self) -> Result<bool, Error> {
        match &self.end {
            ServerEnd::Board(end) => end.failure()?,
            ServerEnd::Messages(_) => {}
        }
        Ok(false)
    }
}

impl Worker {
    /// Worker `index` behind an end. It gives the server some time more than the server gives it: when another rank is stuck, the server
    /// is the one to say so.
    pub fn new(end: WorkerEnd, roster: Arc<Roster>, shape: &Shape, index: usize) -> Worker {
        let limit = shape.step_timeout.mul_f64(1.25) + Duration::from_millis(500);
        let common = Common::new(roster, shape, limit);
        Worker {
            end,
            common,
            words: Mutex::default(),
            rank: index + shape.first_rank,
            beats: AtomicU64::new(0),
        }
    }

    /// The weights of the last order.
    pub fn weights(&self) -> &Arc<Shared> {
        match &self.end {
            WorkerEnd::Board(end) => &end.weights,
            WorkerEnd::Messages(end) => &end.weights,
        }
    }

    /// Where this worker's gradients go: block `node * blocks + b`.
    pub fn slot(&self) -> &Arc<Shared> {
        match &self.end {
            WorkerEnd::Board(end) => &end.slot,
            WorkerEnd::Messages(end) => &end.slot,
        }
    }

    /// Waits for the next order and its weights.
    ///
    /// # Errors
    /// If a rank has failed, or the server is stuck.
    pub fn pull(&self) -> Result<Order, Error> {
        let mut order = None;
        let poll = || match &self.end {
            WorkerEnd::Board(end) => {
                order = end.order();
                Ok(if order.is_some() { Arrival::Complete } else { Arrival::Nothing })
            }
            WorkerEnd::Messages(end) => end.arrival(&mut order),
        };
        let lives = || match &self.end {
            WorkerEnd::Board(end) => {
                end.failure()?;
                Ok(end.beats() != self.beats.swap(end.beats(), Ordering::Relaxed))
            }
            WorkerEnd::Messages(end) => end.has_beaten(),
        };
        self.common.wait(0, poll, lives)?;
        Ok(order.expect("the wait ended with one"))
    }

    /// Sends the gradients in the slot, in answer to the last order.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn push(&self, push: &Push) -> Result<(), Error> {
        let mut words = self.words.lock().expect("no panic while it is held");
        self.common.communicate(|| {
            push.to_words(&mut words);
            match &self.end {
                WorkerEnd::Board(end) => {
                    end.push(&words);
                    Ok(())
                }
                WorkerEnd::Messages(end) => end.push(&words, push.nodes.len()),
            }
        })
    }

    /// Ends the job on all ranks, with a reason that names this one.
    pub fn fail(&self, reason: &str) {
        let reason = format!("{}: {reason}", self.common.roster.name(self.rank));
        match &self.end {
            WorkerEnd::Board(end) => end.fail(&reason),
            WorkerEnd::Messages(end) => end.fail(&reason),
        }
    }

    /// Where the time went so far.
    pub fn times(&self) -> Times {
        self.common.times()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(workers: usize, copies: bool) -> Shape<'static> {
        let step_timeout = Duration::from_millis(300);
        Shape { workers, first_rank: 1, lengths: &[16, 32], nodes: 1, leaves: 1, copies, step_timeout }
    }

    fn add_slots(server: &Server, workers: std::ops::Range<usize>) {
        let mut weights = server.weights().write_all();
        for slot in &server.slots()[workers] {
            weights.iter_mut().zip(slot.read_all().iter()).for_each(|(w, g)| *w += g);
        }
    }

    /// Each worker adds its number to every weight, step by step.
    #[test]
    fn what_is_pushed_is_what_is_pulled() {
        const STEPS: u64 = 200;
        let (server, workers) = threads(&shape(3, false));
        std::thread::scope(|scope| {
            for worker in &workers {
                scope.spawn(move || {
                    while let Order::Compute(step) = worker.pull().unwrap() {
                        assert_eq!(worker.weights().read_all()[20], step as f32 * 6.0);
                        worker.slot().write_all().fill(worker.rank as f32);
                        worker
                            .push(&Push { hits: vec![step as u32], losses: vec![0.5], nodes: vec![] })
                            .unwrap();
                    }
                });
            }
            let mut push = Push::default();
            for step in 0..STEPS {
                server.publish(Order::Compute(step)).unwrap();
                for worker in server.others() {
                    server.collect(worker, &mut push).unwrap();
                    assert_eq!((&push.hits[..], &push.losses[..]), (&[step as u32][..], &[0.5][..]));
                }
                add_slots(&server, 0..3);
            }
            server.publish(Order::Stop).unwrap();
        });
        assert!(server.weights().read_all().iter().all(|&w| w == STEPS as f32 * 6.0));
        assert!(workers.iter().all(|worker| worker.times().waiting[0] > 0.0));
    }

    #[test]
    fn workers_with_copies_go_on_one_by_one() {
        let (server, workers) = threads(&shape(2, true));
        server.weights().write_all().fill(1.0);
        for worker in server.others() {
            server.copies()[worker].write_all().copy_from_slice(&server.weights().read_all());
            server.give(worker, Order::Compute(worker as u64)).unwrap();
        }
        assert_eq!(workers[1].pull().unwrap(), Order::Compute(1));
        workers[1].slot().write_all().fill(2.0);
        workers[1].push(&Push::default()).unwrap();
        assert_eq!(server.collect_any(&[0, 1], &mut Push::default()).unwrap(), 1);
        add_slots(&server, 1..2);
        assert_eq!(workers[0].weights().read_all()[0], 1.0, "a copy does not change under its worker");
        assert_eq!(server.collect_now(&[0], &mut Push::default()).unwrap(), None);
    }

    #[test]
    fn a_failure_reaches_everybody_and_names_the_first_cause() {
        let (server, workers) = threads(&shape(2, false));
        server.publish(Order::Compute(0)).unwrap();
        workers[1].fail("the disk is gone");
        workers[0].fail("rank 2 is gone");
        let error = server.collect(0, &mut Push::default()).unwrap_err();
        assert_eq!(error.to_string(), "rank 2: the disk is gone");
        workers[0].pull().unwrap();
        workers[0].push(&Push::default()).unwrap();
        assert!(workers[0].pull().is_err());
    }

    #[test]
    fn a_rank_that_does_not_go_on_is_named() {
        let (server, workers) = threads(&shape(2, false));
        server.publish(Order::Compute(0)).unwrap();
        workers[0].pull().unwrap();
        workers[0].push(&Push::default()).unwrap();
        server.collect(0, &mut Push::default()).unwrap();
        let error = server.collect(1, &mut Push::default()).unwrap_err();
        assert!(error.to_string().starts_with("rank 2 has sent nothing for 300ms"), "{error}");
        let error = workers[0].pull().unwrap_err();
        assert!(error.to_string().starts_with("rank 0 has sent nothing"), "{error}");
    }

    #[test]
    fn a_server_in_a_pause_is_waited_for() {
        let (server, workers) = threads(&shape(1, false));
        std::thread::scope(|scope| {
            let pulled = scope.spawn(|| workers[0].pull());
            // The worker's limit is 875 ms.
            assert_eq!(server.pausing(|| std::thread::sleep(Duration::from_millis(2500))), ());
            server.publish(Order::Compute(0)).unwrap();
            assert_eq!(pulled.join().unwrap(), Ok(Order::Compute(0)));
        });
        assert!(catch_unwind(AssertUnwindSafe(|| server.pausing(|| panic!("it ends")))).is_err());
    }
}
