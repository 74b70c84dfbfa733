//! The machine that figures were measured on.

use std::fs;
use std::path::Path;

use muster_kernels::Kernels;
use serde::{Deserialize, Serialize};

/// What figures depend on besides the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Vendor's name of the processor, with family and model, since clouds hide the rest of the name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The kernels' back end.
    pub backend: String,
    /// Bytes of each level of cache that the first core has, from the nearest; empty where the system does not tell.
    pub caches: Vec<usize>,
}

impl Machine {
    /// The one that this process runs on.
    pub fn here(kernels: &Kernels) -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let caches = caches(Path::new("/sys/devices/system/cpu/cpu0/cache"));
        Machine { cpu: cpu(&info), cores, backend: kernels.backend().name().to_owned(), caches }
    }

    /// How `other` differs from this one, as a clause for each difference.
    pub fn differences(&self, other: &Machine) -> Vec<String> {
        let sizes = |machine: &Machine| machine.caches.iter().map(|&bytes| size(bytes)).collect::<Vec<_>>();
        let pairs = [
            ("CPU", self.cpu.clone(), other.cpu.clone()),
            ("cores", self.cores.to_string(), other.cores.to_string()),
            ("kernels", self.backend.clone(), other.backend.clone()),
            ("caches", sizes(self).join(" + "), sizes(other).join(" + ")),
        ];
        let differ = pairs.into_iter().filter(|(_, here, there)| here != there);
        differ.map(|(what, here, there)| format!("{what} {there} instead of {here}")).collect()
    }
}

/// A number of bytes as people write it.
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000.. => format!("{} MiB", bytes >> 20),
    }
}

/// The processor by Linux's `/proc/cpuinfo`; its architecture where that has no name.
fn cpu(info: &str) -> String {
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name,
    }
}

/// Bytes of each level that holds data, by Linux's description of a core's caches.
fn caches(directory: &Path) -> Vec<usize> {
    let read = |index: &Path, name: &str| fs::read_to_string(index.join(name)).unwrap_or_default();
    let mut levels: Vec<(u32, usize)> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let index = entry.ok()?.path();
            let holds_data = matches!(read(&index, "type").trim(), "Data" | "Unified");
            let size = read(&index, "size");
            let kib: usize = size.trim().strip_suffix('K')?.parse().ok()?;
            holds_data.then_some((read(&index, "level").trim().parse().ok()?, kib << 10))
        })
        .collect();
    levels.sort_unstable();
    levels.into_iter().map(|(_, bytes)| bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_by_what_linux_says() {
        let info = "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n";
        assert_eq!(cpu(info), "AMD EPYC (family 26, model 2)");
        assert_eq!(cpu(""), std::env::consts::ARCH);
    }

    #[test]
    fn caches_for_data_are_listed_by_level() {
        let directory = tempfile::tempdir().unwrap();
        for (index, level, kind, size) in [
            (0, 1, "Data", "48K"),
            (1, 1, "Instruction", "32K"),
            (3, 3, "Unified", "32768K"),
            (2, 2, "Unified", "1024K"),
        ] {
            let index = directory.path().join(format!("index{index}"));
            fs::create_dir(&index).unwrap();
            for (name, content) in
                [("level", level.to_string()), ("type", kind.into()), ("size", size.into())]
            {
                fs::write(index.join(name), content + "\n").unwrap();
            }
        }
        assert_eq!(caches(directory.path()), [48 << 10, 1 << 20, 32 << 20]);
        assert_eq!(caches(Path::new("/nowhere")), [0; 0]);
    }

    #[test]
    fn differences_name_both_sides() {
        let machine =
            |cores| Machine { cpu: "x".into(), cores, backend: "wide".into(), caches: vec![1 << 15] };
        assert!(machine(2).differences(&machine(2)).is_empty());
        assert_eq!(machine(2).differences(&machine(8)), ["cores 8 instead of 2"]);
    }
}
