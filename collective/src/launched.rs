//! What the environment says of a launcher such as mpirun.

use std::ffi::OsString;

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
}
