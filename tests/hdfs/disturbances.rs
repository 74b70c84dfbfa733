//! Whole programs while DataNodes are killed, and over blocks that a disk has damaged.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use muster::storage::Storage;
use muster_tests::digits::{NAMES, SIDE, idx, pictures};
use muster_tests::hdfs::{Cluster, DATANODES};
use muster_tests::program::{Running, Sandbox, eventually, run, start};

use crate::Test;
use crate::programs::{mnist, newest, text};

pub const TESTS: &[Test] = &[
    ("a_preparation_outlives_a_datanode", a_preparation_outlives_a_datanode),
    ("an_inference_outlives_a_datanode", an_inference_outlives_a_datanode),
    ("checkpoints_outlive_a_datanode", checkpoints_outlive_a_datanode),
    ("a_training_reads_damaged_blocks_elsewhere", a_training_reads_damaged_blocks_elsewhere),
];

/// So many that writing them takes a while.
const LARGE: usize = 12_000;

/// Two more files of IDX, in `large/`.
fn large(sandbox: &Sandbox) {
    let (images, labels) = pictures(LARGE, 9);
    fs::create_dir(sandbox.path("large")).unwrap();
    fs::write(sandbox.path("large").join(NAMES[0]), idx(&[LARGE, SIDE, SIDE], &images)).unwrap();
    fs::write(sandbox.path("large").join(NAMES[1]), idx(&[LARGE], &labels)).unwrap();
}

/// Kills a DataNode once the first of the parts is there that go to `output`, which must not be whole by then.
fn killed_while_writing(cluster: &Cluster, mut program: Running, parent: &str, output: &str, parts: &str) {
    let storage = cluster.storage();
    let prefix = format!(".{output}.");
    let begun = || {
        let entries = storage.list(parent).unwrap_or_default().into_iter();
        let mut staging = entries.filter(|entry| entry.name.starts_with(&prefix));
        staging.any(|entry| {
            let parts = storage.list(format!("{parent}/{}{parts}", entry.name)).unwrap_or_default();
            parts.iter().any(|part| part.name.starts_with("part-"))
        })
    };
    eventually("the first part", begun);
    let killed = cluster.kill(&["datanode2"]);
    let whole = storage.stat(format!("{parent}/{output}")).unwrap();
    assert!(whole.is_none(), "the output was whole before a DataNode was killed: write more");
    let outcome = program.ends();
    assert!(outcome.status.success(), "{outcome:?}");
    drop(killed);
    let names = storage.list(parent).unwrap().into_iter().map(|entry| entry.name);
    assert_eq!(names.filter(|name| name.starts_with('.')).count(), 0, "something is left over");
}

fn a_preparation_outlives_a_datanode(cluster: &Cluster) {
    let sandbox = Sandbox::new();
    large(&sandbox);
    let program =
        start(&mut mnist(cluster, &sandbox, "prepare --data large -n 30 -v -f csv2 -o /killed/data"));
    killed_while_writing(cluster, program, "/killed", "data", "/train");
    let outcome = run(&mut mnist(cluster, &sandbox, "prepare -r -v -f csv2 -o /killed/data")).succeeds();
    assert!(outcome.stdout.contains(&format!("{LARGE} records in 30 parts")), "{outcome:?}");
}

fn an_inference_outlives_a_datanode(cluster: &Cluster) {
    let (sandbox, storage) = (Sandbox::new(), cluster.storage());
    large(&sandbox);
    run(&mut mnist(cluster, &sandbox, "prepare --data large -n 60 -f tfr -o /classified/data")).succeeds();
    let local = format!("file://{}", sandbox.path("").display());
    let inference = |data: &str, out: &str| {
        mnist(cluster, &sandbox, &format!("inference -m {local}/model {data} -o {out}"))
    };
    run(&mut mnist(cluster, &sandbox, &format!("train --data data --hidden 20 -e 1 -m {local}/model")))
        .succeeds();
    run(&mut inference("--data large", &format!("{local}/expected"))).succeeds();
    let program = start(&mut inference("-f tfr -i /classified/data/train -r 1", "/classified/out"));
    killed_while_writing(cluster, program, "/classified", "out", "");
    let all: String =
        (0..60).map(|part| text(&storage, &format!("/classified/out/part-{part:05}"))).collect();
    assert!(all == fs::read_to_string(sandbox.path("expected/part-00000")).unwrap());
    assert!(storage.stat("/classified/out/_SUCCESS").unwrap().is_some());
}

/// Checkpoint after checkpoint, while a DataNode dies and comes back.
fn checkpoints_outlive_a_datanode(cluster: &Cluster) {
    let (sandbox, options) = (Sandbox::new(), "train --data data --hidden 20 -e 2000 --checkpoint-secs 0.3");
    let hash = sandbox.hash("--hidden 20 -e 2000 -m direct");
    let train = format!("{options} -m /kept/model --report r.json");
    let mut training = start(&mut mnist(cluster, &sandbox, &train));
    let storage = cluster.storage();
    let newest = || newest(&storage, "/kept/model");
    training.says_until("epoch", "a checkpoint", || newest().is_some());
    let killed = cluster.kill(&DATANODES[..1]);
    let before = newest();
    training.says_until("epoch", "a newer checkpoint", || newest() > before);
    drop(killed);
    let outcome = training.ends();
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(sandbox.json("r.json")["weights_sha256"], hash.as_str());
    let again = run(&mut mnist(cluster, &sandbox, &train)).succeeds();
    assert!(!again.stderr.contains("not a whole model"), "{again:?}");
    assert_eq!(sandbox.json("r.json")["weights_sha256"], hash.as_str(), "what was saved is what was trained");
}

/// The blocks of some DataNodes that hold `content`.
fn replicas(cluster: &Cluster, nodes: &[&str], content: &[u8]) -> Vec<PathBuf> {
    let blocks = nodes.iter().flat_map(|node| cluster.block_files(node));
    let of_length =
        blocks.filter(|block| fs::metadata(block).is_ok_and(|found| found.len() == content.len() as u64));
    of_length.filter(|block| fs::read(block).is_ok_and(|found| found == content)).collect()
}

/// Writes over the middle of a block.
fn damage(block: &Path) {
    let file = OpenOptions::new().write(true).open(block).unwrap();
    file.write_all_at(b"damaged by a disk", fs::metadata(block).unwrap().len() / 2).unwrap();
}

/// Two of the three replicas of every part are damaged, so that most reads meet one.
fn a_training_reads_damaged_blocks_elsewhere(cluster: &Cluster) {
    let (sandbox, storage) = (Sandbox::new(), cluster.storage());
    let hash = sandbox.hash("--hidden 20 -e 2 -m direct");
    for format in ["csv2", "tfr"] {
        let prepare = format!("prepare --data data -n 4 -f {format} -o /damaged-{format}");
        run(&mut mnist(cluster, &sandbox, &prepare)).succeeds();
        let train = format!("/damaged-{format}/train");
        for part in parts(&storage, &train) {
            let file = storage.file(Path::new(&train).join(&part)).unwrap();
            let content = file.bytes(0..file.length()).unwrap();
            // A node that was too busy to take part in the write gets its replica later, perhaps from one that is damaged here.
            eventually("all replicas", || replicas(cluster, &DATANODES, &content).len() == DATANODES.len());
            replicas(cluster, &DATANODES[..2], &content).iter().for_each(|block| damage(block));
        }
        let options = format!(
            "train --hidden 20 -e 2 -f {format} -i {train} -m /damaged-{format}/model --report r.json"
        );
        run(&mut mnist(cluster, &sandbox, &options)).succeeds();
        assert_eq!(sandbox.json("r.json")["weights_sha256"], hash.as_str(), "{format}");
    }
}

fn parts(storage: &Storage, directory: &str) -> Vec<String> {
    let names = storage.list(directory).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.starts_with("part-")).collect()
}
