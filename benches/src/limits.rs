//! What this machine can do, as probes: the limits of all other figures.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use muster_collective::Shared;
use muster_kernels::Backend;

use crate::exchange::SIZES;
use crate::measure::{Probe, Sample, billions};
use crate::memory::{between_cores, cache_set, memory_set, ones, passes, sum, together};
use crate::peak::Peak;
use crate::report::{Group, Unit};
use crate::suite::{BETWEEN_CORES, Bench};

/// Turns of a sample from core to core; each takes some 20 µs.
const TURNS: u64 = 100;

/// All of them.
pub fn probes(bench: &Bench) -> Vec<Probe<'static>> {
    let mut probes: Vec<Probe<'static>> = Vec::new();
    for backend in Backend::ALL {
        let Some(peak) = Peak::of(backend) else { continue };
        let sample = billions(bench.sample, peak.flops, move || _ = black_box((peak.run)()));
        probes.push(probe(Bench::peak_of(backend, 1), Unit::Gflops, sample));
    }
    let all = bench.machine.cores;
    let peak = Peak::of(bench.kernels.backend()).expect("the kernels run here");
    if all > 1 {
        let sample = on_all(bench.sample, all, peak.flops, move |_| _ = black_box((peak.run)()));
        probes.push(probe(bench.peak_name(all), Unit::Gflops, sample));
    }
    for (level, &bytes) in (1..).zip(&bench.machine.caches) {
        probes.push(read(bench.sample, Bench::level_name(level), cache_set(bytes)));
    }
    probes.extend(memory(bench));
    if all > 1 {
        let bytes = SIZES[1] * size_of::<f32>();
        let sample: Sample = Box::new(move || Ok(between_cores(bytes, TURNS) / 1e9));
        probes.push(probe(BETWEEN_CORES.to_owned(), Unit::Gbytes, sample));
    }
    probes
}

fn probe(name: String, unit: Unit, sample: Sample<'static>) -> Probe<'static> {
    Probe { group: Group::Machine, name, unit, limit: None, intensity: None, sample }
}

/// Reads `bytes` over and over.
fn read(time: Duration, name: String, bytes: usize) -> Probe<'static> {
    let data = ones(bytes);
    let passes = passes(&data.read_all());
    let per_run = (bytes * passes) as f64;
    probe(name, Unit::Gbytes, billions(time, per_run, move || _ = black_box(sum(&data.read_all(), passes))))
}

/// Reads from memory, on one thread and on all.
fn memory(bench: &Bench) -> Vec<Probe<'static>> {
    let bytes = memory_set(bench.machine.caches.last().copied().unwrap_or(0));
    // Touched at first use, so that a suite that is not run to its end does not wait for it.
    let data: Rc<RefCell<Option<Shared>>> = Rc::default();
    let reads = bench.thread_counts().map(|threads| {
        let data = data.clone();
        let sample: Sample = Box::new(move || {
            let mut data = data.borrow_mut();
            let floats = data.get_or_insert_with(|| ones(bytes)).read_all();
            let share = floats.len() / threads;
            let took = together(threads, |thread| {
                _ = black_box(sum(&floats[thread * share..][..share], 1));
            });
            Ok((threads * share * size_of::<f32>()) as f64 / took.as_secs_f64() / 1e9)
        });
        probe(Bench::memory_name(threads), Unit::Gbytes, sample)
    });
    reads.collect()
}

/// Runs `run` on `threads` threads at once, for about `time`, and counts `per_run` of each run of each thread.
fn on_all(
    time: Duration,
    threads: usize,
    per_run: f64,
    run: impl Fn(usize) + Sync + 'static,
) -> Sample<'static> {
    let mut repeats = None;
    Box::new(move || {
        let measure = |repeats: u32| {
            together(threads, |thread| (0..repeats).for_each(|_| run(thread))).as_secs_f64()
                / f64::from(repeats)
        };
        let repeats = *repeats.get_or_insert_with(|| (time.as_secs_f64() / measure(10)).max(10.0) as u32);
        Ok(threads as f64 * per_run / measure(repeats) / 1e9)
    })
}
