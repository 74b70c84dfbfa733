//! An evaluator evaluates each checkpoint on a rank of its own; the weights are what they are without one.

use crate::last_line;
use muster_tests::program::{Outcome, Sandbox, eventually, launcher, run, start};
use serde_json::Value;
use std::fs;
use std::process::Command;

const RECIPE: &str = "--hidden 32 -b 30 --micro-batch 8 --threads 1 --keep 100";

/// What an evaluator has written, a value a line.
fn evaluations(sandbox: &Sandbox, directory: &str) -> Vec<Value> {
    let text = fs::read_to_string(sandbox.path(directory).join("evaluations.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Where in an output something is said first.
fn place(text: &str, part: &str) -> usize {
    text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"))
}

#[test]
fn it_finds_what_rank_0_would_have_found_and_changes_no_bit() {
    let sandbox = Sandbox::new();
    let without = sandbox.report(&format!("{RECIPE} -e 4 -n 2 -m without"));
    let epoch = &without["epochs"][3];
    let options = format!("{RECIPE} -e 4 --checkpoint-secs 0.01 --report r");
    let own = run(&mut sandbox
        .mnist(&format!("train --data data {options} -n 3 --evaluator -m own --log-dir own-logs")));
    let launched = "run -n 3 --evaluator --log-dir launched-logs";
    let launched = run(&mut sandbox.muster(launched, &format!("train --data data {options} -m launched")));
    for (outcome, name) in [(own.succeeds(), "own"), (launched.succeeds(), "launched")] {
        let report = sandbox.json("r");
        assert_eq!(report["weights_sha256"], without["weights_sha256"], "{name}");
        assert_eq!(report["epochs"][3]["test_accuracy"], Value::Null, "rank 0 evaluates no epoch");
        assert_eq!(report["test_accuracy"], epoch["test_accuracy"], "what came out is known to the report");
        let evaluations = evaluations(&sandbox, &format!("{name}-logs"));
        let steps: Vec<u64> = evaluations.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, sandbox.checkpoints(name), "{outcome:?}");
        let last = evaluations.last().unwrap();
        assert_eq!(last["weights_sha256"], without["weights_sha256"]);
        assert_eq!((&last["accuracy"], &last["loss"]), (&epoch["test_accuracy"], &epoch["test_loss"]));
        for step in steps {
            place(&outcome.stdout, &format!("evaluator: step {step}: test loss "));
        }
        let page = sandbox.path(&format!("{name}.html"));
        run(Command::new(launcher())
            .arg("report")
            .arg(sandbox.path(&format!("{name}-logs")))
            .arg("-o")
            .arg(&page))
        .succeeds();
        place(&fs::read_to_string(page).unwrap(), ">evaluator<");
        let events = fs::read_dir(sandbox.path(&format!("{name}-logs/evaluator"))).unwrap();
        assert!(events.flatten().next().unwrap().file_name().to_string_lossy().contains("tfevents"));
    }
}

#[test]
fn it_ends_after_the_workers_and_before_the_server() {
    let sandbox = Sandbox::new();
    let endless = format!("train --data data {RECIPE} -e 1000000 --checkpoint-secs 0.05");
    let mut job = start(&mut sandbox.muster("run -n 4 --evaluator", &endless));
    job.says("evaluator: step ");
    let muster = |word: &str| {
        run(Command::new(launcher()).arg(word).env("XDG_RUNTIME_DIR", sandbox.path(""))).succeeds()
    };
    eventually("status", || {
        let Outcome { stdout, .. } = muster("status");
        stdout.lines().any(|line| line.contains("rank 3    evaluator") && line.contains("evaluating"))
    });
    muster("stop");
    let Outcome { status, stdout, stderr } = job.ends();
    assert_eq!(status.code(), Some(143), "{stderr}");
    let turns = ["worker released", "evaluator released", "ps released", "shut down"];
    assert!(turns.map(|turn| place(&stderr, turn)).is_sorted(), "{stderr}");
    let last = sandbox.checkpoints("mnist_model").last().copied().unwrap();
    place(&stdout, &format!("evaluator: step {last}: "));
}

#[test]
fn what_goes_wrong_in_it_ends_the_training() {
    let sandbox = Sandbox::new();
    // Its log cannot grow: a directory lies where the file should be.
    fs::create_dir_all(sandbox.path("logs/evaluations.jsonl")).unwrap();
    let options = format!("--data data {RECIPE} -e 1000000 -n 3 --evaluator --log-dir logs");
    run(&mut sandbox.mnist(&format!("train {options}"))).fails(&["evaluations"]);
    // A checkpoint that cannot be read is found while the training goes on.
    let mut job = start(&mut sandbox.mnist(&format!(
        "train --data data {RECIPE} -e 1000000 -n 3 --evaluator --checkpoint-secs 1000 -m m"
    )));
    job.says("plan:");
    let step = sandbox.path("m/checkpoints/step-0000000007");
    fs::create_dir_all(&step).unwrap();
    fs::write(step.join("model.safetensors"), "nonsense").unwrap();
    job.ends().fails(&["the evaluator has failed", "step-0000000007"]);
}

#[test]
fn what_it_needs_is_said_before_the_start() {
    let sandbox = Sandbox::new();
    let refused = |launch: &str, arguments: &str, part: &str| {
        let outcome = run(&mut sandbox.muster(&format!("run {launch}"), arguments));
        assert!(!outcome.status.success() && last_line(&outcome).contains(part), "{outcome:?}");
        assert!(!outcome.stdout.contains("==== Start"), "{outcome:?}");
    };
    refused("-n 1 --evaluator", "train --data data", "--evaluator takes a rank of its own");
    refused("-n 2", "train --data data --evaluator", "the program has an evaluator, but the job has none");
    refused("-n 2 --evaluator", "inference --data data", "the program knows none");
    run(&mut sandbox.mnist("prepare --data data -f csv2 --output parts")).succeeds();
    refused("-n 2 --evaluator", "train -f csv2 --images parts/train", "--test-images");
    run(&mut sandbox.mnist("train --data data -n 1 --evaluator")).refuses(&["choose at least 2"]);
    let plan = run(&mut sandbox.muster("plan -n 3 --evaluator", "train --data data")).succeeds();
    place(&plan.stdout, "rank 2    evaluator");
}
