//! What is to be run, where, and within which limits.

use crate::control::Ports;
use crate::engine::{Engine, Starter};
use crate::environment::Environment;
use crate::error::Error;
use crate::hosts::Host;
use crate::inject::Fault;
use crate::logs::Logs;
use crate::output::Output;
use crate::process::{Orphaned, Process, Running};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// The program and its arguments.
    pub program: Vec<OsString>,
    /// Ranks, the parameter server among them.
    pub ranks: usize,
    /// Where they run; this machine if it is empty.
    pub hosts: Vec<Host>,
    /// What runs them.
    pub engine: Engine,
    /// The address the driver listens on; without it loopback if all ranks are local, else all addresses.
    pub bind: Option<IpAddr>,
    /// The driver's port.
    pub ports: Ports,
    /// Whether the last rank evaluates checkpoints.
    pub evaluator: bool,
    /// How the records come to the ranks.
    pub input: Input,
    /// Faults to be executed.
    pub faults: Vec<Fault>,
    /// The run's directory: logs of the ranks, and what the program writes there.
    pub log_dir: Option<PathBuf>,
    /// How long things may take.
    pub limits: Limits,
}

/// How the records come to the ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// As the program says.
    #[default]
    Program,
    /// The driver reads and pushes them.
    Feed,
    /// The same, with parts as they appear, until the job is stopped.
    Follow,
}

impl Input {
    /// As the environment spells it.
    pub fn name(self) -> &'static str {
        match self {
            Input::Program => "",
            Input::Feed => "feed",
            Input::Follow => "follow",
        }
    }

    /// The input of this name.
    pub fn from_name(name: &str) -> Option<Input> {
        [Input::Program, Input::Feed, Input::Follow].into_iter().find(|input| input.name() == name)
    }
}

/// How long things may take, and how often they are tried.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until all ranks have registered.
    pub reservation: Duration,
    /// Without a sign of life, or without a step, of a rank.
    pub heartbeat: Duration,
    /// Without any progress of the feeding.
    pub feed: Duration,
    /// Between the order to stop and the end.
    pub grace: Duration,
    /// The whole job; for ever without it.
    pub job: Option<Duration>,
    /// Further attempts after a rank is lost.
    pub restarts: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            reservation: Duration::from_secs(600),
            heartbeat: Duration::from_secs(30),
            feed: Duration::from_secs(600),
            grace: Duration::from_secs(30),
            job: None,
            restarts: 0,
        }
    }
}

impl Job {
    /// Ranks that do not only evaluate.
    pub fn trainers(&self) -> usize {
        self.ranks - usize::from(self.evaluator)
    }

    /// Finds out before anything is started whether it can be run as it is wanted.
    ///
    /// # Errors
    /// If hosts, ranks and engine do not go together.
    pub fn check(&self) -> Result<(), Error> {
        self.check_engine()?;
        self.places().map(drop)
    }

    /// Whether the engine can run ranks where they are wanted.
    ///
    /// # Errors
    /// If not.
    pub fn check_engine(&self) -> Result<(), Error> {
        if self.engine == Engine::Threads && !self.hosts.is_empty() {
            return Err(Error::Usage {
                what: "hosts are given, but --engine threads runs all ranks in one process".to_owned(),
                mend: "take --engine mpirun, or leave --hosts out",
            });
        }
        Ok(())
    }

    /// Whether all ranks run on this machine.
    pub fn is_local(&self) -> bool {
        self.engine == Engine::Threads
            || (self.engine == Engine::Mpirun && self.hosts.iter().all(Host::is_local))
    }

    /// The address to listen on.
    pub fn bind_address(&self) -> IpAddr {
        let default = if self.is_local() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        self.bind.unwrap_or(default.into())
    }

    /// Addresses of a driver that listens on `port`, as the ranks see it.
    pub(crate) fn driver_addresses(&self, port: u16) -> Vec<String> {
        let bound = self.bind_address();
        if !bound.is_unspecified() {
            return vec![std::net::SocketAddr::new(bound, port).to_string()];
        }
        let ways = self.hosts.iter().filter_map(Host::way_back).filter(|address| !address.is_loopback());
        let mut addresses: Vec<String> =
            ways.map(|ip| std::net::SocketAddr::new(ip, port).to_string()).collect();
        addresses.push(format!("{}:{port}", crate::hosts::this_host()));
        addresses.dedup();
        addresses
    }

    /// The host of each rank, in words.
    ///
    /// # Errors
    /// If there are fewer slots than ranks, or no rank is left beside the evaluator.
    pub fn places(&self) -> Result<Vec<String>, Error> {
        if self.evaluator && self.ranks < 2 {
            return Err(Error::Usage {
                what: "--evaluator takes a rank of its own, and there is one only".to_owned(),
                mend: "take one more with -n",
            });
        }
        if self.hosts.is_empty() {
            let place = if self.engine == Engine::Srun {
                "a host of Slurm's choice"
            } else {
                &crate::hosts::this_host()
            };
            return Ok(vec![place.to_owned(); self.ranks]);
        }
        Ok(crate::hosts::place(&self.hosts, self.ranks)?.into_iter().map(|host| host.name.clone()).collect())
    }
}

/// Starts the program on all ranks. Its second implementation is the tests', which records.
pub trait Executor {
    /// Starts an attempt.
    ///
    /// # Errors
    /// If it cannot be started.
    fn spawn(&mut self, job: &Job, environment: &Environment) -> Result<Box<dyn Running>, Error>;
}

/// Runs the ranks by the job's engine.
pub struct Processes {
    starter: Starter,
    mpirun: OsString,
    /// Of all attempts, from the first one on.
    logs: Option<Logs>,
}

impl Processes {
    /// Looks for what the engine needs.
    ///
    /// # Errors
    /// If it is not there.
    pub fn find(engine: Engine) -> Result<Processes, Error> {
        let mpirun = std::env::var_os("MUSTER_MPIRUN").unwrap_or("mpirun".into());
        Ok(Processes { starter: Starter::find(engine, &mpirun)?, mpirun, logs: None })
    }
}

impl Processes {
    /// Which starter it has found, in words.
    pub fn describe(&self) -> String {
        match self.starter {
            Starter::Direct => "all ranks in one process".to_owned(),
            Starter::OpenMpi(major) => format!("{} of Open MPI {major}", self.mpirun.display()),
            Starter::Hydra => format!("{} of MPICH or another Hydra", self.mpirun.display()),
            Starter::Slurm => "srun of Slurm".to_owned(),
        }
    }
}

impl Executor for Processes {
    fn spawn(&mut self, job: &Job, environment: &Environment) -> Result<Box<dyn Running>, Error> {
        let mut command = self.starter.command(&self.mpirun, job.ranks, &job.hosts, &job.program);
        command.envs(environment.variables());
        if let (None, Some(directory)) = (&self.logs, &job.log_dir) {
            self.logs = Some(Logs::open(directory)?);
        }
        let output = Output::new(self.starter, self.logs.as_ref().map(Logs::directory));
        // `mpirun` and `srun` end their ranks, on all hosts, when they are asked to end; the program just ends.
        let name = environment.key.job();
        let orphaned =
            if self.starter == Starter::Direct { Orphaned::Killed } else { Orphaned::Asked(&name) };
        Ok(Box::new(Process::spawn(command, orphaned, output)?))
    }
}
