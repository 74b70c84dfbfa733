//! Builds a binary once and runs it in a folder of its own.

use crate::digits;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest time that a test waits for something; more than a busy machine ever needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a test kills ranks: 3 times, or as `make soak` says.
pub fn kill_rounds() -> usize {
    std::env::var("MUSTER_KILL_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number"))
}

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}

/// A binary of the workspace, built in the profile of the tests themselves. All are built together, and a test with them, so that cargo
/// chooses the features of their dependencies, and builds these, once.
pub fn build(name: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let targets = ["--workspace", "--bins", "--test", "allocations"];
    let arguments = [&["build", "--profile", profile, "--message-format", "json"], &targets[..]].concat();
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args(&arguments).current_dir(root()).stderr(Stdio::inherit());
    // What cargo tells about the tests' own package makes build scripts that look at it run again.
    let of_this_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"];
    for (name, _) in std::env::vars_os() {
        if of_this_package.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let built = command.output().expect("cargo runs");
    assert!(built.status.success(), "cargo {arguments:?} failed");
    let messages = String::from_utf8(built.stdout).expect("JSON is UTF-8");
    let mut executables = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_binary = message["target"]["kind"][0] == "bin" && message["target"]["name"] == name;
        is_binary.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executables.next().expect("cargo names the executable")
}

/// The binary `mnist`.
pub fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("mnist"))
}

/// The binary `muster`.
pub fn launcher() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("muster"))
}

/// A folder with a data set in `data/`, removed at the end of the test.
pub struct Sandbox(TempDir);

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox::new()
    }
}

impl Sandbox {
    /// With the digits of seed 1.
    pub fn new() -> Sandbox {
        let sandbox = Sandbox(tempfile::tempdir().unwrap());
        digits::write(&sandbox.path("data"), 1);
        sandbox
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `mnist` with arguments that blanks separate, run in this folder. It reaches no network and no cache.
    pub fn mnist(&self, arguments: &str) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        command
            .env_remove("MUSTER_KERNELS")
            .env("MUSTER_MNIST_MIRRORS", "")
            .env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// `muster SUBCOMMAND OPTIONS -- mnist ARGUMENTS`, run like [`Sandbox::mnist`]; its job's file lies in this folder, too.
    pub fn muster(&self, options: &str, arguments: &str) -> Command {
        let mnist = self.mnist(arguments);
        let mut command = Command::new(launcher());
        command.args(options.split_whitespace()).arg("--").arg(mnist.get_program()).args(mnist.get_args());
        command.current_dir(self.0.path()).env("XDG_RUNTIME_DIR", self.0.path());
        for (name, value) in mnist.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// `mnist train --data data` to its end.
    pub fn train(&self, arguments: &str) -> Outcome {
        run(&mut self.mnist(&format!("train --data data {arguments}")))
    }

    /// The report of a training that succeeds.
    pub fn report(&self, arguments: &str) -> Value {
        let name = "report-of-a-test.json";
        self.train(&format!("{arguments} --report {name}")).succeeds();
        self.json(name)
    }

    /// The hash of the weights that a training ends with.
    pub fn hash(&self, arguments: &str) -> String {
        self.report(arguments)["weights_sha256"].as_str().expect("a string").to_owned()
    }

    /// A file of JSON in this folder.
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).expect("the file is there")).expect("it is JSON")
    }

    /// Every file below a folder with its content: a name's path → bytes. The lock is left out.
    pub fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.path(folder)];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with(".lock") {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }

    /// The steps of the checkpoints in a model directory.
    pub fn checkpoints(&self, model: &str) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(self.path(model).join("checkpoints")) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut steps: Vec<u64> = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
        steps.sort_unstable();
        steps
    }
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("programs write UTF-8");
    Outcome { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Outcome {
    /// Asserts that it ended well.
    #[track_caller]
    pub fn succeeds(self) -> Outcome {
        assert!(self.status.success(), "{self:?}");
        self
    }

    /// Asserts that it failed with one line on standard error, which says all of `parts`, and without having begun.
    #[track_caller]
    pub fn refuses(self, parts: &[&str]) -> Outcome {
        let outcome = self.fails(parts);
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(!outcome.stdout.contains("==== Start"), "{outcome:?}");
        outcome
    }

    /// Asserts that it failed with an exit code, and that the last line on standard error says all of `parts`.
    #[track_caller]
    pub fn fails(self, parts: &[&str]) -> Outcome {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("mnist: ") && !self.stderr.contains("panicked"), "{self:?}");
        for part in parts {
            assert!(last.contains(part), "no {part:?} in {self:?}");
        }
        self
    }
}

/// A program that runs.
pub struct Running {
    child: Child,
    /// None once it is closed.
    stdout: Option<BufReader<ChildStdout>>,
}

/// Starts a program; it is killed when the test fails before its end.
pub fn start(command: &mut Command) -> Running {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let stdout = child.stdout.take().map(BufReader::new);
    Running { child, stdout }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard output that contains `part`.
    pub fn says(&mut self, part: &str) -> String {
        let mut line = String::new();
        let stdout = self.stdout.as_mut().expect("it is open");
        while stdout.read_line(&mut line).expect("UTF-8") > 0 {
            if line.contains(part) {
                return line;
            }
            line.clear();
        }
        panic!("the program ended without saying {part:?}: {:?}", self.errors());
    }

    /// Waits until something is so, while the program goes on saying `part`: one whose lines nobody reads stops once the pipe is full.
    pub fn says_until(&mut self, part: &str, what: &str, mut so: impl FnMut() -> bool) {
        eventually(what, || {
            self.says(part);
            so()
        });
    }

    /// Sends a signal, by name. After STOP all threads stand still: each of them stops by itself, some time later.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh runs").success());
        let until = Instant::now() + PATIENCE;
        while name == "STOP" && !self.is_stopped() {
            assert!(Instant::now() < until, "the program does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether all of its threads are stopped: proc_pid_stat(5).
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("a process has threads");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
        })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for its end.
    pub fn ends(&mut self) -> Outcome {
        let until = Instant::now() + PATIENCE;
        let mut stdout = String::new();
        if let Some(pipe) = &mut self.stdout {
            pipe.read_to_string(&mut stdout).expect("UTF-8");
        }
        while !self.has_ended() {
            assert!(Instant::now() < until, "the program does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = self.child.wait().expect("it is our child");
        Outcome { status, stdout, stderr: self.errors() }
    }

    /// The most memory that it had until its end, in bytes; what it says in the meantime is lost.
    pub fn peak_memory(&mut self) -> u64 {
        let status = format!("/proc/{}/status", self.pid());
        let mut peak = 0;
        while !self.has_ended() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let of_now =
                text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
            peak = peak.max(of_now.map_or(0, |kib| 1024 * kib.parse::<u64>().expect("a number")));
        }
        peak
    }

    /// Closes the pipes that its output goes to.
    pub fn is_unheard(&mut self) {
        self.stdout = None;
        self.child.stderr = None;
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut text).expect("UTF-8");
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
