//! Push and pull: the weights of a model go to each worker, a gradient as long comes back, and the server adds it to them.

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
/// Steps that tell how many fill a sample.
pub const TRIAL: u64 = 50;

/// Between threads of this process.
pub fn probes(bench: &Bench) -> Vec<Probe<'static>> {
    let (kernels, time) = (bench.kernels, bench.sample);
    let probe_of = |floats| {
        let run = move |steps| {
            let (server, workers) = link::threads(&shape(&[floats], &[1]));
            thread::scope(|scope| {
                let worker = scope.spawn(|| workers.iter().try_for_each(follow));
                let micros = serve(&server, kernels, steps)?;
                worker.join().expect("a worker does not panic")?;
                Ok(micros)
            })
        };
        let sample = steps(TRIAL, move |micros| steps_of(time, micros), run);
        probe("threads, 1 worker", 1, floats, sample)
    };
    SIZES.map(probe_of).into()
}

/// A probe of this exchange of so many floats with so many workers.
pub fn probe<'a>(way: &str, workers: usize, floats: usize, sample: Sample<'a>) -> Probe<'a> {
    // Each float crosses between cores as a weight and as a gradient; GB/s are bytes a nanosecond.
    let bytes = 2 * workers * floats * size_of::<f32>();
    Probe {
        group: Group::Exchange,
        name: format!("{way}, {:.0} KB", floats as f64 * 4e-3),
        unit: Unit::Micros,
        limit: Some(Limit::Over(BETWEEN_CORES.to_owned(), bytes as f64 / 1e3)),
        intensity: None,
        sample,
    }
}

/// What the link has to hold; rank 0 is the server alone, the others work.
pub fn shape<'a>(lengths: &'a [usize], ranks: &'a [usize]) -> Shape<'a> {
    let step_timeout = Duration::from_secs(60);
    Shape { ranks, lengths, nodes: 1, nodes_of_leader: 1, leaves: 1, copies: false, step_timeout }
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
        let mut weights = server.weights().write_all();
        for &worker in server.others() {
            kernels.add_assign(&mut weights, &server.slots()[worker].read_all());
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

/// A worker's part: reads the weights and writes a gradient, as computing does, until it is told to stop.
///
/// # Errors
/// If a rank has failed.
pub fn follow(worker: &Worker) -> Result<(), Error> {
    let push = Push {
        nodes: vec![muster_collective::tree::Node { level: 0, index: 0 }],
        losses: vec![0.0],
        hits: vec![0],
        ..Push::default()
    };
    while let Order::Compute(step) = worker.pull()? {
        std::hint::black_box(memory::sum(&worker.weights().read_all(), 1));
        worker.slot().write_all().fill(step as f32);
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
            let workers: Vec<_> = workers.iter().map(|worker| scope.spawn(|| follow(worker))).collect();
            assert!(serve(&server, Kernels::select().unwrap(), 9).unwrap() > 0.0);
            workers.into_iter().for_each(|worker| worker.join().unwrap().unwrap());
        });
        // 0 + 1 + … + 9, by two workers.
        assert!(server.weights().read_all().iter().all(|&weight| weight == 90.0));
    }
}
