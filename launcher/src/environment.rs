//! The environment by which the launcher and the ranks it has started know each other.
//!
//! | variable | meaning |
//! |---|---|
//! | `MUSTER_DRIVER` | the driver's addresses, separated by commas: the first that answers is taken |
//! | `MUSTER_JOB` | the job's name: whatever has it in its environment is the job's, and ends with it |
//! | `MUSTER_JOB_KEY` | the job's key, 64 hexadecimal digits; a secret |
//! | `MUSTER_ENGINE` | `threads`: this process runs all ranks; `mpirun`, `srun`: it runs the one that MPI or Slurm names |
//! | `MUSTER_WORLD_SIZE` | ranks of the job |
//! | `MUSTER_ATTEMPT` | 0, and one more with each restart |
//! | `MUSTER_HEARTBEAT_SECS` | after this time without a sign of life the other side counts as lost |
//! | `MUSTER_EVALUATOR` | `1`: the last rank evaluates checkpoints |
//! | `MUSTER_INJECT` | faults to execute; see [`crate::inject`] |
//! | `MUSTER_FEED` | `feed`: the program is to be fed by the driver; `follow`: with parts as they appear; empty: it reads itself |
//! | `MUSTER_FEED_SECS` | after this time without any progress a feeding fails |
//! | `MUSTER_LOG_DIR` | the run's directory, if there is one |
//!
//! Read by the launcher itself: `MUSTER_SERVER_PORT` (the driver's port or range of ports), `MUSTER_MPIRUN` (the `mpirun` to take).

use crate::engine::Engine;
use crate::error::Error;
use crate::inject::Fault;
use crate::job::Input;
use crate::key::JobKey;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What a process that the launcher has started finds in its environment.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Addresses of the driver, the likeliest first.
    pub drivers: Vec<String>,
    /// The job's key.
    pub key: JobKey,
    /// What runs the ranks.
    pub engine: Engine,
    /// Ranks of the job.
    pub world_size: usize,
    /// From 0.
    pub attempt: u32,
    /// After this time without a sign of life the other side counts as lost.
    pub heartbeat_timeout: Duration,
    /// Whether the last rank evaluates checkpoints.
    pub evaluator: bool,
    /// Faults to execute.
    pub faults: Vec<Fault>,
    /// How the records come to the ranks.
    pub input: Input,
    /// After this time without any progress a feeding fails.
    pub feed_timeout: Duration,
    /// The run's directory.
    pub log_dir: Option<PathBuf>,
}

/// Where MPI libraries and Slurm say which rank a process is.
const RANKS: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"];

/// The variable that names the job.
pub(crate) const JOB: &str = "MUSTER_JOB";

/// Names of all variables that [`Environment::variables`] may set.
pub const NAMES: [&str; 12] = [
    "MUSTER_DRIVER",
    JOB,
    "MUSTER_JOB_KEY",
    "MUSTER_ENGINE",
    "MUSTER_WORLD_SIZE",
    "MUSTER_ATTEMPT",
    "MUSTER_HEARTBEAT_SECS",
    "MUSTER_EVALUATOR",
    "MUSTER_INJECT",
    "MUSTER_FEED",
    "MUSTER_FEED_SECS",
    "MUSTER_LOG_DIR",
];

impl Environment {
    /// As variables.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let faults: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        let values: [OsString; NAMES.len()] = [
            self.drivers.join(",").into(),
            self.key.job().into(),
            self.key.to_hex().into(),
            self.engine.name().into(),
            self.world_size.to_string().into(),
            self.attempt.to_string().into(),
            self.heartbeat_timeout.as_secs_f64().to_string().into(),
            if self.evaluator { "1" } else { "0" }.into(),
            faults.join(" ").into(),
            self.input.name().into(),
            self.feed_timeout.as_secs_f64().to_string().into(),
            self.log_dir.clone().unwrap_or_default().into(),
        ];
        NAMES.into_iter().zip(values).collect()
    }

    /// What `variable` finds; none if this process was not started by the launcher.
    ///
    /// # Errors
    /// If a variable is missing or is not what it should be.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Environment>, Error> {
        if variable("MUSTER_DRIVER").is_none() {
            return Ok(None);
        }
        let text = |name: &'static str| {
            let value = variable(name).and_then(|value| value.into_string().ok());
            value.ok_or_else(|| bad(name))
        };
        let number = |name| text(name)?.parse::<u32>().map_err(|_| bad(name));
        let seconds = |name| {
            let time = text(name)?.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
            time.ok_or_else(|| bad(name))
        };
        let faults = text("MUSTER_INJECT")?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        Ok(Some(Environment {
            drivers: text("MUSTER_DRIVER")?.split(',').map(str::to_owned).collect(),
            key: text("MUSTER_JOB_KEY")?.parse().map_err(|_| bad("MUSTER_JOB_KEY"))?,
            engine: Engine::from_name(&text("MUSTER_ENGINE")?).ok_or_else(|| bad("MUSTER_ENGINE"))?,
            world_size: number("MUSTER_WORLD_SIZE")? as usize,
            attempt: number("MUSTER_ATTEMPT")?,
            heartbeat_timeout: seconds("MUSTER_HEARTBEAT_SECS")?,
            evaluator: text("MUSTER_EVALUATOR")? == "1",
            faults,
            input: Input::from_name(&text("MUSTER_FEED")?).ok_or_else(|| bad("MUSTER_FEED"))?,
            feed_timeout: seconds("MUSTER_FEED_SECS")?,
            log_dir: variable("MUSTER_LOG_DIR").filter(|path| !path.is_empty()).map(PathBuf::from),
        }))
    }

    /// Ranks that do not only evaluate; the evaluator's number, if there is one.
    pub fn trainers(&self) -> usize {
        self.world_size - usize::from(self.evaluator)
    }

    /// The ranks of this process.
    ///
    /// # Errors
    /// If neither MPI nor Slurm says which one it is, where they should.
    pub fn ranks(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<usize>, Error> {
        if self.engine == Engine::Threads {
            return Ok((0..self.world_size).collect());
        }
        let rank = RANKS.iter().find_map(|name| variable(name)?.to_str()?.parse().ok());
        rank.map(|rank| vec![rank]).ok_or_else(|| Error::Usage {
            what: format!("{} gave this process no rank (none of {})", self.engine.name(), RANKS.join(", ")),
            mend: "start it with `muster run`",
        })
    }
}

fn bad(name: &'static str) -> Error {
    Error::Usage {
        what: format!("the environment variable {name} is missing or malformed"),
        mend: "it is the launcher's: start the program with `muster run`, or unset MUSTER_DRIVER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn environment() -> Environment {
        Environment {
            drivers: vec!["10.0.0.1:8888".to_owned(), "localhost:8888".to_owned()],
            key: JobKey::random(),
            engine: Engine::Mpirun,
            world_size: 4,
            attempt: 1,
            heartbeat_timeout: Duration::from_millis(1500),
            evaluator: true,
            faults: vec!["kill:rank=2,step=100".parse().unwrap()],
            input: Input::Follow,
            feed_timeout: Duration::from_secs(9),
            log_dir: Some("/runs/a b".into()),
        }
    }

    #[test]
    fn what_is_set_is_what_is_read() {
        let before = environment();
        let variables: HashMap<_, _> = before.variables().into_iter().collect();
        let after = Environment::read(|name| variables.get(name).cloned()).unwrap().unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert_eq!(before.key, after.key);
        assert!(Environment::read(|_| None).unwrap().is_none());
    }

    #[test]
    fn every_missing_variable_is_named() {
        let unread = ["MUSTER_DRIVER", JOB, "MUSTER_LOG_DIR"];
        for missing in NAMES.into_iter().filter(|name| !unread.contains(name)) {
            let variables: HashMap<_, _> = environment().variables().into_iter().collect();
            let found = Environment::read(|name| variables.get(name).filter(|_| name != missing).cloned());
            assert!(found.unwrap_err().to_string().contains(missing));
        }
    }

    #[test]
    fn ranks_come_from_whatever_started_the_process() {
        let set = |name: &'static str| move |asked: &str| (asked == name).then(|| "3".into());
        let mut environment = environment();
        for name in RANKS {
            assert_eq!(environment.ranks(set(name)).unwrap(), [3]);
        }
        assert!(environment.ranks(|_| None).unwrap_err().to_string().contains("muster run"));
        environment.engine = Engine::Threads;
        assert_eq!(environment.ranks(set("PMI_RANK")).unwrap(), [0, 1, 2, 3]);
    }
}
