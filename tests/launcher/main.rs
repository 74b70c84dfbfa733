//! mnist under `muster run`: the same weights as on its own, whatever happens on the way.

mod doctor;
mod evaluator;
mod feed;
mod own_program;

use muster_tests::digits::Noise;
use muster_tests::program::{Outcome, Sandbox, kill_rounds, run, start};

const OPTIONS: &str = "train --data data --hidden 32 -b 30 --micro-batch 8 -e 20 --threads 1";

/// The hash that a training of three ranks by the launcher prints, with the model directory `model`.
fn hash(sandbox: &Sandbox, model: &str, options: &str) -> (String, Outcome) {
    let arguments = format!("{OPTIONS} -m {model} --checkpoint-secs 0.02");
    let outcome = run(&mut sandbox.muster(&format!("run -n 3 {options}"), &arguments)).succeeds();
    let line = outcome.stdout.lines().find_map(|line| line.strip_prefix("weights sha256"));
    (line.expect("a hash is printed").trim().to_owned(), outcome)
}

fn last_line(outcome: &Outcome) -> &str {
    outcome.stderr.lines().last().unwrap_or_default()
}

#[test]
fn the_launcher_changes_no_bit_and_neither_does_a_kill() {
    let sandbox = Sandbox::new();
    let direct = sandbox.hash(OPTIONS.strip_prefix("train --data data ").unwrap());
    let (undisturbed, _) = hash(&sandbox, "undisturbed", "");
    assert_eq!(undisturbed, direct);
    let steps = sandbox.json("report-of-a-test.json")["steps"].as_u64().unwrap();
    let (mut noise, rounds) = (Noise::new(7), kill_rounds());
    for round in 0..rounds {
        let kind = ["kill", "kill", "drop"][round % 3];
        let (rank, step) = (round % 3, 1 + noise.below(steps as usize - 1));
        let options = format!("--max-restarts 1 --inject {kind}:rank={rank},step={step}");
        let model = format!("{kind}-{round}");
        let (after, outcome) = hash(&sandbox, &model, &options);
        assert!(outcome.stderr.contains("muster: restarting: rank "), "{options}: {outcome:?}");
        assert_eq!(after, direct, "{options}");
        std::fs::remove_dir_all(sandbox.path(&model)).unwrap();
    }
}

#[test]
fn a_stopped_process_is_found_by_its_silence() {
    let sandbox = Sandbox::new();
    let options = "--max-restarts 1 --heartbeat-timeout 1 --inject stop:rank=1,step=40";
    let (_, outcome) = hash(&sandbox, "m", options);
    assert!(outcome.stderr.contains("no sign of life for 1 s"), "{outcome:?}");
}

#[test]
fn an_error_of_the_program_is_the_last_line() {
    let sandbox = Sandbox::new();
    let outcome = run(&mut sandbox.muster("run -n 2", "train --data nowhere"));
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    let line = last_line(&outcome);
    assert!(line.starts_with("muster: rank 0 on ") && line.contains("nowhere"), "{outcome:?}");
    let outcome = run(&mut sandbox.muster("run -n 3", &format!("{OPTIONS} -n 2")));
    assert!(last_line(&outcome).contains("would run 2 ranks"), "{outcome:?}");
    assert!(!outcome.stdout.contains("==== Start"), "{outcome:?}");
}

#[test]
fn an_order_to_stop_saves_the_model() {
    let sandbox = Sandbox::new();
    let endless = "train --data data --hidden 32 -e 1000000 --threads 1 --checkpoint-secs 1000";
    let mut job = start(&mut sandbox.muster("run -n 2", endless));
    job.says("plan:");
    let stop = || {
        run(std::process::Command::new(muster_tests::program::launcher())
            .arg("stop")
            .env("XDG_RUNTIME_DIR", sandbox.path("")))
    };
    stop().succeeds();
    let outcome = job.ends();
    assert_eq!(outcome.status.code(), Some(143), "{outcome:?}");
    assert_eq!(sandbox.checkpoints("mnist_model").len(), 1);
}

#[test]
fn the_plan_is_shown_without_starting_anything() {
    let sandbox = Sandbox::new();
    let outcome = run(&mut sandbox.muster("plan -n 3", OPTIONS)).succeeds();
    for part in ["rank 0    ps", "rank 2    worker", "an epoch: 20.00 epochs", "bytes per step"] {
        assert!(outcome.stdout.contains(part), "no {part:?} in {outcome:?}");
    }
    assert!(!sandbox.path("mnist_model").exists());
    let few = run(&mut sandbox.muster("plan -n 3 --hosts 192.0.2.1:2", OPTIONS));
    assert_eq!(few.status.code(), Some(2), "{few:?}");
    assert!(few.stdout.contains("does not fit: 3 ranks, but 2 slots"), "{few:?}");
    let inference = run(&mut sandbox.muster("plan -n 3", "inference"));
    assert_eq!(inference.status.code(), Some(2), "{inference:?}");
}
