//! Feed mode: the weights and the predictions of direct mode, every record used exactly once.

use crate::last_line;
use muster::storage::{HadoopConfig, Storage};
use muster_tests::digits::{TEST, TRAIN};
use muster_tests::manifest;
use muster_tests::program::{Outcome, Sandbox, eventually, launcher, run, start};
use std::fs;
use std::process::Command;

const RECIPE: &str = "--hidden 32 -b 30 --micro-batch 8 --threads 1 --report r.json";
const CSV: &str = "-f csv --images parts/train/images --labels parts/train/labels";

fn prepared(format: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    run(&mut sandbox.mnist(&format!("prepare --data data -f {format} -n 4 --output parts"))).succeeds();
    sandbox
}

/// The hash and the records used of a fed training.
fn fed(sandbox: &Sandbox, launch: &str, options: &str) -> (String, u64) {
    let arguments = format!("train {RECIPE} --no-resume {options}");
    let outcome = run(&mut sandbox.muster(&format!("run --feed {launch}"), &arguments)).succeeds();
    let hash = sandbox.json("r.json")["weights_sha256"].as_str().unwrap().to_owned();
    (hash, used(&outcome))
}

/// The records that the ledger says were used.
pub fn used(outcome: &Outcome) -> u64 {
    let line = outcome.stderr.lines().find_map(|line| line.split_once(": fed ")).expect("it was fed").1;
    assert!(line.contains(" records, digest "), "{line}");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn direct(sandbox: &Sandbox, options: &str) -> String {
    sandbox.hash(&format!("{} --no-resume {options}", RECIPE.strip_suffix("--report r.json").unwrap()))
}

#[test]
fn fed_direct_and_idx_have_the_same_weights() {
    let sandbox = prepared("csv");
    let expected = direct(&sandbox, "-e 2 -n 1");
    let read =
        run(&mut sandbox.mnist(&format!("train {RECIPE} --no-resume -e 2 {CSV} --input-mode tensorflow")));
    read.succeeds();
    assert_eq!(sandbox.json("r.json")["weights_sha256"], expected.as_str());
    for (launch, options) in [
        ("-n 1", "--threads 2"),
        ("-n 2", ""),
        ("-n 3", "--threads 2"),
        ("-n 3", "--server-trains"),
        // More workers than micro-batches.
        ("-n 7", ""),
    ] {
        let options = format!("-e 2 {CSV} {options}");
        assert_eq!(
            fed(&sandbox, launch, &options),
            (expected.clone(), 2 * TRAIN as u64),
            "{launch} {options}"
        );
    }
}

/// TensorFlowOnSpark's `--rdma False` meant yes: any text was true.
#[test]
fn rdma_false_means_no_in_every_input_mode() {
    let sandbox = prepared("csv");
    let expected = direct(&sandbox, "-e 2 -n 1");
    for mode in ["spark", "tensorflow"] {
        let options = format!("-e 2 -n 3 {CSV} --input_mode {mode} --rdma False");
        let own = run(&mut sandbox.mnist(&format!("train {RECIPE} --no-resume {options}"))).succeeds();
        assert_eq!(sandbox.json("r.json")["weights_sha256"], expected.as_str(), "{mode}");
        if mode == "spark" {
            assert_eq!(used(&own), 2 * TRAIN as u64);
        }
    }
}

/// Parts as Spark leaves them: of any size, many of them empty.
fn uneven(sandbox: &Sandbox, set: &str) {
    let part = |number| sandbox.path(&format!("parts/{set}/part-{number:05}"));
    let lines: Vec<String> = (0..4)
        .flat_map(|number| {
            fs::read_to_string(part(number)).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let sizes = [0, 1, lines.len() - 40, 0, 0, 38, 1, 0];
    let mut lines = lines.into_iter();
    for (number, size) in sizes.into_iter().enumerate() {
        let text: String = lines.by_ref().take(size).map(|line| line + "\n").collect();
        fs::write(part(number), text).unwrap();
    }
    manifest::rewrite(&Storage::new(HadoopConfig::default()), sandbox.path(&format!("parts/{set}")));
}

#[test]
fn uneven_and_empty_parts_change_nothing() {
    let sandbox = prepared("csv2");
    let expected = direct(&sandbox, "-e 1 -n 1");
    uneven(&sandbox, "train");
    let options = "-e 1 -f csv2 --images parts/train";
    assert_eq!(fed(&sandbox, "-n 3", options), (expected, TRAIN as u64));
}

/// The driver keeps an index of what does not fit into `--cache-mib`, and reads it anew in every epoch.
#[test]
fn records_that_do_not_fit_into_the_driver_s_memory_are_fed_all_the_same() {
    let sandbox = prepared("csv2");
    let expected = direct(&sandbox, "-e 2 -n 1");
    for options in ["", "--cache-mib 0", "--cache-mib 0 --async --max-staleness 0 -n 2"] {
        let options = format!("-e 2 -f csv2 --images parts/train {options}");
        let launch = if options.ends_with("-n 2") { "-n 2" } else { "-n 3" };
        assert_eq!(fed(&sandbox, launch, &options), (expected.clone(), 2 * TRAIN as u64), "{options}");
    }
}

#[test]
fn an_early_stop_with_much_data_left_ends_the_feeding_at_once() {
    let sandbox = prepared("csv");
    let expected = direct(&sandbox, "--steps 7 -n 1");
    let (hash, used) = fed(&sandbox, "-n 3", &format!("--steps 7 -e 100000 {CSV}"));
    assert_eq!((hash, used), (expected, 7 * 30));
    // All is done already: nothing is fed, and nobody waits for anything.
    let arguments = format!("train {RECIPE} --steps 7 {CSV}");
    let again = run(&mut sandbox.muster("run --feed -n 3", &arguments)).succeeds();
    assert_eq!(self::used(&again), 0);
}

#[test]
fn asynchronous_workers_use_every_record_once() {
    let sandbox = prepared("csv");
    for options in ["--async", "--async --server-trains", "--max-staleness 1"] {
        let (_, used) = fed(&sandbox, "-n 4", &format!("-e 2 {CSV} {options}"));
        assert_eq!(used, 2 * TRAIN as u64, "{options}");
    }
}

#[test]
fn a_lost_worker_changes_no_bit_and_neither_does_an_end_before_the_end() {
    let sandbox = prepared("csv");
    let expected = direct(&sandbox, "-e 9 -n 1");
    for fault in ["kill:rank=2,step=31", "drop:rank=1,step=60"] {
        let arguments = format!("train {RECIPE} -e 9 {CSV} -m {} --checkpoint-secs 0.02", &fault[..4]);
        let options = format!("run --feed -n 3 --max-restarts 1 --inject {fault}");
        let outcome = run(&mut sandbox.muster(&options, &arguments)).succeeds();
        assert!(outcome.stderr.contains("muster: restarting: rank "), "{outcome:?}");
        assert_eq!(sandbox.json("r.json")["weights_sha256"], expected.as_str(), "{fault}");
    }
    let go_on = |steps| fed_on(&sandbox, &format!("-e 9 {steps} {CSV}"));
    assert_eq!(go_on("--steps 50"), 50 * 30);
    assert_eq!(go_on(""), 9 * TRAIN as u64 - 50 * 30);
    assert_eq!(sandbox.json("r.json")["weights_sha256"], expected.as_str());
}

/// The records that a training uses that goes on from where the last one ended.
fn fed_on(sandbox: &Sandbox, options: &str) -> u64 {
    used(&run(&mut sandbox.muster("run --feed -n 3", &format!("train {RECIPE} -m on {options}"))).succeeds())
}

#[test]
fn an_error_after_the_data_has_ended_is_an_error() {
    let sandbox = prepared("csv");
    let arguments = format!("train {RECIPE} -e 2 {CSV}");
    let outcome = run(&mut sandbox.muster("run --feed -n 3 --inject kill:rank=1,step=22", &arguments));
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(last_line(&outcome).starts_with("muster: rank "), "{outcome:?}");
}

#[test]
fn what_cannot_be_fed_is_said_before_the_start() {
    let sandbox = prepared("csv2");
    let fails = |launch: &str, arguments: &str, says: &[&str]| {
        let outcome = run(&mut sandbox.muster(&format!("run {launch} -n 2"), arguments));
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        let line = last_line(&outcome);
        assert!(line.starts_with("muster: ") && says.iter().all(|part| line.contains(part)), "{outcome:?}");
        assert!(!outcome.stdout.contains("==== Start"), "{outcome:?}");
    };
    fails("--feed", "train --images nowhere", &["nowhere"]);
    fails("--feed", "train --data data", &["--images"]);
    fails("--feed", "train -f csv2 --images parts/train --input-mode direct", &["--input-mode direct"]);
    let both = "train -f csv2 --images parts/train --async --server-trains";
    fails("--follow", both, &["leave --server-trains out"]);
    fs::write(sandbox.path("parts/train/part-00002"), "3|0,1\n").unwrap();
    manifest::rewrite(&Storage::new(HadoopConfig::default()), sandbox.path("parts/train"));
    fails("--feed", "train -f csv2 --images parts/train", &["part-00002"]);
}

#[test]
fn inference_gives_a_line_for_each_record_part_for_part() {
    let sandbox = prepared("csv2");
    sandbox.train("--hidden 20 -e 1").succeeds();
    uneven(&sandbox, "test");
    let options = "inference -f csv2 --images parts/test";
    let direct = run(&mut sandbox.mnist(&format!("{options} -o direct"))).succeeds();
    let outcome = run(&mut sandbox.muster("run --feed -n 3", &format!("{options} -o fed"))).succeeds();
    assert_eq!(used(&outcome), TEST as u64);
    let accuracy =
        direct.stdout.lines().find(|line| line.starts_with("accuracy ")).expect("there are labels");
    let said = outcome.stderr.lines().find_map(|line| line.strip_prefix("muster: accuracy ")).unwrap();
    assert!(said.starts_with(accuracy.trim_start_matches("accuracy ")), "{said} and {accuracy}");
    assert!(said.ends_with(&format!(" of {TEST} records")), "{said}");
    for part in 0..8 {
        let read =
            |directory| fs::read_to_string(sandbox.path(&format!("{directory}/part-{part:05}"))).unwrap();
        let line = |line: &str| {
            let (label, prediction) = line.split_once(' ').unwrap();
            format!("Label: {label}, Prediction: {prediction}\n")
        };
        assert_eq!(read("fed"), read("direct").lines().map(line).collect::<String>(), "part {part}");
    }
    assert!(sandbox.path("fed/_SUCCESS").exists());
    let again = run(&mut sandbox.muster("run --feed -n 3", &format!("{options} -o fed")));
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(last_line(&again).contains("fed"), "{again:?}");
}

fn stop(sandbox: &Sandbox) {
    let mut stop = Command::new(launcher());
    run(stop.arg("stop").env("XDG_RUNTIME_DIR", sandbox.path(""))).succeeds();
}

/// Moves a part of the prepared set to where parts appear.
fn appears(sandbox: &Sandbox, set: &str, name: &str) {
    fs::rename(sandbox.path(&format!("parts/{set}/{name}")), sandbox.path(&format!("arriving/{name}")))
        .unwrap();
}

#[test]
fn parts_are_trained_on_as_they_appear() {
    let mut hashes = Vec::new();
    for there_before in [4, 1, 0] {
        let sandbox = prepared("csv2");
        fs::create_dir(sandbox.path("arriving")).unwrap();
        let names: Vec<String> = (0..4).map(|part| format!("part-{part:05}")).collect();
        let (first, later) = names.split_at(there_before);
        first.iter().for_each(|name| appears(&sandbox, "train", name));
        if there_before > 0 {
            appears(&sandbox, "train", "_manifest.json");
        }
        let arguments = format!("train {RECIPE} -f csv2 --images arriving -m m --checkpoint-secs 0.000001");
        let mut job = start(&mut sandbox.muster("run --follow -n 3 --heartbeat-timeout 2", &arguments));
        if there_before > 0 {
            job.says("plan:");
        } else {
            // Longer than a rank may be silent. The shape of records is that of the manifest, and not the program's.
            std::thread::sleep(std::time::Duration::from_secs(3));
            appears(&sandbox, "train", "_manifest.json");
        }
        for name in later {
            std::thread::sleep(std::time::Duration::from_millis(700));
            appears(&sandbox, "train", name);
        }
        eventually("all whole batches", || sandbox.checkpoints("m").last() == Some(&(TRAIN as u64 / 30)));
        stop(&sandbox);
        let outcome = job.ends();
        assert_eq!(outcome.status.code(), Some(143), "{outcome:?}");
        assert_eq!(used(&outcome), TRAIN as u64);
        hashes.push(sandbox.json("r.json")["weights_sha256"].clone());
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[2]);
}

#[test]
fn a_job_that_waits_for_its_first_part_can_be_stopped() {
    let sandbox = prepared("csv2");
    let arguments = format!("train {RECIPE} -f csv2 --images arriving -m m");
    let mut job = start(&mut sandbox.muster("run --follow -n 3", &arguments));
    eventually("all ranks", || {
        let mut status = Command::new(launcher());
        let status = run(status.arg("status").env("XDG_RUNTIME_DIR", sandbox.path("")));
        status.stdout.contains("the ranks begin")
    });
    stop(&sandbox);
    let outcome = job.ends();
    assert_eq!((outcome.status.code(), used(&outcome)), (Some(143), 0), "{outcome:?}");
}

/// Whoever asks first gets the next records; a worker that waits for a part gives its step back when the job is stopped.
#[test]
fn asynchronous_workers_train_on_parts_as_they_appear() {
    for options in ["--async", "--max-staleness 0"] {
        let sandbox = prepared("csv2");
        fs::create_dir(sandbox.path("arriving")).unwrap();
        ["_manifest.json", "part-00000"].iter().for_each(|name| appears(&sandbox, "train", name));
        let arguments =
            format!("train {RECIPE} -f csv2 --images arriving -m m --checkpoint-secs 0.000001 {options}");
        let follow = || start(&mut sandbox.muster("run --follow -n 4 --heartbeat-timeout 2", &arguments));
        let batches = |parts: &[usize]| {
            let name = |part| format!("arriving/part-{part:05}");
            let lines = parts
                .iter()
                .map(|&part| fs::read_to_string(sandbox.path(&name(part))).unwrap().lines().count());
            lines.sum::<usize>() as u64 / 30
        };
        let mut job = follow();
        job.says("plan:");
        eventually("the first part", || sandbox.checkpoints("m").last() == Some(&batches(&[0])));
        appears(&sandbox, "train", "part-00001");
        let done = batches(&[0, 1]);
        eventually("the second part", || sandbox.checkpoints("m").last() == Some(&done));
        stop(&sandbox);
        let outcome = job.ends();
        assert_eq!(outcome.status.code(), Some(143), "{options}: {outcome:?}");
        assert_eq!(used(&outcome), 30 * done, "{options}: {outcome:?}");
        // It goes on behind what was used.
        let mut job = follow();
        job.says("plan:");
        ["part-00002", "part-00003"].iter().for_each(|name| appears(&sandbox, "train", name));
        let all = batches(&[0, 1, 2, 3]);
        eventually("all parts", || sandbox.checkpoints("m").last() == Some(&all));
        stop(&sandbox);
        let outcome = job.ends();
        assert_eq!(used(&outcome), 30 * (all - done), "{options}: {outcome:?}");
        assert_eq!(sandbox.json("r.json")["steps"], all);
    }
}

#[test]
fn parts_are_classified_as_they_appear() {
    let sandbox = prepared("csv2");
    sandbox.train("--hidden 20 -e 1").succeeds();
    fs::create_dir(sandbox.path("arriving")).unwrap();
    ["part-00000", "_manifest.json"].iter().for_each(|name| appears(&sandbox, "test", name));
    let mut job =
        start(&mut sandbox.muster("run -n 2", "inference -f csv2 --images arriving -o fed --follow"));
    let lines = |part: usize| {
        fs::read_to_string(sandbox.path(&format!("fed/part-{part:05}")))
            .map_or(0, |text| text.lines().count())
    };
    eventually("the first part", || lines(0) > 0);
    assert_eq!(lines(1), 0);
    appears(&sandbox, "test", "part-00001");
    eventually("the second part", || lines(1) > 0);
    stop(&sandbox);
    let outcome = job.ends();
    assert_eq!(used(&outcome), (lines(0) + lines(1)) as u64, "{outcome:?}");
}
