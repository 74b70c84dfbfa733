//! `--plan-json`: what a training would be, for `muster plan`.

use crate::memory::{self, Ranks};
use anyhow::Result;
use muster::cluster::{Cluster, Mode};
use muster::gradient::Share;
use muster::records::Records;
use muster::train::Job;
use muster_launcher::message::Task;
use muster_launcher::plan::{DataSpec, ProgramPlan};
use std::io::Write;
use std::process::ExitCode;

/// Prints the plan of a job that would end with `steps`.
pub fn print(job: &Job, dataset: &str, steps: u64) -> Result<ExitCode> {
    let json = serde_json::to_string_pretty(&of(job, dataset, steps))?;
    writeln!(std::io::stdout(), "{json}")?;
    Ok(ExitCode::SUCCESS)
}

fn of(job: &Job, dataset: &str, steps: u64) -> ProgramPlan {
    let schedule = job.schedule();
    let (batch, is_sync) = (schedule.batch_size, job.cluster.mode == Mode::Sync);
    let workers = (job.world_size - usize::from(!job.cluster.server_trains)).max(1);
    let leaves = batch.div_ceil(schedule.micro_batch);
    let share = |worker| match is_sync {
        true => Share::new(batch, leaves, worker, workers),
        false => Share::new(batch, leaves, 0, 1),
    };
    let shares: Vec<Share> = (0..workers).map(share).collect();
    let pushed: usize = shares.iter().map(|share| share.nodes.len()).sum();
    let gradient = u64::try_from(memory::parameters_bytes(job.model)).unwrap_or(u64::MAX);
    let Cluster { mode, server_trains, .. } = job.cluster;
    let need = |ranks: usize, rank| {
        let ranks = Ranks { size: ranks, server_trains, mode };
        u64::try_from(ranks.need(rank, job.model, job.recipe).bytes()).unwrap_or(u64::MAX)
    };
    // Of rank 0 the launcher adds a worker's share where the rank is alone.
    let worker_bytes = need(job.world_size.max(2), 1);
    let server_bytes =
        need(job.world_size, 0).saturating_sub(if job.world_size == 1 { worker_bytes } else { 0 });
    ProgramPlan {
        program: format!("mnist {}", env!("CARGO_PKG_VERSION")),
        task: Task::Train,
        world_size: job.world_size,
        threads: job.threads,
        data: DataSpec {
            name: dataset.to_owned(),
            records: schedule.records as u64,
            features: job.train.width() as u64,
            classes: job.train.classes() as u64,
        },
        batch_size: batch as u64,
        // Without steps in common every worker takes whole batches, and none is idle.
        micro_batches: if is_sync { leaves as u64 } else { u64::MAX },
        steps_per_epoch: schedule.steps_per_epoch(),
        steps,
        parameters: job.model.parameters() as u64,
        // One rank alone sends nothing; otherwise every worker pulls all weights and pushes its partial sums.
        bytes_per_step: if job.world_size == 1 {
            0
        } else {
            gradient.saturating_mul((workers + pushed) as u64)
        },
        server_bytes,
        worker_bytes,
        // The file's bytes, its weights, and these as the kernels want them.
        evaluator_bytes: gradient.saturating_mul(3),
        process_bytes: std::iter::once(job.train).chain(job.test).map(Records::bytes).sum(),
    }
}
