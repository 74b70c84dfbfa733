//! The same weights on any number of processes and by any transport.

use crate::mpi;
use muster_tests::program::run;
use std::process::Command;

const TRANSPORTS: [&str; 4] = ["shared", "messages", "leaders", "rma"];

#[test]
fn worlds_of_any_size_and_transport_end_with_the_weights_of_one_process() {
    let Some(mpi) = mpi() else { return };
    let expected = mpi.alone("-n 1 -e 2 --no-resume")["weights_sha256"].clone();
    for transport in TRANSPORTS {
        for ranks in 2..=5 {
            let report = mpi.report(ranks, &format!("-e 2 --transport {transport}"));
            assert_eq!(report["weights_sha256"], expected, "{ranks} ranks by {transport}");
            assert_eq!(report["transport"], transport);
            assert_eq!(report["world_size"], ranks);
            let times = report["ranks"].as_array().unwrap();
            assert_eq!(times.len(), ranks);
            assert!(
                times[1]["compute"].as_f64().unwrap() > 0.0 && times[1]["waiting"][0].as_f64().unwrap() > 0.0
            );
        }
        let report = mpi.report(3, &format!("-e 2 --server-trains --transport {transport}"));
        assert_eq!(report["weights_sha256"], expected, "a server that trains, by {transport}");
    }
}

/// Each process reads its own share of the parts, window by window, anew in every epoch.
#[test]
fn parts_that_are_read_anew_in_every_epoch_give_the_weights_of_one_process() {
    let Some(mpi) = mpi() else { return };
    let expected = mpi.alone("-n 1 -e 3 --no-resume")["weights_sha256"].clone();
    for (format, ranks) in [("csv2", 3), ("tfr", 4)] {
        let mut prepare = Command::new(&mpi.mnist);
        prepare.args(["prepare", "--data", "data", "-n", "5", "-f", format, "-o", format]);
        run(prepare.current_dir(mpi.sandbox.path("."))).succeeds();
        let parts = format!("-f {format} --images {format}/train --test-images {format}/test");
        let report = mpi.report(ranks, &format!("-e 3 --cache-mib 0 -r 2 {parts}"));
        assert_eq!(report["weights_sha256"], expected, "{format} on {ranks} ranks");
    }
}

#[test]
fn every_optimizer_and_model_has_the_same_bits() {
    let Some(mpi) = mpi() else { return };
    for options in [
        "--optimizer sgd --momentum 0 --hidden none",
        "--optimizer adagrad",
        "--optimizer adam --hidden 70,40",
        // More weights than a message holds.
        "--hidden 8000",
    ] {
        let expected = mpi.alone(&format!("-n 1 -e 1 --no-resume {options}"))["weights_sha256"].clone();
        for transport in TRANSPORTS {
            let report = mpi.report(4, &format!("-e 1 --transport {transport} {options}"));
            assert_eq!(report["weights_sha256"], expected, "{options} by {transport}");
        }
    }
}

/// One thread of the server sees what has come, all of them add it up, and it leaves again in the order of the floats.
#[test]
fn a_server_of_several_threads_has_the_same_bits() {
    let Some(mpi) = mpi() else { return };
    let options = "-e 2 --hidden 300,200 --optimizer adam --threads 3";
    let expected = mpi.alone(&format!("-n 1 --no-resume {options}"))["weights_sha256"].clone();
    for own in ["--transport messages", "--transport messages --server-trains", "--transport rma"] {
        assert_eq!(mpi.report(3, &format!("{options} {own}"))["weights_sha256"], expected, "{own}");
    }
}

#[test]
fn more_workers_than_micro_batches_hang_nobody() {
    let Some(mpi) = mpi() else { return };
    let expected = mpi.alone("-n 1 -b 20 -e 1 --no-resume")["weights_sha256"].clone();
    assert_eq!(mpi.report(4, "-b 20 -e 1")["weights_sha256"], expected);
}

#[test]
fn asynchronous_worlds_take_every_step_and_keep_their_bound() {
    let Some(mpi) = mpi() else { return };
    for transport in ["shared", "messages", "rma"] {
        for options in ["--async", "--max-staleness 1", "--async --server-trains"] {
            let report = mpi.report(4, &format!("--steps 60 --transport {transport} {options}"));
            assert_eq!(report["steps"], 60);
            let staleness = report["staleness"].as_object().unwrap();
            assert_eq!(staleness.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), 60, "{staleness:?}");
            let stalest = staleness.keys().map(|key| key.parse::<u64>().unwrap()).max().unwrap();
            assert!(!options.contains("max-staleness") || stalest <= 1, "{staleness:?}");
        }
    }
}

#[test]
fn a_world_without_work_ends_well() {
    let Some(mpi) = mpi() else { return };
    mpi.alone("-n 1 --steps 5 -m model");
    let report = muster_tests::program::run(&mut mpi.command(&[(3, "--steps 5 -m model")])).succeeds();
    assert!(report.stdout.contains("nothing to train"), "{report:?}");
}

#[test]
fn leaders_do_not_add_up_what_is_applied_one_by_one() {
    let Some(mpi) = mpi() else { return };
    mpi.fails(&[(2, "--async --transport leaders")], &["--transport leaders", "asynchronous"]);
}
