//! The driver's side of feed mode.

use super::ledger::{Ledger, Tally};
use super::protocol::{FRAME_MAX, ToFeeder, ToWorker};
use super::{Portion, WINDOW};
use crate::channel::{self, Receiver, Sender, Side};
use crate::error::Error;
use crate::key::JobKey;
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What comes back from the workers.
enum Reply {
    Frame(Vec<u8>),
    Lost(String),
}

/// How far a feeding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to feed.
    More,
    /// The workers want no more.
    Enough,
}

/// Pushes portions to workers, at most a window of them to each, and books what becomes of them.
pub struct Feeder {
    /// By worker; none once one is lost.
    workers: Vec<Option<Sender>>,
    replies: mpsc::Receiver<(usize, Reply)>,
    ledger: Ledger,
    /// Portions under way, by lease: what a lost worker has not used goes to another one.
    under_way: BTreeMap<u64, Portion>,
    /// Portions that have to be sent again.
    returned: VecDeque<Portion>,
    enough: bool,
    /// Steps that workers have asked for: who, and which.
    wants: VecDeque<(usize, u64)>,
    /// Workers whose total has come and agrees.
    closed: Vec<bool>,
    /// Results by their first record, until those before them are there.
    results: BTreeMap<u64, (u32, Vec<u8>)>,
    /// Records whose results have been handed on.
    delivered: u64,
    wants_results: bool,
    timeout: Duration,
}

impl Feeder {
    /// Connects to the workers' data listeners; with `wants_results` each portion must come back with a result for each record. Without any progress for `timeout` the feeding fails; how long a part takes as a
    /// whole does not matter.
    ///
    /// # Errors
    /// If a worker is not reached.
    pub fn connect(
        key: &JobKey,
        workers: &[SocketAddr],
        wants_results: bool,
        timeout: Duration,
    ) -> Result<Feeder, Error> {
        let (sender, replies) = mpsc::channel();
        let connect = |(worker, address): (usize, &SocketAddr)| {
            let stream = TcpStream::connect_timeout(address, timeout)
                .map_err(Error::io("connect to the worker at", address))?;
            let (out, receiver) = channel::open(stream, key, Side::Connector, FRAME_MAX)?;
            out.set_timeout(timeout).map_err(Error::io("connect to the worker at", address))?;
            let replies = sender.clone();
            std::thread::spawn(move || read(worker, receiver, &replies));
            Ok(Some(out))
        };
        let workers: Vec<Option<Sender>> =
            workers.iter().enumerate().map(connect).collect::<Result<_, Error>>()?;
        Ok(Feeder {
            closed: vec![false; workers.len()],
            workers,
            replies,
            ledger: Ledger::default(),
            under_way: BTreeMap::new(),
            returned: VecDeque::new(),
            enough: false,
            wants: VecDeque::new(),
            results: BTreeMap::new(),
            delivered: 0,
            wants_results,
            timeout,
        })
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Waits until a worker asks for a step: who, and which; none if the workers want no more.
    ///
    /// # Errors
    /// As [`Feeder::push`].
    pub fn wanted(&mut self) -> Result<Option<(usize, u64)>, Error> {
        loop {
            if let Some(want) = self.wants.pop_front() {
                return Ok(Some(want));
            }
            if self.enough {
                return Ok(None);
            }
            self.take_reply()?;
        }
    }

    /// Takes what comes while there is nothing to push; true at once if the workers want no more.
    ///
    /// # Errors
    /// If a worker breaks the rules or is lost.
    pub fn pause(&mut self, time: Duration) -> Result<bool, Error> {
        let until = Instant::now() + time;
        while !self.enough
            && let Ok((worker, reply)) =
                self.replies.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.book(worker, reply)?;
        }
        Ok(self.enough)
    }

    /// Pushes a portion as soon as its worker, or any of them, has room for it.
    ///
    /// # Errors
    /// If nothing moves, a worker breaks the rules, or one is lost that cannot be replaced.
    pub fn push(&mut self, portion: Portion) -> Result<Progress, Error> {
        // An empty part has nothing to use.
        self.returned.extend(Some(portion).filter(|portion| portion.count > 0));
        while let Some(portion) = self.returned.pop_front() {
            let target = loop {
                if self.enough {
                    return Ok(Progress::Enough);
                }
                match self.room_for(&portion)? {
                    Some(worker) => break worker,
                    None => self.take_reply()?,
                }
            };
            self.send(target, portion);
        }
        while let Ok((worker, reply)) = self.replies.try_recv() {
            self.book(worker, reply)?;
        }
        Ok(if self.enough { Progress::Enough } else { Progress::More })
    }

    /// The worker with the fewest portions that may take this one and has room for it.
    fn room_for(&self, portion: &Portion) -> Result<Option<usize>, Error> {
        let may = |&worker: &usize| {
            self.workers[worker].is_some() && portion.worker.is_none_or(|wanted| wanted == worker)
        };
        let candidates = (0..self.workers.len()).filter(may).map(|worker| (self.ledger.held(worker), worker));
        match candidates.min() {
            Some((held, worker)) => Ok((held < WINDOW).then_some(worker)),
            None => Err(Error::Protocol {
                peer: "no worker that may take it".to_owned(),
                found: format!("a receipt for the records from {} on: all are lost", portion.first),
            }),
        }
    }

    fn send(&mut self, worker: usize, portion: Portion) {
        let Portion { first, count, bytes, .. } = &portion;
        let lease = self.ledger.lend(worker, *first, *count, bytes);
        let (head, records) =
            ToWorker::Portion { lease, first: *first, count: *count, records: bytes }.encode();
        // A worker that cannot be reached is reported by the thread that reads from it, and its leases return.
        if let Some(sender) = &mut self.workers[worker]
            && sender.send(&[&head, records]).is_err()
        {
            sender.close();
        }
        self.under_way.insert(lease, portion);
    }

    /// Waits for the next reply.
    fn take_reply(&mut self) -> Result<(), Error> {
        let Ok((worker, reply)) = self.replies.recv_timeout(self.timeout) else {
            let busy: Vec<String> = (0..self.workers.len())
                .filter(|&worker| self.ledger.held(worker) > 0 || !self.closed[worker])
                .map(|worker| worker.to_string())
                .collect();
            let doing = format!("the feeder waits for worker {}", busy.join(", "));
            return Err(Error::Timeout { doing, time: self.timeout, option: "--feed-timeout" });
        };
        self.book(worker, reply)
    }

    fn book(&mut self, worker: usize, reply: Reply) -> Result<(), Error> {
        let frame = match reply {
            Reply::Frame(frame) => frame,
            Reply::Lost(_) if self.closed[worker] => return Ok(()),
            Reply::Lost(reason) => return self.lose(worker, &reason),
        };
        match ToFeeder::decode(&frame)? {
            ToFeeder::Used { lease, digest, count, results } => {
                let first = self.ledger.used(worker, lease, &digest, self.wants_results.then_some(count))?;
                self.under_way.remove(&lease);
                if self.wants_results {
                    self.results.insert(first, (count, results.to_vec()));
                }
            }
            ToFeeder::Enough => self.enough = true,
            ToFeeder::Want(step) => self.wants.push_back((worker, step)),
            ToFeeder::Total(tally) => {
                self.ledger.compare(worker, &tally)?;
                self.closed[worker] = true;
            }
        }
        Ok(())
    }

    /// What a lost worker has not used goes to others, unless it was meant for that one.
    fn lose(&mut self, worker: usize, reason: &str) -> Result<(), Error> {
        self.workers[worker] = None;
        self.closed[worker] = true;
        for lease in self.ledger.lost(worker) {
            let portion = self.under_way.remove(&lease).expect("every lease has its portion");
            if portion.worker.is_some() {
                let found =
                    format!("nothing any more ({reason}), and records from {} on are its own", portion.first);
                return Err(Error::Protocol { peer: format!("worker {worker}"), found });
            }
            self.returned.push_back(portion);
        }
        Ok(())
    }

    /// Results that are there, in the order of their records: the number of records and what the worker has said of them.
    pub fn results(&mut self) -> impl Iterator<Item = (u32, Vec<u8>)> {
        std::iter::from_fn(|| {
            let (count, bytes) = self.results.remove(&self.delivered)?;
            self.delivered += u64::from(count);
            Some((count, bytes))
        })
    }

    /// Waits until everything that was pushed is used, ends the workers' feeding, and closes the books: all `records` of the epoch
    /// must have been used, unless the workers wanted no more.
    ///
    /// # Errors
    /// As [`Feeder::push`], and if the books do not agree.
    pub fn finish(&mut self, records: u64) -> Result<Tally, Error> {
        self.settle()?;
        self.end()?;
        self.ledger.close((!self.enough).then_some(records))
    }

    /// Waits until everything that was pushed is used, or no more is wanted.
    ///
    /// # Errors
    /// As [`Feeder::push`].
    pub fn settle(&mut self) -> Result<(), Error> {
        while !self.enough {
            match self.returned.pop_front() {
                Some(portion) => _ = self.push(portion)?,
                None if self.ledger.is_settled() => break,
                None => self.take_reply()?,
            }
        }
        Ok(())
    }

    /// Ends a training's feeding: what was used must be a run of records from `first` on, or nothing at all. What was pushed ahead of the
    /// last step does not count.
    ///
    /// # Errors
    /// As [`Feeder::finish`].
    pub fn finish_from(&mut self, first: Option<u64>) -> Result<Tally, Error> {
        self.end()?;
        self.ledger.check_run_from(first.unwrap_or(0))?;
        self.ledger.close(None)
    }

    /// Ends the workers' feeding and compares their totals with the books.
    fn end(&mut self) -> Result<(), Error> {
        let (head, _) = ToWorker::End.encode();
        for sender in self.workers.iter_mut().flatten() {
            let _ = sender.send(&[&head]);
        }
        while self.closed.iter().any(|closed| !closed) {
            self.take_reply()?;
        }
        Ok(())
    }
}

impl Drop for Feeder {
    /// Workers must not wait for a feeder that is gone.
    fn drop(&mut self) {
        self.workers.iter().flatten().for_each(Sender::close);
    }
}

fn read(worker: usize, mut receiver: Receiver, replies: &mpsc::Sender<(usize, Reply)>) {
    loop {
        let mut frame = Vec::new();
        let (reply, over) = match receiver.receive(&mut frame) {
            Ok(true) => (Reply::Frame(frame), false),
            Ok(false) => (Reply::Lost("its connection has ended".to_owned()), true),
            Err(error) => (Reply::Lost(error.to_string()), true),
        };
        if replies.send((worker, reply)).is_err() || over {
            return;
        }
    }
}
