//! Each target on mutations of its seeds for a while: it comes back, soon, without panic and without much memory.

// A global allocator is unsafe to implement; this one counts and passes on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::{Target, targets};

/// How long each target is tried.
const TRIED: Duration = Duration::from_millis(1500);
/// Inputs stay this short.
const INPUT_BYTES_MAX: usize = 4096;
/// Windows, their growth, and a factor for what a byte of a pickle may turn into; a hostile length would be far above.
const ALLOCATED_BYTES_MAX: usize = 3 << 20;

/// Counts the bytes that each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counters neither allocate nor panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        PEAK.set(PEAK.get().max(HELD.get()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A seed with some of its bytes changed, removed, doubled, or taken from another one.
fn mutated(seeds: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
    const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b',', b'|', b'\n', b'\r', b'.', b'(', b'R'];
    let mut below = |bound: usize| random.next_u64() as usize % bound.max(1);
    let mut data = seeds[below(seeds.len())].clone();
    for _ in 0..=below(4) {
        let at = below(data.len());
        let length = below(24).min(data.len() - at);
        match below(6) {
            0 if at < data.len() => data[at] ^= 1 << below(8),
            1 if at < data.len() => data[at] = TELLING[below(TELLING.len())],
            2 => data.truncate(at),
            3 => drop(data.drain(at..at + length)),
            4 => {
                let again = data[at..at + length].repeat(1 + below(20));
                drop(data.splice(at..at, again));
            }
            _ => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len());
                data.splice(at.., other[from..].iter().copied());
            }
        }
    }
    data.truncate(INPUT_BYTES_MAX);
    data
}

fn check(Target { name, run, .. }: Target, data: &[u8]) {
    let (held, begun) = (HELD.get(), Instant::now());
    PEAK.set(held);
    let outcome = std::panic::catch_unwind(|| run(data));
    let allocated = PEAK.get() - held;
    assert!(outcome.is_ok(), "{name} panics on {}", data.escape_ascii());
    assert!(allocated < ALLOCATED_BYTES_MAX, "{name} allocates {allocated} B on {}", data.escape_ascii());
    assert!(begun.elapsed() < Duration::from_secs(2), "{name} hangs on {}", data.escape_ascii());
}

fn try_target(target: Target, seeds: &[Vec<u8>]) -> u64 {
    let mut random = ChaCha8Rng::seed_from_u64(target.name.bytes().map(u64::from).sum());
    let (start, mut tries) = (Instant::now(), 0);
    while start.elapsed() < TRIED {
        check(target, &mutated(seeds, &mut random));
        tries += 1;
    }
    tries
}

#[test]
fn no_bytes_panic_hang_or_take_memory() {
    targets().into_par_iter().for_each(|target| {
        let seeds = (target.seeds)();
        seeds.iter().for_each(|seed| check(target, seed));
        assert!(try_target(target, &seeds) > 100, "{} was hardly tried", target.name);
    });
}
