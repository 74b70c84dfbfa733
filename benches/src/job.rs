//! A job as it is seen from outside: when it says what, and how much memory all of its processes take together.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Error;

/// From one look at the memory to the next.
const LOOK: Duration = Duration::from_millis(5);

/// A job that has ended well.
pub struct Job {
    /// From its start to its end.
    pub seconds: f64,
    /// Its lines on both outputs, in the order of their times, which are seconds since its start.
    lines: Vec<(f64, String)>,
    /// The most memory that its processes had at a time, in bytes, if it was looked at.
    pub peak_bytes: u64,
}

impl Job {
    /// Runs it to its end, and looks at its memory all the time if that `is_weighed`, which takes some time of its own.
    ///
    /// # Errors
    /// If it does not start, or fails.
    pub fn run(command: &mut Command, is_weighed: bool) -> Result<Job, Error> {
        let start = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(Error::io("start", Path::new(command.get_program())))?;
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (out, err) = (listen(out, start), listen(err, start));
        let mut peak_bytes = 0;
        while is_weighed && is_running(&mut child) {
            peak_bytes = peak_bytes.max(memory(child.id()));
            std::thread::sleep(LOOK);
        }
        let status = child.wait().map_err(Error::io("wait for", Path::new(command.get_program())))?;
        let seconds = start.elapsed().as_secs_f64();
        let [mut lines, said] = [out, err].map(|thread| thread.join().expect("it does not panic"));
        if !status.success() {
            let what = said.last().map_or("it said nothing".to_owned(), |(_, line)| line.clone());
            return Err(Error::Program { program: format!("{command:?}"), what });
        }
        lines.extend(said);
        lines.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Job { seconds, lines, peak_bytes })
    }

    /// When it first said something that contains `part`.
    ///
    /// # Errors
    /// If it never did.
    pub fn said(&self, part: &str) -> Result<f64, Error> {
        let line = self.lines.iter().find(|(_, line)| line.contains(part));
        line.map(|(time, _)| *time).ok_or_else(|| Error::Program {
            program: "the job".to_owned(),
            what: format!("it never said {part:?}"),
        })
    }
}

/// Reads lines until the end.
fn listen(pipe: impl Read + Send + 'static, start: Instant) -> JoinHandle<Vec<(f64, String)>> {
    std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        lines.map(|line| (start.elapsed().as_secs_f64(), line)).collect()
    })
}

fn is_running(child: &mut Child) -> bool {
    matches!(child.try_wait(), Ok(None))
}

/// The memory of a process and all that descend from it. Pages that some share count once among them: the `Pss` of proc(5).
fn memory(root: u32) -> u64 {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.insert(pid, parent.unwrap_or(0));
    }
    let descends = |mut pid: u32| loop {
        match pid {
            _ if pid == root => return true,
            0 | 1 => return false,
            _ => pid = parents.get(&pid).copied().unwrap_or(0),
        }
    };
    parents.keys().filter(|&&pid| descends(pid)).map(|&pid| of_process(pid)).sum()
}

fn of_process(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_have_their_times() {
        let job = Job::run(&mut shell("echo one; sleep 0.1; echo two >&2; sleep 0.1"), false).unwrap();
        let (one, two) = (job.said("one").unwrap(), job.said("two").unwrap());
        assert!(one + 0.1 <= two && two + 0.1 <= job.seconds, "{one} {two} {}", job.seconds);
        assert!(job.said("three").is_err());
        let Err(error) = Job::run(&mut shell("echo no such thing >&2; exit 3"), false) else { panic!() };
        assert!(error.to_string().contains("no such thing"), "{error}");
    }

    #[test]
    fn memory_is_that_of_all_descendants() {
        // Each of two shells below a shell holds twenty million bytes.
        let holder = "sh -c 'x=$(head -c 20000000 /dev/zero | tr \\\\0 x); sleep 0.5; echo $x | wc -c >&2'";
        let job = Job::run(&mut shell(&format!("{holder} & {holder}; wait")), true).unwrap();
        assert!((40_000_000..400_000_000).contains(&job.peak_bytes), "{}", job.peak_bytes);
    }
}
