//! What HDFS refuses: at once, and with words that help.

use std::io::Read;
use std::time::{Duration, Instant};

use muster::error::Error;
use muster::storage::Storage;
use muster_tests::hdfs::Cluster;

use crate::{Test, noise};

pub const TESTS: &[Test] = &[
    ("an_absent_path", an_absent_path),
    ("a_directory_is_no_file", a_directory_is_no_file),
    ("permission_denied", permission_denied),
    ("quota_exceeded", quota_exceeded),
    ("a_file_in_the_way", a_file_in_the_way),
    ("a_file_that_vanishes_while_it_is_read", a_file_that_vanishes_while_it_is_read),
];

fn write(storage: &Storage, path: &str, bytes: &[u8]) -> Result<(), Error> {
    storage.create(path, &|writer| writer.write_all(bytes))
}

/// The message of a refusal, which must not take as long as something that is waited for.
fn refused<T>(call: impl FnOnce() -> Result<T, Error>) -> String {
    let start = Instant::now();
    let message = call().err().expect("it was not refused").to_string();
    assert!(start.elapsed() < Duration::from_secs(3), "refused after {:?}: {message}", start.elapsed());
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

fn an_absent_path(cluster: &Cluster) {
    let storage = cluster.storage();
    let path = "/absent/part-00000";
    assert_eq!(storage.stat(path).unwrap(), None);
    for message in [
        refused(|| storage.file(path)),
        refused(|| storage.list(path)),
        refused(|| storage.rename(path, "/x")),
    ] {
        assert!(message.contains("check the path"), "{message}");
    }
    assert!(refused(|| storage.file(path)).contains("cannot read /absent/part-00000"));
}

fn a_directory_is_no_file(cluster: &Cluster) {
    let storage = cluster.storage();
    write(&storage, "/directory/file", b"!").unwrap();
    let message = refused(|| storage.file("/directory"));
    assert!(message.contains("not a file"), "{message}");
    let message = refused(|| write(&storage, "/directory", b"!"));
    assert!(message.contains("/directory"), "{message}");
    assert!(storage.stat("/directory").unwrap().unwrap().is_dir);
}

fn permission_denied(cluster: &Cluster) {
    let bob = Storage::new(cluster.config().with_user("bob"));
    write(&cluster.storage(), "/private/file", b"!").unwrap();
    for message in [
        refused(|| write(&bob, "/private/other", b"?")),
        refused(|| bob.delete("/private/file")),
        refused(|| bob.rename("/private/file", "/private/other")),
    ] {
        assert!(message.contains("user=bob") && message.contains("check the permissions"), "{message}");
    }
    assert_eq!(bob.file("/private/file").unwrap().length(), 1);
}

fn quota_exceeded(cluster: &Cluster) {
    let storage = cluster.storage();
    write(&storage, "/quota/first", b"").unwrap();
    // Three replicas of a block of 4 MiB fit, those of two do not.
    cluster.admin(&["-setSpaceQuota", "13m", "/quota"]);
    write(&storage, "/quota/fits", &noise(1000, 30)).unwrap();
    let message = refused(|| write(&storage, "/quota/large", &noise(9 << 20, 30)));
    assert!(message.contains("quota") && message.contains("free some space"), "{message}");
    assert_eq!(storage.list("/quota").unwrap().len(), 2, "a temporary file is left over");
}

fn a_file_in_the_way(cluster: &Cluster) {
    let storage = cluster.storage();
    write(&storage, "/way/file", b"!").unwrap();
    let message = refused(|| write(&storage, "/way/file/below", b"!"));
    assert!(message.contains("/way/file"), "{message}");
}

/// Its blocks go after a while; what matters is that reading ends, with all bytes or an error that names the loss.
fn a_file_that_vanishes_while_it_is_read(cluster: &Cluster) {
    let storage = cluster.storage();
    let bytes = noise(48 << 20, 31);
    write(&storage, "/vanishing", &bytes).unwrap();
    let mut reader = storage.file("/vanishing").unwrap().reader(0..bytes.len() as u64);
    let mut read = vec![0; 1 << 20];
    reader.read_exact(&mut read).unwrap();
    storage.delete("/vanishing").unwrap();
    std::thread::sleep(Duration::from_secs(5));
    match reader.read_to_end(&mut read) {
        Ok(_) => assert!(read == bytes),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains("/vanishing"), "{error}");
        }
    }
}
