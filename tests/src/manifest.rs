//! Manifests of parts that a test has changed.

use muster::parts::manifest::{MANIFEST, Manifest, PartEntry};
use muster::storage::Storage;
use std::path::Path;

/// Makes the manifest in `dir` tell names and lengths of the parts that are there now, so that what is wrong with them is found in them.
pub fn rewrite(storage: &Storage, dir: impl AsRef<Path>) {
    let dir = dir.as_ref();
    let mut manifest = Manifest::read(storage, dir).unwrap().expect("there is a manifest");
    let entries = storage.list(dir).unwrap().into_iter().filter(|entry| entry.name.starts_with("part-"));
    manifest.parts = entries
        .map(|entry| PartEntry { name: entry.name, rows: 0, bytes: entry.bytes, sha256: String::new() })
        .collect();
    let text = serde_json::to_vec(&manifest).unwrap();
    storage.create(dir.join(MANIFEST), &|out| out.write_all(&text)).unwrap();
}
