//! One step's floats on their way through the server's team: gradients come, weights are updated and leave, from the first float on.
//!
//! Only the leader sees what has come, and sends. The other members wait for what it has seen. Where the workers see the weights, too, they may
//! help: then each rank updates its share.

use crate::error::Error;
use crate::sum;
use crate::team::Member;
use muster_collective::wait::{Counter, Patience};
use muster_collective::{Order, Push, Server};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Floats that are waited for, and offered, at a time: 64 KiB, about a message.
pub const RUN: usize = 16 * 1024;

/// What has come when no more will.
const FAILED: u64 = u64::MAX;

/// Where a step's floats are.
pub struct Flow<'a> {
    link: &'a Server,
    /// Floats of every gradient that are there.
    come: Counter,
    /// The float up to which each member has updated its own.
    updated: Box<[Counter]>,
    /// The floats of each member.
    owned: Box<[Range<usize>]>,
    /// Whether the weights may leave before the next order.
    may_leave: AtomicBool,
    /// Whether the workers have been asked to update their shares.
    has_help: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl<'a> Flow<'a> {
    /// Through a team of so many threads, who each own a share of the blocks.
    pub fn new(link: &'a Server, threads: usize) -> Flow<'a> {
        let (weights, updated) = (link.weights(), (0..threads).map(|_| Counter::default()));
        let owned = |index| weights.range(sum::blocks_of(weights, 0..weights.blocks(), index, threads));
        Flow {
            link,
            come: Counter::default(),
            updated: updated.collect(),
            owned: (0..threads).map(owned).collect(),
            may_leave: AtomicBool::new(false),
            has_help: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// A new step. The leader calls it while the others wait for it.
    pub fn begin(&self, may_leave: bool, has_help: bool) {
        self.come.set(0);
        self.updated.iter().zip(&self.owned).for_each(|(updated, owned)| updated.set(owned.start as u64));
        self.may_leave.store(may_leave, Ordering::Relaxed);
        self.has_help.store(has_help, Ordering::Relaxed);
    }

    /// Asks the workers, who have pushed all of their gradients, to update their shares of the weights, if they are to help. All members have
    /// written theirs.
    pub fn ask_for_help(&self, team: &Member, step: u64) {
        if team.is_leader()
            && self.has_help()
            && let Err(error) = self.link.publish(Order::Update(step))
        {
            self.fail(error);
        }
    }

    /// The workers wait while rank 0 computes by itself.
    pub fn go_on(&self) {
        if let Err(error) = self.link.go_on() {
            self.fail(error);
        }
    }

    /// Whether the workers update their shares.
    pub fn has_help(&self) -> bool {
        self.has_help.load(Ordering::Relaxed)
    }

    /// Waits until the first `floats` floats of all gradients are there; says whether they are.
    pub fn has_come(&self, team: &Member, floats: usize) -> bool {
        let mut patience = Patience::default();
        while self.come.get() < floats as u64 {
            if team.is_leader() {
                self.receive(floats);
            } else {
                patience.pause();
            }
        }
        self.come.get() != FAILED
    }

    fn receive(&self, floats: usize) {
        match self.link.receive(floats) {
            Ok(received) => self.come.set(received.min(self.floats()) as u64),
            Err(error) => self.fail(error),
        }
    }

    /// A member has updated its own weights up to this float; the others than the leader say so of whole blocks.
    pub fn has_updated(&self, team: &Member, floats: usize) {
        self.updated[team.index()].set(floats as u64);
        if team.is_leader() {
            self.offer();
        }
    }

    /// Lets leave what is updated from the first float on.
    fn offer(&self) {
        if !self.may_leave.load(Ordering::Relaxed) {
            return;
        }
        let members = self.updated.iter().zip(&self.owned).map(|(updated, owned)| (updated.get(), owned.end));
        let unfinished = members.into_iter().find(|&(updated, end)| updated < end as u64);
        let floats = unfinished.map_or(self.floats(), |(updated, _)| updated as usize);
        if let Err(error) = self.link.offer(floats) {
            self.fail(error);
        }
    }

    /// When a member has updated all of its own, the leader goes on to wait for what the others wait for, and for those who help.
    pub fn finish(&self, team: &Member) {
        while team.is_leader() && self.come.get() < self.floats() as u64 {
            self.receive(self.floats().min(self.come.get() as usize + RUN));
            self.offer();
        }
        if team.is_leader() && self.has_help() && self.come.get() != FAILED {
            let mut done = Push::default();
            let mut others = self.link.others().iter();
            if let Err(error) = others.try_for_each(|&worker| self.link.collect(worker, &mut done)) {
                self.fail(error);
            }
        }
    }

    /// Whether the step has failed; to the leader, why.
    pub fn failure(&self, team: &Member) -> Result<bool, Error> {
        match self.failure.lock().expect("no thread panicked").take_if(|_| team.is_leader()) {
            Some(error) => Err(error),
            None => Ok(self.come.get() == FAILED),
        }
    }

    fn fail(&self, error: muster_collective::Error) {
        self.failure.lock().expect("no thread panicked").get_or_insert(error.into());
        self.come.set(FAILED);
    }

    fn floats(&self) -> usize {
        self.owned[self.owned.len() - 1].end
    }
}
