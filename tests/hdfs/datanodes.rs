//! DataNodes that die, fall silent or hold damaged blocks.

use std::cell::{Cell, RefCell};
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use muster::storage::Storage;
use muster_tests::hdfs::{Cluster, DATANODES, Disturbed};
use muster_tests::program::eventually;

use crate::{Test, noise};

pub const TESTS: &[Test] = &[
    ("a_read_outlives_a_datanode", a_read_outlives_a_datanode),
    ("a_read_outlives_a_silent_datanode", a_read_outlives_a_silent_datanode),
    ("a_read_outlives_all_datanodes", a_read_outlives_all_datanodes),
    ("a_write_outlives_a_datanode", a_write_outlives_a_datanode),
    ("a_write_outlives_two_datanodes", a_write_outlives_two_datanodes),
    ("a_write_outlives_a_silent_datanode", a_write_outlives_a_silent_datanode),
    ("a_damaged_block_is_read_elsewhere", a_damaged_block_is_read_elsewhere),
];

/// Blocks of the cluster are this long.
const BLOCK_LEN: usize = 4 << 20;

/// Twelve blocks: more than is read or written ahead.
const LEN: usize = 12 * BLOCK_LEN;

fn write(storage: &Storage, path: &str, bytes: &[u8]) {
    storage.create(path, &|writer| writer.write_all(bytes)).unwrap();
}

/// Reads a file and disturbs the cluster after the first megabyte.
fn read_disturbed<T>(cluster: &Cluster, path: &str, disturb: impl FnOnce() -> T) -> Duration {
    let storage = cluster.storage();
    let bytes = noise(LEN, 10);
    write(&storage, path, &bytes);
    let mut reader = storage.file(path).unwrap().reader(0..LEN as u64);
    let mut read = vec![0; 1 << 20];
    reader.read_exact(&mut read).unwrap();
    let disturbed = disturb();
    let start = Instant::now();
    reader.read_to_end(&mut read).unwrap();
    let took = start.elapsed();
    drop(disturbed);
    assert!(read == bytes, "what was read differs");
    took
}

fn a_read_outlives_a_datanode(cluster: &Cluster) {
    let took = read_disturbed(cluster, "/dead", || cluster.kill(&DATANODES[..1]));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Nothing is heard of a frozen process, so its silence is waited out: 1 s for each of two attempts, in these tests.
fn a_read_outlives_a_silent_datanode(cluster: &Cluster) {
    let took = read_disturbed(cluster, "/silent", || cluster.freeze(&DATANODES[1..2]));
    assert!(took < Duration::from_secs(8), "{took:?}");
}

/// They come back while the reader waits.
fn a_read_outlives_all_datanodes(cluster: &Cluster) {
    thread::scope(|scope| {
        let took = read_disturbed(cluster, "/all-dead", || {
            let killed = cluster.kill(&DATANODES);
            scope.spawn(|| drop(killed))
        });
        assert!(took < Duration::from_secs(30), "{took:?}");
    });
}

/// Writes a file and disturbs the cluster once, after half of it; gives how often the content was written, and how long
/// that took.
fn write_disturbed<'a>(
    cluster: &'a Cluster,
    path: &str,
    disturb: impl Fn() -> Disturbed<'a>,
) -> (u32, Duration) {
    let storage = cluster.storage();
    let bytes = noise(LEN, 11);
    let (attempts, disturbed) = (Cell::new(0), RefCell::new(None));
    let start = Instant::now();
    storage
        .create(path, &|writer| {
            attempts.set(attempts.get() + 1);
            writer.write_all(&bytes[..LEN / 2])?;
            if attempts.get() == 1 {
                disturbed.replace(Some(disturb()));
            }
            writer.write_all(&bytes[LEN / 2..])
        })
        .unwrap();
    let took = start.elapsed();
    let file = storage.file(path).unwrap();
    assert!(file.bytes(0..file.length()).unwrap() == bytes, "what was written differs");
    drop(disturbed);
    let parent = path.trim_end_matches("/file");
    assert_eq!(storage.list(parent).unwrap().len(), 1, "a temporary file is left over");
    (attempts.get(), took)
}

fn a_write_outlives_a_datanode(cluster: &Cluster) {
    let (attempts, took) = write_disturbed(cluster, "/killed-1/file", || cluster.kill(&DATANODES[..1]));
    println!("a DataNode killed: written {attempts} times in {took:?}");
    assert!(took < Duration::from_secs(40), "{took:?}");
}

fn a_write_outlives_two_datanodes(cluster: &Cluster) {
    let (attempts, took) = write_disturbed(cluster, "/killed-2/file", || cluster.kill(&DATANODES[..2]));
    println!("two DataNodes killed: written {attempts} times in {took:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

fn a_write_outlives_a_silent_datanode(cluster: &Cluster) {
    let (attempts, took) = write_disturbed(cluster, "/frozen/file", || cluster.freeze(&DATANODES[2..]));
    println!("a DataNode frozen: written {attempts} times in {took:?}");
    assert!(attempts > 1, "nothing but a new attempt leads past a frozen DataNode");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// Each DataNode has one replica of another block damaged, so that reading meets some of them.
fn a_damaged_block_is_read_elsewhere(cluster: &Cluster) {
    let storage = cluster.storage();
    let before = DATANODES.map(|node| cluster.block_files(node));
    let bytes = noise(3 * BLOCK_LEN, 12);
    write(&storage, "/damaged", &bytes);
    for (number, node) in DATANODES.into_iter().enumerate() {
        let content = &bytes[number * BLOCK_LEN..][..BLOCK_LEN];
        let replica = || {
            let mut blocks = cluster.block_files(node).into_iter();
            blocks
                .find(|block| !before[number].contains(block) && fs::read(block).is_ok_and(|b| b == content))
        };
        // A node that was too busy to take part in the write gets its replica later.
        eventually("a replica on each DataNode", || replica().is_some());
        let block = OpenOptions::new().write(true).open(replica().expect("it was just there")).unwrap();
        block.write_all_at(&[0; 4096], 1 << 20).unwrap();
    }
    for _ in 0..10 {
        let file = storage.file("/damaged").unwrap();
        assert!(file.bytes(0..file.length()).unwrap() == bytes, "damage was read");
    }
}
