//! The command line of `muster`.

use clap::{Args, Parser, Subcommand};
use muster_launcher::Error;
use muster_launcher::control::Ports;
use muster_launcher::engine::EngineName;
use muster_launcher::hosts;
use muster_launcher::inject::Fault;
use muster_launcher::job::{Input, Job, Limits};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Runs programs built on muster on a cluster.
#[derive(Parser, Debug)]
#[command(name = "muster", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a program on every rank: reserve, start, train or infer, shut down
    Run(Box<Run>),
    /// Show what a job would be, without starting it: ranks, hosts, steps, memory; exit code 2 if it does not fit
    Plan(Plan),
    /// Measure this machine and what muster makes of it: a table, JSON, and a page with a roofline plot
    ///
    /// Each figure is a median over rounds, with its spread and its share of what limits it. Under mpirun, in a build with the cargo
    /// feature `mpi`, it measures what goes between the ranks.
    Bench(muster_benches::options::Options),
    /// Check what a job needs: engine, port, ranks that register from their hosts, and paths on its storage
    Doctor(Doctor),
    /// What `muster doctor` runs on every rank
    #[command(hide = true)]
    Rank,
    /// Show the jobs of this user, their ranks and how far they are
    Status,
    /// End a job in order: it takes its last step, saves its model and ends
    Stop {
        /// Its name, as `muster status` shows it; not needed if there is one job only
        job: Option<String>,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory that is there
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
    /// Show runs as a page for a browser: curves, where the time went, what the model gets wrong, options that differ
    Report(Report),
}

/// `muster report`
#[derive(Args, Debug)]
pub struct Report {
    /// The --log-dir of a training, here or on HDFS; several are shown side by side
    #[arg(required = true, value_name = "DIR")]
    pub directories: Vec<PathBuf>,
    /// The page: one file that needs no other, and no network
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
}

/// `muster run`
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub place: Place,

    /// Read the program's records here and push them to the workers, instead of letting these read
    #[arg(long, help_heading = "Records")]
    pub feed: bool,
    /// Feed the workers with parts as they appear, until `muster stop`
    #[arg(long, help_heading = "Records")]
    pub follow: bool,

    /// The driver's port, or a range of which the first free one is taken [default: any]
    #[arg(long, value_name = "PORT|FIRST-LAST", env = "MUSTER_SERVER_PORT", help_heading = "Driver")]
    pub port: Option<Ports>,
    /// The address the driver listens on [default: loopback if all ranks are local, else all]
    #[arg(long, value_name = "ADDRESS", help_heading = "Driver")]
    pub bind: Option<IpAddr>,
    /// Directory of this run: the ranks' logs, and what the program writes there
    #[arg(long, value_name = "DIR", help_heading = "Driver")]
    pub log_dir: Option<PathBuf>,

    /// Seconds until all ranks must have registered
    #[arg(long, value_name = "SECS", default_value = "600", value_parser = seconds, help_heading = "Limits")]
    pub reservation_timeout: Duration,
    /// Seconds without a sign of life or a step after which a rank counts as lost
    #[arg(long, value_name = "SECS", default_value = "30", value_parser = seconds, help_heading = "Limits")]
    pub heartbeat_timeout: Duration,
    /// Seconds without any progress after which the feeding has failed
    #[arg(long, value_name = "SECS", default_value = "600", value_parser = seconds, help_heading = "Limits")]
    pub feed_timeout: Duration,
    /// Seconds between the order to stop and the end
    #[arg(long, value_name = "SECS", default_value = "30", value_parser = seconds, help_heading = "Limits")]
    pub grace_secs: Duration,
    /// Seconds that the whole job may take [default: any time]
    #[arg(long, value_name = "SECS", value_parser = seconds, help_heading = "Limits")]
    pub timeout: Option<Duration>,
    /// Further attempts after a rank is lost, each from the last checkpoint
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Limits")]
    pub max_restarts: u32,

    /// Execute a fault in the first attempt: kill, stop or drop (the connection); can be repeated
    #[arg(long, value_name = "kill:rank=R,step=S", help_heading = "Tests")]
    pub inject: Vec<Fault>,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

/// `muster plan`
#[derive(Args, Debug)]
pub struct Plan {
    #[command(flatten)]
    pub place: Place,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

/// `muster doctor`
#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    pub place: Place,
    /// The driver's port, or a range of which the first free one is taken [default: any]
    #[arg(long, value_name = "PORT|FIRST-LAST", env = "MUSTER_SERVER_PORT", help_heading = "Driver")]
    pub port: Option<Ports>,
    /// The address the driver listens on [default: loopback if all ranks are local, else all]
    #[arg(long, value_name = "ADDRESS", help_heading = "Driver")]
    pub bind: Option<IpAddr>,
    /// Directories or files that a job will read or write, here or on HDFS
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// Ranks and where they run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct Place {
    /// Ranks: with one, it is server and worker at once; with more, rank 0 is the parameter server
    #[arg(short = 'n', long = "cluster-size", visible_alias = "cluster_size", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks: u32,
    /// Hosts and how many ranks each of them takes
    #[arg(long, value_name = "a:2,b:2", conflicts_with = "hostfile")]
    pub hosts: Option<String>,
    /// A file with a line `a slots=2` for each host
    #[arg(long, value_name = "FILE")]
    pub hostfile: Option<PathBuf>,
    /// What runs the ranks; auto: mpirun if hosts are given, srun within a Slurm allocation, else threads
    #[arg(long, value_enum, default_value_t = EngineName::Auto)]
    pub engine: EngineName,
    /// Let the last rank evaluate each checkpoint
    #[arg(long)]
    pub evaluator: bool,
}

impl Doctor {
    /// The job that is tried: this program on every rank.
    ///
    /// # Errors
    /// If hosts and ranks do not go together.
    pub fn job(&self) -> Result<Job, Error> {
        let this = std::env::current_exe().map_err(|cause| Error::Io {
            action: "find",
            on: "this program".to_owned(),
            cause,
        })?;
        let program = vec![this.into_os_string(), "rank".into()];
        let limits = Limits { reservation: Duration::from_secs(20), ..Limits::default() };
        let ports = self.port.unwrap_or(Ports(0, 0));
        Ok(Job { bind: self.bind, ports, limits, ..self.place.job(program)? })
    }
}

impl Run {
    /// As a job.
    ///
    /// # Errors
    /// If hosts and ranks do not go together.
    pub fn job(&self) -> Result<Job, Error> {
        let job = Job {
            program: self.program.clone(),
            limits: Limits {
                reservation: self.reservation_timeout,
                heartbeat: self.heartbeat_timeout,
                feed: self.feed_timeout,
                grace: self.grace_secs,
                job: self.timeout,
                restarts: self.max_restarts,
            },
            bind: self.bind,
            ports: self.port.unwrap_or(Ports(0, 0)),
            input: match (self.follow, self.feed) {
                (true, _) => Input::Follow,
                (false, true) => Input::Feed,
                (false, false) => Input::Program,
            },
            faults: self.inject.clone(),
            log_dir: self.log_dir.clone(),
            ..self.place.job(self.program.clone())?
        };
        job.check()?;
        Ok(job)
    }
}

impl Place {
    /// A job of `program` at this place, without limits of its own.
    ///
    /// # Errors
    /// If the hosts are not as they should be.
    pub fn job(&self, program: Vec<OsString>) -> Result<Job, Error> {
        let hosts = hosts::given(self.hosts.as_deref(), self.hostfile.as_deref())?;
        let engine = self.engine.engine(!hosts.is_empty());
        let job = Job {
            program,
            ranks: self.ranks as usize,
            hosts,
            engine,
            bind: None,
            ports: Ports(0, 0),
            evaluator: self.evaluator,
            input: Input::default(),
            faults: Vec::new(),
            log_dir: None,
            limits: Limits::default(),
        };
        job.check_engine()?;
        Ok(job)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|&seconds: &f64| seconds > 0.0 && seconds <= 1e9);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds above 0 is needed".to_owned())
}
