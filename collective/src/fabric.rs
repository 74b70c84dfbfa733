//! What carries MPI's messages: by what MPI has selected, by the devices that are open in the process, and by the counters of their ports.
//!
//! No MPI has a call that says it. Open MPI's components that are still open after the selection are known by the files that are mapped,
//! or, where they are part of its library, by the variables of the tool interface; UCX writes to its log which transports an endpoint has; and a process that uses RDMA has a device open, whatever library
//! did that. Which of them carried the data is proved by the counters of the ports, where there are any.

use crate::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The change of counters, by `host device/port counter`.
pub type Counters = BTreeMap<String, u64>;

/// What carries the messages of one rank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fabric {
    /// What MPI has selected: the layer that sends, then what it sends over, such as `ob1`, `tcp` or `ucx`, `rc_mlx5/mlx5_0`.
    pub layers: Vec<String>,
    /// RDMA devices that the process has open, such as `mlx5_0`.
    pub devices: Vec<String>,
}

/// Layers of Open MPI that do not leave the node; `vader` is the older name of `sm`.
const WITHIN_A_NODE: [&str; 3] = ["sm", "smcuda", "vader"];
/// Layers of Open MPI that need an RDMA device.
const RDMA_ONLY: [&str; 2] = ["openib", "uct"];
/// Layers that only stand before another one.
const AROUND: [&str; 4] = ["base", "monitoring", "v", "wrapper"];

impl Fabric {
    /// The components of Open MPI that are files of their own, by the files that a process has mapped (proc_pid_maps(5)): `pml_ob1`. Those
    /// that were not selected are closed again. None if the layers that send and those below are not among them.
    pub fn mapped_components(maps: &str, library: &str) -> Vec<String> {
        // What is left of `sm` in version 4 only says that it is `vader` now.
        let is_one = |name: &&str| !(library.starts_with("Open MPI v4") && *name == "btl_sm");
        let component = |line: &str| {
            let (_, file) = line.rsplit_once("/mca_")?;
            file.strip_suffix(".so").filter(is_one).map(str::to_owned)
        };
        let names: BTreeSet<String> = maps.lines().filter_map(component).collect();
        let has = |framework: &str| names.iter().any(|name| name.starts_with(framework));
        if has("pml_") && has("btl_") { names.into_iter().collect() } else { Vec::new() }
    }

    /// From the names of Open MPI's components or of their variables, what UCX's log says, and the open devices, when the ranks are on `nodes` nodes. Version 5
    /// keeps variables of components that were not selected: where several remain, they are one layer `a|b`, which is neither.
    pub fn of_open_mpi<'a>(
        variables: impl Iterator<Item = &'a str>,
        ucx: &[String],
        devices: Vec<String>,
        nodes: usize,
    ) -> Fabric {
        let parts = |name: &'a str| {
            let mut parts = name.split('_');
            Some((parts.next()?, parts.next()?))
        };
        let open: BTreeSet<_> =
            variables.filter_map(parts).filter(|(_, name)| !AROUND.contains(name)).collect();
        let of = |framework: &str| {
            let names = open.iter().filter(|(of, _)| *of == framework).map(|(_, name)| *name);
            names.collect::<Vec<_>>()
        };
        let mut senders = of("pml");
        if !ucx.is_empty() && senders.contains(&"ucx") {
            senders = vec!["ucx"];
        } else if senders.len() > 1 {
            senders.retain(|name| *name != "ucx");
        }
        let over = match senders[..] {
            ["ucx"] => ucx.to_vec(),
            ["ob1"] => {
                let (near, far): (Vec<_>, Vec<_>) = of("btl")
                    .into_iter()
                    .filter(|name| *name != "self" && (!devices.is_empty() || !RDMA_ONLY.contains(name)))
                    .partition(|name| WITHIN_A_NODE.contains(name));
                match nodes == 1 && !near.is_empty() {
                    true => near.into_iter().take(1).map(str::to_owned).collect(),
                    false => one_of(&far),
                }
            }
            ["cm"] => one_of(&of("mtl")),
            _ => Vec::new(),
        };
        Fabric { layers: one_of(&senders).into_iter().chain(over).collect(), devices }
    }

    /// The transports that UCX's log names, but for those within a process: `… ep_cfg[1]: tag(rc_mlx5/mlx5_0:1 cma/memory) …`
    pub fn ucx_transports(log: &str) -> Vec<String> {
        let mut found = BTreeSet::new();
        for line in log.lines() {
            let Some((_, rest)) = line.split_once(" tag(").or_else(|| line.split_once(" am(")) else {
                continue;
            };
            let transports = rest.split(')').next().unwrap_or("").split_whitespace();
            found.extend(transports.filter(|name| !name.starts_with("self")).map(str::to_owned));
        }
        found.into_iter().collect()
    }

    /// The RDMA devices that a process has open; `process` is its folder in `/proc`, `sys` stands for `/sys`.
    pub fn open_devices(process: &Path, sys: &Path) -> Vec<String> {
        let Ok(files) = fs::read_dir(process.join("fd")) else { return Vec::new() };
        let device = |path: &Path| {
            let name = path.to_str()?.strip_prefix("/dev/")?;
            if let Some(verbs) = name.strip_prefix("infiniband/uverbs") {
                let known = sys.join(format!("class/infiniband_verbs/uverbs{verbs}/ibdev"));
                let known = fs::read_to_string(known).ok().map(|name| name.trim().to_owned());
                return Some(known.unwrap_or_else(|| format!("uverbs{verbs}")));
            }
            // Omni-Path and Slingshot have drivers of their own.
            (name.starts_with("hfi1_") || name.starts_with("cxi")).then(|| name.to_owned())
        };
        let opened = files.filter_map(|file| device(&fs::read_link(file.ok()?.path()).ok()?));
        opened.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether it gets memory of another rank without the processor there. Elsewhere MPI emulates that by messages which the other side
    /// has to poll for, slower than messages of our own; so only UCX's reliable and dynamic connections of an open device count.
    pub fn has_native_rma(&self) -> bool {
        let is_connected = |layer: &String| layer.starts_with("rc_") || layer.starts_with("dc_");
        !self.devices.is_empty() && self.layers.iter().any(is_connected)
    }

    /// As one line.
    pub fn line(&self) -> String {
        format!("{}\t{}", self.layers.join(","), self.devices.join(","))
    }

    /// Of such a line.
    pub fn of(line: &str) -> Fabric {
        let (layers, devices) = line.split_once('\t').unwrap_or((line, ""));
        let words = |text: &str| text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        Fabric { layers: words(layers), devices: words(devices) }
    }

    /// For people: `ob1 over tcp, no RDMA device open`.
    pub fn name(&self) -> String {
        let layers = match self.layers.split_first() {
            None => "an unknown transport of MPI".to_owned(),
            Some((first, [])) => first.clone(),
            Some((first, others)) => format!("{first} over {}", others.join(", ")),
        };
        match &self.devices[..] {
            [] => format!("{layers}, no RDMA device open"),
            devices => format!("{layers}, RDMA devices open: {}", devices.join(", ")),
        }
    }

    /// Whether this is what `wanted` names: a layer, a transport or device of it, or `rdma` for any RDMA device.
    fn is(&self, wanted: &str) -> bool {
        let of_layer = |layer: &String| layer == wanted || layer.split(['/', ':']).any(|part| part == wanted);
        match wanted {
            "rdma" => !self.devices.is_empty(),
            _ => self.layers.iter().any(of_layer) || self.devices.iter().any(|device| device == wanted),
        }
    }
}

/// One layer of several that cannot be told apart.
fn one_of(names: &[&str]) -> Vec<String> {
    if names.is_empty() { Vec::new() } else { vec![names.join("|")] }
}

/// What carries the messages of all ranks, in words.
pub fn describe(ranks: &[Fabric]) -> String {
    let names: Vec<String> = ranks.iter().map(Fabric::name).collect();
    let mut different: Vec<&String> = Vec::new();
    names.iter().for_each(|name| {
        if !different.contains(&name) {
            different.push(name)
        }
    });
    if let [name] = different[..] {
        return name.clone();
    }
    let part = |name: &&String| {
        let ranks: Vec<String> =
            (0..names.len()).filter(|&rank| names[rank] == **name).map(|r| r.to_string()).collect();
        format!("{name} on rank{} {}", if ranks.len() == 1 { "" } else { "s" }, ranks.join(", "))
    };
    different.iter().map(part).collect::<Vec<_>>().join("; ")
}

/// Finds out whether messages go over what is wanted, on all ranks.
///
/// # Errors
/// If not: with what was found.
pub fn require(wanted: &str, ranks: &[Fabric]) -> Result<(), Error> {
    if ranks.iter().all(|fabric| fabric.is(wanted)) {
        return Ok(());
    }
    Err(Error::OtherFabric { wanted: wanted.to_owned(), found: describe(ranks) })
}

/// What the ports of this machine's RDMA devices have sent and received, in the units of their counters: data in words of four
/// bytes. `sys` stands for `/sys`.
pub fn counters(sys: &Path) -> Counters {
    const COUNTERS: [&str; 4] = ["port_xmit_data", "port_rcv_data", "port_xmit_packets", "port_rcv_packets"];
    let folders = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten();
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect::<Vec<_>>()
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Counters::new();
    for device in folders(&sys.join("class/infiniband")) {
        for port in folders(&device.join("ports")) {
            for counter in COUNTERS {
                let value = fs::read_to_string(port.join("counters").join(counter));
                if let Some(value) = value.ok().and_then(|value| value.trim().parse().ok()) {
                    found.insert(format!("{}/{} {counter}", name(&device), name(&port)), value);
                }
            }
        }
    }
    found
}

/// How much counters have grown. Those of 32 bits stop at their end instead of beginning anew.
pub fn change(before: &Counters, after: &Counters) -> Counters {
    let grown =
        |(name, value): (&String, &u64)| Some((name.clone(), value.saturating_sub(*before.get(name)?)));
    after.iter().filter_map(grown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const OB1: [&str; 7] = [
        "pml",
        "pml_base_verbose",
        "pml_ob1_priority",
        "btl_self_latency",
        "btl_tcp_links",
        "btl_vader_x",
        "mtl_ofi_x",
    ];

    fn layers(variables: &[&str], ucx: &[&str], nodes: usize) -> Vec<String> {
        let ucx: Vec<String> = ucx.iter().map(|&name| name.to_owned()).collect();
        Fabric::of_open_mpi(variables.iter().copied(), &ucx, Vec::new(), nodes).layers
    }

    #[test]
    fn open_mpi_s_open_components_are_what_it_uses() {
        assert_eq!(layers(&OB1, &[], 1), ["ob1", "vader"]);
        assert_eq!(layers(&OB1, &[], 2), ["ob1", "tcp"]);
        assert_eq!(layers(&["pml_ob1_x", "btl_self_x", "btl_tcp_x"], &[], 1), ["ob1", "tcp"]);
        let cm = ["pml_cm_priority", "pml_monitoring_x", "mtl_psm2_x"];
        assert_eq!(layers(&cm, &[], 2), ["cm", "psm2"]);
    }

    #[test]
    fn mapped_files_name_the_components_unless_these_are_in_the_library() {
        let line = |name: &str| format!("7f00-7f01 r-xp 00000000 fe:01 7 /usr/lib/{name}\n");
        let maps = |names: &[&str]| names.iter().map(|name| line(name).repeat(2)).collect::<String>();
        let four = maps(&["libmpi.so.40", "openmpi3/mca_pml_ob1.so", "mca_btl_sm.so", "mca_btl_vader.so"]);
        let named = Fabric::mapped_components(&four, "Open MPI v4.1.4");
        assert_eq!(named, ["btl_vader", "pml_ob1"]);
        assert_eq!(Fabric::mapped_components(&four, "Open MPI v5.0.1"), ["btl_sm", "btl_vader", "pml_ob1"]);
        let five = maps(&["libmpi.so.40", "mca_pml_ucx.so", "mca_accelerator_cuda.so"]);
        assert!(Fabric::mapped_components(&five, "Open MPI v5.0.1").is_empty(), "ob1 may be in the library");
    }

    #[test]
    fn what_version_5_leaves_open_is_told_apart_or_named_together() {
        let five = [
            "pml_ob1_x",
            "pml_ucx_x",
            "pml_wrapper_x",
            "btl_ofi_x",
            "btl_sm_x",
            "btl_tcp_x",
            "btl_uct_x",
            "btl_vader_x",
        ];
        assert_eq!(layers(&five, &[], 1), ["ob1", "sm"]);
        assert_eq!(layers(&five, &[], 2), ["ob1", "ofi|tcp"]);
        assert_eq!(layers(&five, &["tcp/eth0"], 2), ["ucx", "tcp/eth0"]);
        let ambiguous = Fabric { layers: layers(&five, &[], 2), devices: Vec::new() };
        assert!(require("ofi", &[ambiguous]).is_err(), "what cannot be told apart proves nothing");
    }

    #[test]
    fn ucx_s_log_names_transports_and_devices() {
        let log = "[1.2] [vm:1:0] parser.c:1916 UCX  INFO  UCX_* env variable: UCX_LOG_LEVEL=info\n\
             [1.3] [vm:1:0] ucp_worker.c:1763 UCX  INFO    ep_cfg[0]: tag(self/memory0 cma/memory) rma(self/memory0)\n\
             [1.4] [vm:1:0] ucp_worker.c:1763 UCX  INFO    ep_cfg[1]: tag(rc_mlx5/mlx5_0:1) rma(rc_mlx5/mlx5_0:1)\n";
        let transports = Fabric::ucx_transports(log);
        let fabric = Fabric {
            layers: ["ucx".to_owned()].into_iter().chain(transports).collect(),
            devices: vec!["mlx5_0".into()],
        };
        assert_eq!(fabric.name(), "ucx over cma/memory, rc_mlx5/mlx5_0:1, RDMA devices open: mlx5_0");
        assert_eq!(Fabric::of(&fabric.line()), fabric);
        let both = [fabric.clone(), fabric];
        for wanted in ["ucx", "rc_mlx5", "mlx5_0", "rdma"] {
            assert_eq!(require(wanted, &both), Ok(()), "{wanted}");
        }
        assert!(require("tcp", &both).is_err());
        assert!(both[0].has_native_rma());
    }

    #[test]
    fn what_is_required_and_not_there_is_told_with_what_was_found() {
        let tcp = Fabric { layers: layers(&OB1, &[], 2), devices: Vec::new() };
        let verbs = Fabric { layers: vec!["ob1".into(), "openib".into()], devices: vec!["mlx4_0".into()] };
        let error = require("rdma", &[verbs, tcp.clone(), tcp]).unwrap_err().to_string();
        for part in [
            "rdma is required",
            "ob1 over openib, RDMA devices open: mlx4_0 on rank 0",
            "ob1 over tcp, no RDMA device open on ranks 1, 2",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn open_devices_are_those_of_the_process() {
        let root = tempfile::tempdir().unwrap();
        let (process, sys) = (root.path().join("proc"), root.path().join("sys"));
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::create_dir_all(sys.join("class/infiniband_verbs/uverbs1")).unwrap();
        fs::write(sys.join("class/infiniband_verbs/uverbs1/ibdev"), "mlx5_1\n").unwrap();
        let files =
            ["/dev/null", "/dev/infiniband/uverbs1", "/dev/infiniband/uverbs1", "/dev/hfi1_0", "socket:[7]"];
        for (number, file) in files.iter().enumerate() {
            symlink(file, process.join("fd").join(number.to_string())).unwrap();
        }
        assert_eq!(Fabric::open_devices(&process, &sys), ["hfi1_0", "mlx5_1"]);
        assert!(Fabric::open_devices(Path::new("/proc/self"), Path::new("/sys")).is_empty());
    }

    #[test]
    fn counters_of_all_ports_and_their_change() {
        let root = tempfile::tempdir().unwrap();
        let write = |port: &str, counter: &str, value: &str| {
            let folder = root.path().join(format!("class/infiniband/{port}/counters"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(counter), value).unwrap();
        };
        write("mlx5_0/ports/1", "port_xmit_data", "1000\n");
        write("mlx5_1/ports/2", "port_rcv_packets", "7\n");
        write("mlx5_1/ports/2", "link_downed", "3\n");
        let before = counters(root.path());
        assert_eq!(before.len(), 2);
        write("mlx5_0/ports/1", "port_xmit_data", "1250\n");
        let change = change(&before, &counters(root.path()));
        let expected = [("mlx5_0/1 port_xmit_data", 250), ("mlx5_1/2 port_rcv_packets", 0)];
        assert_eq!(change, expected.map(|(name, value)| (name.to_owned(), value)).into());
        assert!(counters(Path::new("/nowhere")).is_empty());
    }
}
