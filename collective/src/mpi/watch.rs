//! Notices when a process of this node dies.
//!
//! The launchers notice it too and end the job, but they name a process at best. A thread sleeps on the file descriptors of all other
//! ranks' processes here and says which rank it was; on a kernel without them it does nothing.

use crate::Roster;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The watching thread's counterpart.
pub struct Watch {
    over: Arc<AtomicBool>,
}

impl Watch {
    /// Watches the other ranks of this node. The lowest rank that is left calls `on_death`.
    pub fn start(rank: usize, roster: Arc<Roster>, on_death: fn(&str) -> !) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let here = &roster.places()[rank];
        let peers: Vec<_> = (0..roster.len())
            .filter(|&peer| {
                let there = &roster.places()[peer];
                peer != rank && there.node == here.node && there.pid_namespace == here.pid_namespace
            })
            .filter_map(|peer| {
                let pid = Pid::from_raw(i32::try_from(roster.places()[peer].pid).ok()?)?;
                Some((peer, pidfd_open(pid, PidfdFlags::empty()).ok()?))
            })
            .collect();
        let is_over = over.clone();
        let watch = move || {
            let mut polled: Vec<_> =
                peers.iter().map(|(_, process)| PollFd::new(process, PollFlags::IN)).collect();
            while poll(&mut polled, None).is_err() {}
            let dead = polled.iter().zip(&peers).filter(|(fd, _)| !fd.revents().is_empty());
            let dead: Vec<usize> = dead.map(|(_, (peer, _))| *peer).collect();
            let lowest = (0..roster.len()).find(|rank| !dead.contains(rank));
            if is_over.load(Ordering::Acquire) || dead.is_empty() {
                return;
            }
            if lowest == Some(rank) {
                on_death(&format!("{} has died", roster.name(dead[0])));
            }
        };
        std::thread::spawn(watch);
        Watch { over }
    }

    /// From now on processes may end.
    pub fn stop(&self) {
        self.over.store(true, Ordering::Release);
    }
}
