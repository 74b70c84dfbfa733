//! Waits outside of steps, in set-up and at the end: they have a limit, and the rank that is missing is named.
//!
//! MPI's calls that allocate windows, divide communicators, begin and end know no limit, and there is no way out of them but the end of
//! the process. A thread of its own looks at the clock while the main thread is in one of them, and at the other ranks' processes of
//! this node: one that a signal has stopped is stuck after `--step-timeout`. A rank that runs but does not come may be reading data;
//! it is given longer.

use crate::launched::{self, Launched, Neighbour};
use crate::{Error, Roster};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long ranks may differ in the time that they take before the first step, when none of them has work that others have not.
const SETUP_MAX: Duration = Duration::from_secs(1800);

/// The watching thread's counterpart.
pub struct Vigil {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    roster: OnceLock<Arc<Roster>>,
    rank: usize,
    limit: Duration,
}

/// What the main thread is doing.
#[derive(Clone, Copy)]
struct Wait {
    what: &'static str,
    since: Instant,
    /// Whether other ranks may have work before they come, of whatever length: then only those that are stopped are stuck.
    after_work: bool,
}

#[derive(Default)]
struct State {
    wait: Option<Wait>,
    /// Who has not come yet, where this rank is the one that counts.
    missing: Vec<usize>,
    over: bool,
}

impl Vigil {
    /// Begins; `on_stuck` is called in another thread.
    pub fn start(launched: &Launched, limit: Duration, on_stuck: fn(&str) -> !) -> Vigil {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            roster: OnceLock::new(),
            rank: launched.rank,
            limit,
        });
        let watched = shared.clone();
        let thread = std::thread::spawn(move || {
            if let Some(reason) = watched.watch() {
                on_stuck(&reason);
            }
        });
        Vigil { shared, thread: Some(thread) }
    }

    /// The processes of all ranks, once they are known.
    pub fn know(&self, roster: &Arc<Roster>) {
        let _known_already = self.shared.roster.set(roster.clone());
    }

    /// Does what waits for other ranks.
    pub fn during<T>(&self, what: &'static str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.wait(Wait { what, since: Instant::now(), after_work: false }, work)
    }

    /// The same where they may have work before.
    pub fn after_work<T>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.wait(Wait { what, since: Instant::now(), after_work: true }, work)
    }

    fn wait<T>(&self, wait: Wait, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.shared.lock().wait = Some(wait);
        self.shared.changed.notify_one();
        let done = work();
        *self.shared.lock() = State::default();
        done
    }

    /// These have not come yet.
    pub fn misses(&self, missing: &[usize]) {
        self.shared.lock().missing = missing.to_vec();
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    /// Until the end, or until a wait takes too long: then the reason.
    fn watch(&self) -> Option<String> {
        let tick = (self.limit / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut stopped = BTreeMap::new();
        loop {
            let mut state = self.lock();
            while state.wait.is_none() && !state.over {
                stopped.clear();
                state = self.changed.wait(state).expect("no panic while it is held");
            }
            if state.over {
                return None;
            }
            let (state, _) = self.changed.wait_timeout(state, tick).expect("no panic while it is held");
            let Some(wait) = state.wait else { continue };
            let missing = state.missing.clone();
            drop(state);
            let stuck = self.stuck(wait.what, &mut stopped);
            if let Some(reason) = stuck.or_else(|| self.late(wait, &missing)) {
                return Some(reason);
            }
        }
    }

    /// The rank of this node that has been stopped for too long. The lowest of those that run says so, another only if that one does not.
    fn stuck(&self, what: &str, stopped: &mut BTreeMap<usize, Instant>) -> Option<String> {
        let neighbours = self.neighbours();
        stopped.retain(|rank, _| neighbours.iter().any(|n| n.rank == *rank && n.is_stopped));
        for neighbour in neighbours.iter().filter(|neighbour| neighbour.is_stopped) {
            stopped.entry(neighbour.rank).or_insert_with(Instant::now);
        }
        let is_first = neighbours.iter().all(|n| n.is_stopped || n.rank > self.rank);
        let limit = if is_first { self.limit } else { patient(self.limit) };
        let (&rank, _) = stopped.iter().find(|(_, since)| since.elapsed() > limit)?;
        let pid = neighbours.iter().find(|neighbour| neighbour.rank == rank)?.pid;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Some(format!(
            "rank {rank} (process {pid} on {host}) has been stopped or stuck for {:?}, and rank {} waits for it {what}; \
             --step-timeout sets the limit",
            self.limit, self.rank
        ))
    }

    /// The other ranks of this node: by the roster, and before there is one, as children of the same process.
    fn neighbours(&self) -> Vec<Neighbour> {
        let Some(roster) = self.roster.get() else {
            let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
            return launched::children_of(parent).into_iter().filter(|n| n.rank != self.rank).collect();
        };
        let near = roster.neighbours(self.rank);
        near.map(|(rank, pid)| Neighbour { rank, pid, is_stopped: launched::is_stopped(pid) }).collect()
    }

    /// That a wait is over, whatever the reason. The rank that counts says it first.
    fn late(&self, Wait { what, since, after_work }: Wait, missing: &[usize]) -> Option<String> {
        let limit = SETUP_MAX.max(10 * self.limit);
        let limit = if missing.is_empty() { patient(limit) } else { limit };
        let name =
            |&rank: &usize| self.roster.get().map_or(format!("rank {rank}"), |roster| roster.name(rank));
        let who = match missing {
            [] => "another rank".to_owned(),
            missing => missing.iter().map(name).collect::<Vec<_>>().join(", "),
        };
        (!after_work && since.elapsed() > limit).then(|| {
            format!(
                "rank {} has waited {limit:?} for {who} {what}: it is stopped or stuck, or its node is not reached; \
                 the limit is the longer of half an hour and ten times --step-timeout",
                self.rank
            )
        })
    }
}

/// Some time more, so that whoever knows best speaks first.
fn patient(limit: Duration) -> Duration {
    limit.mul_f64(1.25) + Duration::from_millis(500)
}
