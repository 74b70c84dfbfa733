//! Waits outside of steps, in set-up and at the end: they have a limit, and the rank that is missing is named.
//!
//! MPI's calls that allocate windows, divide communicators, begin and end know no limit, and there is no way out of them but the end of
//! the process. A thread of its own looks at the clock while the main thread is in one of them, and at the other ranks' processes of
//! this node: one that a signal has stopped is stuck after `--step-timeout`. So is one, wherever it is, that does not come to a roll call and
//! gives no sign of life; the thread gives this rank's own while the main thread calls nothing of MPI. Who gives them but does not come may be
//! reading data and is given longer. When all have come, what they then do together has to end soon.

use super::call::{self, Comm};
use super::roll::{Missing, Roll};
use crate::launched::{self, Launched, Neighbour};
use crate::{Error, Roster};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long ranks may differ in the time that they take before the first step, when none of them has work that others have not.
const SETUP_MAX: Duration = Duration::from_secs(300);
/// What MPI may take, beyond the limit, for what all ranks do together. On a busy machine that is seconds.
const TOGETHER: Duration = Duration::from_secs(10);

/// The watching thread's counterpart.
pub struct Vigil {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    roll: OnceLock<Roll>,
    roster: OnceLock<Arc<Roster>>,
    rank: usize,
    limit: Duration,
}

/// What the main thread is doing.
#[derive(Clone, Copy)]
struct Wait {
    what: &'static str,
    since: Instant,
    stage: Stage,
}

/// What other ranks may do before they come.
#[derive(Clone, Copy)]
enum Stage {
    /// What they all have to do.
    SetUp,
    /// Work that others have not, of whatever length.
    Work,
    /// Nothing: all have come.
    Together,
}

#[derive(Default)]
struct State {
    wait: Option<Wait>,
    /// Who has not come yet, as far as this rank counts them.
    missing: Vec<Missing>,
    /// Links by which the main thread may call MPI at any time.
    links: usize,
    over: bool,
}

/// A link that calls MPI: while it lives, this rank gives no signs of life but by it.
pub struct Calling(Arc<Shared>);

impl Vigil {
    /// Begins; another thread says who is stuck, and ends the job.
    pub fn start(launched: &Launched, limit: Duration, say: fn(&str)) -> Vigil {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            roll: OnceLock::new(),
            roster: OnceLock::new(),
            rank: launched.rank,
            limit,
        });
        let watched = shared.clone();
        let thread = std::thread::spawn(move || {
            if let Some(reason) = watched.watch() {
                say(&reason);
                call::abort_beside();
            }
        });
        Vigil { shared, thread: Some(thread) }
    }

    /// All ranks, once MPI has begun.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn know(&self, world: Comm) -> Result<(), Error> {
        let _known_already = self.shared.roll.set(Roll::new(world, self.shared.tick())?);
        Ok(())
    }

    /// The processes of all ranks, once they are known.
    pub fn know_processes(&self, roster: &Arc<Roster>) {
        let _known_already = self.shared.roster.set(roster.clone());
    }

    /// Does what calls MPI, for itself or until the other ranks do it, too.
    pub fn during<T>(&self, what: &'static str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.shared.begin(what, Stage::SetUp);
        let done = work();
        self.shared.end();
        done
    }

    /// Waits for the first `ranks` ranks, this one among them, and does something together with them.
    pub fn with<T>(
        &self,
        ranks: usize,
        what: &'static str,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let done = self.shared.meet(ranks, (what, Stage::SetUp), true, work);
        self.shared.end();
        done
    }

    /// The same where they may have work before.
    pub fn after_work<T>(
        &self,
        ranks: usize,
        what: &'static str,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let done = self.shared.meet(ranks, (what, Stage::Work), true, work);
        self.shared.end();
        done
    }

    /// The same as the last thing that is done with MPI. A rank that was set aside knows nothing of the others' signs of life.
    pub fn at_last(
        self,
        ranks: usize,
        is_aside: bool,
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.shared.meet(ranks, ("to be done", Stage::Work), !is_aside, work)
    }

    /// From now on the main thread alone calls MPI.
    pub fn silence(&self) {
        self.shared.begin("to end", Stage::Work);
    }

    /// What a link that calls MPI has to keep.
    pub fn calling(&self) -> Calling {
        self.shared.lock().links += 1;
        Calling(self.shared.clone())
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.lock().links -= 1;
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

    /// How often the thread looks.
    fn tick(&self) -> Duration {
        (self.limit / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    fn begin(&self, what: &'static str, stage: Stage) {
        self.lock().wait = Some(Wait { what, since: Instant::now(), stage });
    }

    fn end(&self) {
        let mut state = self.lock();
        state.wait = None;
        state.missing.clear();
    }

    /// Waits for the first `ranks` ranks, which are told missing if `judges`, and does something together with them.
    fn meet<T>(
        &self,
        ranks: usize,
        (what, stage): (&'static str, Stage),
        judges: bool,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.begin(what, stage);
        let roll = self.roll.get().expect("ranks are known before they meet");
        roll.call(ranks, |missing| {
            if judges {
                self.lock().missing = missing;
            }
        })?;
        self.lock().missing.clear();
        self.begin(what, Stage::Together);
        work()
    }

    /// Until the end, or until a wait takes too long: then the reason.
    fn watch(&self) -> Option<String> {
        let mut stopped = BTreeMap::new();
        loop {
            let state = self.lock();
            if state.over {
                return None;
            }
            let (state, _) =
                self.changed.wait_timeout(state, self.tick()).expect("no panic while it is held");
            let Some(wait) = state.wait else {
                stopped.clear();
                self.give_sign(&state);
                continue;
            };
            let missing = state.missing.clone();
            drop(state);
            let stuck = self.stuck(wait.what, &mut stopped).or_else(|| self.silent(wait.what, &missing));
            if let Some(reason) = stuck.or_else(|| self.late(wait, &missing)) {
                return Some(reason);
            }
        }
    }

    /// A sign of life, if this thread may call MPI: the main thread cannot begin to while the state is held.
    fn give_sign(&self, state: &State) {
        if let Some(roll) = self.roll.get().filter(|_| state.links == 0 && !state.over) {
            // A failure shows at the next roll call.
            let _ = roll.beat();
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

    /// The rank that has given no sign of life for too long. Its neighbours, if it has any, are the first to say so.
    fn silent(&self, what: &str, missing: &[Missing]) -> Option<String> {
        let silent = missing.iter().find(|missing| missing.heard.elapsed() > patient(self.limit))?;
        Some(format!(
            "{} has given no sign of life for {:?}, and rank {} waits for it {what}: it is stopped or stuck, or its node is not reached; \
             --step-timeout sets the limit",
            self.name(silent.rank),
            self.limit,
            self.rank
        ))
    }

    /// That a wait is over, whatever the reason. Rank 0 says it first: the others may wait for it because it waits.
    fn late(&self, Wait { what, since, stage }: Wait, missing: &[Missing]) -> Option<String> {
        let (limit, by) = match stage {
            Stage::SetUp => {
                (SETUP_MAX.max(5 * self.limit), "the longer of five minutes and five times --step-timeout")
            }
            Stage::Work => return None,
            Stage::Together => (self.limit + TOGETHER, "--step-timeout and ten seconds more"),
        };
        if since.elapsed() <= if self.rank == 0 { limit } else { patient(limit) } {
            return None;
        }
        let who: Vec<_> =
            if missing.is_empty() { self.unseen() } else { missing.iter().map(|m| m.rank).collect() };
        let names: Vec<_> = who.into_iter().map(|rank| self.name(rank)).collect();
        let who = if names.is_empty() { "another rank".to_owned() } else { names.join(" or ") };
        Some(format!(
            "rank {} has waited {limit:?} for {who} {what}: it is stopped or stuck, or its node is not reached; the limit is {by}",
            self.rank
        ))
    }

    /// The ranks that no other one sees, because they are alone on their nodes.
    fn unseen(&self) -> Vec<usize> {
        let Some(roster) = self.roster.get() else { return Vec::new() };
        let is_unseen = |&rank: &usize| rank != self.rank && roster.neighbours(rank).next().is_none();
        (0..roster.len()).filter(is_unseen).collect()
    }

    /// How messages name a rank.
    fn name(&self, rank: usize) -> String {
        self.roster.get().map_or(format!("rank {rank}"), |roster| roster.name(rank))
    }
}

/// Some time more, so that whoever knows best speaks first.
fn patient(limit: Duration) -> Duration {
    limit.mul_f64(1.25) + Duration::from_millis(500)
}
