//! Threads that work through the same steps together.
//!
//! A training step takes some hundred microseconds, less than it takes to wake a sleeping thread. So the threads of a rank are
//! started once, run the whole training, and meet at a barrier that spins for a while before it gives the core away.

use crate::batch::share;
use muster_collective::wait::{Counter, Patience};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Where the members of a team wait for each other.
#[derive(Default)]
struct Barrier {
    arrived: AtomicUsize,
    generation: Counter,
    /// A member has panicked and will never arrive.
    broken: AtomicBool,
}

/// One thread of a team.
pub struct Member<'a> {
    index: usize,
    count: usize,
    barrier: &'a Barrier,
}

/// Runs `work` on `threads` threads, the caller's among them, and returns what the members returned, the leader first.
///
/// # Panics
/// If a member panics.
pub fn run<T: Send>(threads: usize, work: impl Fn(&Member) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::default();
    let member = |index| Member { index, count: threads, barrier: &barrier };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|index| {
                let (member, work) = (member(index), &work);
                scope.spawn(move || work(&member))
            })
            .collect();
        let first = work(&member(0));
        let join = |thread: std::thread::ScopedJoinHandle<T>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        std::iter::once(first).chain(others.into_iter().map(join)).collect()
    })
}

/// Runs `work` as the only member of a team, on the calling thread.
pub fn alone<T>(work: impl FnOnce(&Member) -> T) -> T {
    work(&Member { index: 0, count: 1, barrier: &Barrier::default() })
}

impl Member<'_> {
    /// The one thread that talks to the world.
    pub fn is_leader(&self) -> bool {
        self.index == 0
    }

    /// Which member this is, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of members.
    pub fn count(&self) -> usize {
        self.count
    }

    /// This member's run of `items`.
    pub fn share(&self, items: usize) -> Range<usize> {
        share(items, self.index, self.count)
    }

    /// Waits until every member has come here.
    ///
    /// # Panics
    /// If another member has panicked.
    pub fn wait(&self) {
        let barrier = self.barrier;
        let generation = barrier.generation.get();
        if barrier.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.count {
            barrier.arrived.store(0, Ordering::Relaxed);
            barrier.generation.set(generation + 1);
            return;
        }
        let mut patience = Patience::default();
        while barrier.generation.get() == generation {
            assert!(!barrier.broken.load(Ordering::Acquire), "another thread of this team has panicked");
            patience.pause();
        }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.barrier.broken.store(true, Ordering::Release);
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
    #[should_panic]
    fn a_panic_ends_the_whole_team() {
        run(2, |member| {
            assert!(!member.is_leader(), "the leader fails");
            member.wait();
        });
    }
}
