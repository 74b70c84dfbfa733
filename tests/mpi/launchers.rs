//! Launchers that belong to another MPI than the program.

use crate::{mpi, said};
use muster_tests::machine;
use muster_tests::program;

#[test]
fn the_launcher_of_another_mpi_is_an_error() {
    let Some(mpi) = mpi() else { return };
    let other = if mpi.kind.contains("openmpi") { "mpich" } else { "openmpi" };
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

#[test]
fn a_program_without_mpi_says_how_to_build_it_and_does_not_train() {
    let Some(mpi) = mpi() else { return };
    let mut command = mpi.launcher(&mpi.kind);
    command.args(["-n", "3"]).arg(program::binary()).args(["train", "--data", "data", "--steps", "3"]);
    let outcome = program::run(&mut command);
    assert!(!outcome.status.success() && !outcome.stdout.contains("Start"), "{outcome:?}");
    let parts =
        ["3 processes of this program", "built without MPI", "cargo build --release -p mnist --features mpi"];
    assert!(said(&outcome, &parts), "{outcome:?}");
    assert_eq!(outcome.stderr.matches("built without MPI").count(), 1, "{outcome:?}");
}
