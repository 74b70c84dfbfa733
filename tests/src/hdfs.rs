//! A real HDFS on loopback whose nodes can be killed and frozen; `hdfs/cluster` has the how.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use muster::storage::{HadoopConfig, Storage};
use tempfile::TempDir;

/// The DataNodes of a cluster.
pub const DATANODES: [&str; 3] = ["datanode1", "datanode2", "datanode3"];

/// The NameNode of a cluster, alone.
pub const NAMENODE: [&str; 1] = ["namenode"];

/// A NameNode and three DataNodes, empty at first; they end and their data goes when this is dropped, and with this
/// process however it ends.
pub struct Cluster {
    directory: TempDir,
}

impl Cluster {
    /// Starts one and waits until it is at work.
    ///
    /// # Panics
    /// When it does not start; the message has the reason.
    #[must_use]
    pub fn start() -> Cluster {
        Cluster::up("up")
    }

    /// The same, with Kerberos and encrypted data.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start_secure() -> Cluster {
        Cluster::up("secure")
    }

    fn up(verb: &str) -> Cluster {
        let cluster = Cluster { directory: tempfile::tempdir().expect("a temporary directory") };
        cluster.script(verb, &[&std::process::id().to_string()]);
        cluster
    }

    /// Makes `command` a client of this cluster; of a secure one as the principal of the ticket that [`Cluster::kinit`] got.
    pub fn client<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("HADOOP_CONF_DIR", self.conf_dir())
            .env("KRB5_CONFIG", self.home().join("krb5.conf"))
            .env("KRB5CCNAME", self.home().join("ticket"))
    }

    /// Gets a ticket for one of the principals of a secure cluster.
    ///
    /// # Panics
    /// When there is none to be had.
    pub fn kinit(&self, principal: &str) {
        let mut kinit = Command::new("kinit");
        kinit.arg("-kt").arg(self.home().join("hdfs.keytab")).arg(principal);
        let output = self.client(&mut kinit).output().expect("kinit runs");
        assert!(output.status.success(), "{output:?}");
    }

    /// The directory to be named by `HADOOP_CONF_DIR`.
    #[must_use]
    pub fn conf_dir(&self) -> PathBuf {
        self.home().join("conf")
    }

    /// Its configuration. DataNodes may be silent for one second only, so that tests of silent ones are short.
    ///
    /// # Panics
    /// When the configuration cannot be read.
    #[must_use]
    pub fn config(&self) -> HadoopConfig {
        let config =
            HadoopConfig::from_directory(&self.conf_dir()).expect("the configuration of the cluster");
        config.with("dfs.client.socket-timeout", "1000")
    }

    /// A new client for its superuser, who is the user of this process.
    #[must_use]
    pub fn storage(&self) -> Storage {
        Storage::new(self.config())
    }

    /// Ends nodes with SIGKILL; they start again when the result is dropped.
    #[must_use]
    pub fn kill(&self, nodes: &'static [&'static str]) -> Disturbed<'_> {
        self.script("signal", &[&["KILL"], nodes].concat());
        Disturbed { cluster: self, nodes, frozen: false }
    }

    /// Stops nodes with SIGSTOP: their connections stay open and nothing answers, until the result is dropped.
    #[must_use]
    pub fn freeze(&self, nodes: &'static [&'static str]) -> Disturbed<'_> {
        self.script("signal", &[&["STOP"], nodes].concat());
        Disturbed { cluster: self, nodes, frozen: true }
    }

    /// `hdfs dfsadmin` with these arguments; gives what it prints.
    pub fn admin(&self, arguments: &[&str]) -> String {
        self.script("admin", arguments)
    }

    /// The files in which a DataNode keeps its finished blocks.
    #[must_use]
    pub fn block_files(&self, node: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.home().join(node), &mut found);
        found.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("blk_")
                && !name.ends_with(".meta")
                && path.components().any(|c| c.as_os_str() == "finalized")
        });
        found
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("hdfs")
    }

    /// Waits until the NameNode takes all DataNodes for alive: one that was silent for long it has given up.
    fn wait_for_the_thawed(&self) {
        for _ in 0..60 {
            if self.admin(&["-report"]).contains("Live datanodes (3)") {
                return;
            }
            thread::sleep(Duration::from_millis(500));
        }
        panic!("not all DataNodes came back; their logs are in {}", self.home().display());
    }

    fn script(&self, verb: &str, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hdfs/cluster");
        let output = Command::new(&script).arg(verb).arg(self.home()).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cluster {verb} {arguments:?} failed: {said}{complained}");
        said
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.script("down", &[]);
    }
}

/// Nodes that are down or frozen; dropping this brings them back and waits for them.
pub struct Disturbed<'a> {
    cluster: &'a Cluster,
    nodes: &'static [&'static str],
    frozen: bool,
}

impl Drop for Disturbed<'_> {
    fn drop(&mut self) {
        match self.frozen {
            true => {
                self.cluster.script("signal", &[&["CONT"], self.nodes].concat());
                self.cluster.wait_for_the_thawed();
            }
            // A node that has started has registered, and told of its blocks, when it is at work.
            false => {
                self.cluster.script("start", self.nodes);
                self.cluster.script("wait", &[]);
            }
        }
    }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => collect(&path, found),
            path => found.push(path),
        }
    }
}
