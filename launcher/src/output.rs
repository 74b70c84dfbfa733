//! The ranks' output: each line goes to the terminal with its rank before it, and to the rank's log.

use crate::engine::Starter;
use muster::console;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A line longer than this is cut into several.
const LINE_MAX: u64 = 64 << 10;
/// How long the last lines may take after the process has ended: a grandchild may keep the pipe open for ever.
const DRAIN_MAX: Duration = Duration::from_millis(200);

/// Where the lines of one attempt go.
#[derive(Clone)]
pub struct Output {
    state: Arc<Mutex<State>>,
    followers: Arc<Mutex<Followers>>,
}

/// The threads that read pipes. Nothing is ever sent to `ended`: it is disconnected when the last of them has dropped its sender.
struct Followers {
    sender: Option<Sender<()>>,
    ended: Receiver<()>,
}

/// Where lines go beside the logs.
enum Screen {
    Terminal,
    /// Standard output into a file, nothing else.
    File(File),
    #[cfg(test)]
    Nowhere,
}

struct State {
    starter: Starter,
    screen: Screen,
    directory: Option<PathBuf>,
    logs: BTreeMap<Option<usize>, File>,
    last_words: BTreeMap<Option<usize>, String>,
}

impl Output {
    /// Lines marked as `starter` does it, to the terminal and, if there is one, into `directory`:
    /// `rank-N.log`, and `engine.log` for what no rank has written.
    pub fn new(starter: Starter, directory: Option<&Path>) -> Output {
        Output::of(starter, Screen::Terminal, directory.map(Path::to_owned))
    }

    /// Standard output goes into a file.
    pub fn captured(file: File) -> Output {
        Output::of(Starter::Direct, Screen::File(file), None)
    }

    /// Keeps last words only.
    #[cfg(test)]
    pub fn discarded() -> Output {
        Output::of(Starter::Direct, Screen::Nowhere, None)
    }

    fn of(starter: Starter, screen: Screen, directory: Option<PathBuf>) -> Output {
        let (sender, ended) = channel();
        let (logs, last_words) = Default::default();
        Output {
            state: Arc::new(Mutex::new(State { starter, screen, directory, logs, last_words })),
            followers: Arc::new(Mutex::new(Followers { sender: Some(sender), ended })),
        }
    }

    /// Follows a pipe to its end, in a thread of its own.
    pub fn follow(&self, pipe: impl Read + Send + 'static, is_error: bool) {
        let state = self.state.clone();
        let ended = self.followers.lock().expect("no panic while it is held").sender.clone();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
                state.lock().expect("no panic while it is held").line(text.trim_end_matches('\r'), is_error);
                line.clear();
            }
            drop(ended);
        });
    }

    /// Waits for the last lines.
    pub fn finish(&self) {
        let mut followers = self.followers.lock().expect("no panic while it is held");
        followers.sender = None;
        let _ = followers.ended.recv_timeout(DRAIN_MAX);
    }

    /// The last line that a rank, or the engine itself, has written to standard error.
    pub fn last_words(&self, rank: Option<usize>) -> Option<String> {
        self.state.lock().expect("no panic while it is held").last_words.get(&rank).cloned()
    }
}

impl State {
    fn line(&mut self, line: &str, is_error: bool) {
        let (rank, text) = self.starter.unmark(line);
        let mark = rank.map(|rank| format!("[{rank}] ")).unwrap_or_default();
        match (&mut self.screen, is_error) {
            (Screen::Terminal, false) => console::line(format_args!("{mark}{text}")),
            (Screen::Terminal, true) => console::remark(format_args!("{mark}{text}")),
            (Screen::File(file), false) => _ = writeln!(file, "{text}"),
            _ => {}
        }
        if is_error && !text.trim().is_empty() {
            self.last_words.insert(rank, text.to_owned());
        }
        if let Some(log) = self.log(rank) {
            let _ = writeln!(log, "{text}");
        }
    }

    fn log(&mut self, rank: Option<usize>) -> Option<&mut File> {
        let directory = self.directory.as_ref()?;
        Some(match self.logs.entry(rank) {
            Entry::Occupied(log) => log.into_mut(),
            Entry::Vacant(place) => {
                let name = rank.map_or("engine.log".to_owned(), |rank| format!("rank-{rank}.log"));
                place.insert(File::options().append(true).create(true).open(directory.join(name)).ok()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rank_has_a_log_and_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let output = Output::of(Starter::Hydra, Screen::Nowhere, Some(directory.path().to_owned()));
        output.follow(&b"[0] a\n[1] b\r\n\n[0] \xff c"[..], false);
        output.follow(&b"[1] first\n[1] second\n[1]  \nmpiexec: x\n"[..], true);
        output.finish();
        let log = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(log("rank-0.log"), "a\n\u{fffd} c\n");
        assert_eq!(log("rank-1.log").replace("first\nsecond\n \n", ""), "b\n");
        assert_eq!(output.last_words(Some(1)).as_deref(), Some("second"));
        assert_eq!(output.last_words(None).as_deref(), Some("mpiexec: x"));
        assert_eq!(output.last_words(Some(0)), None);
    }

    #[test]
    fn a_line_without_end_is_cut_and_an_open_pipe_does_not_hold_up() {
        let output = Output::discarded();
        output.follow(std::io::repeat(b'x').take(3 * LINE_MAX), true);
        output.finish();
        assert_eq!(output.last_words(None).unwrap().len() as u64, LINE_MAX);
        let (reader, _writer) = std::io::pipe().unwrap();
        let output = Output::discarded();
        output.follow(reader, true);
        output.finish();
    }
}
