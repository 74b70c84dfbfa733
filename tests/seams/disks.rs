//! A full disk costs no checkpoint that is there and no step that is done: it warns, tries again, and is an error only at the end.

use muster_tests::machine::absent;
use muster_tests::program::{Outcome, Sandbox, binary, run};
use std::process::Command;

/// Runs a script in a mount namespace of its own, where `disk/` is a file system of 1 MiB and `mnist` the program; none where
/// this is not allowed.
fn on_a_small_disk(sandbox: &Sandbox, script: &str) -> Option<Outcome> {
    let mount = "mkdir disk && mount -t tmpfs -o size=1m none disk || exit 99\n";
    let script = format!("{mount} mnist() {{ {} \"$@\"; }}\n{script}", binary().display());
    let namespaces = ["--mount", "--map-root-user --user --mount"];
    for namespace in namespaces {
        let mut command = Command::new("unshare");
        command.args(namespace.split(' ')).args(["sh", "-c", &script]).current_dir(sandbox.path(""));
        let outcome = run(&mut command);
        if outcome.stdout.contains("mounted") {
            return Some(outcome);
        }
    }
    absent("permission to mount a small disk: training on a full one");
    None
}

#[test]
fn a_disk_that_is_full_during_training() {
    let sandbox = Sandbox::new();
    let direct = sandbox.hash("--hidden 64 -s 4000 -m direct");
    let train = "mnist train --data data --hidden 64 -m disk/m --keep 1";
    let script = format!(
        "echo mounted; {train} -s 8 || exit 1
         before=$(sha256sum disk/m/model.safetensors disk/m/checkpoints/step-0000000008/*)
         cat /dev/zero > disk/filler
         {train} -s 4000 --checkpoint-secs 0.01 && exit 2
         [ \"$before\" = \"$(sha256sum disk/m/model.safetensors disk/m/checkpoints/step-0000000008/*)\" ] || exit 3
         ls -A disk/m/checkpoints | grep -v -x step-0000000008 && exit 4
         rm disk/filler
         {train} -s 4000 --report report.json || exit 5"
    );
    let Some(outcome) = on_a_small_disk(&sandbox, &script) else { return };
    let outcome = outcome.succeeds();
    let warnings: Vec<&str> =
        outcome.stderr.lines().filter(|line| line.starts_with("warning: no checkpoint")).collect();
    assert!(
        warnings.len() >= 2 && warnings[0].contains("No space left") && warnings[0].contains("tries again"),
        "{outcome:?}"
    );
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("mnist: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains("free some space"), "{outcome:?}");
    assert!(outcome.stdout.contains("going on from step 8"), "{outcome:?}");
    assert_eq!(sandbox.json("report.json")["weights_sha256"], direct.as_str());
}

#[test]
fn a_disk_that_is_full_from_the_start() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 64 -e 1").succeeds();
    let script = "echo mounted; cat /dev/zero > disk/filler
        mnist train --data data --hidden 64 -m disk/m -e 2 && exit 1
        mnist inference --data data -o disk/p && exit 2
        [ \"$(ls -A disk | grep -v -x m)\" = filler ] || exit 3";
    let Some(outcome) = on_a_small_disk(&sandbox, script) else { return };
    let outcome = outcome.succeeds();
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("mnist: ")).collect();
    assert!(errors.len() == 2 && errors.iter().all(|line| line.contains("No space left")), "{outcome:?}");
}

#[test]
fn a_report_that_does_not_fit() {
    let sandbox = Sandbox::new();
    let script = "echo mounted; cat /dev/zero > disk/filler
        mnist train --data data --hidden 64 -e 1 --report disk/r.json && exit 1
        [ \"$(ls -A disk)\" = filler ] || exit 2";
    let Some(outcome) = on_a_small_disk(&sandbox, script) else { return };
    let outcome = outcome.succeeds();
    assert!(
        outcome.stderr.contains("disk/r.json") && outcome.stderr.contains("No space left"),
        "{outcome:?}"
    );
    assert_eq!(sandbox.checkpoints("mnist_model"), [4], "the model is saved all the same");
}

#[test]
fn metrics_that_do_not_fit() {
    let sandbox = Sandbox::new();
    let script = "echo mounted
        mnist train --data data --hidden 16 -e 2500 --metrics-every 1 --log-dir disk/l --report report.json || exit 1
        [ -s disk/l/metrics.jsonl ] && [ -z \"$(tail -c 1 disk/l/metrics.jsonl)\" ] || exit 2";
    let Some(outcome) = on_a_small_disk(&sandbox, script) else { return };
    let outcome = outcome.succeeds();
    let warnings = outcome.stderr.lines().filter(|line| line.starts_with("warning: no metrics: "));
    let warnings: Vec<&str> = warnings.collect();
    assert!(!warnings.is_empty() && warnings[0].contains("No space left"), "{outcome:?}");
    assert_eq!(sandbox.json("report.json")["steps"], 10_000);
}
