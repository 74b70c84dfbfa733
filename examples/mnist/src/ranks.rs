//! The ranks of a job as processes: joining and leaving their world, and who speaks in it.

use crate::cli::{self, RecipeName, TransportName};
use crate::digests::Digests;
use crate::{console, fed};
use anyhow::{Result, bail, ensure};
use muster::cluster::{Cluster, Computing, Mode, Updates};
use muster::feed::Feed;
use muster_collective::launched::Launched;
use muster_collective::{Error, Transport, World};
use muster_launcher::feed::Fed;
use muster_launcher::job::Input;
use std::process::ExitCode;
use std::time::Duration;

/// Runs `work` in the world that a launcher started this process in, or alone; `evaluators` ranks are set aside in it. An error of one
/// rank ends all of them, and so does one that is stopped for longer than `limit`.
pub fn run(
    (limit, evaluators): (Duration, usize),
    work: impl FnOnce(Option<&World>) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let joined = World::join(limit, say).and_then(|world| match world {
        Some(world) if evaluators > 0 => world.set_aside(evaluators).map(Some),
        world => Ok(world),
    });
    let world = match joined {
        Ok(world) => world,
        // They are all in the same position; the first of them says so, before the launcher ends it for this one's end.
        Err(_) if Launched::here().is_some_and(|launched| launched.rank != 0) => {
            std::thread::sleep(Duration::from_secs(3));
            return Ok(ExitCode::FAILURE);
        }
        Err(error @ Error::WithoutMpi { .. }) => {
            bail!("{error}: cargo build --release -p mnist --features mpi")
        }
        Err(error) => return Err(error.into()),
    };
    let Some(world) = world else { return work(None) };
    match work(Some(&world)) {
        Ok(code) => {
            world.leave()?;
            Ok(code)
        }
        Err(error) => {
            if world.rank() != 0 {
                // Rank 0 knows already, or finds out, and says it better; unless it is the one that is gone.
                std::thread::sleep(Duration::from_secs(3));
            }
            console::remark(format_args!("mnist: {error:#}"));
            // MPICH's launcher drops what it has not forwarded yet.
            std::thread::sleep(Duration::from_millis(200));
            world.abort()
        }
    }
}

/// Does `work`; where it reads what may have to be fetched into the cache, the first rank of each node goes first, and tells the others which
/// digests it has found.
pub fn in_turn<T>(
    world: Option<&World>,
    fills_cache: bool,
    digests: &Digests,
    work: impl Fn() -> T,
) -> Result<T> {
    let Some(world) = world.filter(|_| fills_cache) else { return Ok(work()) };
    let first_rank = world.roster().places()[world.rank()].node;
    let first = (first_rank == world.rank()).then(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| digests.program());
            work()
        })
    });
    let told = world.exchange_after_work(&first.as_ref().map_or(String::new(), |_| digests.text()))?;
    digests.learn(&told[first_rank]);
    Ok(first.unwrap_or_else(work))
}

/// The longest that a rank waits for another.
pub fn step_timeout(options: &cli::Cluster) -> Duration {
    Duration::from_secs_f64(options.step_timeout)
}

/// Why the job ends with another rank.
fn say(reason: &str) {
    console::remark(format_args!("mnist: {reason}; the job ends"));
}

/// Ranks of the job beside its evaluators: those of the world, or what `-n` says.
pub fn size(wanted: Option<usize>, evaluators: usize, world: Option<&World>) -> Result<usize> {
    let least = 1 + evaluators;
    let Some(world) = world else {
        let size = wanted.unwrap_or(least);
        ensure!(size <= 1024, "--cluster-size {size} in one process; at most 1024 ranks are possible");
        ensure!(
            size >= least,
            "--evaluator takes a rank of its own, and --cluster-size {size} leaves none to train; choose at least {least}"
        );
        return Ok(size - evaluators);
    };
    let size = world.roster().len() + evaluators;
    let wanted = wanted.unwrap_or(size);
    ensure!(
        wanted == size,
        "--cluster-size {wanted} in a world of {size} processes; leave it out, or start {wanted} processes"
    );
    Ok(size - evaluators)
}

/// Ranks that only evaluate.
pub fn evaluators(options: &cli::Cluster) -> usize {
    usize::from(options.evaluator)
}

/// Whether a rank that only serves would leave a single worker, which is slower than that worker alone: it adds the exchange and
/// divides nothing. Rank 0 of two then computes gradients, too; the weights are the same.
pub fn are_two_in_step(options: &cli::Train, world: Option<&World>) -> bool {
    let in_process = options.cluster.cluster_size.unwrap_or(1).saturating_sub(evaluators(&options.cluster));
    let size = world.map_or(in_process, |world| world.roster().len());
    size == 2 && mode(options) == Mode::Sync
}

/// Threads that this process may run at once, by affinity and cgroup.
pub fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The ranks that share this node's memory.
pub fn of_this_node(size: usize, world: Option<&World>) -> Vec<usize> {
    let Some(world) = world else { return (0..size).collect() };
    let places = world.roster().places();
    (0..size).filter(|&rank| places[rank].node == places[world.rank()].node).collect()
}

/// How the ranks work together.
pub fn cluster<'a>(
    options: &cli::Train,
    world: Option<&'a World>,
    feed: Option<&'a Fed>,
    watch: &'a (dyn Fn(usize, u64) + Sync),
) -> Result<Cluster<'a>> {
    // A worker of a job that follows a directory waits for as long as no part appears.
    let follows = feed.is_some() && fed::input(&options.launch)? == Input::Follow;
    let step_timeout =
        if follows { Duration::from_secs(u32::MAX.into()) } else { step_timeout(&options.cluster) };
    let wanted = match options.cluster.transport {
        TransportName::Auto => None,
        TransportName::Shared => Some(Transport::Shared),
        TransportName::Messages => Some(Transport::Messages),
        TransportName::Leaders => Some(Transport::Leaders),
        TransportName::Rma => Some(Transport::Rma),
    };
    let transport =
        |world: &'a World| Ok::<_, Error>((world, world.transport(wanted, mode(options) == Mode::Sync)?));
    Ok(Cluster {
        mode: mode(options),
        server_trains: options.cluster.server_trains,
        updates: Updates::Auto,
        computing: Computing::Auto,
        step_timeout,
        world: world.map(transport).transpose()?,
        feed: feed.map(|fed| fed as &dyn Feed),
        watch: Some(watch),
    })
}

/// Whose gradients make up a step; the seed's recipe is asynchronous.
pub fn mode(options: &cli::Train) -> Mode {
    let cli::Cluster { sync, asynchronous, max_staleness, .. } = options.cluster;
    let is_seed = options.recipe.recipe == Some(RecipeName::Tfos2017) && !sync;
    if asynchronous || max_staleness.is_some() || is_seed {
        Mode::Async { max_staleness }
    } else {
        Mode::Sync
    }
}
