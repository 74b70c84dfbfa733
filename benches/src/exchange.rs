//! Push and pull: the weights of a model go to each worker, a gradient as long comes back, and the server adds it to them.
//!
//! Two figures of each: what the transport itself takes, when the worker neither reads the weights nor writes the gradient, and what it
//! takes when the worker does, as training does. The server adds up in both. In shared memory the first one moves no data between cores but flags
//! and what the server has written; the second one cannot be faster than the cores exchange what they have written.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use muster_collective::{Error, Order, Push, Server, Shape, Worker, link};
use muster_kernels::Kernels;

use crate::measure::{Limit, Probe, Sample, steps};
use crate::memory;
use crate::report::{Group, Unit};
use crate::suite::{BETWEEN_CORES, Bench};

/// Floats of the weights, and of a gradient: those of 784-10, 784-128-10 and 784-512-512-10.
pub const SIZES: [usize; 3] = [7_850, 101_770, 669_706];
/// Floats that are added up at a time; they stay in the first cache.
const CHUNK: usize = 1024;
/// Floats that are waited for at least, as the parameter server of a training does.
const RUN: usize = 16 * 1024;
/// Steps that tell how many fill a sample.
pub const TRIAL: u64 = 50;

/// What a worker does between pull and push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing: what is timed is the transport, and the server's addition.
    Nothing,
    /// Reads the weights and writes a gradient, as computing does.
    Touch,
}

impl Work {
    /// Both.
    pub const ALL: [Work; 2] = [Work::Nothing, Work::Touch];

    /// What a figure's name says of it.
    fn mark(self) -> &'static str {
        match self {
            Work::Nothing => "",
            Work::Touch => ", read and written",
        }
    }
}

/// Between threads of this process.
pub fn probes(bench: &Bench) -> Vec<Probe<'static>> {
    let (kernels, time) = (bench.kernels, bench.sample);
    let probe_of = |(floats, work)| {
        let run = move |steps| {
            let (server, workers) = link::threads(&shape(&[floats], &[1]));
            thread::scope(|scope| {
                let worker = scope.spawn(|| workers.iter().try_for_each(|worker| follow(worker, work)));
                let micros = serve(&server, kernels, steps)?;
                worker.join().expect("a worker does not panic")?;
                Ok(micros)
            })
        };
        let sample = steps(TRIAL, move |micros| steps_of(time, micros), run);
        probe("threads, 1 worker", 1, (floats, work), sample)
    };
    loads().map(probe_of).collect()
}

/// All sizes, with what the workers do.
pub fn loads() -> impl Iterator<Item = (usize, Work)> {
    Work::ALL.into_iter().flat_map(|work| SIZES.map(|floats| (floats, work)))
}

/// A probe of this exchange of so many floats with so many workers.
pub fn probe<'a>(way: &str, workers: usize, (floats, work): (usize, Work), sample: Sample<'a>) -> Probe<'a> {
    // Each float crosses between cores as a weight and as a gradient; GB/s are bytes a nanosecond.
    let bytes = 2 * workers * floats * size_of::<f32>();
    Probe {
        group: Group::Exchange,
        name: format!("{way}, {:.0} KB{}", kilobytes(floats), work.mark()),
        unit: Unit::Micros,
        limit: (work == Work::Touch).then(|| Limit::Over(BETWEEN_CORES.to_owned(), bytes as f64 / 1e3)),
        intensity: None,
        sample,
    }
}

/// What so many floats take.
pub fn kilobytes(floats: usize) -> f64 {
    floats as f64 * size_of::<f32>() as f64 / 1e3
}

/// What the link has to hold; rank 0 is the server alone, the others work.
pub fn shape<'a>(lengths: &'a [usize], ranks: &'a [usize]) -> Shape<'a> {
    let step_timeout = Duration::from_secs(60);
    Shape {
        ranks,
        lengths,
        nodes: 1,
        nodes_of_leader: 1,
        leaves: 1,
        copies: false,
        optimizer_slots: 0,
        step_timeout,
    }
}

/// As many steps of `micros` microseconds as fill a sample.
pub fn steps_of(sample: Duration, micros: f64) -> u64 {
    ((sample.as_secs_f64() * 1e6 / micros) as u64).max(TRIAL)
}

/// The server's part; returns microseconds a step, and stops the workers.
///
/// # Errors
/// If a rank has failed.
pub fn serve(server: &Server, kernels: &Kernels, steps: u64) -> Result<f64, crate::Error> {
    let mut push = Push::default();
    // A step before the clock starts: the workers are there then.
    let mut step = |step| {
        server.publish(Order::Compute(step))?;
        for &worker in server.others() {
            server.collect(worker, &mut push)?;
        }
        let floats = server.weights().range(0..server.weights().blocks()).len();
        let mut added = 0;
        while added < floats {
            let come = server.receive(floats.min(added + RUN))?.min(floats);
            add(server, kernels, added..come);
            server.offer(come)?;
            added = come;
        }
        Ok::<_, Error>(())
    };
    step(0)?;
    let start = Instant::now();
    (1..=steps).try_for_each(&mut step)?;
    let seconds = start.elapsed().as_secs_f64();
    server.stop()?;
    Ok(1e6 * seconds / steps as f64)
}

/// Adds these floats of all gradients to the weights, as many at a time as stay in the first cache.
fn add(server: &Server, kernels: &Kernels, run: Range<usize>) {
    let mut weights = server.weights().write_all();
    let gradients: Vec<_> = server.others().iter().map(|&worker| server.slots()[worker].read_all()).collect();
    for at in run.clone().step_by(CHUNK) {
        let chunk = at..run.end.min(at + CHUNK);
        for gradient in &gradients {
            kernels.add_assign(&mut weights[chunk.clone()], &gradient[chunk.clone()]);
        }
    }
}

/// A worker's part, until it is told to stop. Its gradient is the number of the step, or what it was before.
///
/// # Errors
/// If a rank has failed.
pub fn follow(worker: &Worker, work: Work) -> Result<(), Error> {
    let push = Push {
        nodes: vec![muster_collective::tree::Node { level: 0, index: 0 }],
        losses: vec![0.0],
        hits: vec![0],
        ..Push::default()
    };
    while let Order::Compute(step) = worker.pull()? {
        if work == Work::Touch {
            std::hint::black_box(memory::sum(&worker.weights().read_all(), 1));
            worker.slot().write_all().fill(step as f32);
        }
        worker.push(&push)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_moves_weights_and_gradients() {
        let (server, workers) = link::threads(&shape(&[SIZES[0]], &[1, 2]));
        thread::scope(|scope| {
            let begin = |worker| scope.spawn(move || follow(worker, Work::Touch));
            let workers: Vec<_> = workers.iter().map(begin).collect();
            assert!(serve(&server, Kernels::select().unwrap(), 9).unwrap() > 0.0);
            workers.into_iter().for_each(|worker| worker.join().unwrap().unwrap());
        });
        // 0 + 1 + … + 9, by two workers.
        assert!(server.weights().read_all().iter().all(|&weight| weight == 90.0));
    }
}
