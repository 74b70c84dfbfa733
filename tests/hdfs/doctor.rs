//! What the doctor says of a cluster.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use muster::doctor::{Finding, examine};
use muster::storage::Storage;
use muster_tests::hdfs::Cluster;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("a_healthy_cluster_is_found_so", a_healthy_cluster_is_found_so),
    ("a_missing_permission_is_found", a_missing_permission_is_found),
    ("a_missing_namenode_is_found", a_missing_namenode_is_found),
];

fn examined(storage: &Storage, path: &str) -> Vec<Finding> {
    let findings = examine(storage, &[PathBuf::from(path)]);
    for finding in &findings {
        println!("{finding}");
    }
    findings
}

fn a_healthy_cluster_is_found_so(cluster: &Cluster) {
    let storage = cluster.storage();
    let before = storage.list("/").unwrap();
    let findings = examined(&storage, "/not/there/yet");
    assert!(findings.iter().all(|finding| finding.good));
    assert!(findings[0].what.contains("core-site.xml") && findings[0].what.contains("hdfs://127.0.0.1:"));
    assert!(findings.last().unwrap().what.starts_with("/: files in it can be written"));
    assert_eq!(storage.list("/").unwrap(), before, "something is left over");
}

fn a_missing_permission_is_found(cluster: &Cluster) {
    let findings = examined(&Storage::new(cluster.config().with_user("dave")), "/");
    assert!(findings[1].what.contains("dave"));
    let (wrong, good) = findings.split_last().unwrap();
    assert!(
        good.iter().all(|finding| finding.good) && good.iter().any(|finding| finding.what.contains("listed"))
    );
    assert!(!wrong.good && wrong.what.contains("user=dave") && wrong.what.contains("check the permissions"));
}

fn a_missing_namenode_is_found(cluster: &Cluster) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = cluster.config().with("fs.defaultFS", &format!("hdfs://{free}"));
    let start = Instant::now();
    let wrong = examined(&Storage::new(config), "/x").pop().unwrap();
    assert!(!wrong.good && wrong.what.contains(&format!("fs.defaultFS is hdfs://{free}")));
    assert!(wrong.what.contains("refused") && start.elapsed() < Duration::from_secs(30), "{wrong}");
}
