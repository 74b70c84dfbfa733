//! Threads that work through the same steps together.
//!
//! A training step takes some hundred microseconds, less than it takes to wake a sleeping thread. So the threads of a rank are
//! started once, run the whole training, and meet at a barrier that spins for a while before it gives the core away.
//!
//! Where another process competes for the cores, a member that is kept from its core for a few milliseconds keeps all others waiting, and a
//! team would be slower than one thread. So a team may be smaller for some steps: [`pace`] tells the leader when, and the last member rests
//! until it finds that it would have a core for itself.

mod pace;
mod scout;

pub use pace::{Pace, Rest};

use crate::batch::share;
use muster_collective::wait::{Counter, Patience};
use scout::Scout;
use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where the members of a team wait for each other.
struct Barrier {
    arrived: AtomicUsize,
    generation: Counter,
    /// A member has panicked and will never arrive.
    broken: AtomicBool,
    /// The leader's work is done.
    is_over: AtomicBool,
    /// Members that take the step after an even or an odd one. The leader may plan the next step while a slow member has not read
    /// about this one.
    planned: [AtomicUsize; 2],
    /// Members that take the present step, and its number, for those that rest.
    size: AtomicUsize,
    step: AtomicU64,
    /// How members rest, and those that have.
    rest: Rest,
    rested: Box<[AtomicBool]>,
    scout: Scout,
}

impl Barrier {
    fn new(members: usize, rest: Rest) -> Barrier {
        Barrier {
            arrived: AtomicUsize::new(0),
            generation: Counter::default(),
            broken: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            planned: [AtomicUsize::new(members), AtomicUsize::new(members)],
            size: AtomicUsize::new(members),
            step: AtomicU64::new(0),
            rest,
            rested: (0..members).map(|_| AtomicBool::new(false)).collect(),
            scout: Scout::default(),
        }
    }

    /// Whether there are no more steps, for one reason or another.
    fn has_ended(&self) -> bool {
        self.is_over.load(Ordering::Acquire) || self.broken.load(Ordering::Acquire)
    }

    fn check(&self) {
        assert!(!self.broken.load(Ordering::Acquire), "another thread of this team has panicked");
    }
}

/// One thread of a team.
pub struct Member<'a> {
    index: usize,
    /// Members that take the present step.
    count: Cell<usize>,
    /// How long others have run on its core while it waited.
    yielded: Cell<Duration>,
    barrier: &'a Barrier,
}

/// Runs `work` on `threads` threads, the caller's among them, and returns what the members returned, the leader first.
///
/// # Panics
/// If a member panics.
pub fn run<T: Send>(threads: usize, work: impl Fn(&Member) -> T + Sync) -> Vec<T> {
    run_resting(threads, Rest::USUAL, work)
}

/// The same; a member that is one too many rests as `rest` says.
pub fn run_resting<T: Send>(threads: usize, rest: Rest, work: impl Fn(&Member) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads, rest);
    let member = |index| Member::new(index, threads, &barrier);
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|index| {
                let (member, work) = (member(index), &work);
                scope.spawn(move || work(&member))
            })
            .collect();
        if threads > 1 {
            let scout = scope.spawn(|| barrier.scout.work(rest.look, || barrier.has_ended()));
            barrier.scout.is(scout.thread());
        }
        let first = work(&member(0));
        barrier.is_over.store(true, Ordering::Release);
        barrier.scout.wake();
        others.iter().for_each(|other| other.thread().unpark());
        let join = |thread: thread::ScopedJoinHandle<T>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        std::iter::once(first).chain(others.into_iter().map(join)).collect()
    })
}

/// Runs `work` as the only member of a team, on the calling thread.
pub fn alone<T>(work: impl FnOnce(&Member) -> T) -> T {
    work(&Member::new(0, 1, &Barrier::new(1, Rest::USUAL)))
}

impl Member<'_> {
    fn new(index: usize, count: usize, barrier: &Barrier) -> Member<'_> {
        Member { index, count: Cell::new(count), yielded: Cell::default(), barrier }
    }

    /// The one thread that talks to the world.
    pub fn is_leader(&self) -> bool {
        self.index == 0
    }

    /// Which member this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of members that take the present step.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// This member's run of `items`.
    pub fn share(&self, items: usize) -> Range<usize> {
        share(items, self.index, self.count())
    }

    /// Waits until every member that takes this step has come here.
    ///
    /// # Panics
    /// If another member has panicked.
    pub fn wait(&self) {
        let barrier = self.barrier;
        let generation = barrier.generation.get();
        if barrier.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count() {
            barrier.arrived.store(0, Ordering::Relaxed);
            barrier.generation.set(generation + 1);
            return;
        }
        let mut patience = Patience::default();
        while barrier.generation.get() == generation {
            barrier.check();
            patience.pause();
        }
        self.yielded.set(self.yielded.get() + patience.yielded());
    }

    /// How long others have run on this member's core while it waited, since this was asked last.
    fn take_yielded(&self) -> Duration {
        self.yielded.take()
    }

    /// The leader says, before the members meet in step `step`, how many of them take the next one, at most one less or more than this one.
    pub fn plan(&self, step: u64, members: usize) {
        self.barrier.planned[step as usize % 2].store(members, Ordering::Relaxed);
    }

    /// Whether the member that would be the next one to come back has rested.
    pub fn may_grow(&self) -> bool {
        self.barrier.rested.get(self.count()).is_some_and(|rested| rested.load(Ordering::Acquire))
    }

    /// Ends step `step`, in which the members have met since the leader planned. Returns the next step that this member takes, after a
    /// rest if it was planned; none if there is no other.
    ///
    /// # Panics
    /// If another member has panicked.
    pub fn next_step(&self, step: u64) -> Option<u64> {
        let (barrier, before) = (self.barrier, self.count());
        let members = barrier.planned[step as usize % 2].load(Ordering::Relaxed);
        if members == before {
            return Some(step + 1);
        }
        // Who is asked to rest must not find the size at which it would be called.
        if self.is_leader() && members < before {
            barrier.size.store(members, Ordering::Relaxed);
        }
        self.wait();
        if self.index >= members {
            return self.rest();
        }
        self.count.set(members);
        if self.is_leader() && members > before {
            barrier.rested[before].store(false, Ordering::Relaxed);
            barrier.step.store(step + 1, Ordering::Relaxed);
            barrier.size.store(members, Ordering::Release);
        }
        Some(step + 1)
    }

    /// Sleeps until there is a core for it, then waits to be called to a step.
    fn rest(&self) -> Option<u64> {
        let barrier = self.barrier;
        let is_over = || {
            barrier.check();
            barrier.is_over.load(Ordering::Acquire)
        };
        let mut rest = barrier.rest;
        loop {
            let end = Instant::now() + rest.sleep;
            while !is_over() && Instant::now() < end {
                thread::park_timeout(end.saturating_duration_since(Instant::now()));
            }
            if rest.look.is_zero() || barrier.scout.finds_core(is_over) || is_over() {
                break;
            }
            rest.lengthen();
        }
        barrier.rested[self.index].store(true, Ordering::Release);
        let mut patience = Patience::default();
        while !is_over() {
            let members = barrier.size.load(Ordering::Acquire);
            if members > self.index {
                self.count.set(members);
                return Some(barrier.step.load(Ordering::Relaxed));
            }
            patience.pause();
        }
        None
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.barrier.broken.store(true, Ordering::Release);
            self.barrier.scout.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_passes_before_everybody_has_come() {
        let arrivals = AtomicUsize::new(0);
        let counts = run(4, |member| {
            (0..1000)
                .map(|_| {
                    arrivals.fetch_add(1, Ordering::Relaxed);
                    member.wait();
                    let seen = arrivals.load(Ordering::Relaxed);
                    member.wait();
                    seen
                })
                .collect::<Vec<_>>()
        });
        let expected: Vec<usize> = (1..=1000).map(|round| round * 4).collect();
        assert_eq!(counts, vec![expected; 4]);
    }

    #[test]
    fn shares_cover_everything_in_order() {
        let shares = run(3, |member| member.share(10));
        assert_eq!(shares.into_iter().flatten().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_member_rests_and_comes_back_to_the_step_that_it_is_called_to() {
        let taken = run_resting(2, Rest::SHORT, |member| {
            let (mut taken, mut step) = (Vec::new(), 0);
            loop {
                if member.is_leader() {
                    let members = match step {
                        10 => 1,
                        _ => member.count() + usize::from(member.may_grow()),
                    };
                    member.plan(step, members);
                }
                member.wait();
                taken.push(step);
                if step > 10 && member.count() == 2 {
                    return taken;
                }
                step = member.next_step(step).expect("the leader goes on");
            }
        });
        let last = *taken[0].last().unwrap();
        assert_eq!(taken[0], (0..=last).collect::<Vec<_>>());
        assert_eq!(taken[1], (0..=10).chain([last]).collect::<Vec<_>>());
        assert!(last > 11, "{last}");
    }

    #[test]
    fn who_rests_at_the_end_is_woken() {
        let began = Instant::now();
        let rest = Rest { sleep: Duration::from_secs(600), ..Rest::USUAL };
        let ended = run_resting(2, rest, |member| {
            member.plan(0, 1);
            member.wait();
            member.next_step(0)
        });
        assert_eq!(ended, [Some(1), None]);
        assert!(began.elapsed() < Duration::from_secs(300));
    }

    #[test]
    #[should_panic]
    fn a_panic_ends_the_whole_team() {
        run(2, |member| {
            assert!(!member.is_leader(), "the leader fails");
            member.wait();
        });
    }
}
