//! What is left of a job on this machine, and who ends it: the driver, or, when that is gone, the engine's guard.
//!
//! MPI's launchers end their ranks when they are asked to, on all hosts, but not at every moment: MPICH's takes no notice while it starts,
//! and Open MPI's may have started a rank that it does not know yet. All processes of a job have its name in their environment, the
//! launcher's among them: by it they are found.

use crate::environment::JOB;
use crate::error::Error;
use rustix::process::{Pid, Signal};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Reads the engine's number, then waits for a line, or for the end of all lines: then the driver is gone. The engine is asked to end,
/// once: a second SIGTERM makes Open MPI's mpirun leave its ranks behind. What there still is when it has ended, or after 5 s, is killed.
/// `$1` is the variable that names the job, with its value. grep tells nothing by its exit code where it may not read everything.
const SCRIPT: &str = r#"
read pid && ! read line || exit
kill -TERM "$pid"
turns=0
while kill -0 "$pid" && [ $turns -lt 50 ]; do
    sleep 0.1
    turns=$((turns + 1))
done
turns=0
while files=$(grep -lsz "^$1\$" /proc/[0-9]*/environ); [ -n "$files" ] && [ $turns -lt 50 ]; do
    for file in $files; do
        pid=${file#/proc/}
        kill -KILL "${pid%/environ}"
    done
    sleep 0.1
    turns=$((turns + 1))
done
"#;

/// A shell that waits for this process's end.
pub struct Guard(Child);

impl Guard {
    /// That of the engine of a job.
    pub fn start(job: &str) -> Result<Guard, Error> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh", &format!("{JOB}={job}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        command.spawn().map(Guard).map_err(Error::io("start", "sh"))
    }

    /// Where the engine writes its number.
    pub fn lines(&self) -> Result<OwnedFd, Error> {
        let lines = self.0.stdin.as_ref().expect("it is piped").as_fd().try_clone_to_owned();
        lines.map_err(Error::io("use a pipe of", "sh"))
    }

    /// The engine has ended; its number may be another process's soon.
    pub fn dismiss(mut self) {
        let line = self.0.stdin.take().map(|mut lines| lines.write_all(b"\n"));
        if line.is_none_or(|written| written.is_err()) {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }

    /// As if this process had died; waits until the guard has done its work.
    #[cfg(test)]
    pub fn orphan(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Kills every process of a job on this machine.
pub fn kill_job(job: &str) {
    let variable = format!("{JOB}={job}");
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for entry in processes.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        let Some(pid) = pid else { continue };
        // Those of other users cannot be read, and are none of the job's.
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|&byte| byte == 0).any(|own| own == variable.as_bytes()) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    /// A process of a job, which does not end when it is asked to.
    fn stubborn(job: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; sleep 60 & wait; sleep 60"]).env(JOB, job).spawn().unwrap()
    }

    #[test]
    fn all_processes_of_a_job_are_killed_and_no_others() {
        let (mut one, mut other) = (stubborn("guard-one"), stubborn("guard-one-more"));
        std::thread::sleep(Duration::from_millis(50));
        kill_job("guard-one");
        assert_eq!(one.wait().unwrap().signal(), Some(9));
        assert_eq!(other.try_wait().unwrap(), None);
        kill_job("guard-one-more");
        assert_eq!(other.wait().unwrap().signal(), Some(9));
    }

    /// The engine leaves a rank behind that has a process group of its own, as under Open MPI.
    #[test]
    fn what_an_engine_leaves_behind_is_killed_by_the_guard() {
        let guard = Guard::start("guard-two").unwrap();
        let mut engine = Command::new("sh").args(["-c", "exec sleep 60"]).spawn().unwrap();
        let mut rank = stubborn("guard-two");
        writeln!(guard.0.stdin.as_ref().unwrap(), "{}", engine.id()).unwrap();
        let reaper = std::thread::spawn(move || engine.wait().unwrap().signal());
        guard.orphan();
        assert_eq!(reaper.join().unwrap(), Some(15), "it is asked first");
        assert_eq!(rank.wait().unwrap().signal(), Some(9));
    }
}
