//! A rank that is stopped before the first step or after the last one is named, and the job ends.

use crate::{Mpi, mpi, said};
use muster_tests::program::{self, Running, root, run};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A library that stops a rank in a call of MPI or while it reads, or makes reading and writing slow.
pub fn stopper(mpi: &Mpi) -> PathBuf {
    let library = mpi.sandbox.path("stop_in.so");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(root().join("tests/mpi/stop_in.c"))
        .arg("-ldl");
    run(&mut gcc).succeeds();
    library
}

#[test]
fn a_rank_that_is_stopped_in_any_call_of_set_up_or_end_is_named() {
    let Some(mpi) = mpi() else { return };
    let library = stopper(&mpi);
    for (call, rank, transport) in [
        ("MPI_Init_thread", 2, "shared"),
        ("MPI_Init_thread", 0, "shared"),
        ("MPI_Isend", 1, "shared"),
        ("MPI_Iallgather", 2, "messages"),
        ("MPI_Comm_dup", 1, "messages"),
        ("MPI_Win_allocate", 0, "rma"),
        ("MPI_Win_free", 2, "rma"),
        ("MPI_Finalize", 1, "messages"),
    ] {
        let options = format!("--steps 3 --step-timeout 1 --transport {transport}");
        let mut command = mpi.command(&[(3, &options)]);
        command.env("LD_PRELOAD", &library).env("STOP_IN", call).env("STOP_RANK", rank.to_string());
        let since = Instant::now();
        let outcome = run(&mut command);
        let took = since.elapsed();
        assert!(!outcome.status.success(), "{call}: {outcome:?}");
        assert!(
            said(&outcome, &[&format!("rank {rank} (process "), "stopped or stuck"]),
            "{call}: {outcome:?}"
        );
        assert!(took < Duration::from_secs(30), "{call}: {took:?}");
    }
}

#[test]
fn a_rank_that_never_begins_is_named() {
    let Some(mpi) = mpi() else { return };
    let mut command = mpi.command(&[(2, "--steps 3 --step-timeout 1")]);
    let line = format!("kill -STOP $$; exec {} train --data data --steps 3", mpi.mnist.display());
    command.args([":", "-n", "1", "sh", "-c", &line]);
    let outcome = run(&mut command);
    assert!(said(&outcome, &["rank 2 (process ", "stopped or stuck", "while MPI begins"]), "{outcome:?}");
}

/// Waits until a job of three ranks has ended, or goes on with this rank alone for 5 seconds. The launcher waits for a process that is
/// stopped after MPI has ended, and nobody is left to name it.
fn outlives_the_others(mpi: &Mpi, rank: usize, running: &mut Running) -> bool {
    let mut alone = Instant::now();
    while !running.has_ended() {
        if (0..3).any(|other| other != rank && mpi.find_process(other).is_some()) {
            alone = Instant::now();
        } else if alone.elapsed() > Duration::from_secs(5) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// The moments are those of a run that is not disturbed: before, while and after it trains.
#[test]
fn a_stop_at_any_moment_ends_the_job_or_comes_too_late() {
    let Some(mpi) = mpi() else { return };
    let options = "-e 3 --no-resume --step-timeout 1";
    let since = Instant::now();
    run(&mut mpi.command(&[(3, options)])).succeeds();
    let whole = since.elapsed();
    let round = std::env::var("MUSTER_SOAK_ROUND").map_or(0, |round| round.parse::<u32>().expect("a number"));
    let mut named = 0;
    for moment in 0..6 {
        let rank = moment as usize % 3;
        let mut running = program::start(&mut mpi.command(&[(3, options)]));
        std::thread::sleep(whole * (moment * 10 + 3 + round * 7 % 10) / 60);
        let stopped = mpi.find_process(rank);
        let mut is_last = false;
        if let Some(pid) = &stopped {
            mpi.signal("STOP", pid);
            is_last = outlives_the_others(&mpi, rank, &mut running);
            // A launcher may leave a stopped process behind; nothing else is to.
            let _ = Command::new("kill").args(["-KILL", pid]).stderr(std::process::Stdio::null()).status();
        }
        let outcome = running.ends();
        let is_over = outcome.status.success()
            || stopped.is_none()
            || is_last && outcome.stdout.contains("===== Stop") && !said(&outcome, &[""]);
        let is_named = said(&outcome, &[&format!("rank {rank} "), "stopped or stuck"]);
        assert!(is_over || is_named, "rank {rank} at {moment}/6: {outcome:?}");
        named += usize::from(is_named);
    }
    assert!(named > 0, "some of the stops were in time");
}

/// A checkpoint that takes longer than a step may is no reason to give rank 0 up.
#[test]
fn a_server_that_saves_for_long_is_waited_for() {
    let Some(mpi) = mpi() else { return };
    let library = stopper(&mpi);
    for transport in ["shared", "messages"] {
        let options = format!(
            "--steps 40 --checkpoint-secs 1000 --no-resume --step-timeout 0.5 --transport {transport}"
        );
        let mut command = mpi.command(&[(3, &options)]);
        // A worker's patience ends after 1.2 seconds; several files are written.
        run(command.env("LD_PRELOAD", &library).env("SLOW_FSYNC", "1")).succeeds();
    }
}
