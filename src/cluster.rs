//! The ranks of a job: how they work together, what lies between them, and where their time goes.

use crate::batch::share;
use crate::error::Error;
use crate::feed::Feed;
use crate::train::Job;
use muster_collective::{Shape, Times, Transport, World, tree};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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

/// Who updates the weights in synchronous training in memory that all ranks see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Updates {
    /// All ranks, if each of their threads can have a core, else the server.
    #[default]
    Auto,
    /// The server.
    Server,
    /// All ranks, each its share.
    All,
}

/// Who computes gradients in synchronous training where rank 0 trains, too, and has all records in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Computing {
    /// All ranks, or rank 0 by itself where that is faster, as the steps' times have it.
    #[default]
    Auto,
    /// All ranks.
    All,
    /// All ranks for so many steps, at least one, then rank 0 by itself for as many, and so on.
    InTurns(u64),
}

/// How the ranks of a job work together.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    /// Whose gradients make up a step.
    pub mode: Mode,
    /// Whether rank 0 computes gradients too.
    pub server_trains: bool,
    /// Who updates the weights where all ranks see them. It changes no bit.
    pub updates: Updates,
    /// Who computes gradients. It changes no bit either.
    pub computing: Computing,
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
        let with_transport = |world: &'a World| Ok::<_, Error>((world, world.transport(None, true)?));
        Ok(Cluster { world: world.map(with_transport).transpose()?, ..Cluster::default() })
    }
}

impl Default for Cluster<'_> {
    fn default() -> Self {
        let step_timeout = Duration::from_secs(60);
        Cluster {
            mode: Mode::Sync,
            server_trains: false,
            updates: Updates::Auto,
            computing: Computing::Auto,
            step_timeout,
            world: None,
            feed: None,
            watch: None,
        }
    }
}

/// How long a rank has waited for its records while it trained.
#[derive(Default)]
pub struct Reads {
    nanoseconds: AtomicU64,
}

impl Reads {
    /// Waits for records by doing `read`.
    pub(crate) fn during<T>(&self, read: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = read();
        self.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
        result
    }

    /// All of it.
    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanoseconds.load(Relaxed)).as_secs_f64()
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
    /// Reading the data before training, and waiting for records that are read or fed during it.
    pub reading: f64,
    /// Steps of synchronous training that rank 0 has computed by itself although there are workers: because that was faster, or to see.
    #[serde(default)]
    pub alone: u64,
}

impl RankTimes {
    /// Those of a rank that has trained since `start` and is now done.
    pub(crate) fn since(start: Instant, rank: usize, job: &Job, times: Times, reads: &Reads) -> RankTimes {
        let Times { communication, waiting } = times;
        let spent = communication + waiting.iter().sum::<f64>() + reads.seconds();
        let compute = start.elapsed().as_secs_f64() - spent;
        RankTimes {
            rank,
            threads: job.threads,
            compute,
            communication,
            waiting,
            reading: job.reading_seconds + reads.seconds(),
            alone: 0,
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

    /// The rank of each worker, in the order of their shares of a batch: neighbours in memory compute neighbouring micro-batches, so
    /// that their gradients can be added before they leave the node. A feed knows the workers by their ranks alone.
    pub(crate) fn ranks(&self) -> Vec<usize> {
        match self.cluster.world {
            Some((world, _)) if self.cluster.feed.is_none() => world.roster().by_node(self.first_rank()),
            _ => (self.first_rank()..self.world_size).collect(),
        }
    }

    /// Which worker a rank is; the first, if it is none.
    pub(crate) fn worker_of(&self, rank: usize) -> usize {
        self.ranks().iter().position(|&worker| worker == rank).unwrap_or(0)
    }

    /// The transport: leaders need the workers of a node to be neighbours, which fed ones may not be.
    pub(crate) fn transport(&self, world: &World, transport: Transport) -> Transport {
        let are_neighbours = self.ranks() == world.roster().by_node(self.first_rank());
        if transport == Transport::Leaders && !are_neighbours { Transport::Messages } else { transport }
    }

    /// Whether all ranks have the weights in common memory.
    fn all_see_weights(&self) -> bool {
        let is_shared = |(world, transport)| self.transport(world, transport) == Transport::Shared;
        self.cluster.mode == Mode::Sync && self.cluster.world.is_none_or(is_shared)
    }

    /// Whether all ranks update the weights, each its share, rather than the server alone: what each of them has written is fetched from
    /// its core by the others at the same time. Ranks that share cores would only wait for each other once more a step.
    pub(crate) fn all_update(&self) -> bool {
        let cores = match self.cluster.world {
            Some((world, _)) => world.roster().cores(),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        self.all_see_weights()
            && match self.cluster.updates {
                Updates::Auto => self.world_size * self.threads <= cores,
                Updates::Server => false,
                Updates::All => true,
            }
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

    /// What the link between workers of these ranks has to hold, for weights of blocks of `lengths` floats.
    pub(crate) fn shape<'a>(&self, ranks: &'a [usize], lengths: &'a [usize]) -> Shape<'a> {
        let schedule = self.schedule();
        let leaves = |rows: usize| rows.div_ceil(schedule.micro_batch);
        let node =
            |worker: &usize| self.cluster.world.map_or(0, |(world, _)| world.roster().node(ranks[*worker]));
        // The most gradients that are left when those of such neighbours are added up.
        let nodes = |neighbours: &[usize]| {
            let of_batch = |rows: usize| {
                let held = |index: usize| {
                    let (index, workers) = self.seat(index);
                    share(leaves(rows), index, workers)
                };
                let held = held(neighbours[0]).start..held(neighbours[neighbours.len() - 1]).end;
                tree::subtrees(held, leaves(rows)).len()
            };
            schedule.batch_sizes().map(of_batch).max().unwrap_or(0)
        };
        let workers: Vec<usize> = (0..ranks.len()).collect();
        Shape {
            ranks,
            lengths,
            nodes: workers.chunks(1).map(nodes).max().unwrap_or(0),
            nodes_of_leader: workers.chunk_by(|a, b| node(a) == node(b)).map(nodes).max().unwrap_or(0),
            leaves: schedule.batch_sizes().map(leaves).max().unwrap_or(0),
            copies: self.cluster.mode != Mode::Sync,
            optimizer_slots: if self.all_see_weights() { self.recipe.optimizer.slots().len() } else { 0 },
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
