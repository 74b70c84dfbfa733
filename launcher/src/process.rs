//! The engine's process: started so that it cannot outlive this one, watched, and ended.
#![allow(unsafe_code)] // `pre_exec`, the one way to ask for a signal at the parent's death before the program runs.

use crate::error::Error;
use crate::output::Output;
use guard::Guard;
use rustix::process::{Pid, Signal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

mod guard;

pub use guard::kill_job;

/// How an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Exit code or signal, in words.
    pub status: String,
}

/// The ranks' processes, as one thing that runs and ends. Its second implementation is the tests'.
pub trait Running {
    /// How it ended, if it has.
    fn try_wait(&mut self) -> Option<Exit>;
    /// Asks it to end.
    fn terminate(&mut self);
    /// Ends it.
    fn kill(&mut self);
    /// The last line on standard error of a rank, or of whoever started it.
    fn last_words(&self, rank: Option<usize>) -> Option<String>;
}

/// What the engine's process gets when this one is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Orphaned<'a> {
    /// SIGKILL, from the kernel, at the end of the *thread* that has started it: a process that is a rank itself.
    Killed,
    /// SIGTERM, once, at the end of this process: an engine that ends its ranks when it is asked to. From the kernel it would come again and
    /// again, as one thread of this process after the other dies. What is left of the job of this name on this machine is then killed.
    Asked(&'a str),
}

/// A process and its output.
pub struct Process {
    child: Child,
    pid: Pid,
    output: Output,
    exit: Option<Exit>,
    guard: Option<Guard>,
}

/// The number of this process and the end of a line, in memory that is there already.
fn announcement(number: &mut [u8; 12]) -> &[u8] {
    let (mut rest, mut at) = (rustix::process::getpid().as_raw_nonzero().get(), number.len() - 1);
    number[at] = b'\n';
    while rest > 0 {
        at -= 1;
        number[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    &number[at..]
}

impl Process {
    /// Starts a command. When this process ends in whatever way, the new one does as `orphaned` says. It has a process group of its own, so
    /// that Ctrl-C reaches this process alone, which then ends the job in order.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(mut command: Command, orphaned: Orphaned<'_>, output: Output) -> Result<Process, Error> {
        let name = command.get_program().display().to_string();
        let parent = rustix::process::getpid();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let guard = match orphaned {
            Orphaned::Killed => None,
            Orphaned::Asked(job) => Some(Guard::start(job)?),
        };
        let lines = guard.as_ref().map(Guard::lines).transpose()?;
        let prepare = move || {
            if let Some(lines) = &lines {
                // Told by the engine itself before it runs, the guard knows it whenever this process dies.
                return rustix::io::write(lines, announcement(&mut [0; 12])).map(drop).map_err(Into::into);
            }
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the signal was asked for.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(rustix::io::Errno::SRCH.into())
            }
        };
        // SAFETY: between fork and exec only two system calls are made, or one: nothing is allocated, no lock is taken.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn().map_err(Error::io("start", name))?;
        let pid = Pid::from_child(&child);
        output.follow(child.stdout.take().expect("it is piped"), false);
        output.follow(child.stderr.take().expect("it is piped"), true);
        Ok(Process { child, pid, output, exit: None, guard })
    }
}

impl Running for Process {
    fn try_wait(&mut self) -> Option<Exit> {
        if self.exit.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.guard.take().into_iter().for_each(Guard::dismiss);
            self.output.finish();
            self.exit = Some(Exit { success: status.success(), status: words(status) });
        }
        self.exit.clone()
    }

    fn terminate(&mut self) {
        // A process that has been waited for has given its number back.
        if self.try_wait().is_none() {
            let _ = rustix::process::kill_process(self.pid, Signal::TERM);
        }
    }

    fn kill(&mut self) {
        if self.try_wait().is_none() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }

    fn last_words(&self, rank: Option<usize>) -> Option<String> {
        self.output.last_words(rank)
    }
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// When a process began, in the system's ticks since it was booted: with its number it names a process for good.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in brackets, may hold anything; the 22nd field of proc_pid_stat(5) is the 20th after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn wait(process: &mut Process) -> Exit {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match process.try_wait() {
                Some(exit) => return exit,
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn an_end_is_told_in_words_with_the_last_line() {
        let mut process = Process::spawn(
            shell("echo one >&2; echo two >&2; exit 3"),
            Orphaned::Killed,
            Output::discarded(),
        )
        .unwrap();
        assert_eq!(wait(&mut process), Exit { success: false, status: "exit code 3".to_owned() });
        assert_eq!(process.last_words(None).as_deref(), Some("two"));
        let mut process =
            Process::spawn(shell("exec sleep 60"), Orphaned::Killed, Output::discarded()).unwrap();
        process.terminate();
        assert_eq!(wait(&mut process).status, "signal 15");
    }

    #[test]
    fn what_ignores_the_request_is_killed_with_its_children() {
        let mut process = Process::spawn(
            shell("trap '' TERM; echo $$; sleep 60 & wait; sleep 60"),
            Orphaned::Killed,
            Output::discarded(),
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(100));
        process.terminate();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(process.try_wait(), None);
        process.kill();
        assert_eq!(wait(&mut process).status, "signal 9");
    }

    #[test]
    fn it_ends_with_the_thread_that_started_it() {
        let spawn = || Process::spawn(shell("exec sleep 60"), Orphaned::Killed, Output::discarded()).unwrap();
        let mut process = std::thread::spawn(spawn).join().unwrap();
        assert_eq!(wait(&mut process).status, "signal 9");
    }

    /// A driver that is gone has closed the guard's lines, as one that drops it has.
    #[test]
    fn an_engine_is_asked_once_to_end_when_its_guard_hears_nothing_more() {
        let script =
            "trap 'echo asked >&2; n=1' TERM; while [ -z \"$n\" ]; do sleep 0.05; done; sleep 0.5; exit 7";
        let mut process =
            Process::spawn(shell(script), Orphaned::Asked("orphans"), Output::discarded()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(process.try_wait(), None);
        process.guard.take().unwrap().orphan();
        assert_eq!(wait(&mut process).status, "exit code 7");
        assert_eq!(process.last_words(None).as_deref(), Some("asked"));
        // One that has ended is not looked after any more.
        let mut process =
            Process::spawn(shell("exit 0"), Orphaned::Asked("orphans"), Output::discarded()).unwrap();
        assert!(wait(&mut process).success);
        assert!(process.guard.is_none());
    }

    #[test]
    fn a_number_is_written_without_an_allocation() {
        let number = format!("{}\n", std::process::id());
        assert_eq!(announcement(&mut [0; 12]), number.as_bytes());
    }

    #[test]
    fn a_process_is_known_by_number_and_beginning() {
        let start = start_time(std::process::id()).unwrap();
        assert_eq!(start_time(std::process::id()), Some(start));
        std::thread::sleep(Duration::from_millis(30));
        let mut child = shell("exec sleep 60").spawn().unwrap();
        assert!(start_time(child.id()).unwrap() > start);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(start_time(u32::MAX), None);
    }
}
