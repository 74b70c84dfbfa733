//! A model directory goes on from its newest whole checkpoint, under the options that made it, and never silently starts anew.

use muster_tests::digits;
use muster_tests::program::Sandbox;
use std::fs;
use std::path::Path;

const SMALL: &str = "--hidden 32";

#[test]
fn a_finished_run_trains_nothing_and_reports_everything() {
    let sandbox = Sandbox::new();
    let first = sandbox.report(&format!("{SMALL} -e 2"));
    let outcome = sandbox.train(&format!("{SMALL} -e 2 --report again.json")).succeeds();
    assert!(outcome.stdout.contains("nothing to train"), "{outcome:?}");
    assert!(outcome.stdout.contains("0 steps = 0.00 epochs = 0 records"), "{outcome:?}");
    let mut again = sandbox.json("again.json");
    assert_eq!(
        (again["train_seconds"].as_f64(), again["images_per_second"].as_f64()),
        (Some(0.0), Some(0.0))
    );
    for field in ["train_seconds", "images_per_second", "ranks"] {
        again[field] = first[field].clone();
    }
    assert_eq!(again, first);
}

#[test]
fn a_larger_goal_goes_on_as_if_it_had_been_the_first() {
    let sandbox = Sandbox::new();
    for optimizer in ["sgd", "adagrad", "adam"] {
        let options = format!("{SMALL} --optimizer {optimizer}");
        let direct = sandbox.report(&format!("{options} -e 5 -m direct-{optimizer}"));
        for goal in ["-s 3", "-e 2", "-s 9", "-e 5"] {
            sandbox.hash(&format!("{options} {goal} -m steps-{optimizer}"));
        }
        let steps = sandbox.report(&format!("{options} -e 5 -m steps-{optimizer}"));
        for field in ["weights_sha256", "steps", "records", "test_accuracy"] {
            assert_eq!(steps[field], direct[field], "{optimizer}: {field}");
        }
    }
}

#[test]
fn a_smaller_goal_trains_nothing() {
    let sandbox = Sandbox::new();
    let before = sandbox.hash(&format!("{SMALL} -e 3"));
    assert_eq!(sandbox.hash(&format!("{SMALL} -e 1")), before);
}

#[test]
fn another_training_is_refused_and_a_new_start_is_not() {
    let sandbox = Sandbox::new();
    sandbox.hash(SMALL);
    let model = sandbox.files("mnist_model");
    for (option, parts) in [
        ("--seed 7", ["seed", "1", "7"]),
        ("-b 50", ["batch_size", "100", "50"]),
        ("--micro-batch 16", ["micro_batch", "32", "16"]),
        ("--hidden 16", ["widths", "32", "16"]),
        ("--hidden none", ["widths", "[144,32,10]", "[144,10]"]),
        ("--optimizer adam", ["optimizer", "momentum", "adam"]),
        ("--momentum 0.5", ["optimizer", "0.9", "0.5"]),
        ("--learning-rate 0.25", ["learning_rate", "0.1", "0.25"]),
        ("--learning-rate-decay 0.5", ["learning_rate_decay", "0.8", "0.5"]),
        ("--loss-reduction sum", ["loss_reduction", "mean", "sum"]),
    ] {
        let outcome = sandbox.train(&format!("{SMALL} {option}"));
        outcome.refuses(&parts).refuses(&["--no-resume", "mnist_model"]);
        assert_eq!(sandbox.files("mnist_model"), model, "{option}");
    }
    let fresh = sandbox.hash(&format!("{SMALL} --seed 7 -m fresh"));
    assert_eq!(sandbox.hash(&format!("{SMALL} --seed 7 --no-resume")), fresh);
    assert_eq!(sandbox.hash(&format!("{SMALL} --seed 7")), fresh, "the new model is there to go on from");
}

#[test]
fn of_both_ways_to_start_the_last_counts() {
    let sandbox = Sandbox::new();
    sandbox.hash(SMALL);
    sandbox.train(&format!("{SMALL} --seed 7 --no-resume --resume")).refuses(&["seed"]);
    sandbox.report(&format!("{SMALL} --seed 7 --resume --no-resume"));
}

#[test]
fn data_that_changed_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.hash(&format!("{SMALL} -e 1"));
    digits::write(&sandbox.path("data"), 2);
    sandbox.train(&format!("{SMALL} -e 2")).refuses(&["data_sha256", "--no-resume"]);
}

#[test]
fn other_test_data_is_not_another_training() {
    let sandbox = Sandbox::new();
    sandbox.hash(&format!("{SMALL} -e 1"));
    for name in &digits::NAMES[2..] {
        fs::remove_file(sandbox.path("data").join(name)).unwrap();
    }
    let report = sandbox.report(&format!("{SMALL} -e 2"));
    assert!(report["test_accuracy"].is_null());
    assert!(report["epochs"][1]["test_accuracy"].is_null() && report["epochs"][0]["test_accuracy"].is_f64());
}

#[test]
fn so_many_checkpoints_are_kept() {
    let sandbox = Sandbox::new();
    for step in 1..=5 {
        sandbox.hash(&format!("{SMALL} -s {step}"));
    }
    assert_eq!(sandbox.checkpoints("mnist_model"), [3, 4, 5]);
    sandbox.hash(&format!("{SMALL} -s 6 --keep 1"));
    assert_eq!(sandbox.checkpoints("mnist_model"), [6]);
    let newest = sandbox.path("mnist_model/checkpoints/step-0000000006/model.safetensors");
    assert_eq!(fs::read(newest).unwrap(), fs::read(sandbox.path("mnist_model/model.safetensors")).unwrap());
}

/// Damages one file of a checkpoint.
type Damage = fn(&Path);

fn change_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 0x40;
    fs::write(path, bytes).unwrap();
}

fn halve(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

const DAMAGES: [Damage; 4] =
    [change_last_byte, halve, |path| fs::write(path, "").unwrap(), |path| fs::remove_file(path).unwrap()];

#[test]
fn a_damaged_newest_checkpoint_gives_way_to_the_one_before() {
    let sandbox = Sandbox::new();
    let direct = sandbox.hash(&format!("{SMALL} -s 12 -m direct"));
    for name in ["model.safetensors", "state.safetensors"] {
        for damage in DAMAGES {
            sandbox.hash(&format!("{SMALL} -s 3 --no-resume"));
            sandbox.hash(&format!("{SMALL} -s 6"));
            damage(&sandbox.path("mnist_model/checkpoints/step-0000000006").join(name));
            let outcome = sandbox.train(&format!("{SMALL} -s 12 --report r.json")).succeeds();
            assert!(
                outcome.stderr.contains("warning") && outcome.stderr.contains("step-0000000006"),
                "{outcome:?}"
            );
            assert!(outcome.stdout.contains("going on from step 3"), "{outcome:?}");
            assert_eq!(sandbox.json("r.json")["weights_sha256"], direct.as_str());
        }
    }
}

#[test]
fn when_no_checkpoint_is_whole_it_does_not_start_anew() {
    let sandbox = Sandbox::new();
    sandbox.hash(&format!("{SMALL} -s 3"));
    halve(&sandbox.path("mnist_model/checkpoints/step-0000000003/state.safetensors"));
    let model = sandbox.files("mnist_model");
    sandbox.train(&format!("{SMALL} -s 6")).fails(&["state.safetensors", "--no-resume"]);
    assert_eq!(sandbox.files("mnist_model"), model);
    sandbox.hash(&format!("{SMALL} -s 6 --no-resume"));
}

#[test]
fn a_diverging_run_names_step_and_rate_and_leaves_the_model() {
    let sandbox = Sandbox::new();
    let before = sandbox.hash(SMALL);
    let model = sandbox.files("mnist_model");
    for ranks in [1, 3] {
        let outcome = sandbox.train(&format!(
            "{SMALL} --learning-rate 1e6 --learning-rate-decay 1 --no-resume -e 50 -n {ranks}"
        ));
        outcome.fails(&["step ", "1000000", "--learning-rate"]);
        assert_eq!(sandbox.files("mnist_model"), model, "{ranks} ranks");
    }
    assert_eq!(sandbox.hash(SMALL), before);
    let outcome =
        sandbox.train(&format!("{SMALL} --learning-rate 1e6 --learning-rate-decay 1 -e 50 -m fresh"));
    outcome.fails(&["step ", "1000000"]);
    assert!(sandbox.checkpoints("fresh").is_empty());
}
