//! Waiting for another thread or rank: spin, then yield, then nap.
//!
//! A step takes some hundred microseconds and its waits a few, so a waiter spins first: a sleeping thread wakes in 50 µs and more.
//! When that was not enough it lets other processes run, and after a while it sleeps in naps, so that an idle rank
//! costs nothing.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Spins before the first yield: several microseconds with the `pause` of today's processors, which takes 25 to 45 ns; several times what
/// a waiting pair of cores needs, and little for ranks that share a core.
const SPINS: u32 = 100;
/// How long a waiter yields before its first nap. A time, not a number: on a busy machine one yield may take milliseconds.
const YIELDING: Duration = Duration::from_millis(2);
/// A yield that takes longer was one: somebody else has run on this core. Otherwise it takes a microsecond.
const TAKEN: Duration = Duration::from_micros(10);
/// Length of a nap.
const NAP: Duration = Duration::from_micros(100);

/// One wait's patience.
#[derive(Default)]
pub struct Patience {
    spins: u32,
    /// Since when it has yielded.
    yields: Option<Instant>,
    /// For how long others have run on this core.
    yielded: Duration,
    is_long: bool,
}

impl Patience {
    /// Lets a little time pass; more as the wait grows longer.
    #[inline]
    pub fn pause(&mut self) {
        if self.spins < SPINS {
            self.spins += 1;
            spin_loop();
        } else if self.is_long {
            std::thread::sleep(NAP);
        } else {
            let before = Instant::now();
            std::thread::yield_now();
            let took = before.elapsed();
            if took > TAKEN {
                self.yielded += took;
            }
            self.is_long = self.yields.get_or_insert(before).elapsed() > YIELDING;
        }
    }

    /// For how long others have run on this core because it was given away.
    pub fn yielded(&self) -> Duration {
        self.yielded
    }

    /// Whether the wait has come to naps: the time to look at clocks and at what else may have gone wrong.
    pub fn is_long(&self) -> bool {
        self.is_long
    }
}

/// A number that only grows, on a cache line of its own; what was written before it grew is seen by whoever saw it grow.
#[derive(Default)]
#[repr(align(64))]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Raises it to `value`.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Adds one and returns what it was.
    #[inline]
    pub fn increment(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel)
    }
}
