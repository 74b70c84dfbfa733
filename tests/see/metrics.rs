//! A log directory holds what happened, and costs the training nothing that it cannot spare.

use muster::metrics::{FILE, History};
use muster_tests::program::{Sandbox, run};
use std::fs;
use std::path::Path;

/// What the metrics in a folder say.
pub fn history(sandbox: &Sandbox, folder: &str) -> History {
    let path = sandbox.path(folder).join(FILE);
    History::parse(&fs::read(&path).expect("metrics"), Path::new(FILE)).expect("of this version")
}

#[test]
fn every_step_is_there_and_the_weights_are_the_same() {
    let sandbox = Sandbox::new();
    let without = sandbox.hash("--hidden 16 -e 3 -m without");
    let with = sandbox.hash("--hidden 16 -e 3 -m with -n 3 --log-dir logs --metrics-every 1");
    assert_eq!(with, without);
    let found = history(&sandbox, "logs");
    assert_eq!(found.steps.iter().map(|s| s.step).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    assert_eq!(found.steps.iter().map(|s| s.rows).sum::<u64>(), 990);
    assert!(
        found.steps.iter().all(|s| s.loss > 0.0 && s.seconds > 0.0 && s.staleness.is_none()),
        "{found:?}"
    );
    assert!(found.steps.iter().any(|s| s.waiting > 0.0), "rank 0 waits for its workers: {found:?}");
    assert_eq!(found.end.as_ref().unwrap().reason, "finished");
    let (run, report) = (&found.runs[0], sandbox.json("logs/report.json"));
    assert_eq!(report, sandbox.json("report-of-a-test.json"));
    let option = |name: &str| run.options[name].as_str();
    assert_eq!(
        (option("hidden"), option("cluster-size"), option("seed"), option("mode")),
        ("16", "3", "1", "sync")
    );
    for (line, epoch) in found.epochs.iter().zip(report["epochs"].as_array().unwrap()) {
        assert_eq!(serde_json::to_value(&line.epoch).unwrap(), *epoch);
    }
    assert_eq!(found.epochs.len(), 3);
}

/// Records that do not fit are read while it trains, and those that are fed come while it trains.
#[test]
fn the_time_of_each_step_is_accounted_for() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 16 -e 2 -m memory --log-dir memory --metrics-every 1").succeeds();
    assert!(history(&sandbox, "memory").steps.iter().all(|steps| steps.reading == 0.0));
    run(&mut sandbox.mnist("prepare --data data -n 3 -o parts")).succeeds();
    let read = "--images parts/train/images --labels parts/train/labels --hidden 16 -e 2 --metrics-every 1";
    let options = format!("train {read} -m read --log-dir read --cache-mib 0 --report read.json");
    run(&mut sandbox.mnist(&options)).succeeds();
    let fed = format!("train {read} -m fed --log-dir fed -n 2 --server-trains --input-mode feed");
    run(&mut sandbox.mnist(&fed)).succeeds();
    for folder in ["read", "fed"] {
        let steps = history(&sandbox, folder).steps;
        assert!(steps[0].reading > 0.0, "{folder}: {:?}", steps[0]);
        for s in &steps {
            let sum = s.compute + s.communication + s.waiting + s.reading;
            assert!((sum - s.seconds).abs() <= 1e-3 * s.seconds, "{folder}: {s:?}");
        }
    }
    let (rank, before) = (&sandbox.json("read.json")["ranks"][0], history(&sandbox, "read").runs[0].reading);
    assert!(rank["reading"].as_f64().unwrap() > before, "{rank}");
}

#[test]
fn asynchronous_steps_have_a_staleness() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 16 -s 30 -n 4 --async --log-dir logs --metrics-every 1").succeeds();
    let found = history(&sandbox, "logs");
    let missed: u64 = found.steps.iter().map(|steps| steps.staleness.expect("each has one").max).sum();
    let report = sandbox.json("logs/report.json");
    let staleness = report["staleness"].as_object().unwrap().iter();
    let reported = staleness.map(|(missed, count)| missed.parse::<u64>().unwrap() * count.as_u64().unwrap());
    assert_eq!((found.steps.len(), missed), (30, reported.sum()));
}

#[test]
fn the_launcher_names_the_directory() {
    let sandbox = Sandbox::new();
    let arguments = "train --data data --hidden 16 -e 1 --threads 1";
    run(&mut sandbox.muster("run -n 2 --log-dir of-launcher", arguments)).succeeds();
    assert_eq!(history(&sandbox, "of-launcher").steps.last().unwrap().step, 4);
    assert!(sandbox.path("of-launcher/report.json").exists());
}

#[test]
fn a_training_that_diverges_says_so_in_its_metrics() {
    let sandbox = Sandbox::new();
    sandbox.train("--learning-rate 1e6 --momentum 0 -e 20 --log-dir logs").fails(&["the loss is"]);
    let found = history(&sandbox, "logs");
    assert!(found.end.unwrap().reason.starts_with("failed: the loss is"));
}

#[test]
fn a_place_that_cannot_be_written_to_is_an_error_before_the_first_step() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("file"), "").unwrap();
    sandbox.train("--log-dir file").refuses(&["file", "--log-dir"]);
    sandbox.train("--log-dir file/below").refuses(&["file", "--log-dir"]);
}

#[test]
fn a_directory_that_vanishes_ends_no_training() {
    let sandbox = Sandbox::new();
    let mut training = muster_tests::program::start(
        &mut sandbox.mnist("train --data data --hidden 16 -e 1000000 --log-dir logs --checkpoint-secs 1000"),
    );
    training.says("epoch 2:");
    fs::remove_dir_all(sandbox.path("logs")).unwrap();
    training.says("epoch 5:");
    training.signal("INT");
    let outcome = training.ends();
    assert_eq!(outcome.status.code(), Some(130), "{outcome:?}");
    assert!(outcome.stderr.contains("warning: no metrics: cannot write"), "{outcome:?}");
    assert!(outcome.stdout.contains("weights sha256"), "{outcome:?}");
}
