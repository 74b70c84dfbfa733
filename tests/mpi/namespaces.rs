//! Several nodes, as network namespaces of this machine: memory within each, messages from one leader a node.

use crate::failures::{assert_death, assert_stop};
use crate::stopped::stopper;
use crate::{Mpi, mpi, said};
use muster_tests::machine;
use muster_tests::program::{self, root};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// Two namespaces with one cable between them, made by `tests/mpi/nodes` in the sandbox and removed at the end.
pub struct Nodes<'a> {
    mpi: &'a Mpi,
    addresses: Vec<String>,
}

impl Nodes<'_> {
    /// None for an MPI that is not tested so, and where this machine does not permit namespaces, which CI does.
    pub fn new(mpi: &Mpi) -> Option<Nodes<'_>> {
        if !["openmpi", "mpich"].contains(&mpi.kind.as_str()) {
            return None;
        }
        let begun = program::run(&mut nodes(mpi, "start"));
        if !begun.status.success() {
            assert!(!machine::under_ci(), "network namespaces are not permitted: {begun:?}");
            machine::absent("NET_ADMIN or iproute2: ranks in network namespaces");
            return None;
        }
        Some(Nodes { mpi, addresses: lines(mpi, "addresses") })
    }

    /// A command that another one on the first node is to be added to, with what makes Open MPI's mpirun or MPICH's mpiexec start ranks on
    /// both; and the hosts as `--hosts` takes them, the second with one rank.
    pub fn enter(&self) -> (Command, String) {
        let mut command = Command::new(self.mpi.sandbox.path("enter"));
        command.arg(&lines(self.mpi, "names")[0]).current_dir(self.mpi.sandbox.path("."));
        let agent = self.mpi.sandbox.path("agent").display().to_string();
        for (name, value) in mca(&agent) {
            command.env(format!("OMPI_MCA_{name}"), value);
        }
        command.env("HYDRA_LAUNCHER", "ssh").env("HYDRA_LAUNCHER_EXEC", &agent).env("HYDRA_IFACE", "cable");
        (command, format!("{}:2,{}:1", self.addresses[0], self.addresses[1]))
    }

    /// Cuts the cable.
    pub fn cut(&self) {
        let node = &lines(self.mpi, "names")[1];
        program::run(Command::new("ip").args(["-n", node, "link", "set", "cable", "down"])).succeeds();
    }

    /// Kills all processes of the first node, as many as there may be.
    pub fn kill_first(&self) {
        let node = &lines(self.mpi, "names")[0];
        loop {
            let pids = program::run(Command::new("ip").args(["netns", "pids", node])).succeeds().stdout;
            if pids.is_empty() {
                return;
            }
            pids.split_whitespace().for_each(|pid| self.mpi.signal("KILL", pid));
        }
    }

    /// The launcher on the first node, with so many ranks on each, one node after the other or in turns.
    fn launcher(&self, ranks: usize, in_turns: bool) -> Command {
        let mpi = self.mpi;
        let agent = mpi.sandbox.path("agent").display().to_string();
        let hosts = |slots: usize| {
            let hosts: Vec<String> =
                self.addresses.iter().map(|address| format!("{address}:{slots}")).collect();
            hosts.join(",")
        };
        let mut command = Command::new(mpi.sandbox.path("enter"));
        command.arg(&lines(mpi, "names")[0]);
        let outer = mpi.launcher(&mpi.kind);
        command.arg(outer.get_program()).args(outer.get_args()).current_dir(outer.get_current_dir().unwrap());
        for (name, value) in outer.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(["-n", &(2 * ranks).to_string()]);
        if mpi.kind == "mpich" {
            // Without its interface, hydra's proxies are told to call back at an address that the other node does not reach.
            command.args(["-launcher", "ssh", "-launcher-exec", &agent, "-iface", "cable"]);
            command.args(["-hosts", &hosts(if in_turns { 1 } else { ranks })]);
            return command;
        }
        command.args(["--host", &hosts(ranks), "--map-by", if in_turns { "node" } else { "slot" }]);
        for (name, value) in mca(&agent) {
            command.args(["--mca", name, value]);
        }
        command
    }

    /// `mnist train` on so many ranks a node.
    fn command(&self, ranks: usize, in_turns: bool, options: &str) -> Command {
        let mut command = self.launcher(ranks, in_turns);
        command.arg(&self.mpi.mnist).args(["train", "--threads", "1", "--data", "data"]);
        command.args(options.split_whitespace());
        command
    }
}

impl Drop for Nodes<'_> {
    fn drop(&mut self) {
        let _ = nodes(self.mpi, "stop").status();
    }
}

/// Open MPI's parameters for ranks on both nodes. Its windows over TCP have to be asked for.
fn mca(agent: &str) -> [(&'static str, &str); 5] {
    [
        ("plm_rsh_agent", agent),
        ("btl_tcp_if_include", "cable"),
        ("oob_tcp_if_include", "cable"),
        ("btl", "self,vader,tcp"),
        ("osc", "sm,pt2pt"),
    ]
}

fn nodes(mpi: &Mpi, action: &str) -> Command {
    let mut command = Command::new(root().join("tests/mpi/nodes"));
    command.arg(action).arg(mpi.sandbox.path("."));
    command
}

fn lines(mpi: &Mpi, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(mpi.sandbox.path(file)).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn worlds_over_two_nodes_end_with_the_weights_of_one_process() {
    let Some(mpi) = mpi() else { return };
    let Some(nodes) = Nodes::new(&mpi) else { return };
    let alone = |options: &str| mpi.alone(options)["weights_sha256"].clone();
    let expected = alone("-n 1 -e 1 -b 200 --no-resume");
    // So small a model goes with the words of messages.
    let small = alone("-n 1 -e 1 -b 200 --no-resume --hidden none");
    for (ranks, in_turns, options, transport) in [
        (2, false, "", "leaders"),
        (3, false, "--server-trains", "leaders"),
        (3, true, "", "leaders"),
        (1, false, "", "leaders"),
        (2, false, "--transport messages", "messages"),
        (2, false, "--transport rma", "rma"),
        (2, true, "--hidden none --transport messages", "messages"),
        (2, false, "--hidden none", "leaders"),
    ] {
        let expected = if options.contains("--hidden none") { &small } else { &expected };
        let options = format!("--no-resume --report r -e 1 -b 200 {options}");
        let outcome = program::run(&mut nodes.command(ranks, in_turns, &options)).succeeds();
        let report = mpi.sandbox.json("r");
        let what = format!("{ranks} ranks a node, in turns: {in_turns}, {transport} {options}");
        assert!(outcome.stdout.contains("on 2 nodes"), "{what}: {outcome:?}");
        assert_eq!(&report["weights_sha256"], expected, "{what}");
        let found = (&report["transport"], &report["world_size"]);
        assert_eq!(found, (&Value::from(transport), &Value::from(2 * ranks)), "{what}");
    }
}

#[test]
fn nodes_have_no_memory_in_common() {
    let Some(mpi) = mpi() else { return };
    let Some(nodes) = Nodes::new(&mpi) else { return };
    let outcome = program::run(&mut nodes.command(1, false, "--steps 3 --transport shared"));
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(said(&outcome, &["--transport shared", "on 2 nodes"]), "{outcome:?}");
}

/// Rank 2 leads the other node, on which rank 3 is, too.
#[test]
fn a_leader_or_a_rank_behind_it_that_dies_or_stops_is_named() {
    let Some(mpi) = mpi() else { return };
    let Some(nodes) = Nodes::new(&mpi) else { return };
    let command = |options: &str| nodes.command(2, false, options);
    for rank in [2, 3] {
        assert_death(&mpi, rank, command);
    }
    for rank in [2, 3, 0] {
        assert_stop(&mpi, rank, command);
    }
}

/// Neither its neighbours, as there are none, nor the launcher see that it is stopped.
#[test]
fn a_rank_alone_on_its_node_that_is_stopped_outside_of_steps_is_named() {
    let Some(mpi) = mpi() else { return };
    let Some(nodes) = Nodes::new(&mpi) else { return };
    let library = stopper(&mpi);
    let stop = |(call, rank): (&str, usize)| {
        let options = format!("--steps 3 --step-timeout 1 -m {call}-{rank}");
        let mut command = nodes.command(1, false, &options);
        command.env("LD_PRELOAD", &library).env("STOP_IN", call).env("STOP_RANK", rank.to_string());
        let since = Instant::now();
        let (outcome, took) = (program::run(&mut command), since.elapsed());
        assert!(!outcome.status.success(), "{call}: {outcome:?}");
        let is_named = |so: String| said(&outcome, &[&so, "stopped or stuck", "--step-timeout"]);
        let names = [format!("mnist: rank {rank} "), format!(" for rank {rank} (")];
        assert!(names.into_iter().any(is_named), "{call}: {outcome:?}");
        assert!(took < Duration::from_secs(30), "{call}: {took:?}");
    };
    std::thread::scope(|scope| {
        // Before it has come, reading, while others wait for it, and in what all do together.
        for case in [("MPI_Isend", 1), ("open", 1), ("open", 0), ("MPI_Comm_dup", 1)] {
            scope.spawn(move || stop(case));
        }
    });
}

/// Nobody sees a rank of another node before MPI has begun.
#[test]
#[ignore = "the limit is five minutes: make soak"]
fn a_rank_alone_on_its_node_that_is_stopped_before_mpi_has_begun_ends_the_job() {
    let Some(mpi) = mpi() else { return };
    let mpi = Mpi { seconds: 400, ..mpi };
    let Some(nodes) = Nodes::new(&mpi) else { return };
    let library = stopper(&mpi);
    let mut command = nodes.command(1, false, "--steps 3 --step-timeout 1");
    command.env("LD_PRELOAD", &library).env("STOP_IN", "MPI_Init_thread").env("STOP_RANK", "1");
    let since = Instant::now();
    let (outcome, took) = (program::run(&mut command), since.elapsed());
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(said(&outcome, &["rank 0 has waited 300s for another rank while MPI begins"]), "{outcome:?}");
    let expected = Duration::from_secs(300)..Duration::from_secs(330);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn ranks_on_nodes_of_their_own_that_read_for_longer_than_a_step_may_take_are_waited_for() {
    let Some(mpi) = mpi() else { return };
    let Some(nodes) = Nodes::new(&mpi) else { return };
    let mut command = nodes.command(1, false, "--steps 3 --step-timeout 1");
    program::run(command.env("LD_PRELOAD", stopper(&mpi)).env("SLOW_OPEN", "4")).succeeds();
}
