//! What a job would be, before anything is started: the program is asked for its part as JSON, the launcher adds hosts and slots.

use crate::error::Error;
use crate::hosts::Host;
use crate::job::Job;
use crate::memory;
use crate::message::{Role, Task};
use crate::output::Output;
use crate::process::{Orphaned, Process, Running};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The option that a program is asked with. A program that does not know it refuses it, and so does not begin to work.
pub const OPTION: &str = "--plan-json";
/// A program that has no plan after this time has begun something else.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// A program's part of the plan, for the world of `MUSTER_WORLD_SIZE` ranks, the last of which only evaluates if `MUSTER_EVALUATOR` is 1. Bytes are estimates of what grows with data and model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramPlan {
    /// The program's name and version.
    pub program: String,
    /// What it would do.
    pub task: Task,
    /// Ranks it plans for, without an evaluator.
    pub world_size: usize,
    /// Threads of each rank.
    pub threads: usize,
    /// The data.
    pub data: DataSpec,
    /// Records of a global batch.
    pub batch_size: u64,
    /// Parts that a batch can be divided into; workers beyond these idle.
    pub micro_batches: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps in all.
    pub steps: u64,
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes between the server and all workers in a step, both ways.
    pub bytes_per_step: u64,
    /// Memory of the server, in bytes.
    pub server_bytes: u64,
    /// Memory of a worker, in bytes.
    pub worker_bytes: u64,
    /// Memory of an evaluator, in bytes.
    #[serde(default)]
    pub evaluator_bytes: u64,
    /// Memory of each process beside its ranks, such as the data, in bytes.
    pub process_bytes: u64,
}

/// What the records are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSpec {
    /// The data set's name.
    pub name: String,
    /// How many.
    pub records: u64,
    /// Numbers in each of them.
    pub features: u64,
    /// Classes of the labels.
    pub classes: u64,
}

/// The whole plan, in lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What would run where.
    pub lines: Vec<String>,
    /// What works, but wastes something.
    pub remarks: Vec<String>,
    /// What does not fit.
    pub misfits: Vec<String>,
}

/// Asks the job's program for its plan.
///
/// # Errors
/// If it does not answer, or not with a plan.
pub fn ask(job: &Job) -> Result<ProgramPlan, Error> {
    let answer = tempfile::NamedTempFile::new().map_err(Error::io("create", "a temporary file"))?;
    let mut command = Command::new(&job.program[0]);
    command.args(&job.program[1..]).arg(OPTION).env("MUSTER_WORLD_SIZE", job.ranks.to_string());
    command.env("MUSTER_EVALUATOR", if job.evaluator { "1" } else { "0" });
    let output = Output::captured(answer.reopen().map_err(Error::io("open", "a temporary file"))?);
    let mut process = Process::spawn(command, Orphaned::Killed, output)?;
    let deadline = Instant::now() + ANSWER_MAX;
    let exit = loop {
        match process.try_wait() {
            Some(exit) => break exit,
            None if Instant::now() > deadline => {
                process.kill();
                return Err(no_plan(job, &format!("gives no answer in {} s", ANSWER_MAX.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    if !exit.success {
        let words = process.last_words(None).map_or(String::new(), |words| format!(": {words}"));
        return Err(no_plan(job, &format!("ended with {}{words}", exit.status)));
    }
    let json = std::fs::read(answer.path()).map_err(Error::io("read", answer.path().display()))?;
    serde_json::from_slice(&json).map_err(|error| no_plan(job, &format!("printed something else ({error})")))
}

fn no_plan(job: &Job, what: &str) -> Error {
    Error::Usage {
        what: format!("{}, asked for its plan with {OPTION}, {what}", job.program[0].display()),
        mend: "a program shows its plan only if it is built on muster; `muster run` needs no plan",
    }
}

/// This machine, as far as plans need it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Cores that may be used.
    pub cores: usize,
    /// Memory that may still be used, in bytes; none if the system does not tell.
    pub free_bytes: Option<u64>,
}

impl Machine {
    /// The one this runs on.
    pub fn this() -> Machine {
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            free_bytes: memory::available(Path::new("/")),
        }
    }
}

/// Puts a program's plan on the job's hosts. What runs on other machines than this one is not compared with their memory and cores.
pub fn plan(job: &Job, program: &ProgramPlan, machine: Machine) -> Plan {
    let mut plan = Plan::default();
    plan.describe(job, program);
    let places = match job.places() {
        Ok(places) => places,
        Err(error) => {
            plan.misfits.push(error.to_string());
            vec!["?".to_owned(); job.ranks]
        }
    };
    for (rank, place) in places.iter().enumerate() {
        let role = Role::of(rank, job.ranks, job.evaluator);
        let bytes = rank_bytes(program, rank, job);
        plan.lines.push(format!("  rank {rank:<4} {:<9} {place:<24} {}", role.name(), size(bytes)));
    }
    let trainers = job.trainers();
    if program.world_size != trainers {
        let other = program.world_size;
        plan.misfits.push(format!(
            "the program plans for {other} ranks, -n says {trainers}; leave its own option out"
        ));
    }
    let workers = trainers.saturating_sub(1).max(1) as u64;
    if workers > program.micro_batches {
        plan.remarks.push(format!(
            "{} of {workers} workers have nothing to do: a batch of {} has {} micro-batches",
            workers - program.micro_batches,
            program.batch_size,
            program.micro_batches
        ));
    }
    let is_here = |name: &String| job.hosts.is_empty() || Host { name: name.clone(), slots: 1 }.is_local();
    let here: Vec<usize> = (0..job.ranks).filter(|&rank| job.is_local() || is_here(&places[rank])).collect();
    plan.compare(job, program, machine, &here);
    plan
}

impl Plan {
    fn describe(&mut self, job: &Job, program: &ProgramPlan) {
        let ProgramPlan { data, batch_size, steps, steps_per_epoch, parameters, .. } = program;
        let epochs = *steps as f64 / (*steps_per_epoch).max(1) as f64;
        let slots: usize = job.hosts.iter().map(|host| host.slots).sum();
        let hosts = if job.hosts.is_empty() {
            "this machine".to_owned()
        } else {
            format!("{} hosts, {slots} slots", job.hosts.len())
        };
        self.lines = vec![
            format!("program          {}", program.program),
            format!(
                "data             {}: {} records of {} numbers, {} classes",
                data.name, data.records, data.features, data.classes
            ),
            format!(
                "steps            {steps} of {batch_size} records, {steps_per_epoch} an epoch: {epochs:.2} epochs"
            ),
            format!("model            {parameters} parameters, {}", size(4 * parameters)),
            format!("bytes per step   {}", size(program.bytes_per_step)),
            format!(
                "ranks            {} by {}, {} threads each, on {hosts}",
                job.ranks,
                job.engine.name(),
                program.threads
            ),
        ];
    }

    fn compare(&mut self, job: &Job, program: &ProgramPlan, machine: Machine, here: &[usize]) {
        let threads = here.len() * program.threads;
        if threads > machine.cores {
            let remark = format!(
                "{threads} threads of {} ranks share the {} cores of this machine",
                here.len(),
                machine.cores
            );
            self.remarks.push(remark);
        }
        let processes = if job.engine == crate::engine::Engine::Threads { 1 } else { here.len() as u64 };
        let ranks: u64 = here.iter().map(|&rank| rank_bytes(program, rank, job)).sum();
        let needed = ranks + processes * program.process_bytes;
        self.lines.push(format!(
            "memory           {} on this machine, {} of it for the data of {processes} processes",
            size(needed),
            size(processes * program.process_bytes)
        ));
        if let Some(free) = machine.free_bytes.filter(|&free| free < needed) {
            self.misfits.push(format!(
                "{} are needed on this machine, {} are free: take more hosts, or fewer ranks with -n",
                size(needed),
                size(free)
            ));
        }
    }
}

/// Memory of a rank, without that of its process.
fn rank_bytes(program: &ProgramPlan, rank: usize, job: &Job) -> u64 {
    let (server, worker) = (program.server_bytes, program.worker_bytes);
    match Role::of(rank, job.ranks, job.evaluator) {
        Role::Evaluator => program.evaluator_bytes,
        _ if job.trainers() == 1 => server + worker,
        Role::Ps => server,
        Role::Chief | Role::Worker => worker,
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests;
