//! Bytes a second from each level of cache, from memory, and from one core to another.
#![allow(unsafe_code)] // Intrinsics, behind run-time detection.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use muster_collective::Shared;
use muster_collective::wait::{Counter, Patience};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where memory is read for the main memory's rate: several times the last cache, within these limits.
const MEMORY_BYTES: (usize, usize) = (64 << 20, 1 << 30);
/// A run reads so many bytes at least, so that calling it does not count.
const RUN_BYTES: usize = 1 << 20;
/// Bytes of a line of the cache, and its floats.
const LINE: usize = 64;
const FLOATS: usize = LINE / size_of::<f32>();

/// `bytes` of ones, in whole lines of the cache.
pub fn ones(bytes: usize) -> Shared {
    let shared = Shared::new([bytes / LINE * FLOATS]);
    shared.write_all().fill(1.0);
    shared
}

/// What is read for the rate of a cache of `bytes`: half of it, because code and others have their part.
pub fn cache_set(bytes: usize) -> usize {
    bytes / 2
}

/// What is read for the rate of the memory behind a last cache of `bytes`.
pub fn memory_set(bytes: usize) -> usize {
    (4 * bytes).clamp(MEMORY_BYTES.0, MEMORY_BYTES.1)
}

/// How often `floats` are read in a run.
pub fn passes(floats: &[f32]) -> usize {
    RUN_BYTES.div_ceil(size_of_val(floats).max(1))
}

/// The sum of all floats, `passes` times over, by the widest loads of this CPU; floats behind the last whole line are left out.
pub fn sum(floats: &[f32], passes: usize) -> f64 {
    let (lines, _) = floats.as_chunks::<FLOATS>();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature has just been found.
            return unsafe { x86::sum_zmm(lines, passes) };
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature has just been found.
            return unsafe { x86::sum_ymm(lines, passes) };
        }
    }
    sum_portable(lines, passes)
}

/// Eight independent sums, so that additions do not wait for each other.
fn sum_portable(lines: &[[f32; FLOATS]], passes: usize) -> f64 {
    let mut sums = [[0.0_f32; FLOATS]; 8];
    for _ in 0..passes {
        let (chunks, rest) = black_box(lines).as_chunks::<8>();
        let mut add = |sum: usize, line: &[f32; FLOATS]| {
            sums[sum].iter_mut().zip(line).for_each(|(sum, x)| *sum += x);
        };
        chunks.iter().for_each(|chunk| chunk.iter().enumerate().for_each(|(sum, line)| add(sum, line)));
        rest.iter().for_each(|line| add(0, line));
    }
    sums.as_flattened().iter().map(|&x| f64::from(x)).sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::FLOATS;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum_zmm(lines: &[[f32; FLOATS]], passes: usize) -> f64 {
        let mut sums = [_mm512_setzero_ps(); 8];
        // SAFETY: a line is 16 floats.
        let load = |line: &[f32; FLOATS]| unsafe { _mm512_loadu_ps(line.as_ptr()) };
        for _ in 0..passes {
            let (chunks, rest) = black_box(lines).as_chunks::<8>();
            for chunk in chunks {
                for (sum, line) in sums.iter_mut().zip(chunk) {
                    *sum = _mm512_add_ps(*sum, load(line));
                }
            }
            for line in rest {
                sums[0] = _mm512_add_ps(sums[0], load(line));
            }
        }
        sums.map(|sum| f64::from(_mm512_reduce_add_ps(sum))).iter().sum()
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn sum_ymm(lines: &[[f32; FLOATS]], passes: usize) -> f64 {
        let mut sums = [_mm256_setzero_ps(); 8];
        // SAFETY: a line is 16 floats; `half` is 0 or 1.
        let load =
            |line: &[f32; FLOATS], half: usize| unsafe { _mm256_loadu_ps(line.as_ptr().add(8 * half)) };
        for _ in 0..passes {
            let (chunks, rest) = black_box(lines).as_chunks::<4>();
            for chunk in chunks {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_add_ps(*sum, load(&chunk[i / 2], i % 2));
                }
            }
            for line in rest {
                sums[0] = _mm256_add_ps(sums[0], load(line, 0));
                sums[1] = _mm256_add_ps(sums[1], load(line, 1));
            }
        }
        // SAFETY: both are eight floats.
        let lanes = |sum: __m256| unsafe { std::mem::transmute::<__m256, [f32; 8]>(sum) };
        sums.map(|sum| lanes(sum).iter().map(|&x| f64::from(x)).sum::<f64>()).iter().sum()
    }
}

/// Runs `work` on `threads` threads at once; returns the time from the common start to the end of the last.
pub fn together(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let timed = |thread| {
        barrier.wait();
        let start = Instant::now();
        work(thread);
        start.elapsed()
    };
    thread::scope(|scope| {
        let timed = &timed;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || timed(thread))).collect();
        let first = timed(0);
        others
            .into_iter()
            .map(|other| other.join().expect("measuring does not panic"))
            .fold(first, Duration::max)
    })
}

/// Bytes a second at which one core reads what another has just written, over `turns` of writing and reading `bytes`.
pub fn between_cores(bytes: usize, turns: u64) -> f64 {
    let shared = ones(bytes);
    let moved = (turns as usize * shared.range(0..1).len() * size_of::<f32>()) as f64;
    let (written, read) = (Counter::default(), Counter::default());
    let wait = |counter: &Counter, turn| {
        let mut patience = Patience::default();
        while counter.get() < turn {
            patience.pause();
        }
    };
    let write = || {
        stay_on(0);
        for turn in 1..=turns {
            wait(&read, turn - 1);
            shared.write_all().fill(turn as f32);
            written.set(turn);
        }
    };
    let time_reads = || {
        stay_on(1);
        let mut seconds = 0.0;
        for turn in 1..=turns {
            wait(&written, turn);
            let floats = shared.read_all();
            let start = Instant::now();
            black_box(sum(&floats, 1));
            seconds += start.elapsed().as_secs_f64();
            drop(floats);
            read.set(turn);
        }
        seconds
    };
    let seconds = thread::scope(|scope| {
        scope.spawn(write);
        scope.spawn(time_reads).join().expect("reading does not panic")
    });
    moved / seconds
}

/// Keeps this thread on the `nth` core that the process may use, so that writer and reader do not share one. Where the system refuses,
/// they stay where it puts them.
fn stay_on(nth: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let core = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).nth(nth);
    if let Some(core) = core {
        let mut only = CpuSet::new();
        only.set(core);
        _ = sched_setaffinity(None, &only);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_in_every_pass() {
        for (lines, passes) in [(0, 1), (1, 3), (7, 2), (8, 1), (29, 5), (1000, 3)] {
            let shared = ones(lines * LINE);
            let data = shared.read_all();
            let expected = (FLOATS * lines * passes) as f64;
            assert_eq!(sum(&data, passes), expected, "{lines} lines, {passes} passes");
            assert_eq!(sum_portable(data.as_chunks().0, passes), expected);
        }
    }

    #[test]
    fn all_threads_work_and_the_last_one_counts() {
        let took = together(3, |thread| thread::sleep(Duration::from_millis(10 * thread as u64)));
        assert!(took >= Duration::from_millis(20), "{took:?}");
    }

    #[test]
    fn what_is_written_is_read_in_turns() {
        let rate = between_cores(4096, 50);
        assert!(rate.is_finite() && rate > 0.0, "{rate}");
    }
}
