//! Notices when a process of this node dies.
//!
//! The launchers notice a death too and end the job, but they name a process at best. A thread sleeps on the file descriptors of all
//! other ranks' processes here and says which rank it was; on a kernel without them it does nothing. Ranks that end on
//! purpose raise a flag on their node before.

use super::memory::Memory;
use crate::Roster;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// The watching thread's counterpart.
pub struct Watch {
    /// Holds the flag.
    memory: Arc<Memory>,
    /// Wakes the thread.
    wake: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Watches the other ranks of this node, which share `memory`. The lowest rank that is left of them says so, and ends.
    pub fn start(rank: usize, roster: Arc<Roster>, memory: Arc<Memory>, say: fn(&str)) -> Watch {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("a file descriptor is left"));
        let (seen, woken) = (memory.clone(), wake.clone());
        let thread = std::thread::spawn(move || {
            let peers = peers(rank, &roster);
            let watched = std::iter::once(&*woken).chain(peers.iter().map(|(_, process)| process));
            let mut polled: Vec<_> = watched.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            while poll(&mut polled, None).is_err() {}
            if !polled[0].revents().is_empty() || seen.flag().load(Ordering::Acquire) {
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
        Watch { memory, wake, thread }
    }

    /// From now on the processes of this node may end.
    pub fn announce_end(&self) {
        self.memory.flag().store(true, Ordering::Release);
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
