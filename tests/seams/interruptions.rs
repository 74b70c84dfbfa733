//! A run that is interrupted, in whatever way, goes on as if it had not been.

use muster_tests::digits::Noise;
use muster_tests::program::{Sandbox, eventually, start};
use std::time::Duration;

/// Far more than any test waits for.
const ENDLESS: &str = "--hidden 32 -e 1000000";

/// `make soak` counts its rounds, so that each kills at other moments.
fn soak_round() -> u64 {
    std::env::var("MUSTER_SOAK_ROUND").map_or(0, |round| 10 * round.parse::<u64>().expect("a number"))
}

/// Kills runs at random moments until one gets to the end.
fn killed_until_it_ends(round: u64, options: &str) {
    let sandbox = Sandbox::new();
    let options = format!("--data data {options}");
    let direct = sandbox.report(&format!("{options} -m direct"));
    let mut milliseconds = direct["train_seconds"].as_f64().unwrap() * 1000.0;
    let mut noise = Noise::new(round + soak_round());
    let (mut kills, mut resumed) = (0, 0);
    loop {
        let secs = milliseconds / 1e3 / 50.0;
        let mut run = start(
            &mut sandbox.mnist(&format!("train {options} -m killed --checkpoint-secs {secs} --report r")),
        );
        resumed += usize::from(run.says("plan:").contains("going on from step"));
        // The more kills, the later they come: checkpoints that are slow to write must not keep the run from its end.
        let latest = milliseconds as usize / 2 + 20 + 5 * kills;
        std::thread::sleep(Duration::from_millis(noise.below(latest) as u64));
        run.signal("KILL");
        let outcome = run.ends();
        if outcome.status.success() && kills > 0 && resumed > 0 {
            break;
        }
        if outcome.status.success() {
            // It took less time than the direct one, which shared the cores with other tests: once more, killed sooner.
            milliseconds /= 2.0;
            assert!(milliseconds > 1.0, "{kills} kills, {resumed} runs went on");
            std::fs::remove_dir_all(sandbox.path("killed")).unwrap();
            (kills, resumed) = (0, 0);
            continue;
        }
        kills += 1;
        assert!(kills < 200, "no progress between kills: {:?}", sandbox.checkpoints("killed"));
    }
    assert_eq!(sandbox.json("r")["weights_sha256"], direct["weights_sha256"], "{options}, {kills} kills");
    let losses = |name: &str| -> Vec<_> {
        let epochs = sandbox.json(name)["epochs"].as_array().unwrap().clone();
        epochs.iter().map(|epoch| (epoch["loss"].clone(), epoch["test_accuracy"].clone())).collect()
    };
    sandbox.report(&format!("{options} -m killed --report again"));
    assert_eq!(losses("report-of-a-test.json"), losses("r"));
}

#[test]
fn kills_with_momentum() {
    killed_until_it_ends(1, "--hidden 32 -b 10 -e 150");
}

#[test]
fn kills_with_adam_and_two_layers() {
    killed_until_it_ends(2, "--hidden 20,20 -b 10 -e 100 --optimizer adam");
}

#[test]
fn kills_with_adagrad_and_three_ranks() {
    killed_until_it_ends(3, "--hidden 32 -b 30 --micro-batch 8 -e 60 --optimizer adagrad -n 3 --threads 1");
}

#[test]
fn a_signal_saves_and_ends_with_128_and_its_number() {
    let sandbox = Sandbox::new();
    for (name, code, ranks) in [("INT", 130, 1), ("TERM", 143, 1), ("INT", 130, 3)] {
        let options =
            format!("--data data {ENDLESS} --no-resume -n {ranks} --threads 1 --checkpoint-secs 1e9");
        let mut run = start(&mut sandbox.mnist(&format!("train {options} --report r.json")));
        run.says("epoch 2:");
        run.signal(name);
        let outcome = run.ends();
        assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
        assert!(outcome.stdout.contains("===== Stop"), "{outcome:?}");
        let steps = sandbox.json("r.json")["steps"].as_u64().unwrap();
        assert_eq!(sandbox.checkpoints("mnist_model"), [steps]);
        let direct = sandbox.hash(&format!("--hidden 32 -s {steps} -m direct --no-resume"));
        assert_eq!(sandbox.json("r.json")["weights_sha256"], direct.as_str());
        let more = sandbox.report(&format!("--hidden 32 -s {}", steps + 10));
        assert_eq!(more["steps"], steps + 10);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let sandbox = Sandbox::new();
    // Steps that take long, and a model that takes long to save: each signal may come to another thread, which has to get a core first.
    let options = "--hidden 2048,2048 -e 1000000 -b 330 --checkpoint-secs 1e9 --threads 1";
    let mut run = start(&mut sandbox.mnist(&format!("train --data data {options}")));
    run.says("epoch 2:");
    // Both arrive before the program can finish a step.
    ["STOP", "INT", "TERM", "CONT"].iter().for_each(|name| run.signal(name));
    let outcome = run.ends();
    assert!(matches!(outcome.status.code(), Some(130 | 143)), "{outcome:?}");
    assert!(!outcome.stdout.contains("===== Stop"), "{outcome:?}");
    assert!(sandbox.checkpoints("mnist_model").is_empty());
}

#[test]
fn a_kill_before_the_first_checkpoint_of_a_new_start_keeps_the_old_model() {
    let sandbox = Sandbox::new();
    let before = sandbox.hash("--hidden 32");
    let model = sandbox.files("mnist_model");
    for _ in 0..2 {
        let mut run = start(
            &mut sandbox
                .mnist(&format!("train --data data {ENDLESS} --seed 2 --no-resume --checkpoint-secs 1e9")),
        );
        run.says("epoch 2:");
        run.signal("KILL");
        run.ends();
    }
    let after = sandbox.report("--hidden 32");
    assert_eq!(after["weights_sha256"], before.as_str());
    assert_eq!(after["train_seconds"], 0.0, "nothing was left to train");
    assert_eq!(sandbox.files("mnist_model"), model);
}

#[test]
fn a_kill_after_the_first_checkpoint_of_a_new_start_keeps_the_new_model() {
    let sandbox = Sandbox::new();
    sandbox.hash("--hidden 32");
    let mut run = start(
        &mut sandbox
            .mnist(&format!("train --data data {ENDLESS} --seed 2 --no-resume --checkpoint-secs 0.01")),
    );
    eventually("three checkpoints", || sandbox.checkpoints("mnist_model").iter().any(|&step| step > 20));
    run.signal("KILL");
    run.ends();
    let newest = *sandbox.checkpoints("mnist_model").last().unwrap();
    let resumed = sandbox.hash(&format!("--hidden 32 --seed 2 -s {newest}"));
    assert_eq!(resumed, sandbox.hash(&format!("--hidden 32 --seed 2 -s {newest} -m direct")));
    assert!(!sandbox.path("mnist_model/checkpoints.previous").exists());
}
