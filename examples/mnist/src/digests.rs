//! Digests of files. The first rank of each node finds them and tells the others, whose files are the same.

use muster::dataset::Dataset;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// The file of this program.
const PROGRAM: &str = "/proc/self/exe";

/// Those that are known, by what tells files of one machine apart.
#[derive(Default)]
pub struct Digests(Mutex<BTreeMap<String, Value>>);

impl Digests {
    /// Those of a data set that was read from `files`, none of which is a directory.
    pub fn content(&self, dataset: &Dataset, files: &[&Path]) {
        dataset.know(self.of(files, || *dataset.content()));
    }

    /// That of this program's file: ranks that were built from different sources may have the same version.
    pub fn program(&self) -> String {
        let find = || {
            let mut hash = blake3::Hasher::new();
            let read = std::fs::File::open(PROGRAM).and_then(|file| hash.update_reader(file).map(drop));
            read.map_or_else(|error| error.to_string(), |()| hash.finalize().to_hex()[..16].to_owned())
        };
        self.of(&[Path::new(PROGRAM)], find)
    }

    fn of<T: Serialize + DeserializeOwned>(&self, files: &[&Path], find: impl FnOnce() -> T) -> T {
        let Some(identity) = identity(files) else { return find() };
        let known = self.lock().get(&identity).cloned();
        known.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_else(|| {
            let found = find();
            self.lock().insert(identity, serde_json::to_value(&found).expect("digests have a JSON form"));
            found
        })
    }

    /// What another rank of this node can [`learn`](Digests::learn).
    pub fn text(&self) -> String {
        serde_json::to_string(&*self.lock()).expect("digests have a JSON form")
    }

    /// What another rank of this node has found.
    pub fn learn(&self, text: &str) {
        self.lock().extend(serde_json::from_str::<BTreeMap<_, _>>(text).unwrap_or_default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.0.lock().expect("no panic while it is held")
    }
}

/// Device, number, length and the time of the last change of each file; none if one of them cannot be looked at.
fn identity(files: &[&Path]) -> Option<String> {
    let of = |path: &&Path| {
        let file = std::fs::metadata(path).ok()?;
        let (device, number, length) = (file.dev(), file.ino(), file.len());
        Some(format!("{device}/{number} of {length} at {}.{:09}", file.ctime(), file.ctime_nsec()))
    };
    Some(files.iter().map(of).collect::<Option<Vec<_>>>()?.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_rank_has_told_is_not_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        [&one, &other].iter().for_each(|path| std::fs::write(path, "1").unwrap());
        let (first, second) = (Digests::default(), Digests::default());
        let find = |digests: &Digests, files: &[&Path], found: u8| digests.of(files, || found);
        assert_eq!([7, 8].map(|found| find(&first, &[&one, &other], found)), [7, 7]);
        second.learn(&first.text());
        assert_eq!(find(&second, &[&one, &other], 9), 7);
        assert_eq!(find(&second, &[&one], 9), 9, "of one file alone nothing was told");
        // Replaced by another of the same length.
        std::fs::write(directory.path().join("new"), "2").unwrap();
        std::fs::rename(directory.path().join("new"), &one).unwrap();
        assert_eq!(find(&second, &[&one, &other], 10), 10);
        assert_eq!([11, 12].map(|found| find(&second, &[Path::new("/none")], found)), [11, 12]);
        second.learn("no JSON");
        assert_eq!(first.program(), second.program());
    }
}
