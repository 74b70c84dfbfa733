//! This program under `muster run`: it registers its ranks, says how far they are, and ends when it is told to. On its own it does
//! none of this.

use anyhow::{Context, Result, anyhow, ensure};
use muster_kernels::Kernels;
use muster_launcher::agent::Agent;
use muster_launcher::feed::Fed;
use muster_launcher::feed::spec::FeedSpec;
use muster_launcher::message::{Program, Task};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// The launcher's side, if there is one.
pub struct Launched(Option<Agent>);

impl Launched {
    /// Registers with the launcher, if it has started this process.
    pub fn register(
        task: Task,
        evaluates: bool,
        kernels: &Kernels,
        feed: Option<FeedSpec>,
    ) -> Result<Launched> {
        let program = Program {
            name: "mnist".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernels: kernels.backend().name().to_owned(),
            task,
            evaluates,
            feed,
        };
        Ok(Launched(Agent::of_this_process(program)?))
    }

    /// Waits for the start, if this process runs as many ranks as it was started for.
    pub fn start(&self, ranks_here: usize) -> Result<()> {
        let Some(agent) = &self.0 else { return Ok(()) };
        let (wanted, engine) = (agent.ranks().len(), agent.environment().engine.name());
        ensure!(
            wanted == ranks_here,
            "this process would run {ranks_here} ranks, but `muster run --engine {engine}` has started it for {wanted}; \
             give the number of ranks to `muster run -n` only, and take --engine threads where mnist is built without MPI"
        );
        agent.wait_for_start().context("no order to start came")
    }

    /// Whether a launcher has started this process and watches it.
    pub fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    /// The ranks of this process.
    pub fn ranks(&self) -> usize {
        self.0.as_ref().map_or(1, |agent| agent.ranks().len())
    }

    /// Whether this program has said that it is to be fed.
    pub fn is_fed(&self) -> bool {
        self.0.as_ref().is_some_and(Agent::is_fed)
    }

    /// The records that the driver sends, once it has given the start; see [`Agent::fed`].
    pub fn fed(&self, scale: f32) -> Option<Fed> {
        self.0.as_ref()?.fed(scale)
    }

    /// Where the run's report and logs go.
    pub fn log_dir(&self) -> Option<&Path> {
        self.0.as_ref()?.environment().log_dir.as_deref()
    }

    /// Becomes a signal's number when this process is to end.
    pub fn interrupt(&self) -> Arc<AtomicUsize> {
        self.0.as_ref().map(|agent| agent.stop().clone()).unwrap_or_default()
    }

    /// Whether an earlier attempt of the same job was lost: go on from what it has saved.
    pub fn is_restart(&self) -> bool {
        self.0.as_ref().is_some_and(|agent| agent.environment().attempt > 0)
    }

    /// A rank of this process has done so many steps.
    pub fn step(&self, rank: usize, steps: u64) {
        if let Some(agent) = &self.0 {
            agent.step(rank, steps);
        }
    }

    /// So many more labelled records were classified, and so many of them rightly.
    pub fn classified(&self, labelled: u64, right: u64) {
        if let Some(agent) = &self.0 {
            agent.classified(labelled, right);
        }
    }

    /// The evaluator has evaluated the model of so many steps.
    pub fn evaluated(&self, steps: u64) {
        if let Some(agent) = &self.0 {
            agent.evaluated(steps);
        }
    }

    /// Waits so long for the end of the training; see [`Agent::training_ends_within`].
    pub fn training_ends_within(&self, time: Duration) -> Result<bool> {
        let agent = self.0.as_ref().context("nobody watches this process")?;
        Ok(agent.training_ends_within(time)?)
    }

    /// Tells the launcher how the work has ended, and waits until all others have ended theirs.
    pub fn finish(self, done: Result<ExitCode>) -> Result<ExitCode> {
        let Some(agent) = self.0 else { return done };
        let result = done.as_ref().map(drop).map_err(|error| format!("{error:#}"));
        match (agent.finish(result), done) {
            (Err(lost), Ok(_)) => Err(anyhow!(lost)),
            (_, done) => done,
        }
    }
}
