//! What the ranks make sure of before they train.

use crate::mpi;
use muster_tests::digits;

#[test]
fn a_differing_option_and_its_ranks_are_named() {
    let Some(mpi) = mpi() else { return };
    let parts = [(1, "--seed 3"), (2, "--seed 4")];
    mpi.fails(&parts, &["seed is 3 on rank 0, but 4 on ranks 1, 2"]);
    mpi.fails(&[(2, "-b 50"), (1, "-b 60")], &["batch_size is 50 on ranks 0, 1, but 60 on rank 2"]);
}

#[test]
fn other_data_on_one_rank_is_an_error() {
    let Some(mpi) = mpi() else { return };
    digits::write(&mpi.sandbox.path("other"), 9);
    mpi.fails(&[(2, ""), (1, "--data other")], &["data_sha256", "on ranks 0, 1", "on rank 2"]);
}

#[test]
fn a_file_missing_on_one_rank_ends_all_with_its_message() {
    let Some(mpi) = mpi() else { return };
    let outcome = mpi.fails(&[(2, ""), (1, "--data nowhere")], &["rank 2 ", "nowhere"]);
    assert_eq!(
        outcome.stderr.matches("nowhere").count(),
        outcome.stderr.lines().filter(|l| l.contains("rank 2 (")).count()
    );
    // The same everywhere is said once, without a rank's name.
    let outcome = mpi.fails(&[(3, "--data nowhere")], &["nowhere"]);
    assert!(!outcome.stderr.contains("rank 0 ("), "{outcome:?}");
}

#[test]
fn a_size_that_disagrees_with_the_world_is_an_error() {
    let Some(mpi) = mpi() else { return };
    mpi.fails(&[(2, "-n 4")], &["--cluster-size 4 in a world of 2 processes"]);
}

#[test]
fn forced_kernels_hold_for_all() {
    let Some(mpi) = mpi() else { return };
    let mut command = mpi.command(&[(2, "--steps 3 --report r")]);
    muster_tests::program::run(command.env("MUSTER_KERNELS", "wide")).succeeds();
    assert_eq!(mpi.sandbox.json("r")["kernels"]["back_end"], "wide");
}

#[test]
fn another_binary_on_one_rank_is_an_error() {
    let Some(mpi) = mpi() else { return };
    let other = mpi.sandbox.path("mnist-other");
    let bytes = std::fs::read(&mpi.mnist).unwrap();
    std::fs::copy(&mpi.mnist, &other).unwrap();
    std::fs::write(&other, [&bytes[..], b"built elsewhere"].concat()).unwrap();
    let mut command = mpi.command(&[(2, "--steps 3")]);
    command.args([":", "-n", "1"]).arg(&other).args(["train", "--data", "data", "--steps", "3"]);
    let outcome = muster_tests::program::run(&mut command);
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(crate::said(&outcome, &["the program's digest", "on ranks 0, 1", "on rank 2"]), "{outcome:?}");
}
