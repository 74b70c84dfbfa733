//! Memory that this process may still use: what the machine has left, and what its control groups allow.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that can still be used; none if the system does not tell. `root` stands for `/`.
///
/// The sources are `/proc/meminfo`, and the limits of all groups that this process is in, see the kernel's `cgroup-v2` and
/// `cgroup-v1/memory`. Cached pages of files count as free, as they do in `MemAvailable`.
pub fn available(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let kib = field(&meminfo, "MemAvailable:")?;
    groups(root).into_iter().filter_map(|group| left(&group)).chain([kib * 1024]).min()
}

/// A folder of the group file system, and its names for a limit and for what is used.
struct Group {
    folder: PathBuf,
    names: (&'static str, &'static str),
}

/// All groups of this process that may limit memory, with the groups around them.
fn groups(root: &Path) -> Vec<Group> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (base, names) = match controllers {
            "" => ("sys/fs/cgroup", ("memory.max", "memory.current")),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"))
            }
            _ => continue,
        };
        let base = root.join(base);
        let own = base.join(path.trim_start_matches('/'));
        let around = own.ancestors().take_while(|folder| folder.starts_with(&base));
        groups.extend(around.map(|folder| Group { folder: folder.to_owned(), names }));
    }
    groups
}

/// What a group's limit leaves; none without a limit.
fn left(Group { folder, names: (limit, used) }: &Group) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let cached = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = field(&cached, "inactive_file").unwrap_or(0);
    Some(number(limit)?.saturating_sub(number(used)?.saturating_sub(cached)))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cgroup: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        let meminfo = "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n";
        for (name, text) in [&[("proc/meminfo", meminfo), ("proc/self/cgroup", cgroup)], files].concat() {
            fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            fs::write(root.path().join(name), text).unwrap();
        }
        available(root.path())
    }

    #[test]
    fn the_tightest_limit_counts() {
        assert_eq!(machine("0::/\n", &[]), Some(4000 * 1024));
        let limit = |limit| {
            [
                ("sys/fs/cgroup/jobs/memory.max", limit),
                ("sys/fs/cgroup/jobs/memory.current", "300000"),
                ("sys/fs/cgroup/jobs/memory.stat", "anon 7\ninactive_file 100000\n"),
                ("sys/fs/cgroup/jobs/7/memory.max", "max"),
                ("sys/fs/cgroup/jobs/7/memory.current", "300000"),
            ]
        };
        assert_eq!(machine("0::/jobs/7\n", &limit("1000000")), Some(800_000));
        assert_eq!(machine("0::/jobs/7\n", &limit("100000")), Some(0));
        assert_eq!(machine("0::/jobs/7\n", &limit("99000000000")), Some(4000 * 1024));
    }

    #[test]
    fn the_first_version_of_groups_is_known_too() {
        let files = [
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000000\n"),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "500000\n"),
        ];
        assert_eq!(machine("5:cpu:/job\n4:memory:/job\n0::/\n", &files), Some(1_500_000));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(available(Path::new("/")).is_some_and(|bytes| bytes > 0));
    }
}
