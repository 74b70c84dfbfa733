//! A NameNode that restarts, falls silent or is in safe mode.

use std::cell::Cell;
use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use muster::storage::Storage;
use muster_tests::hdfs::{Cluster, NAMENODE};

use crate::{Test, noise};

pub const TESTS: &[Test] = &[
    ("calls_wait_for_a_restart", calls_wait_for_a_restart),
    ("a_read_needs_no_namenode", a_read_needs_no_namenode),
    ("a_write_outlives_a_restart", a_write_outlives_a_restart),
    ("calls_outlive_silence", calls_outlive_silence),
    ("a_write_waits_for_the_end_of_safe_mode", a_write_waits_for_the_end_of_safe_mode),
    ("a_silent_namenode_of_two_is_left", a_silent_namenode_of_two_is_left),
];

const LEN: usize = 32 << 20;

fn write(storage: &Storage, path: &str, bytes: &[u8]) {
    storage.create(path, &|writer| writer.write_all(bytes)).unwrap();
}

fn calls_wait_for_a_restart(cluster: &Cluster) {
    let storage = cluster.storage();
    write(&storage, "/restarted/a", b"a");
    let killed = cluster.kill(&NAMENODE);
    thread::scope(|scope| {
        let restart = scope.spawn(|| {
            thread::sleep(Duration::from_secs(3));
            drop(killed);
        });
        let start = Instant::now();
        assert_eq!(storage.stat("/restarted/a").unwrap().unwrap().bytes, 1);
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(2), "the NameNode was not down");
        restart.join().unwrap();
    });
}

fn a_read_needs_no_namenode(cluster: &Cluster) {
    let storage = cluster.storage();
    let bytes = noise(LEN, 20);
    write(&storage, "/unnamed", &bytes);
    let file = storage.file("/unnamed").unwrap();
    let killed = cluster.kill(&NAMENODE);
    let mut read = Vec::new();
    file.reader(0..LEN as u64).read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    drop(killed);
}

/// The NameNode is away for the second half of the file, in which new blocks are asked for.
fn a_write_outlives_a_restart(cluster: &Cluster) {
    let storage = cluster.storage();
    let bytes = noise(LEN, 21);
    let attempts = Cell::new(0);
    thread::scope(|scope| {
        storage.create("/rewritten/file", &|writer| {
            attempts.set(attempts.get() + 1);
            writer.write_all(&bytes[..LEN / 2])?;
            if attempts.get() == 1 {
                let killed = cluster.kill(&NAMENODE);
                scope.spawn(|| {
                    thread::sleep(Duration::from_secs(5));
                    drop(killed);
                });
            }
            writer.write_all(&bytes[LEN / 2..])
        })
    })
    .unwrap();
    println!("NameNode away for some seconds: written {} times", attempts.get());
    let file = storage.file("/rewritten/file").unwrap();
    assert!(file.bytes(0..file.length()).unwrap() == bytes);
    assert_eq!(storage.list("/rewritten").unwrap().len(), 1, "a temporary file is left over");
}

fn calls_outlive_silence(cluster: &Cluster) {
    let storage = cluster.storage();
    write(&storage, "/silence", b"!");
    let frozen = cluster.freeze(&NAMENODE);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(12));
            drop(frozen);
        });
        assert_eq!(storage.list("/").unwrap().iter().filter(|entry| entry.name == "silence").count(), 1);
        storage.rename("/silence", "/sound").unwrap();
    });
}

fn a_write_waits_for_the_end_of_safe_mode(cluster: &Cluster) {
    let storage = cluster.storage();
    cluster.admin(&["-safemode", "enter"]);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(2));
            cluster.admin(&["-safemode", "leave"]);
        });
        let start = Instant::now();
        write(&storage, "/safe", b"!");
        assert!(start.elapsed() >= Duration::from_secs(2), "there was no safe mode");
    });
}

/// The first NameNode of the name service takes connections and says nothing.
fn a_silent_namenode_of_two_is_left(cluster: &Cluster) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = cluster.config();
    let namenode = config.default_fs().trim_start_matches("hdfs://").to_owned();
    let storage = Storage::new(
        config
            .with("fs.defaultFS", "hdfs://service")
            .with("dfs.ha.namenodes.service", "first,second")
            .with("dfs.namenode.rpc-address.service.first", &silent.local_addr().unwrap().to_string())
            .with("dfs.namenode.rpc-address.service.second", &namenode),
    );
    let start = Instant::now();
    write(&storage, "hdfs://service/two", b"!");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(storage.stat("/two").unwrap().unwrap().bytes, 1);
}
