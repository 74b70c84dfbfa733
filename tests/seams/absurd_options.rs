//! Option values that make no sense are refused before anything is done, with the option's name and what it takes.

use muster_tests::program::{Sandbox, run};
use std::fs;

/// A usage error: exit code 2 and a first line with the option and what it takes.
#[track_caller]
fn refused(arguments: &str, parts: &[&str]) {
    let sandbox = Sandbox::new();
    let outcome = run(&mut sandbox.mnist(arguments));
    assert_eq!(outcome.status.code(), Some(2), "{arguments}: {outcome:?}");
    let line = outcome.stderr.lines().next().unwrap_or_default();
    assert!(line.starts_with("error: "), "{outcome:?}");
    for part in parts {
        assert!(line.contains(part), "{arguments}: no {part:?} in {line:?}");
    }
    assert_eq!(fs::read_dir(sandbox.path("")).unwrap().count(), 1, "{arguments} left something behind");
}

#[test]
fn whole_numbers() {
    for option in
        ["-n", "--cluster-size", "--cluster_size", "-b", "-e", "-s", "--threads", "--micro-batch", "--keep"]
    {
        for value in ["0", "-5", "1.5", "many", "99999999999999999999"] {
            refused(&format!("train {option} {value}"), &[value, "a whole number from 1"]);
        }
    }
    refused("train --seed -1", &["-1", "--seed"]);
}

#[test]
fn rates() {
    for value in ["nan", "inf", "0", "-5", "1e30", "fast"] {
        refused(&format!("train --learning-rate {value}"), &["--learning-rate", value, "a number above 0"]);
        refused(&format!("train --learning-rate-decay {value}"), &["--learning-rate-decay", value]);
    }
    for value in ["1", "-0.1", "nan"] {
        refused(&format!("train --momentum {value}"), &["--momentum", value, "from 0 up to"]);
    }
    for value in ["0", "-1", "nan", "inf"] {
        refused(&format!("train --checkpoint-secs {value}"), &["--checkpoint-secs", value, "above 0"]);
    }
}

#[test]
fn shapes() {
    for value in ["0", "12,,3", "-128", "128;64", "9999999999"] {
        refused(&format!("train --hidden {value}"), &["--hidden", value, "512,512"]);
    }
}

#[test]
fn names() {
    refused("train --optimizer newton", &["newton", "--optimizer"]);
    refused("train --loss-reduction max", &["max", "--loss-reduction"]);
    refused("train --recipe soup", &["soup", "--recipe"]);
    refused("train --rdma maybe", &["maybe", "true or false"]);
    refused("bake", &["bake"]);
    refused("train --no-such-option", &["--no-such-option"]);
}

#[test]
fn more_than_a_machine_has() {
    let sandbox = Sandbox::new();
    sandbox.train("-n 4294967295").refuses(&["--cluster-size 4294967295", "1024"]);
    sandbox.train("--threads 4294967295").refuses(&["--threads 4294967295", "1024"]);
    sandbox.train("--hidden 1000000,1000000").refuses(&["1000156000010 parameters", "memory", "--hidden"]);
    assert!(!sandbox.path("mnist_model").exists());
    sandbox.report("-n 40 --threads 2 -s 2 --hidden none");
}
