//! What the environment says of a launcher such as mpirun.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A process that a launcher started as one rank of several, perhaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The launcher whose environment this is.
    pub launcher: &'static str,
    /// Processes of the job, where the environment tells.
    pub size: Option<usize>,
    /// Which of them this one is.
    pub rank: usize,
}

/// The variables of a launcher: its name, its job's size, the process's rank, and a variable without which the others are inherited
/// from something else. In this order, because mpirun within a Slurm job inherits that job's variables.
const LAUNCHERS: [(&str, &str, &str, Option<&str>); 4] = [
    ("Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", None),
    ("mpiexec", "PMI_SIZE", "PMI_RANK", None),
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", Some("SLURM_STEP_ID")),
    ("a PMIx launcher", "", "PMIX_RANK", None),
];

/// A process that was started beside this one, as another rank on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its rank.
    pub rank: usize,
    /// Its process id.
    pub pid: u32,
    /// Whether a signal such as SIGSTOP has stopped it.
    pub is_stopped: bool,
}

/// The ranks that `parent` has started on this machine, as far as they can be seen: known before they have said a word.
pub fn children_of(parent: u32) -> Vec<Neighbour> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let rank_of = |pid: u32| {
        let (state, of) = state(pid)?;
        let environment = (of == parent).then(|| std::fs::read(format!("/proc/{pid}/environ")).ok())??;
        let variable = |name: &str| {
            let mut variables = environment.split(|&byte| byte == 0);
            variables.find_map(|v| v.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).map(OsStr::from_bytes)
        };
        let rank = Launched::of(|name| variable(name).map(OsStr::to_owned))?.rank;
        Some(Neighbour { rank, pid, is_stopped: state == 'T' })
    };
    processes.filter_map(|entry| rank_of(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Whether a signal such as SIGSTOP has stopped a process of this machine.
pub fn is_stopped(pid: u32) -> bool {
    state(pid).is_some_and(|(state, _)| state == 'T')
}

/// The state of a process and its parent, of `PID (NAME) STATE PARENT …` in proc(5).
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

impl Launched {
    /// What this process's environment says; nothing when it was started on its own.
    pub fn here() -> Option<Launched> {
        Launched::of(|name| std::env::var_os(name))
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Option<Launched> {
        let number = |name: &str| variable(name)?.to_str()?.parse().ok();
        LAUNCHERS.into_iter().find_map(|(launcher, size, rank, also)| {
            let (size, rank): (Option<usize>, usize) = (number(size), number(rank)?);
            let is_whole = also.is_none_or(|name| variable(name).is_some());
            (is_whole && (size.is_some() || launcher == "a PMIx launcher")).then_some(Launched {
                launcher,
                size,
                rank,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<(&'static str, Option<usize>, usize)> {
        let found = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
        Launched::of(found).map(|l| (l.launcher, l.size, l.rank))
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        let slurm = [("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_PROCID", "5"), ("SLURM_STEP_ID", "0")];
        let open_mpi = [("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3"), ("PMIX_RANK", "3")];
        assert_eq!(of(&open_mpi), Some(("Open MPI's mpirun", Some(4), 3)));
        assert_eq!(of(&[("PMI_SIZE", "2"), ("PMI_RANK", "1")]), Some(("mpiexec", Some(2), 1)));
        assert_eq!(of(&slurm), Some(("srun", Some(8), 5)));
        assert_eq!(of(&[&slurm[..], &open_mpi].concat()), Some(("Open MPI's mpirun", Some(4), 3)));
        assert_eq!(of(&[("PMIX_RANK", "1")]), Some(("a PMIx launcher", None, 1)));
    }

    #[test]
    fn a_batch_script_is_no_rank() {
        assert_eq!(of(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0"), ("SLURM_JOB_ID", "7")]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn stopped_children_are_seen_with_their_rank() {
        use std::process::{Command, id};
        let start = |rank: &str, line: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", line]).env("PMI_RANK", rank).env("PMI_SIZE", "9");
            command.env_remove("OMPI_COMM_WORLD_RANK").spawn().unwrap()
        };
        let mut children = [start("7", "kill -STOP $$"), start("8", "read line; sleep 60")];
        let seen = |rank: usize| children_of(id()).into_iter().find(|neighbour| neighbour.rank == rank);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !seen(7).is_some_and(|stopped| stopped.is_stopped) && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let (stopped, other) = (seen(7).unwrap(), seen(8).unwrap());
        assert_eq!((stopped.pid, stopped.is_stopped), (children[0].id(), true));
        assert_eq!((other.pid, other.is_stopped), (children[1].id(), false));
        assert!(is_stopped(stopped.pid) && !is_stopped(other.pid) && !is_stopped(id()));
        children.iter_mut().for_each(|child| {
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }
}
