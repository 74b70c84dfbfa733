//! What storage does when nothing is in its way.

use std::io::{self, Read};

use muster::storage::{Entry, Storage};
use muster_tests::hdfs::Cluster;

use crate::{Test, noise};

pub const TESTS: &[Test] = &[
    ("what_is_written_is_read", what_is_written_is_read),
    ("ranges", ranges),
    ("listing", listing),
    ("a_replacement_is_all_or_nothing", a_replacement_is_all_or_nothing),
    ("rename_and_delete", rename_and_delete),
    ("a_relative_path_is_in_the_home_directory", a_relative_path_is_in_the_home_directory),
    ("viewfs", viewfs),
];

/// Blocks of the cluster are this long.
const BLOCK_LEN: usize = 4 << 20;

fn write(storage: &Storage, path: &str, bytes: &[u8]) {
    storage.create(path, &|writer| writer.write_all(bytes)).unwrap();
}

fn read(storage: &Storage, path: &str) -> Vec<u8> {
    let file = storage.file(path).unwrap();
    file.bytes(0..file.length()).unwrap().to_vec()
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}

fn what_is_written_is_read(cluster: &Cluster) {
    let storage = cluster.storage();
    for len in [0, 1, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 3 * BLOCK_LEN + 12_345] {
        let (path, bytes) = (format!("/round/{len}"), noise(len, len as u64));
        write(&storage, &path, &bytes);
        assert_eq!(storage.stat(&path).unwrap().unwrap().bytes, len as u64);
        assert!(read(&storage, &path) == bytes, "{len} bytes came back different");
    }
}

fn ranges(cluster: &Cluster) {
    let storage = cluster.storage();
    let bytes = noise(2 * BLOCK_LEN + 777, 1);
    let end = bytes.len();
    write(&storage, "/ranges", &bytes);
    let file = storage.file("/ranges").unwrap();
    let middle = BLOCK_LEN - 5;
    for (from, to) in
        [(0, 0), (0, 1), (middle, middle + 10), (1, 2 * BLOCK_LEN + 1), (end - 1, end), (end, end)]
    {
        let range = from as u64..to as u64;
        assert!(file.bytes(range.clone()).unwrap() == bytes[from..to], "bytes {from}..{to} differ");
        let mut read = Vec::new();
        file.reader(range).read_to_end(&mut read).unwrap();
        assert!(read == bytes[from..to], "a reader of {from}..{to} differs");
    }
    let beyond = file.bytes(end as u64 - 1..end as u64 + 1).unwrap_err();
    assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    let mut tail = Vec::new();
    file.reader(end as u64 - 3..u64::MAX).read_to_end(&mut tail).unwrap();
    assert_eq!(tail, bytes[end - 3..]);
    assert_eq!(file.reader(u64::MAX - 1..u64::MAX).read(&mut [0]).unwrap(), 0);
}

fn listing(cluster: &Cluster) {
    let storage = cluster.storage();
    write(&storage, "/list/sub/file", b"!");
    for (name, len) in [("part-00001", 20), ("part-00000", 10), ("_SUCCESS", 0)] {
        write(&storage, &format!("/list/{name}"), &noise(len, 2));
    }
    let entries = storage.list("/list").unwrap();
    assert_eq!(names(&entries), ["_SUCCESS", "part-00000", "part-00001", "sub"]);
    assert_eq!(entries.iter().map(|entry| entry.bytes).collect::<Vec<_>>(), [0, 10, 20, 0]);
    assert_eq!(entries.iter().map(|entry| entry.is_dir).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(names(&storage.list("/list/sub").unwrap()), ["file"]);
    assert!(storage.list("/list/_SUCCESS").is_err());
    let many = 250;
    for number in 0..many {
        write(&storage, &format!("/many/{number}"), b"");
    }
    assert_eq!(storage.list("/many").unwrap().len(), many, "this NameNode lists 100 entries at a time");
}

fn a_replacement_is_all_or_nothing(cluster: &Cluster) {
    let storage = cluster.storage();
    let path = "/replaced/file";
    write(&storage, "/replaced/file", b"old");
    let failed = storage.create(path, &|writer| {
        writer.write_all(&noise(5 << 20, 3))?;
        Err(io::Error::other("the source is exhausted"))
    });
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("the source is exhausted") && message.contains("/replaced/file"), "{message}");
    assert_eq!(read(&storage, "/replaced/file"), b"old");
    write(&storage, "/replaced/file", b"new!");
    assert_eq!(read(&storage, "/replaced/file"), b"new!");
    assert_eq!(names(&storage.list("/replaced").unwrap()), ["file"], "temporary files are left over");
}

fn rename_and_delete(cluster: &Cluster) {
    let storage = cluster.storage();
    write(&storage, "/renamed/a/file", b"a");
    write(&storage, "/renamed/b/file", b"b");
    let occupied = storage.rename("/renamed/a", "/renamed/b").unwrap_err().to_string();
    assert!(occupied.contains("/renamed/b") && occupied.contains("exist"), "{occupied}");
    storage.rename("/renamed/a", "/renamed/c").unwrap();
    assert_eq!(read(&storage, "/renamed/c/file"), b"a");
    storage.delete("/renamed/b").unwrap();
    storage.delete("/renamed/b").unwrap();
    assert_eq!(names(&storage.list("/renamed").unwrap()), ["c"]);
    let elsewhere = storage.rename("/renamed/c", "file:///tmp/c").unwrap_err().to_string();
    assert!(elsewhere.contains("another file system"), "{elsewhere}");
}

fn a_relative_path_is_in_the_home_directory(cluster: &Cluster) {
    let storage = Storage::new(cluster.config().with_user("carol"));
    let root = cluster.storage();
    write(&root, "/user/root/first", b"");
    let refused = storage.create("data/x", &|_| Ok(())).unwrap_err().to_string();
    assert!(refused.contains("user=carol") && refused.contains("/user"), "{refused}");

    let me = cluster.storage();
    write(&me, "data/x", b"mine");
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    assert_eq!(read(&me, &format!("/user/{user}/data/x")), b"mine");
    assert_eq!(names(&me.list("data").unwrap()), ["x"]);
}

fn viewfs(cluster: &Cluster) {
    let config = cluster.config();
    let namenode = config.default_fs().to_owned();
    let storage = Storage::new(
        config
            .with("fs.defaultFS", "viewfs://view")
            .with("fs.viewfs.mounttable.view.link./data", &format!("{namenode}/mounted"))
            .with("fs.viewfs.mounttable.view.linkFallback", &format!("{namenode}/")),
    );
    write(&storage, "viewfs://view/data/file", b"through the view");
    assert_eq!(read(&storage, "/data/file"), b"through the view");
    assert_eq!(read(&cluster.storage(), "/mounted/file"), b"through the view");
    assert_eq!(names(&storage.list("/data").unwrap()), ["file"]);
}
