//! Threads that wait for a share of a product.
//!
//! A product may take ten microseconds, less than it takes to wake a sleeping thread. So a helper that has just had work spins for a
//! while, and nobody waits for one that has not begun: whoever asked for help does its share, then takes back what no helper
//! has taken.
#![allow(unsafe_code)] // Work is lent to threads that outlive it; `Lent` sees to it that none of them has it any more.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::blocks::Buffers;

/// What helpers are asked to do: an item of the work, with buffers of their own.
pub(super) type Work<'a> = dyn Fn(usize, &mut Buffers) + Sync + 'a;

// The states of a desk.
/// The helper looks at it again and again.
const AWAKE: u32 = 0;
/// The helper sleeps until it is woken.
const ASLEEP: u32 = 1;
/// There is an item that the helper may take.
const OFFERED: u32 = 2;
/// The helper works on it.
const TAKEN: u32 = 3;
/// The helper has panicked.
const BROKEN: u32 = 4;
/// The helper shall end.
const CLOSED: u32 = 5;

/// Spins before a waiter lets other threads run: several microseconds.
const SPINS: u32 = 200;
/// How long a helper looks for work before it sleeps: longer than what lies between two products of a training step.
const AWAKE_FOR: Duration = Duration::from_micros(200);

/// Where a helper finds its work; on cache lines of its own.
#[repr(align(128))]
struct Desk {
    state: AtomicU32,
    /// Written while the state is `AWAKE` or `ASLEEP`, read while it is `TAKEN`.
    job: UnsafeCell<Option<Job>>,
}

/// An item of lent work.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    item: usize,
}

// SAFETY: `job` changes hands by `state`, see there; work is `Sync`.
unsafe impl Sync for Desk {}
// SAFETY: as above.
unsafe impl Send for Desk {}

/// A thread that waits for work.
pub(super) struct Helper {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    pub(super) fn start() -> Helper {
        let desk = Arc::new(Desk { state: AtomicU32::new(AWAKE), job: UnsafeCell::new(None) });
        let its = Arc::clone(&desk);
        let thread = std::thread::Builder::new().name("matmul".to_owned()).spawn(move || its.work());
        // As `std::thread::spawn` has it.
        Helper { desk, thread: Some(thread.expect("failed to spawn thread")) }
    }

    /// Lays `item` of `work` on the desk, unless the helper sleeps and shall not be woken.
    ///
    /// # Safety
    /// Before `work` ends, [`Helper::take_back`] or [`Helper::is_done`] must have returned true, or `false` here.
    unsafe fn offer(&self, work: &Work<'_>, item: usize, wake: bool) -> bool {
        match self.desk.state.load(Ordering::Acquire) {
            ASLEEP if !wake => return false,
            state => assert!(state == AWAKE || state == ASLEEP, "a helper that has an item, or has panicked"),
        }
        let work: *const Work<'_> = work;
        // SAFETY: only the lifetime changes; the caller keeps to it. The helper does not touch the job in these states.
        unsafe {
            *self.desk.job.get() =
                Some(Job { work: std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work), item })
        };
        if self.desk.state.swap(OFFERED, Ordering::AcqRel) == ASLEEP {
            self.thread.as_ref().expect("it runs").thread().unpark();
        }
        true
    }

    /// Whether the item that was offered is the caller's again, because the helper had not begun.
    fn take_back(&self) -> bool {
        self.desk.state.compare_exchange(OFFERED, AWAKE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the helper is done with what it has taken.
    fn is_done(&self) -> bool {
        match self.desk.state.load(Ordering::Acquire) {
            TAKEN => false,
            BROKEN => panic!("a thread of this workspace has panicked"),
            _ => true,
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.desk.state.store(CLOSED, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic was the caller's, too, or was never seen.
            _ = thread.join();
        }
    }
}

impl Desk {
    /// What a helper does until the desk is closed.
    fn work(&self) {
        /// Tells that the item is done, or never will be.
        struct Done<'a>(&'a AtomicU32);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(if std::thread::panicking() { BROKEN } else { AWAKE }, Ordering::Release);
            }
        }
        let mut buffers = Buffers::default();
        while self.wait() {
            if self.state.compare_exchange(OFFERED, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                let done = Done(&self.state);
                // SAFETY: the item is this thread's while the state is `TAKEN`, and who lent it waits for that to end.
                unsafe {
                    let job = (*self.job.get()).expect("an offer has a job");
                    (*job.work)(job.item, &mut buffers);
                }
                drop(done);
            }
        }
    }

    /// Waits for an offer; false when the desk is closed.
    fn wait(&self) -> bool {
        let (mut spins, mut since) = (0, None);
        loop {
            match self.state.load(Ordering::Acquire) {
                OFFERED => return true,
                CLOSED => return false,
                ASLEEP => std::thread::park(),
                _ if spins < SPINS => {
                    spins += 1;
                    spin_loop();
                }
                _ if since.get_or_insert_with(Instant::now).elapsed() < AWAKE_FOR => std::thread::yield_now(),
                _ => {
                    // An offer that comes in between wins.
                    _ = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Relaxed);
                    (spins, since) = (0, None);
                }
            }
        }
    }
}

/// Items that are lent; waits for those that helpers have when it goes.
struct Lent<'a>(&'a [Helper]);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        for helper in self.0 {
            while !helper.take_back() && helper.desk.state.load(Ordering::Acquire) == TAKEN {
                std::thread::yield_now();
            }
        }
    }
}

/// Runs `work(0)` here, `work(1..)` on `helpers`, and here what they do not begin in time.
///
/// Returns how much longer that took than it would have taken here alone, because another process kept a helper from its core.
pub(super) fn run(helpers: &[Helper], wake: bool, work: &Work<'_>, buffers: &mut Buffers) -> Duration {
    let lent = Lent(helpers);
    let mut offered = 0_u64;
    for (i, helper) in helpers.iter().enumerate() {
        // SAFETY: `lent` waits, on all ways out of here.
        offered |= u64::from(unsafe { helper.offer(work, i + 1, wake) }) << i;
    }
    let start = Instant::now();
    let mut done_here = 1;
    work(0, buffers);
    for (i, helper) in helpers.iter().enumerate() {
        if offered >> i & 1 == 0 || helper.take_back() {
            work(i + 1, buffers);
            done_here += 1;
        }
    }
    let alone = start.elapsed() * (1 + helpers.len() as u32) / done_here;
    let mut spins = 0;
    while !lent.0.iter().all(Helper::is_done) {
        if spins < SPINS {
            spins += 1;
            spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
    start.elapsed().saturating_sub(alone)
}
