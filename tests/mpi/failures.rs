//! Ranks that die, stop, or are told to end.

use crate::{Mpi, mpi, said};
use muster_tests::program::{self, Outcome, Running, eventually};
use std::process::Command;
use std::time::{Duration, Instant};

/// Starts a training that would last for hours, and waits until it has saved something.
fn start(mpi: &Mpi, ranks: usize, options: &str) -> Running {
    let options = format!("--steps 100000000 --checkpoint-secs 0.1 -m model {options}");
    // Of an earlier run of the same test.
    let before = mpi.sandbox.checkpoints("model").last().copied();
    let mut running = program::start(&mut mpi.command(&[(ranks, &options)]));
    running.says("plan:");
    eventually("a new checkpoint", || mpi.sandbox.checkpoints("model").last().copied() > before);
    running
}

/// How the job ends after a signal to a rank, and how long that takes.
fn end_after(mpi: &Mpi, name: &str, rank: usize, options: &str) -> (Outcome, Duration) {
    let mut running = start(mpi, 3, options);
    let pid = mpi.process(rank);
    mpi.signal(name, &pid);
    let since = Instant::now();
    let outcome = running.ends();
    let took = since.elapsed();
    // A launcher may leave a stopped process behind; nothing else is to.
    let _ = Command::new("kill").args(["-KILL", &pid]).stderr(std::process::Stdio::null()).status();
    (outcome, took)
}

#[test]
fn the_death_of_any_rank_ends_the_job_and_names_it() {
    let Some(mpi) = mpi() else { return };
    for transport in ["shared", "messages"] {
        for rank in [0, 2] {
            let (outcome, took) = end_after(&mpi, "KILL", rank, &format!("--transport {transport}"));
            assert!(!outcome.status.success(), "{outcome:?}");
            // MPICH's launcher kills the others before they can say anything, and says itself what happened.
            let by_mpich = mpi.kind == "mpich" && format!("{outcome:?}").contains("BAD TERMINATION");
            let by_us = said(&outcome, &[&format!("rank {rank} "), "has died"]);
            assert!(by_us || by_mpich, "{outcome:?}");
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
    }
}

#[test]
fn a_rank_that_is_stopped_is_named_when_the_time_is_over() {
    let Some(mpi) = mpi() else { return };
    for (transport, rank) in [("shared", 2), ("messages", 1), ("shared", 0), ("messages", 0)] {
        let options = format!("--step-timeout 2 --transport {transport}");
        let (outcome, took) = end_after(&mpi, "STOP", rank, &options);
        assert!(!outcome.status.success(), "{outcome:?}");
        assert!(said(&outcome, &[&format!("rank {rank} "), "stopped or stuck"]), "{transport}: {outcome:?}");
        assert!(took > Duration::from_secs(2) && took < Duration::from_secs(15), "{took:?}");
    }
}

#[test]
fn a_signal_to_rank_0_finishes_the_step_and_the_training_goes_on_to_the_same_bits() {
    let Some(mpi) = mpi() else { return };
    let mut running = start(&mpi, 3, "");
    let before = *mpi.sandbox.checkpoints("model").last().unwrap();
    mpi.signal("TERM", &mpi.process(0));
    let outcome = running.ends();
    assert!(outcome.stdout.contains("===== Stop"), "{outcome:?}");
    let saved = *mpi.sandbox.checkpoints("model").last().unwrap();
    assert!(saved >= before && outcome.stdout.contains(&format!("steps            {saved}")), "{outcome:?}");
    let last = saved + 20;
    let resumed = mpi.alone(&format!("-n 1 --steps {last} -m model"));
    let whole = mpi.alone(&format!("-n 1 --steps {last} -m another"));
    assert_eq!(resumed["weights_sha256"], whole["weights_sha256"]);
}
