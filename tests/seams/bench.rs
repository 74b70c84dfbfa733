//! `muster bench` measures this machine, writes what it found, and compares it with what it found before.

use muster_tests::program::{Outcome, Sandbox, launcher, run};
use serde_json::Value;
use std::process::Command;

/// `muster bench` in a folder of its own, beside whatever `mnist` lies there; HDFS is not looked for.
fn bench(sandbox: &Sandbox, options: &str) -> Outcome {
    muster_tests::program::binary();
    let mut command = Command::new(launcher());
    command.arg("bench").args(options.split_whitespace()).current_dir(sandbox.path("."));
    for variable in ["MUSTER_KERNELS", "HADOOP_CONF_DIR", "HADOOP_HOME"] {
        command.env_remove(variable);
    }
    run(&mut command)
}

fn share(figure: &Value) -> f64 {
    figure["limit"]["share"].as_f64().expect("a share")
}

#[test]
fn everything_is_measured_written_and_compared() {
    let sandbox = Sandbox::new();
    let outcome = bench(&sandbox, "--seconds 1").succeeds();
    let report = sandbox.json("bench.json");
    let figures = report["figures"].as_array().unwrap();
    for group in ["machine", "kernels", "training", "exchange", "reading", "launch"] {
        let of_group: Vec<&Value> = figures.iter().filter(|figure| figure["group"] == group).collect();
        assert!(!of_group.is_empty(), "{group}: {outcome:?}");
        for figure in of_group {
            let name = figure["name"].as_str().unwrap();
            let [low, value, high] = ["low", "value", "high"].map(|field| figure[field].as_f64().unwrap());
            assert!(0.0 < low && low <= value && value <= high, "{figure}");
            assert!(figure["rounds"].as_u64().unwrap() >= 3, "{figure}");
            assert!(outcome.stdout.contains(name), "{name} is in the table: {outcome:?}");
        }
    }
    let left_out = report["left_out"].as_array().unwrap();
    assert!(left_out.iter().all(|left_out| left_out["what"] == "reading from HDFS"), "{left_out:?}");
    let kernels: Vec<&Value> = figures.iter().filter(|figure| figure["group"] == "kernels").collect();
    assert!(kernels.len() > 10 && kernels.iter().all(|kernel| share(kernel) > 0.0), "{report:#}");
    let page = std::fs::read_to_string(sandbox.path("bench.html")).unwrap();
    assert!(page.contains("Roofline of the kernels") && !page.contains("://"), "{page}");

    let mut elsewhere = report.clone();
    elsewhere["machine"]["cpu"] = "an abacus".into();
    std::fs::write(sandbox.path("old.json"), elsewhere.to_string()).unwrap();
    let outcome = bench(&sandbox, "--seconds 1 --compare old.json").succeeds();
    assert!(outcome.stdout.contains("CPU an abacus instead of"), "{outcome:?}");
    assert!(!outcome.stdout.contains("SLOWER"), "{outcome:?}");
}

#[test]
fn what_cannot_be_compared_is_told_at_once() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("newer.json"), "{\"version\": 999}").unwrap();
    std::fs::write(sandbox.path("damaged.json"), "{\"version\": 1, \"fig").unwrap();
    for (old, said) in
        [("newer.json", "version 999"), ("damaged.json", "EOF"), ("absent.json", "cannot read")]
    {
        let outcome = bench(&sandbox, &format!("--compare {old}"));
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(said) && outcome.stderr.contains(old), "{outcome:?}");
    }
    std::fs::rename(sandbox.path("newer.json"), sandbox.path("bench.json")).unwrap();
    let outcome = bench(&sandbox, "--compare bench.json");
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("--json would replace bench.json"), "{outcome:?}");
    assert_eq!(sandbox.json("bench.json")["version"], 999, "it is still there");
}
