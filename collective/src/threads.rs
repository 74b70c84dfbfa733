//! A server and its workers in one process: nothing is copied, the ranks share the buffers themselves.
//!
//! A worker fills its slot and announces it (`push`); the server sums the slots, updates the weights in place and announces the
//! new version (`publish`), for which the workers wait (`pull`). Counters order the phases, so that no block is written
//! while it is read.

use crate::tree::Node;
use crate::wait::{Counter, Patience};
use crate::{Error, Shared};
use std::sync::{Arc, Mutex, OnceLock};

/// What a worker says of the gradient in its slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Push {
    /// The subtree sums, in the order in which they lie in the slot.
    pub nodes: Vec<Node>,
    /// Loss of each micro-batch, from the left.
    pub losses: Vec<f64>,
    /// Rightly classified records of each micro-batch.
    pub hits: Vec<u32>,
}

/// What the server tells the workers with a version of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Compute the next gradient from it.
    Go,
    /// It is the last one.
    Stop,
}

/// What all ranks of one job share.
struct Job {
    weights: Arc<Shared>,
    slots: Vec<Arc<Shared>>,
    pushes: Vec<Mutex<Push>>,
    /// Number of pushes each worker has made.
    pushed: Vec<Counter>,
    /// Version of the weights: the number of pushes of each worker that they contain, plus one once they are there at all.
    version: Counter,
    /// The version after which nobody computes.
    last: Counter,
    failure: OnceLock<String>,
}

/// Rank 0: keeps the weights.
pub struct Server {
    job: Arc<Job>,
}

/// A rank that computes gradients.
pub struct Worker {
    job: Arc<Job>,
    index: usize,
}

/// A job of one server and `workers` workers. Weights are blocks of the given lengths (in floats); a slot holds `nodes` gradients of
/// this shape.
pub fn connect(workers: usize, lengths: &[usize], nodes: usize) -> (Server, Vec<Worker>) {
    let slot = || Arc::new(Shared::new((0..nodes).flat_map(|_| lengths.iter().copied())));
    let job = Arc::new(Job {
        weights: Arc::new(Shared::new(lengths.iter().copied())),
        slots: (0..workers).map(|_| slot()).collect(),
        pushes: (0..workers).map(|_| Mutex::default()).collect(),
        pushed: (0..workers).map(|_| Counter::default()).collect(),
        version: Counter::default(),
        last: Counter::default(),
        failure: OnceLock::new(),
    });
    job.last.set(u64::MAX);
    let worker = |index| Worker { job: job.clone(), index };
    (Server { job: job.clone() }, (0..workers).map(worker).collect())
}

impl Job {
    fn wait(&self, counter: &Counter, value: u64) -> Result<(), Error> {
        let mut patience = Patience::default();
        while counter.get() < value {
            if let Some(reason) = self.failure.get() {
                return Err(Error::Failed { reason: reason.clone() });
            }
            patience.pause();
        }
        Ok(())
    }

    fn fail(&self, rank: usize, reason: &str) {
        // Only the first failure is the cause; what follows it is noise.
        let _ = self.failure.set(format!("rank {rank}: {reason}"));
    }
}

impl Server {
    /// The weights, in place.
    pub fn weights(&self) -> &Arc<Shared> {
        &self.job.weights
    }

    /// Each worker's gradients, in place: block `node * blocks + b`.
    pub fn slots(&self) -> &[Arc<Shared>] {
        &self.job.slots
    }

    /// Waits until every worker has pushed for the `step`-th time (from 0) and copies what they said to `pushes`.
    ///
    /// # Errors
    /// If a rank has failed.
    pub fn collect(&self, step: u64, pushes: &mut Vec<Push>) -> Result<(), Error> {
        pushes.resize_with(self.job.pushes.len(), Push::default);
        for (worker, push) in pushes.iter_mut().enumerate() {
            self.job.wait(&self.job.pushed[worker], step + 1)?;
            push.clone_from(&self.job.pushes[worker].lock().expect("no panic while it is held"));
        }
        Ok(())
    }

    /// Announces the weights that contain `steps` pushes of every worker.
    pub fn publish(&self, steps: u64, order: Order) {
        if order == Order::Stop {
            self.job.last.set(steps);
        }
        self.job.version.set(steps + 1);
    }

    /// Ends the job on all ranks.
    pub fn fail(&self, reason: &str) {
        self.job.fail(0, reason);
    }
}

impl Worker {
    /// The weights of the version last pulled.
    pub fn weights(&self) -> &Arc<Shared> {
        &self.job.weights
    }

    /// Where this worker's gradients go: block `node * blocks + b`.
    pub fn slot(&self) -> &Arc<Shared> {
        &self.job.slots[self.index]
    }

    /// Announces the gradients in the slot, the `step`-th (from 0) of this worker.
    pub fn push(&self, step: u64, push: &Push) {
        self.job.pushes[self.index].lock().expect("no panic while it is held").clone_from(push);
        self.job.pushed[self.index].set(step + 1);
    }

    /// Waits for the weights that contain `steps` pushes of every worker.
    ///
    /// # Errors
    /// If a rank has failed.
    pub fn pull(&self, steps: u64) -> Result<Order, Error> {
        self.job.wait(&self.job.version, steps + 1)?;
        Ok(if self.job.last.get() <= steps { Order::Stop } else { Order::Go })
    }

    /// Ends the job on all ranks.
    pub fn fail(&self, reason: &str) {
        self.job.fail(self.index + 1, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each worker adds its number to every weight, step by step.
    #[test]
    fn what_is_pushed_is_what_is_pulled() {
        const STEPS: u64 = 200;
        let (server, workers) = connect(3, &[16, 32], 1);
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(move || {
                    for step in 0.. {
                        if worker.pull(step).unwrap() == Order::Stop {
                            break;
                        }
                        let before = worker.weights().read_all()[20];
                        assert_eq!(before, step as f32 * 6.0);
                        worker.slot().write_all().fill((worker.index + 1) as f32);
                        worker.push(step, &Push { hits: vec![worker.index as u32], ..Push::default() });
                    }
                });
            }
            let mut pushes = Vec::new();
            server.publish(0, Order::Go);
            for step in 0..STEPS {
                server.collect(step, &mut pushes).unwrap();
                assert_eq!(pushes.iter().map(|p| p.hits[0]).collect::<Vec<_>>(), [0, 1, 2]);
                let mut weights = server.weights().write_all();
                for slot in server.slots() {
                    weights.iter_mut().zip(slot.read_all().iter()).for_each(|(w, g)| *w += g);
                }
                drop(weights);
                server.publish(step + 1, if step + 1 == STEPS { Order::Stop } else { Order::Go });
            }
        });
        assert!(server.weights().read_all().iter().all(|&w| w == STEPS as f32 * 6.0));
    }

    #[test]
    fn a_failure_reaches_everybody_and_names_the_first_cause() {
        let (server, workers) = connect(2, &[16], 1);
        workers[1].fail("the disk is gone");
        workers[0].fail("rank 2 is gone");
        let error = server.collect(0, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "rank 2: the disk is gone");
        assert!(workers[0].pull(0).is_err());
    }
}
