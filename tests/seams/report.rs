//! The report has every field, of the right type, and says what was really done.

use muster_tests::program::Sandbox;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn is_sha256(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit() && !c.is_uppercase())
    })
}

#[test]
fn every_field_is_there() {
    let sandbox = Sandbox::new();
    let report = sandbox.report("--hidden 32,16 -e 3 -n 3 --threads 2 --seed 9 --optimizer adam");
    let fields = [
        "version",
        "dataset",
        "dataset_sha256",
        "model",
        "optimizer",
        "seed",
        "batch_size",
        "micro_batch",
        "world_size",
        "threads",
        "kernels",
        "steps",
        "epochs",
        "records",
        "test_accuracy",
        "train_seconds",
        "images_per_second",
        "weights_sha256",
        "mode",
        "server_trains",
        "transport",
        "mpi",
        "fabric",
        "fabric_counters",
        "staleness",
        "ranks",
    ];
    assert_eq!(keys(&report), BTreeSet::from(fields));
    for (field, expected) in [
        ("version", json!("0.1.0")),
        ("dataset", json!("custom")),
        ("model", json!([144, 32, 16, 10])),
        ("seed", json!(9)),
        ("batch_size", json!(100)),
        ("micro_batch", json!(32)),
        ("world_size", json!(3)),
        ("threads", json!(2)),
        ("steps", json!(12)),
        ("records", json!(990)),
    ] {
        assert_eq!(report[field], expected, "{field}");
    }
    assert_eq!(report["optimizer"]["name"], "adam");
    assert!(is_sha256(&report["dataset_sha256"]) && is_sha256(&report["weights_sha256"]));
    assert_eq!(keys(&report["kernels"]), BTreeSet::from(["back_end", "arithmetic", "path", "precision"]));
    let seconds = report["train_seconds"].as_f64().unwrap();
    let speed = report["images_per_second"].as_f64().unwrap();
    assert!(seconds > 0.0 && (speed - 990.0 / seconds).abs() < 1.0, "{report}");
}

#[test]
fn every_epoch_has_its_entry() {
    let sandbox = Sandbox::new();
    let report = sandbox.report("--hidden 64 -e 8");
    let epochs = report["epochs"].as_array().unwrap();
    let fields = ["epoch", "loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"];
    for (i, epoch) in epochs.iter().enumerate() {
        assert_eq!(keys(epoch), BTreeSet::from(fields));
        assert_eq!(epoch["epoch"], i + 1);
        assert!(
            fields[1..].iter().all(|field| epoch[field].as_f64().is_some_and(|number| number >= 0.0)),
            "{epoch}"
        );
        let share = |field: &str, of: f64| (epoch[field].as_f64().unwrap() * of).fract();
        assert!(share("test_accuracy", 120.0).min(1.0 - share("test_accuracy", 120.0)) < 1e-6, "{epoch}");
    }
    let number = |epoch: usize, field: &str| epochs[epoch][field].as_f64().unwrap();
    assert!(
        number(7, "loss") < number(0, "loss") / 2.0 && number(7, "test_accuracy") > 0.9,
        "it learns: {report}"
    );
    assert_eq!(report["test_accuracy"], epochs[7]["test_accuracy"]);
}

#[test]
fn an_unfinished_epoch_has_none() {
    let sandbox = Sandbox::new();
    let report = sandbox.report("--hidden 32 -s 6");
    assert_eq!(report["epochs"].as_array().unwrap().len(), 1);
    assert_eq!((&report["steps"], &report["records"]), (&json!(6), &json!(530)));
}
