//! What runs the ranks: threads of the program, `mpirun` of Open MPI or MPICH, or Slurm's `srun`.

use crate::error::Error;
use crate::hosts::Host;
use clap::ValueEnum;
use std::ffi::{OsStr, OsString};
use std::process::Command;

/// What runs the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One process of the program runs all ranks as threads.
    Threads,
    /// `mpirun` starts a process for each rank.
    Mpirun,
    /// `srun` starts a process for each rank, within a Slurm allocation.
    Srun,
}

impl Engine {
    /// As options and the environment spell it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Threads => "threads",
            Engine::Mpirun => "mpirun",
            Engine::Srun => "srun",
        }
    }

    /// The engine of this name.
    pub fn from_name(name: &str) -> Option<Engine> {
        [Engine::Threads, Engine::Mpirun, Engine::Srun].into_iter().find(|engine| engine.name() == name)
    }

    /// What `auto` means: threads on one machine; what is installed there does not matter.
    pub fn auto(hosts_given: bool, in_slurm_allocation: bool) -> Engine {
        match (hosts_given, in_slurm_allocation) {
            (true, _) => Engine::Mpirun,
            (false, true) => Engine::Srun,
            (false, false) => Engine::Threads,
        }
    }
}

/// Engines as `--engine` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// mpirun if hosts are given, srun within a Slurm allocation, else threads
    Auto,
    /// All ranks in one process
    Threads,
    /// Open MPI's or MPICH's; MUSTER_MPIRUN names another one than that of PATH
    Mpirun,
    /// Slurm's
    Srun,
}

impl EngineName {
    /// The engine of this name, here and now.
    pub fn engine(self, hosts_given: bool) -> Engine {
        match self {
            EngineName::Auto => Engine::auto(hosts_given, std::env::var_os("SLURM_JOB_ID").is_some()),
            EngineName::Threads => Engine::Threads,
            EngineName::Mpirun => Engine::Mpirun,
            EngineName::Srun => Engine::Srun,
        }
    }
}

/// A way to start a process for each rank. They differ in their options and in how they mark whose output a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// The program itself: all ranks in one process.
    Direct,
    /// Open MPI's `mpirun`, of this major version.
    OpenMpi(u32),
    /// The Hydra process manager: MPICH, Intel MPI, MVAPICH.
    Hydra,
    /// Slurm.
    Slurm,
}

impl Starter {
    /// That of an engine; `mpirun` is asked which MPI it belongs to.
    ///
    /// # Errors
    /// If there is no such program, or it is of no known MPI.
    pub fn find(engine: Engine, mpirun: &OsStr) -> Result<Starter, Error> {
        match engine {
            Engine::Threads => return Ok(Starter::Direct),
            Engine::Srun => return version(OsStr::new("srun")).map(|_| Starter::Slurm),
            Engine::Mpirun => {}
        }
        let text = version(mpirun)?;
        Starter::from_version(&text).ok_or_else(|| Error::Usage {
            what: format!(
                "{} is neither Open MPI's nor MPICH's: {}",
                mpirun.display(),
                text.lines().next().unwrap_or("it prints no version")
            ),
            mend: "name another one with MUSTER_MPIRUN",
        })
    }

    /// Which MPI prints this for `--version`.
    fn from_version(text: &str) -> Option<Starter> {
        if text.contains("Open MPI") || text.contains("OpenRTE") {
            let major = text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok());
            return Some(Starter::OpenMpi(major.unwrap_or(4)));
        }
        (text.contains("HYDRA") || text.contains("Intel(R) MPI")).then_some(Starter::Hydra)
    }

    /// The command that starts `program` on `ranks` ranks. `hosts` is empty where all of them run on this machine.
    pub fn command(self, mpirun: &OsStr, ranks: usize, hosts: &[Host], program: &[OsString]) -> Command {
        let count = ranks.to_string();
        let list = |hosts: &[Host]| {
            let words: Vec<String> =
                hosts.iter().map(|host| format!("{}:{}", host.name, host.slots)).collect();
            words.join(",")
        };
        let mut command = match self {
            Starter::Direct => Command::new(&program[0]),
            Starter::OpenMpi(_) | Starter::Hydra => Command::new(mpirun),
            Starter::Slurm => Command::new("srun"),
        };
        match self {
            Starter::Direct => {
                command.args(&program[1..]);
                return command;
            }
            Starter::OpenMpi(major) => {
                // Ranks have threads of their own: bound to one core, as is the default, they would share it.
                command.args(["-n", &count, "--bind-to", "none"]);
                command.args(if major < 5 { &["--tag-output"][..] } else { &["--output", "tag"] });
                let here = [Host { name: "localhost".to_owned(), slots: ranks }];
                command.args(["--host", &list(if hosts.is_empty() { &here } else { hosts })]);
                if rustix::process::geteuid().is_root() {
                    command.arg("--allow-run-as-root");
                }
                exported().for_each(|name| {
                    command.arg("-x").arg(name);
                });
            }
            Starter::Hydra => {
                command.args(["-n", &count, "-prepend-rank"]);
                if !hosts.is_empty() {
                    command.args(["-hosts", &list(hosts)]);
                }
            }
            Starter::Slurm => {
                command.args(["-n", &count, "--label", "--kill-on-bad-exit=1", "--export=ALL"]);
                if !hosts.is_empty() {
                    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
                    command.args(["--nodelist", &names.join(",")]);
                }
            }
        }
        command.args(program);
        command
    }

    /// Whose output a line is, as far as the starter says so, and the line without its mark.
    pub fn unmark(self, line: &str) -> (Option<usize>, &str) {
        let marked = match self {
            Starter::Direct => None,
            // `[1,2]<stdout>:text`; in version 5 `[name@1,2]<stdout>: text`.
            Starter::OpenMpi(major) => line.strip_prefix('[').and_then(|line| {
                let (mark, rest) = line.split_once("]<std")?;
                let (_, text) = rest.split_once(":")?;
                let text = if major < 5 { text } else { text.strip_prefix(' ').unwrap_or(text) };
                Some((mark.rsplit(',').next()?, text))
            }),
            // `[2] text`
            Starter::Hydra => line.strip_prefix('[').and_then(|line| line.split_once("] ")),
            // `2: text`, the number right-aligned
            Starter::Slurm => line.trim_start().split_once(": "),
        };
        let ranked = marked.and_then(|(rank, text)| Some((rank.parse().ok()?, text)));
        ranked.map_or((None, line), |(rank, text)| (Some(rank), text))
    }
}

/// Variables that Open MPI is told to hand on to other hosts: their names only, so that no value shows in a list of processes.
fn exported() -> impl Iterator<Item = OsString> {
    let given = std::env::vars_os().map(|(name, _)| name);
    let wanted = |name: &OsString| {
        let name = name.to_string_lossy();
        (name.starts_with("MUSTER_") || name.starts_with("RUST_") || name.starts_with("HADOOP_"))
            && !crate::environment::NAMES.contains(&&*name)
    };
    crate::environment::NAMES.into_iter().map(OsString::from).chain(given.filter(wanted))
}

/// What a program prints for `--version`.
fn version(program: &OsStr) -> Result<String, Error> {
    let output = Command::new(program).arg("--version").output().map_err(|cause| {
        let what = format!("cannot run {}: {cause}", program.display());
        Error::Usage { what, mend: "install it, or take --engine threads" }
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests;
