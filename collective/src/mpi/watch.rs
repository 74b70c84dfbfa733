//! Notices when a process of this node dies.
//!
//! The launchers notice a death too and end the job, but they name a process at best. A thread sleeps on the file descriptors of all
//! other ranks' processes here and says which rank it was; on a kernel without them it does nothing. Ranks that end on
//! purpose say so to their node before.

use super::memory::Memory;
use crate::Roster;
use crate::wait::Patience;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Of the word that the ranks of a node share: bit 0 says that they may end, the others count those that will only end.
const MAY_END: u32 = 1;
const ONE_ENDS: u32 = 2;

/// What ranks may take to begin to end: those of this node, who say that they do, and after them those of other nodes.
const NEAR_ONES_BEGIN: Duration = Duration::from_secs(2);
const FAR_ONES_BEGIN: Duration = Duration::from_millis(100);

/// The watching thread's counterpart.
pub struct Watch {
    /// Holds the word.
    memory: Arc<Memory>,
    /// How many ranks this node has.
    ranks: u32,
    /// Wakes the thread.
    wake: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Watches the other ranks of this node, which share `memory`. The lowest rank that is left of them says so, and ends.
    pub fn start(rank: usize, roster: Arc<Roster>, memory: Arc<Memory>, say: fn(&str)) -> Watch {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("a file descriptor is left"));
        let (seen, woken) = (memory.clone(), wake.clone());
        let ranks = roster.neighbours(rank).count() as u32 + 1;
        let thread = std::thread::spawn(move || {
            let peers = peers(rank, &roster);
            let watched = std::iter::once(&*woken).chain(peers.iter().map(|(_, process)| process));
            let mut polled: Vec<_> = watched.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            while poll(&mut polled, None).is_err() {}
            if !polled[0].revents().is_empty() || seen.word().load(Ordering::Acquire) != 0 {
                return;
            }
            let dead = polled[1..].iter().zip(&peers).filter(|(fd, _)| !fd.revents().is_empty());
            let dead: Vec<usize> = dead.map(|(_, (peer, _))| *peer).collect();
            let here = peers.iter().map(|(peer, _)| *peer).chain([rank]);
            if here.filter(|rank| !dead.contains(rank)).min() == Some(rank) {
                say(&format!("{} has died", roster.name(dead[0])));
                std::process::exit(1);
            }
        });
        Watch { memory, ranks, wake, thread }
    }

    /// From now on the processes of this node may end.
    pub fn announce_end(&self) {
        self.memory.word().fetch_or(MAY_END, Ordering::AcqRel);
    }

    /// All that this rank still does is to end.
    pub fn will_only_end(&self) {
        self.memory.word().fetch_add(ONE_ENDS, Ordering::AcqRel);
    }

    /// Waits until all ranks of this node will only end, and then as long as those of other nodes, which cannot say it, may take to.
    pub fn wait_for_others(&self) {
        let (begin, mut patience) = (Instant::now(), Patience::default());
        let are_here = || self.memory.word().load(Ordering::Acquire) / ONE_ENDS == self.ranks;
        while !are_here() && begin.elapsed() < NEAR_ONES_BEGIN {
            patience.pause();
        }
        std::thread::sleep(FAR_ONES_BEGIN);
    }

    /// Ends the watching thread.
    pub fn stop(self) {
        let woken = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        if woken.is_ok() {
            self.thread.join().expect("it does not panic");
        }
    }
}

/// The other ranks whose processes can be watched from here.
fn peers(rank: usize, roster: &Roster) -> Vec<(usize, OwnedFd)> {
    let process = |pid: u32| pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok();
    roster.neighbours(rank).filter_map(|(peer, pid)| Some((peer, process(pid)?))).collect()
}
