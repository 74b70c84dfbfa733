//! Several nodes, as network namespaces of this machine: memory within each, messages from one leader a node.
//!
//! A node has a host name and a `/dev/shm` of its own, too; MPI names what ranks share by the former and puts it into the latter.

use crate::{Mpi, mpi};
use muster_tests::{machine, program};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// Two namespaces with one cable between them, removed at the end.
pub struct Nodes {
    names: [String; 2],
    addresses: [String; 2],
}

impl Nodes {
    /// None where this machine does not permit them, which CI does.
    pub fn new(mark: &str) -> Option<Nodes> {
        // Tests of several checkouts may run at the same time.
        let number = std::process::id();
        let names = ["a", "b"].map(|side| format!("muster-{mark}{number}{side}"));
        let subnet = format!("10.{}.{}", 64 + number / 256 % 64, number % 256);
        let nodes = Nodes { names, addresses: [1, 2].map(|host| format!("{subnet}.{host}")) };
        let begun = ip(&format!("netns add {}", nodes.names[0]));
        if !begun.as_ref().is_ok_and(|output| output.status.success()) {
            assert!(!machine::under_ci(), "network namespaces are not permitted: {begun:?}");
            machine::absent("NET_ADMIN or iproute2: ranks in network namespaces");
            return None;
        }
        nodes.set_up();
        Some(nodes)
    }

    fn set_up(&self) {
        let [a, b] = &self.names;
        let run = |arguments: String| {
            let output = ip(&arguments).expect("ip runs");
            assert!(output.status.success(), "ip {arguments}: {output:?}");
        };
        run(format!("netns add {b}"));
        run(format!("-n {a} link add cable type veth peer name cable netns {b}"));
        for (name, address) in self.names.iter().zip(&self.addresses) {
            run(format!("-n {name} address add {address}/24 dev cable"));
            run(format!("-n {name} link set cable up"));
            run(format!("-n {name} link set lo up"));
        }
    }

    /// Scripts in the sandbox: `enter NODE COMMAND` runs a command there, and `agent ADDRESS COMMAND` takes the place of ssh.
    fn write_scripts(&self, mpi: &Mpi) {
        let write = |name: &str, text: String| {
            fs::write(mpi.sandbox.path(name), text).unwrap();
            fs::set_permissions(mpi.sandbox.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        write(
            "enter",
            "#!/bin/sh\nnode=$1; shift\nexec ip netns exec $node unshare --uts --mount sh -c \
             'hostname \"$0\" && mount -t tmpfs tmpfs /dev/shm && exec \"$@\"' $node \"$@\"\n"
                .to_owned(),
        );
        let ways = self.names.iter().zip(&self.addresses);
        let cases: Vec<String> = ways.map(|(name, address)| format!("{address}) node={name} ;;")).collect();
        let (cases, enter) = (cases.join(" "), mpi.sandbox.path("enter").display().to_string());
        let agent = format!(
            "#!/bin/sh\ncase $1 in {cases} *) exit 1 ;; esac\nshift\nexec {enter} $node sh -c \"$*\"\n"
        );
        write("agent", agent);
    }

    /// A command that another one in the first namespace is to be added to, with what makes Open MPI's mpirun start ranks in both; and the
    /// hosts as `--hosts` takes them, the second with one rank.
    pub fn enter(&self, mpi: &Mpi) -> (Command, String) {
        self.write_scripts(mpi);
        let mut command = Command::new(mpi.sandbox.path("enter"));
        command.arg(&self.names[0]).current_dir(mpi.sandbox.path("."));
        let agent = mpi.sandbox.path("agent").display().to_string();
        for (name, value) in mca(&agent) {
            command.env(format!("OMPI_MCA_{name}"), value);
        }
        let [a, b] = &self.addresses;
        (command, format!("{a}:2,{b}:1"))
    }

    /// Cuts the cable.
    pub fn cut(&self) {
        let output = ip(&format!("-n {} link set cable down", self.names[1])).expect("ip runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// The launcher in the first namespace, with so many ranks on each node, placed as `order` says.
    fn launcher(&self, mpi: &Mpi, ranks: usize, order: &str) -> Command {
        self.write_scripts(mpi);
        let agent = mpi.sandbox.path("agent").display().to_string();
        let hosts: Vec<String> = self.addresses.iter().map(|address| format!("{address}:{ranks}")).collect();
        let mut command = Command::new(mpi.sandbox.path("enter"));
        command.arg(&self.names[0]);
        let outer = mpi.launcher(&mpi.kind);
        command.arg(outer.get_program()).args(outer.get_args()).current_dir(outer.get_current_dir().unwrap());
        for (name, value) in outer.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(["-n", &(2 * ranks).to_string()]);
        command.args(["--host", &hosts.join(","), "--map-by", order]);
        for (name, value) in mca(&agent) {
            command.args(["--mca", name, value]);
        }
        command
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

/// Open MPI's parameters for ranks in both namespaces. Its windows over TCP have to be asked for.
fn mca(agent: &str) -> [(&'static str, &str); 5] {
    [
        ("plm_rsh_agent", agent),
        ("btl_tcp_if_include", "cable"),
        ("oob_tcp_if_include", "cable"),
        ("btl", "self,vader,tcp"),
        ("osc", "sm,pt2pt"),
    ]
}

fn ip(arguments: &str) -> std::io::Result<Output> {
    Command::new("ip").args(arguments.split_whitespace()).output()
}

#[test]
fn worlds_over_two_nodes_end_with_the_weights_of_one_process() {
    // MPICH's hydra does not start its proxies across these namespaces.
    let Some(mpi) = mpi().filter(|mpi| mpi.kind == "openmpi") else { return };
    let Some(nodes) = Nodes::new("w") else { return };
    let expected = mpi.alone("-n 1 -e 1 -b 200 --no-resume")["weights_sha256"].clone();
    for (ranks, order, options, transport) in [
        (2, "slot", "", "leaders"),
        (3, "slot", "--server-trains", "leaders"),
        (3, "node", "", "leaders"),
        (1, "slot", "", "leaders"),
        (2, "slot", "--transport messages", "messages"),
        (2, "slot", "--transport rma", "rma"),
    ] {
        let mut command = nodes.launcher(&mpi, ranks, order);
        command.arg(&mpi.mnist).args([
            "train",
            "--threads",
            "1",
            "--data",
            "data",
            "--no-resume",
            "--report",
            "r",
        ]);
        command.args(["-e", "1", "-b", "200"]).args(options.split_whitespace());
        let outcome = program::run(&mut command).succeeds();
        let report = mpi.sandbox.json("r");
        let what = format!("{ranks} ranks a node by {order}, {transport} {options}");
        assert!(outcome.stdout.contains("on 2 nodes"), "{what}: {outcome:?}");
        assert_eq!(report["weights_sha256"], expected, "{what}");
        assert_eq!(
            (&report["transport"], &report["world_size"]),
            (&transport.into(), &(2 * ranks).into()),
            "{what}"
        );
    }
}

#[test]
fn nodes_have_no_memory_in_common() {
    // MPICH's hydra does not start its proxies across these namespaces.
    let Some(mpi) = mpi().filter(|mpi| mpi.kind == "openmpi") else { return };
    let Some(nodes) = Nodes::new("m") else { return };
    let mut command = nodes.launcher(&mpi, 1, "slot");
    command.arg(&mpi.mnist).args(["train", "--data", "data", "--steps", "3", "--transport", "shared"]);
    let outcome = program::run(&mut command);
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(crate::said(&outcome, &["--transport shared", "on 2 nodes"]), "{outcome:?}");
}
