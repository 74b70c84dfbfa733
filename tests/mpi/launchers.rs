//! Launchers that belong to another MPI than the program.

use crate::{mpi, said};
use muster_tests::machine;
use muster_tests::program;

#[test]
fn the_launcher_of_another_mpi_is_an_error() {
    let Some(mpi) = mpi() else { return };
    let other = if mpi.kind == "openmpi" { "mpich" } else { "openmpi" };
    let mut command = mpi.launcher(other);
    command.args(["-n", "2"]).arg(&mpi.mnist).args(["train", "--data", "data", "--steps", "3"]);
    let launcher = format!("{}.{other}", if other == "mpich" { "mpiexec" } else { "mpirun" });
    let has_other = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|directory| directory.join(&launcher).exists());
    if !has_other {
        machine::absent("a second MPI: a program under another MPI's launcher");
        return;
    }
    let outcome = program::run(&mut command);
    assert!(!outcome.status.success() && !outcome.stdout.contains("Start"), "{outcome:?}");
    assert!(said(&outcome, &["started 2 processes", "a world of 1"]), "{outcome:?}");
}
