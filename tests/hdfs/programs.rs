//! `mnist` with its data, its model and its predictions on HDFS.

use std::io::Read;
use std::path::Path;
use std::process::Command;

use muster::metrics::History;
use muster::storage::Storage;
use muster_tests::hdfs::{Cluster, NAMENODE};
use muster_tests::manifest;
use muster_tests::program::{Sandbox, eventually, launcher, run, start};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("every_format_goes_through_hdfs", every_format_goes_through_hdfs),
    ("a_training_is_resumed_from_hdfs", a_training_is_resumed_from_hdfs),
    ("one_run_at_a_time_writes_a_model", one_run_at_a_time_writes_a_model),
    ("a_training_outlives_a_restart_of_the_namenode", a_training_outlives_a_restart_of_the_namenode),
    ("a_training_from_parts_outlives_its_nodes", a_training_from_parts_outlives_its_nodes),
    ("what_hdfs_refuses_is_said", what_hdfs_refuses_is_said),
    ("what_is_there_is_replaced_only_on_request", what_is_there_is_replaced_only_on_request),
    ("metrics_grow_on_hdfs_and_are_reported_from_there", metrics_grow_on_hdfs_and_are_reported_from_there),
    ("the_driver_feeds_uneven_and_empty_parts", the_driver_feeds_uneven_and_empty_parts),
    ("logs_and_evaluations_of_a_launched_job_go_there", logs_and_evaluations_of_a_launched_job_go_there),
];

/// `mnist` whose paths without a scheme lie on HDFS.
pub fn mnist(cluster: &Cluster, sandbox: &Sandbox, arguments: &str) -> Command {
    let mut command = sandbox.mnist(arguments);
    command.env("HADOOP_CONF_DIR", cluster.conf_dir());
    command
}

pub fn text(storage: &Storage, path: &str) -> String {
    let mut text = String::new();
    storage.open(path, 0..u64::MAX).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Prepared, verified, trained on by one and by several ranks, and classified: as from the IDX files.
fn every_format_goes_through_hdfs(cluster: &Cluster) {
    let (sandbox, storage) = (Sandbox::new(), cluster.storage());
    let hash = sandbox.hash("--hidden 20 -e 2 -m of-idx");
    let of_idx = run(&mut sandbox.mnist("inference --data data -m of-idx -o predictions")).succeeds();
    let expected = std::fs::read_to_string(sandbox.path("predictions/part-00000")).unwrap();
    for format in ["csv", "csv2", "pickle", "tf"] {
        let mnist = |arguments: &str| run(&mut mnist(cluster, &sandbox, arguments)).succeeds();
        mnist(&format!("prepare --data data -n 3 -v -f {format} -o /{format}/data"));
        let named = |set: &str, prefix: &str| match format {
            "csv" | "pickle" => {
                format!(
                    "--{prefix}images /{format}/data/{set}/images --{prefix}labels /{format}/data/{set}/labels"
                )
            }
            _ => format!("--{prefix}images /{format}/data/{set}"),
        };
        let runs = [
            // The second run of a model goes on where the first has ended.
            (1, 2, 1, ""),
            (1, 2, 2, ""),
            (3, 1, 1, "--cache-mib 0"),
            (3, 2, 2, ""),
            (3, 2, 2, "--cache-mib 0 --no-resume"),
        ];
        for (ranks, readers, epochs, options) in runs {
            mnist(&format!(
                "train --hidden 20 -e {epochs} -n {ranks} -r {readers} {options} -f {format} -m /{format}/model{ranks} {} {} --report r.json",
                named("train", ""),
                named("test", "test-")
            ));
            let report = sandbox.json("r.json");
            assert_eq!(report["weights_sha256"] == hash.as_str(), epochs == 2, "{format}, {ranks} ranks");
        }
        let outcome = mnist(&format!(
            "inference -f {format} -m /{format}/model3 -o /{format}/out {}",
            named("test", "")
        ));
        assert!(
            of_idx
                .stdout
                .lines()
                .filter(|line| line.starts_with("accuracy"))
                .all(|line| outcome.stdout.contains(line))
        );
        let parts: String =
            (0..3).map(|part| text(&storage, &format!("/{format}/out/part-0000{part}"))).collect();
        assert_eq!(parts, expected, "{format}");
        let names: Vec<String> =
            storage.list(format!("/{format}/out")).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["_SUCCESS", "part-00000", "part-00001", "part-00002"]);
    }
}

/// The newest checkpoint in a model directory.
pub fn newest(storage: &Storage, model: &str) -> Option<String> {
    let checkpoints = storage.list(format!("{model}/checkpoints")).ok()?;
    checkpoints.into_iter().map(|entry| entry.name).rfind(|name| name.starts_with("step-"))
}

/// Rewrites the four parts of a set in csv2 with these numbers of records, and the rest in the last one.
fn resize(storage: &Storage, set: &str, sizes: [usize; 3]) -> Vec<usize> {
    let path = |part: usize| format!("{set}/part-{part:05}");
    let all: String = (0..4).map(|part| text(storage, &path(part))).collect();
    let mut lines = all.split_inclusive('\n');
    let mut write = |part: usize, size: usize| {
        let part_text: String = lines.by_ref().take(size).collect();
        storage.create(path(part), &|out| out.write_all(part_text.as_bytes())).unwrap();
        part_text.lines().count()
    };
    let sizes =
        sizes.into_iter().chain([usize::MAX]).enumerate().map(|(part, size)| write(part, size)).collect();
    manifest::rewrite(storage, set);
    sizes
}

fn the_driver_feeds_uneven_and_empty_parts(cluster: &Cluster) {
    let (sandbox, storage) = (Sandbox::new(), cluster.storage());
    let hash = sandbox.hash("--hidden 20 -e 2 -m of-idx");
    run(&mut mnist(cluster, &sandbox, "prepare --data data -n 4 -f csv2 -o /fed/data")).succeeds();
    resize(&storage, "/fed/data/train", [0, 1, 300]);
    let sizes = resize(&storage, "/fed/data/test", [0, 100, 0]);
    let muster = |arguments: &str| {
        let mut command = sandbox.muster("run --feed -n 3", arguments);
        run(command.env("HADOOP_CONF_DIR", cluster.conf_dir())).succeeds()
    };
    let options = "--hidden 20 -e 2 -f csv2 --images /fed/data/train -m /fed/model --report r.json";
    let outcome = muster(&format!("train {options}"));
    assert_eq!(sandbox.json("r.json")["weights_sha256"], hash.as_str(), "{outcome:?}");
    assert!(outcome.stderr.contains("muster: fed 660 records, digest "), "{outcome:?}");
    muster("inference -f csv2 --images /fed/data/test -m /fed/model -o /fed/out");
    for (part, size) in sizes.into_iter().enumerate() {
        let lines = text(&storage, &format!("/fed/out/part-{part:05}"));
        assert_eq!(lines.lines().filter(|line| line.starts_with("Label: ")).count(), size, "part {part}");
    }
}

fn logs_and_evaluations_of_a_launched_job_go_there(cluster: &Cluster) {
    let (sandbox, storage) = (Sandbox::new(), cluster.storage());
    let muster = |options: &str| {
        let arguments = "train --data data --hidden 20 -e 2 -m /logged/model";
        let mut command = sandbox.muster(&format!("run -n 3 --evaluator --log-dir {options}"), arguments);
        run(command.env("HADOOP_CONF_DIR", cluster.conf_dir()))
    };
    let outcome = muster("/logged/run").succeeds();
    let log = text(&storage, "/logged/run/logs/engine.log");
    assert!(log.contains("===== Stop") && log.contains("evaluator: step "), "{outcome:?}");
    assert!(text(&storage, "/logged/run/evaluations.jsonl").contains("\"accuracy\":"), "{outcome:?}");
    assert!(text(&storage, "/logged/run/report.json").contains("weights_sha256"));
    assert!(!sandbox.path("logged").exists());
    let outcome = muster("hdfs://127.0.0.1:1/run");
    assert!(!outcome.status.success() && !outcome.stdout.contains("==== Start"), "{outcome:?}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("hdfs://127.0.0.1:1"), "{outcome:?}");
}

fn a_training_is_resumed_from_hdfs(cluster: &Cluster) {
    let sandbox = Sandbox::new();
    let hash = sandbox.hash("--hidden 20 -e 500 -m direct");
    let train = "train --data data --hidden 20 -e 500 -m /resumed/model --checkpoint-secs 0.05";
    let mut killed = start(&mut mnist(cluster, &sandbox, train));
    eventually("a model on HDFS", || {
        cluster.storage().stat("/resumed/model/model.safetensors").unwrap().is_some()
    });
    killed.signal("KILL");
    assert_eq!(killed.ends().status.code(), None, "it ended before it was killed");
    let train = format!("{train} --keep 2 --report r.json");
    run(&mut mnist(cluster, &sandbox, &train)).succeeds();
    assert_eq!(sandbox.json("r.json")["weights_sha256"], hash.as_str());
    let names = |path: &str| -> Vec<String> {
        cluster.storage().list(path).unwrap().into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names("/resumed/model"), ["checkpoints", "model.safetensors"], "the lock is given back");
    assert!(names("/resumed/model/checkpoints").iter().all(|name| name.starts_with("step-")));
    assert!(names("/resumed/model/checkpoints").len() <= 2);
}

fn one_run_at_a_time_writes_a_model(cluster: &Cluster) {
    let sandbox = Sandbox::new();
    let train = "train --data data --hidden 20 -e 1000000 -m /locked/model";
    let mut first = start(&mut mnist(cluster, &sandbox, train));
    first.says("plan:");
    let pid = format!("process {} on ", first.pid());
    run(&mut mnist(cluster, &sandbox, train)).refuses(&[&pid, "/locked/model/.lock"]);
    first.signal("KILL");
    first.ends();
    run(&mut mnist(cluster, &sandbox, "train --data data --hidden 20 -e 1 -m /locked/model")).succeeds();
}

fn a_training_outlives_a_restart_of_the_namenode(cluster: &Cluster) {
    let sandbox = Sandbox::new();
    let train = "train --data data --hidden 20 -e 1000000 -m /outlived/model --checkpoint-secs 0.1";
    let mut training = start(&mut mnist(cluster, &sandbox, train));
    let storage = cluster.storage();
    let newest = || newest(&storage, "/outlived/model");
    training.says_until("epoch", "a checkpoint", || newest().is_some());
    drop(cluster.kill(&NAMENODE));
    let before = newest();
    training.says_until("epoch", "a newer checkpoint", || newest() > before);
    training.signal("INT");
    assert_eq!(training.ends().status.code(), Some(130));
}

/// Parts that are read anew in every epoch, while DataNodes die or fall silent and the NameNode starts again.
fn a_training_from_parts_outlives_its_nodes(cluster: &Cluster) {
    let (sandbox, options) = (Sandbox::new(), "--hidden 20 -e 400");
    let hash = sandbox.hash(&format!("{options} -m direct"));
    let down = cluster.kill(&["datanode1"]);
    run(&mut mnist(cluster, &sandbox, "prepare --data data -n 3 -v -f csv2 -o /disturbed/data")).succeeds();
    drop(down);
    let train = "-f csv2 -i /disturbed/data/train --cache-mib 0 -m /disturbed/model --report r.json";
    let mut training = start(&mut mnist(cluster, &sandbox, &format!("train {options} {train}")));
    training.says("epoch");
    drop(cluster.kill(&["datanode2"]));
    training.says("epoch");
    drop(cluster.freeze(&["datanode3"]));
    training.says("epoch");
    drop(cluster.kill(&NAMENODE));
    assert!(training.ends().status.success());
    assert_eq!(sandbox.json("r.json")["weights_sha256"], hash.as_str());
}

fn what_hdfs_refuses_is_said(cluster: &Cluster) {
    let (sandbox, storage) = (Sandbox::new(), cluster.storage());
    for directory in ["/full", "/theirs"] {
        storage.create(format!("{directory}/file"), &|_| Ok(())).unwrap();
    }
    cluster.admin(&["-setSpaceQuota", "1m", "/full"]);
    let prepare = "prepare --data data -n 2 -f tfr -o";
    run(&mut mnist(cluster, &sandbox, &format!("{prepare} /full/data")))
        .refuses(&["quota", "free some space"]);
    run(&mut mnist(cluster, &sandbox, "train --data data --hidden none -e 1 -m /full/model"))
        .refuses(&["quota", "free some space"]);
    run(&mut mnist(cluster, &sandbox, "train --data data --hidden none -e 1 -m /theirs-to-read/model"))
        .succeeds();
    let inference = "inference --data data -m /theirs-to-read/model -o /theirs/out";
    for program in [&format!("{prepare} /theirs/data"), "train --data data -e 1 -m /theirs/model", inference]
    {
        let mut command = mnist(cluster, &sandbox, program);
        run(command.env("HADOOP_USER_NAME", "bob")).refuses(&["user=bob", "check the permissions"]);
    }
    let left =
        ["/full", "/full/model", "/theirs"].map(|directory| storage.list(directory).unwrap_or_default());
    let files = left.iter().flatten().filter(|entry| !entry.is_dir).map(|entry| entry.name.as_str());
    assert_eq!(files.collect::<Vec<_>>(), ["file", "file"], "something is left over");
}

fn what_is_there_is_replaced_only_on_request(cluster: &Cluster) {
    let sandbox = Sandbox::new();
    let prepare = |options: &str| {
        run(&mut mnist(cluster, &sandbox, &format!("prepare --data data -o /there {options}")))
    };
    prepare("-n 2").succeeds();
    prepare("-n 3").refuses(&["/there", "--overwrite"]);
    prepare("-n 3 -f tfr --overwrite").succeeds();
    let names: Vec<String> =
        cluster.storage().list("/there/test").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["_SUCCESS", "_manifest.json", "part-r-00000", "part-r-00001", "part-r-00002"]);
    run(&mut mnist(cluster, &sandbox, "train --data data --hidden none -e 1 -m /there-model")).succeeds();
    let inference = "inference -m /there-model -f tfr -i /there/test -o /there-out";
    run(&mut mnist(cluster, &sandbox, inference)).succeeds();
    run(&mut mnist(cluster, &sandbox, inference)).refuses(&["/there-out", "--overwrite"]);
    run(&mut mnist(cluster, &sandbox, &format!("{inference} --overwrite"))).succeeds();
}

/// A training writes its metrics to HDFS, goes on with them, and `muster report` reads them there.
fn metrics_grow_on_hdfs_and_are_reported_from_there(cluster: &Cluster) {
    let (sandbox, storage) = (Sandbox::new(), cluster.storage());
    let train = "train --data data --hidden 16 -m /seen/model --log-dir /seen/logs --metrics-every 1";
    run(&mut mnist(cluster, &sandbox, &format!("{train} -s 6"))).succeeds();
    run(&mut mnist(cluster, &sandbox, &format!("{train} -e 2"))).succeeds();
    let content = text(&storage, "/seen/logs/metrics.jsonl");
    let history = History::parse(content.as_bytes(), Path::new("metrics.jsonl")).unwrap();
    assert_eq!(history.steps.iter().map(|steps| steps.step).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert_eq!((history.runs.len(), history.end.map(|end| end.step)), (2, Some(8)));
    let names = storage.list("/seen/logs").unwrap().into_iter().map(|entry| entry.name);
    assert_eq!(names.filter(|name| name.starts_with("events.out.tfevents.")).count(), 2);
    let mut report = Command::new(launcher());
    report
        .args(["report", "/seen/logs"])
        .current_dir(sandbox.path(""))
        .env("HADOOP_CONF_DIR", cluster.conf_dir());
    assert_eq!(run(&mut report).succeeds().stderr, "");
    assert!(std::fs::read_to_string(sandbox.path("report.html")).unwrap().contains("Most wrong"));
    run(&mut mnist(cluster, &sandbox, &format!("{train} -e 3 -tb")))
        .refuses(&["this machine only", "--log-dir"]);
}
