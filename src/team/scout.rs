//! A thread of a team that looks for a core which nobody uses.
//!
//! It steps behind the other threads of its scheduling group for good, since no thread may take that back, so that these lose next to nothing to it. It is there from the
//! beginning: steps allocate nothing, whoever rests.

use super::pace::LATE;
use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

// Its states.
const FREE: u32 = 0;
const ASKED: u32 = 1;
const FOUND: u32 = 2;
const NONE: u32 = 3;

/// How often whoever has asked looks for the answer. It has time.
const LOOK: Duration = Duration::from_millis(5);

/// What a team and the thread have in common.
#[derive(Default)]
pub(super) struct Scout {
    state: AtomicU32,
    thread: OnceLock<Thread>,
}

impl Scout {
    /// The thread's work: it answers until `is_over`, of which [`Scout::wake`] tells it. A core that it has for itself for so `long` is one that
    /// nobody uses.
    pub(super) fn work(&self, long: Duration, is_over: impl Fn() -> bool) {
        step_back();
        while !is_over() {
            if self.state.load(Ordering::Acquire) == ASKED {
                let is_alone = is_alone(long, &is_over);
                self.state.store(if is_alone { FOUND } else { NONE }, Ordering::Release);
            }
            thread::park();
        }
    }

    /// Its thread has begun.
    pub(super) fn is(&self, thread: &Thread) {
        self.thread.set(thread.clone()).expect("a team has one");
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether there is a core that nobody uses. Nobody knows where another member is asking, or when `is_over`.
    pub(super) fn finds_core(&self, is_over: impl Fn() -> bool) -> bool {
        if self.state.compare_exchange(FREE, ASKED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        self.wake();
        while self.state.load(Ordering::Acquire) == ASKED && !is_over() {
            thread::park_timeout(LOOK);
        }
        self.state.swap(FREE, Ordering::AcqRel) == FOUND
    }
}

/// Whether this thread has a core for itself: it keeps it busy for so `long` and looks for gaps in which it did not run. It stops at the
/// first of them, and when `is_over`.
fn is_alone(long: Duration, is_over: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    let mut last = begin;
    while last - begin < long {
        spin_loop();
        let now = Instant::now();
        if now - last > LATE || is_over() {
            return false;
        }
        last = now;
    }
    true
}

/// From now on the calling thread runs where no other wants to.
fn step_back() {
    // Elsewhere this would be the priority of all threads.
    #[cfg(target_os = "linux")]
    {
        /// The least of all priorities.
        const NICEST: i32 = 19;
        // At worst it looks like any other thread.
        _ = rustix::process::setpriority_process(None, NICEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// What `ask` returns beside a scout that looks for so `long`.
    fn beside<T>(long: Duration, ask: impl FnOnce(&Scout) -> T) -> T {
        let (scout, is_over) = (Scout::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            let thread = scope.spawn(|| scout.work(long, || is_over.load(Ordering::Acquire)));
            scout.is(thread.thread());
            let answer = ask(&scout);
            is_over.store(true, Ordering::Release);
            scout.wake();
            answer
        })
    }

    #[test]
    fn it_answers_again_and_again() {
        beside(Duration::ZERO, |scout| (0..5).for_each(|_| assert!(scout.finds_core(|| false))));
    }

    #[test]
    fn it_looks_for_one_at_a_time_and_no_longer_than_there_are_steps() {
        beside(Duration::from_secs(600), |scout| {
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                let first = scope.spawn(|| scout.finds_core(|| is_over.load(Ordering::Relaxed)));
                while scout.state.load(Ordering::Relaxed) != ASKED {
                    thread::yield_now();
                }
                assert!(!scout.finds_core(|| false), "it is asked already");
                is_over.store(true, Ordering::Relaxed);
                assert!(!first.join().unwrap());
            });
        });
    }

    #[test]
    fn a_gap_is_no_core() {
        // As long as one in which others run.
        let away = || {
            thread::sleep(2 * LATE);
            false
        };
        assert!(!is_alone(Duration::from_secs(600), away));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn it_alone_steps_behind_all_others() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let its = thread::spawn(move || {
            step_back();
            priority()
        });
        assert_eq!((its.join().unwrap(), priority()), (19, before));
    }
}
