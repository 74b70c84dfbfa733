//! Ranks that die, stop, or are told to end.

use crate::{Mpi, mpi, said};
use muster_tests::program::{self, Outcome, Running, eventually};
use std::process::Command;
use std::time::{Duration, Instant};

/// Starts a training that would last for hours, and waits until it has saved something.
fn start(mpi: &Mpi, command: impl FnOnce(&str) -> Command) -> Running {
    // Of an earlier run of the same test.
    let before = mpi.sandbox.checkpoints("model").last().copied();
    let mut running = program::start(&mut command("--steps 100000000 --checkpoint-secs 0.1 -m model"));
    running.says("plan:");
    eventually("a new checkpoint", || mpi.sandbox.checkpoints("model").last().copied() > before);
    running
}

/// How a job ends after a signal to a rank, and how long that takes: until the launcher has ended, or if the rank was killed, until no rank
/// is left. Open MPI's launcher takes two seconds more for each node to end itself.
fn end_after(
    mpi: &Mpi,
    name: &str,
    rank: usize,
    command: impl FnOnce(&str) -> Command,
) -> (Outcome, Duration) {
    let mut running = start(mpi, command);
    let pid = mpi.process(rank);
    mpi.signal(name, &pid);
    let since = Instant::now();
    if name == "KILL" {
        eventually("the end of all ranks", || (0..4).all(|rank| mpi.find_process(rank).is_none()));
    }
    let ranks_took = since.elapsed();
    let outcome = running.ends();
    let took = if name == "KILL" { ranks_took } else { since.elapsed() };
    // A launcher may leave a stopped process behind; nothing else is to.
    let _ = Command::new("kill").args(["-KILL", &pid]).stderr(std::process::Stdio::null()).status();
    (outcome, took)
}

/// Three ranks on this node.
fn three<'a>(mpi: &'a Mpi, own: &'a str) -> impl Fn(&str) -> Command + 'a {
    move |options| mpi.command(&[(3, &format!("{own} {options}"))])
}

/// Kills a rank of a training, and asserts that the job ends soon and that somebody names the rank. On a machine that has much else to do
/// an end may take longer: one of three has to be in time.
pub fn assert_death(mpi: &Mpi, rank: usize, command: impl Fn(&str) -> Command) {
    let end = || {
        let (outcome, took) = end_after(mpi, "KILL", rank, &command);
        assert!(!outcome.status.success(), "{outcome:?}");
        // The launchers kill the others, MPICH's before they can say anything, Open MPI's on the other nodes, and say themselves what happened.
        let all = format!("{outcome:?}");
        let by_mpich = mpi.kind == "mpich" && all.contains("BAD TERMINATION");
        let by_open_mpi = all.contains(&format!("process rank {rank} with PID"));
        // UCX aborts a rank that reads the dead one's memory, at times before it can speak.
        let by_srun = all.contains(&format!("task {rank}: Killed"));
        let by_us = said(&outcome, &[&format!("rank {rank} "), "has died"]);
        assert!(by_us || by_open_mpi || by_mpich || by_srun, "{outcome:?}");
        took
    };
    let mut all = Vec::new();
    while all.last().is_none_or(|took| *took >= Duration::from_secs(3)) {
        assert!(all.len() < 3, "rank {rank}: {all:?}");
        all.push(end());
    }
}

/// Stops a rank of a training, and asserts that it is named and the job ends when the time is over, which is a second.
pub fn assert_stop(mpi: &Mpi, rank: usize, command: impl Fn(&str) -> Command) {
    let (outcome, took) =
        end_after(mpi, "STOP", rank, |options| command(&format!("--step-timeout 1 {options}")));
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(said(&outcome, &[&format!("rank {rank} "), "stopped or stuck"]), "{outcome:?}");
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn the_death_of_any_rank_ends_the_job_and_names_it() {
    let Some(mpi) = mpi() else { return };
    for (transport, rank) in
        [("shared", 0), ("shared", 2), ("messages", 0), ("messages", 2), ("rma", 0), ("rma", 1)]
    {
        assert_death(&mpi, rank, three(&mpi, &format!("--transport {transport}")));
    }
}

#[test]
fn a_rank_that_is_stopped_is_named_when_the_time_is_over() {
    let Some(mpi) = mpi() else { return };
    for (transport, rank) in
        [("shared", 2), ("messages", 1), ("rma", 2), ("shared", 0), ("messages", 0), ("rma", 0)]
    {
        assert_stop(&mpi, rank, three(&mpi, &format!("--transport {transport}")));
    }
}

#[test]
fn a_signal_to_rank_0_finishes_the_step_and_the_training_goes_on_to_the_same_bits() {
    let Some(mpi) = mpi() else { return };
    let mut running = start(&mpi, three(&mpi, ""));
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
