//! Roll calls and signs of life, as messages: rank 0 waits until all ranks have come, and they wait until it says so.
//!
//! Between calls of MPI a rank may read, evaluate or save for any time. Meanwhile another thread of it tells rank 0 that it lives, and
//! rank 0's tells all others; so does rank 0 while it calls the roll. By that a rank that is stopped is known on whatever node it is.
//! Messages from one rank to another do not overtake each other: when a rank has come, so have its signs of life, and none is left over.

#![allow(unsafe_code)] // MPI writes to words after the call that lent them has returned.

use super::call::Comm;
use super::requests::Requests;
use crate::Error;
use crate::wait::Patience;
use std::ffi::c_int;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

const TAG: c_int = 7;
/// What a message says.
static LIVES: [u64; 1] = [0];
static HERE: [u64; 1] = [1];

/// A rank that has not come yet.
#[derive(Clone, Copy)]
pub struct Missing {
    /// Which one.
    pub rank: usize,
    /// When it gave the last sign of life; at first, when it began to be waited for.
    pub heard: Instant,
}

/// This rank's part in the roll calls of a world.
pub struct Roll {
    comm: Comm,
    rank: usize,
    /// How often a sign of life is given, and what has been heard is told.
    tick: Duration,
    /// The ranks that it gives signs of life, each with the last one, which is done when it has been received.
    beats: Mutex<Vec<(usize, Requests)>>,
    /// What others were told last.
    told: Mutex<Requests>,
}

/// What is received from a rank.
struct Receive {
    missing: Missing,
    word: Vec<u64>,
    request: Requests,
}

impl Roll {
    /// That of a rank of `comm`.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn new(comm: Comm, tick: Duration) -> Result<Roll, Error> {
        let rank = comm.rank()?;
        let others = if rank == 0 { 1..comm.size()? } else { 0..1 };
        let beats = others.map(|other| (other, Requests::default())).collect();
        Ok(Roll { comm, rank, tick, beats: Mutex::new(beats), told: Mutex::default() })
    }

    /// Gives a sign of life to everyone who has received the last one.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn beat(&self) -> Result<(), Error> {
        let mut beats = self.beats.lock().expect("no panic while it is held");
        beats.iter_mut().try_for_each(|(other, beat)| {
            if beat.are_done()? {
                // SAFETY: a constant.
                unsafe { beat.send_words_until_received(self.comm, &LIVES, *other, TAG)? };
            }
            Ok(())
        })
    }

    /// Waits until the first `ranks` ranks, which call this together, have all come; `hear` is told again and again who is missing.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn call(&self, ranks: usize, mut hear: impl FnMut(Vec<Missing>)) -> Result<(), Error> {
        if self.rank != 0 {
            self.tell(0..1)?;
            self.wait_for(0..1, &mut hear)?;
            return std::mem::take(&mut *self.told()).wait();
        }
        self.wait_for(1..ranks, &mut hear)?;
        self.tell(1..ranks)
    }

    /// Tells ranks that this one has come; of rank 0, that all have. MPI is called no more than that takes: what the others do then, they do
    /// before rank 0 answers to anything. Whether the words have left is asked at the next roll call.
    fn tell(&self, mut others: Range<usize>) -> Result<(), Error> {
        let mut told = self.told();
        std::mem::take(&mut *told).wait()?;
        // SAFETY: a constant.
        others.try_for_each(|other| unsafe { told.send_words(self.comm, &HERE, other, TAG) })
    }

    fn told(&self) -> MutexGuard<'_, Requests> {
        self.told.lock().expect("no panic while it is held")
    }

    fn wait_for(&self, others: Range<usize>, hear: &mut impl FnMut(Vec<Missing>)) -> Result<(), Error> {
        let begin = |rank| {
            let missing = Missing { rank, heard: Instant::now() };
            let mut receive = Receive { missing, word: vec![0], request: Requests::default() };
            receive.begin(self.comm)?;
            Ok(receive)
        };
        let mut awaited = others.map(begin).collect::<Result<Vec<_>, Error>>()?;
        let (mut patience, mut told) = (Patience::default(), None::<Instant>);
        while !awaited.is_empty() {
            let mut failed = Ok(());
            awaited.retain_mut(|receive| {
                !receive.has_come(self.comm).unwrap_or_else(|error| {
                    failed = Err(error);
                    false
                })
            });
            if let Err(error) = failed {
                // MPI may still write to the words; the job ends.
                std::mem::forget(awaited);
                return Err(error);
            }
            if told.is_none_or(|told| told.elapsed() > self.tick) {
                told = Some(Instant::now());
                hear(awaited.iter().map(|receive| receive.missing).collect());
                if self.rank == 0 {
                    self.beat()?;
                }
            }
            patience.pause();
        }
        Ok(())
    }
}

impl Receive {
    fn begin(&mut self, comm: Comm) -> Result<(), Error> {
        // SAFETY: the word lies on the heap until it has come, and is not touched before.
        unsafe { self.request.receive_words(comm, &mut self.word, self.missing.rank, TAG) }
    }

    /// Whether its rank has come. A sign of life is noted, and the next message expected.
    fn has_come(&mut self, comm: Comm) -> Result<bool, Error> {
        while self.request.are_done()? {
            if self.word == HERE {
                return Ok(true);
            }
            self.missing.heard = Instant::now();
            self.begin(comm)?;
        }
        Ok(false)
    }
}
