//! The ranks of a job: how they work together, what lies between them, and where their time goes.

use crate::error::Error;
use crate::feed::Feed;
use crate::gradient::Share;
use crate::train::Job;
use muster_collective::{Shape, Times, Transport, World};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Whose gradients make up a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Mode {
    /// Every step is one global batch, divided among the workers: the same bits for any number of them.
    #[default]
    Sync,
    /// Every worker computes batches of its own, whose gradients are applied as they come, to weights that may have
    /// changed since.
    Async {
        /// The most updates that a gradient may miss; any number without it.
        max_staleness: Option<u64>,
    },
}

/// How the ranks of a job work together.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    /// Whose gradients make up a step.
    pub mode: Mode,
    /// Whether rank 0 computes gradients too.
    pub server_trains: bool,
    /// The longest that a rank waits for another.
    pub step_timeout: Duration,
    /// The ranks that a launcher started, and how they talk; without it they are threads of this process.
    pub world: Option<(&'a World, Transport)>,
    /// Where workers get their records from; without it from memory.
    pub feed: Option<&'a dyn Feed>,
    /// Is told of each rank of this process how many steps it has done.
    pub watch: Option<&'a (dyn Fn(usize, u64) + Sync)>,
}

impl<'a> Cluster<'a> {
    /// Ranks in step in the world that a launcher started, by the fastest transport; or, without one, as threads.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn of(world: Option<&'a World>) -> Result<Cluster<'a>, Error> {
        let with_transport = |world: &'a World| Ok::<_, Error>((world, world.transport(None)?));
        Ok(Cluster { world: world.map(with_transport).transpose()?, ..Cluster::default() })
    }
}

impl Default for Cluster<'_> {
    fn default() -> Self {
        let step_timeout = Duration::from_secs(60);
        Cluster { mode: Mode::Sync, server_trains: false, step_timeout, world: None, feed: None, watch: None }
    }
}

/// Where a rank's time went while it trained, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RankTimes {
    /// The rank.
    pub rank: usize,
    /// Its threads.
    pub threads: usize,
    /// Gradients, sums, updates, and what comes between steps.
    pub compute: f64,
    /// Sending and receiving.
    pub communication: f64,
    /// Waiting for each rank.
    pub waiting: Vec<f64>,
    /// Reading the data, before training.
    pub reading: f64,
}

impl RankTimes {
    /// Those of a rank that has trained since `start` and is now done.
    pub(crate) fn since(start: Instant, rank: usize, job: &Job, times: Times) -> RankTimes {
        let Times { communication, waiting } = times;
        let compute = start.elapsed().as_secs_f64() - communication - waiting.iter().sum::<f64>();
        RankTimes {
            rank,
            threads: job.threads,
            compute,
            communication,
            waiting,
            reading: job.reading_seconds,
        }
    }

    /// The rank that was waited for the longest, with the seconds.
    pub fn longest_wait(&self) -> Option<(usize, f64)> {
        self.waiting
            .iter()
            .copied()
            .enumerate()
            .filter(|wait| wait.1 > 0.0)
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

impl Job<'_> {
    /// The rank of the first worker.
    pub(crate) fn first_rank(&self) -> usize {
        usize::from(!self.cluster.server_trains)
    }

    /// Ranks that compute gradients.
    pub(crate) fn workers(&self) -> usize {
        self.world_size - self.first_rank()
    }

    /// Which share of a batch worker `index` computes, of how many.
    pub(crate) fn seat(&self, index: usize) -> (usize, usize) {
        match self.cluster.mode {
            Mode::Sync => (index, self.workers()),
            Mode::Async { .. } => (0, 1),
        }
    }

    /// A rank of this process has done so many steps.
    pub(crate) fn done(&self, rank: usize, steps: u64) {
        if let Some(watch) = self.cluster.watch {
            watch(rank, steps);
        }
    }

    /// Worker `worker` takes no more records.
    pub(crate) fn finish_feed(&self, worker: usize) -> Result<(), Error> {
        self.cluster.feed.map_or(Ok(()), |feed| feed.finish(worker))
    }

    /// What the link between the ranks has to hold, for weights of blocks of `lengths` floats.
    pub(crate) fn shape<'a>(&self, lengths: &'a [usize]) -> Shape<'a> {
        let schedule = self.schedule();
        let leaves = |rows: usize| rows.div_ceil(schedule.micro_batch);
        let nodes = |rows: usize| {
            let share = |index| {
                let (index, workers) = self.seat(index);
                Share::new(rows, leaves(rows), index, workers).nodes.len()
            };
            (0..self.workers()).map(share).max().unwrap_or(0)
        };
        Shape {
            workers: self.workers(),
            first_rank: self.first_rank(),
            lengths,
            nodes: schedule.batch_sizes().map(nodes).max().unwrap_or(0),
            leaves: schedule.batch_sizes().map(leaves).max().unwrap_or(0),
            copies: self.cluster.mode != Mode::Sync,
            step_timeout: self.cluster.step_timeout,
        }
    }
}

/// Gives every process the times of all ranks.
pub(crate) fn exchange(world: &World, times: &RankTimes) -> Result<Vec<RankTimes>, Error> {
    let json = serde_json::to_string(times).expect("plain data becomes JSON");
    let all = world.exchange_after_work(&json)?;
    Ok(all.iter().map(|json| serde_json::from_str(json).expect("the same program wrote it")).collect())
}
