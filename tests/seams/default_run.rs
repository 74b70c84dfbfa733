//! The default run reaches at least 97.5 % on the real MNIST.

use muster_tests::machine::absent;
use muster_tests::program::{Sandbox, run};
use std::process::Command;

/// `mnist` with the user's cache; it fetches nothing, as there are no mirrors and no npm.
fn with_cache(sandbox: &Sandbox, arguments: &str) -> Command {
    let mut command = sandbox.mnist(arguments);
    match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => command.env("XDG_CACHE_HOME", cache),
        None => command.env_remove("XDG_CACHE_HOME"),
    };
    command.env("PATH", "");
    command
}

#[test]
fn five_epochs_of_mnist() {
    let sandbox = Sandbox::new();
    let outcome = run(&mut with_cache(&sandbox, "train --report r.json")).succeeds();
    let report = sandbox.json("r.json");
    assert_eq!(report["model"], serde_json::json!([784, 128, 10]), "{outcome:?}");
    let accuracy = report["test_accuracy"].as_f64().unwrap();
    if report["dataset"] == "synthetic" {
        absent(
            "MNIST in the cache (`mnist fetch` gets it): the default run was shown on synthetic digits instead",
        );
        assert!(accuracy >= 0.9, "{report}");
        return;
    }
    assert_eq!(report["dataset"], "mnist");
    assert!(accuracy >= 0.975, "{report}");
    assert!(report["epochs"].as_array().unwrap().len() <= 5);
    let outcome = run(&mut with_cache(&sandbox, "inference")).succeeds();
    assert!(outcome.stdout.contains(&format!("accuracy {:.2} %", 100.0 * accuracy)), "{outcome:?}");
}
