//! The launcher with real processes: the example `steps` by each engine that is installed.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");
/// What `timeout` and the launcher make of a job that takes too long.
const OVER_TIME: i32 = 124;

fn steps() -> PathBuf {
    Path::new(MUSTER).with_file_name("examples").join("steps")
}

/// Options that choose each engine there is here: threads, and the `mpirun`s that are installed.
fn engines() -> Vec<(&'static str, Option<&'static str>)> {
    let there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    let mpis: Vec<&str> = ["mpirun.openmpi", "mpirun.mpich"].into_iter().filter(there).collect();
    let missing = mpis.len() < 2 && std::env::var_os("CI").is_some();
    assert!(!missing, "both MPIs can be installed: apt-get install openmpi-bin mpich");
    std::iter::once(("threads", None)).chain(mpis.into_iter().map(|mpi| ("mpirun", Some(mpi)))).collect()
}

/// `muster run` with options, of the program with arguments; each is a list of words.
fn muster((engine, mpirun): (&str, Option<&str>), options: &str, arguments: &str) -> Command {
    let mut command = Command::new(MUSTER);
    command.args(["run", "--engine", engine]).args(options.split_whitespace()).arg("--");
    command.arg(steps()).args(arguments.split_whitespace());
    command.env_remove("MUSTER_SERVER_PORT").env("RUST_BACKTRACE", "0");
    command.envs(mpirun.map(|mpirun| ("MUSTER_MPIRUN", mpirun)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(engine: (&str, Option<&str>), options: &str, arguments: &str) -> Output {
    muster(engine, options, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn last_line(output: &Output) -> String {
    text(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

/// Processes whose command line holds `mark`.
fn alive(mark: &str) -> usize {
    with_mark("cmdline", mark)
}

/// Processes that have `mark` in this file of theirs.
fn with_mark(file: &str, mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_marked = |text: &Vec<u8>| text.windows(mark.len()).any(|part| part == mark.as_bytes());
    processes.filter_map(|entry| std::fs::read(entry.path().join(file)).ok()).filter(is_marked).count()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !there() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number of steps that no other test takes: its processes are known by it.
fn mark(number: u32) -> String {
    format!("{}", 1_000_000 + std::process::id() % 1000 * 1000 + number)
}

#[test]
fn every_engine_runs_the_ranks_and_marks_their_output() {
    for engine in engines() {
        let output = run(engine, "-n 3", "20");
        assert!(output.status.success(), "{engine:?}: {}", text(&output.stderr));
        let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        if engine.0 == "threads" {
            assert_eq!(lines, ["ranks [0, 1, 2] of 3"]);
        } else {
            assert_eq!(lines, ["[0] ranks [0] of 3", "[1] ranks [1] of 3", "[2] ranks [2] of 3"]);
        }
        assert_eq!(last_line(&output), "muster: shut down");
    }
}

#[test]
fn the_first_root_cause_is_the_last_line() {
    for engine in engines() {
        for (fault, cause) in [
            ("fail:1", "the disk is full"),
            ("panic:1", "a thread panicked"),
            ("exit:1", "gone without a word"),
            ("hang:1", "stuck after step"),
        ] {
            let output = run(engine, "-n 3 --heartbeat-timeout 1", &format!("100 1 {fault}"));
            let line = last_line(&output);
            assert_eq!(output.status.code(), Some(1), "{engine:?} {fault}: {line}");
            assert!(line.starts_with("muster: rank ") && line.contains(cause), "{engine:?} {fault}: {line}");
            // One process runs all ranks as threads, and speaks for them.
            assert!(
                engine.0 == "threads" || line.starts_with("muster: rank 1 "),
                "{engine:?} {fault}: {line}"
            );
        }
    }
}

#[test]
fn faults_are_injected_and_survived() {
    for (engine, number) in engines().into_iter().zip(0..) {
        let count = mark(number);
        for (fault, cause) in
            [("kill", "gone without a word"), ("stop", "no sign of life"), ("drop", "gone without")]
        {
            let options = format!("-n 3 --heartbeat-timeout 1 --inject {fault}:rank=2,step=5");
            let output = run(engine, &options, &count);
            assert!(last_line(&output).contains(cause), "{engine:?} {fault}: {}", text(&output.stderr));
            wait_for("the killed processes' end", || alive(&count) == 0);
            let output = run(engine, &format!("{options} --max-restarts 1"), "50");
            assert!(output.status.success(), "{engine:?} {fault}: {}", text(&output.stderr));
            assert!(text(&output.stderr).contains("muster: restarting: rank"));
        }
    }
}

/// A job that has begun, and the pipe of its errors.
fn started(engine: (&str, Option<&str>), options: &str, arguments: &str) -> Child {
    let mut command = muster(engine, options, arguments);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut errors = child.stderr.take().unwrap();
    let (mut seen, mut byte) = (String::new(), [0]);
    while !seen.contains("muster: start\n") {
        assert!(errors.read(&mut byte).unwrap() > 0, "{seen}");
        seen.push(byte[0].into());
    }
    // Read to its end, so that the launcher is never held up by a full pipe.
    std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
    child
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success()
    );
}

#[test]
fn nothing_outlives_a_driver_that_is_killed() {
    for (engine, number) in engines().into_iter().zip(10..) {
        let count = mark(number);
        let mut driver = started(engine, "-n 3", &format!("{count} 10"));
        assert!(alive(&count) > 1);
        signal(&driver, "KILL");
        assert_eq!(driver.wait().unwrap().signal(), Some(9));
        wait_for("the ranks' end", || alive(&count) == 0);
    }
}

#[test]
fn signals_end_the_job_in_order() {
    for (engine, number) in engines().into_iter().zip(20..) {
        for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
            let count = mark(number);
            let mut driver = started(engine, "-n 3", &format!("{count} 10"));
            signal(&driver, name);
            assert_eq!(driver.wait().unwrap().code(), Some(code), "{engine:?} {name}");
            wait_for("the ranks' end", || alive(&count) == 0);
        }
    }
}

#[test]
fn what_does_not_stop_in_time_is_ended() {
    let count = mark(30);
    let began = Instant::now();
    // One step takes a minute.
    let output = run(("threads", None), "-n 2 --timeout 0.5 --grace-secs 0.5", &format!("{count} 60000"));
    assert_eq!(output.status.code(), Some(OVER_TIME));
    assert!(last_line(&output).contains("--grace-secs"), "{}", last_line(&output));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(alive(&count), 0);
    let output = run(("threads", None), "-n 2 --timeout 0.5", &format!("{count} 10"));
    assert_eq!(output.status.code(), Some(OVER_TIME));
    assert!(last_line(&output).contains("--timeout"), "{}", last_line(&output));
}

#[test]
fn who_does_not_register_is_named_with_the_reason() {
    let silent = run(("threads", None), "-n 2 --reservation-timeout 0.3", "10 1 silent");
    assert!(last_line(&silent).contains("did not register: not within 0.3 s (--reservation-timeout)"));
    let mut other = Command::new(MUSTER);
    let output =
        other.args(["run", "-n", "2", "--", "sh", "-c", "echo no such data >&2; exit 3"]).output().unwrap();
    let line = last_line(&output);
    assert!(line.contains("rank 0 on") && line.ends_with("ended with exit code 3: no such data"), "{line}");
}

#[test]
fn fewer_hosts_than_ranks_are_refused_before_anything_starts() {
    let fewer =
        Command::new(MUSTER).args(["run", "-n", "5", "--hosts", "a:2,b:2", "--", "true"]).output().unwrap();
    assert_eq!(fewer.status.code(), Some(2));
    assert!(last_line(&fewer).contains("5 ranks, but 4 slots (a:2, b:2)"));
    assert!(!text(&fewer.stderr).contains("processes started"));
}

#[test]
fn a_port_that_is_taken_is_named_and_the_next_of_a_range_is_used() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = |ports: &str| {
        let mut command = muster(("threads", None), "-n 2", "5");
        command.env("MUSTER_SERVER_PORT", ports).output().unwrap()
    };
    let refused = run(&port.to_string());
    assert!(!refused.status.success() && last_line(&refused).contains(&port.to_string()), "{refused:?}");
    let next = run(&format!("{port}-{}", port.saturating_add(50).max(port)));
    assert!(next.status.success(), "{next:?}");
}

/// Before all ranks have registered nobody has a connection yet whose end would be seen.
#[test]
fn nothing_outlives_a_driver_that_is_killed_while_ranks_register() {
    for (engine, number) in engines().into_iter().zip(60..) {
        let count = mark(number);
        let mut driver = muster(engine, "-n 3", &format!("{count} 10 silent"));
        let mut driver = driver.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The launcher, what starts the ranks, and these; of threads the launcher and one process.
        let all = if engine.0 == "threads" { 2 } else { 5 };
        wait_for("the processes", || alive(&count) >= all);
        signal(&driver, "KILL");
        driver.wait().unwrap();
        wait_for("the ranks' end", || alive(&count) == 0);
    }
}

/// MPICH's mpiexec takes no notice of a SIGTERM that comes while it starts.
#[test]
fn nothing_outlives_a_driver_that_is_killed_at_any_moment_of_the_start() {
    for (engine, number) in engines().into_iter().zip(70..) {
        let killed_after = |delay: Duration| {
            // Inherited by everything that is started, by whomever.
            let mark = format!("{}-{}", mark(number), delay.as_millis());
            let mut driver = muster(engine, "-n 3", "1000000 10 silent");
            let mut driver =
                driver.env("STARTED_AS", &mark).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(delay);
            signal(&driver, "KILL");
            driver.wait().unwrap();
            let what = format!("the end of all that {engine:?} has begun within {delay:?}");
            wait_for(&what, || with_mark("environ", &format!("STARTED_AS={mark}\0")) == 0);
        };
        std::thread::scope(|scope| {
            for first in 0..4 {
                scope.spawn(move || {
                    (first..32).step_by(4).for_each(|turn| killed_after(Duration::from_millis(3 * turn)));
                });
            }
        });
    }
}

#[test]
fn a_job_is_found_and_stopped_from_another_shell() {
    let runtime = tempfile::tempdir().unwrap();
    let of = |arguments: &[&str]| {
        let output =
            Command::new(MUSTER).args(arguments).env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(of(&["status"]), (true, "no job runs\n".to_owned()));
    assert_eq!(of(&["stop"]), (false, "muster: no job runs\n".to_owned()));
    let start = |count: &str| {
        let mut command = muster(("threads", None), "-n 3", &format!("{count} 5"));
        command
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let (mut first, mut second) = (start(&mark(40)), start(&mark(41)));
    wait_for("two jobs", || {
        of(&["status"]).1.matches("rank 2    worker").count() == 2
            && of(&["status"]).1.matches("training").count() == 6
    });
    let (_, shown) = of(&["status"]);
    assert!(
        shown.contains("rank 0    ps") && shown.contains("training") && shown.contains("steps/s"),
        "{shown}"
    );
    let (stopped, said) = of(&["stop"]);
    assert!(!stopped && said.contains("several jobs run"), "{said}");
    signal(&second, "KILL");
    second.wait().unwrap();
    assert!(of(&["stop"]).0);
    assert_eq!(first.wait().unwrap().code(), Some(143));
    assert_eq!(of(&["status"]).1, "no job runs\n");
    assert_eq!(std::fs::read_dir(runtime.path().join("muster")).unwrap().count(), 0);
}

#[test]
fn each_rank_has_its_log() {
    let directory = tempfile::tempdir().unwrap();
    for engine in engines().into_iter().filter(|engine| engine.0 == "mpirun") {
        let options = format!("-n 2 --log-dir {}", directory.path().display());
        assert!(run(engine, &options, "5").status.success());
        let log = std::fs::read_to_string(directory.path().join("logs/rank-1.log")).unwrap();
        assert!(log.contains("ranks [1] of 2"), "{log}");
    }
}

/// The key is in no argument and no output.
#[test]
fn the_key_stays_secret() {
    let runtime = tempfile::tempdir().unwrap();
    let engine = *engines().last().unwrap();
    let count = mark(50);
    let mut command = muster(engine, "-n 2", &format!("{count} 5"));
    let mut driver = command.env("XDG_RUNTIME_DIR", runtime.path()).spawn().unwrap();
    wait_for("the ranks", || alive(&count) > 2);
    let file = std::fs::read_dir(runtime.path().join("muster")).unwrap().flatten().next().unwrap();
    let entry: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    let key = entry["key"].as_str().unwrap();
    assert_eq!((key.len(), alive(key)), (64, 0));
    signal(&driver, "INT");
    let mut said = String::new();
    driver.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    driver.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    driver.wait().unwrap();
    assert!(!said.contains(key));
}
