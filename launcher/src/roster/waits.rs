//! Who is silent or stuck, and who waits for whom.

use super::{Process, Roster, Seat};
use crate::error::Failure;
use crate::message::{Phase, RankStatus, Role};
use std::time::{Duration, Instant};

impl Roster {
    /// A process that gives no sign of life, or a rank that takes no step, for longer than `timeout`.
    pub fn overdue(&self, now: Instant, timeout: Duration) -> Option<Failure> {
        let late = |since: Instant| now.saturating_duration_since(since) > timeout;
        let seconds = timeout.as_secs_f64();
        if let Some(silent) = self.processes.values().find(|process| late(process.heard)) {
            let reason =
                format!("no sign of life for {seconds} s (--heartbeat-timeout): stopped, or cut off");
            return Some(self.failure(silent.registration.ranks[0], reason));
        }
        // Whoever follows a directory takes no step until a part appears.
        let follows = self.follows();
        let stuck = |&rank: &usize| {
            let Seat { progress, changed, .. } = &self.seats[rank];
            // Of a process that has fallen silent its steps are not known: it is found by its silence.
            let is_heard = |process: &Process| now.saturating_duration_since(process.heard) < timeout / 2;
            let is_late = progress.phase == Phase::Training && !follows && changed.is_some_and(late);
            is_late && self.process_of(rank).is_some_and(is_heard)
        };
        // Whoever waits for others is as late as they are: the one with the fewest steps is to blame.
        let rank = (0..self.seats.len()).filter(stuck).min_by_key(|&rank| self.seats[rank].progress.step)?;
        let step = self.seats[rank].progress.step;
        Some(self.failure(rank, format!("stuck after step {step} for {seconds} s (--heartbeat-timeout)")))
    }

    /// Whether the ranks are fed with parts as they appear.
    fn follows(&self) -> bool {
        let feed = self.processes.values().next().and_then(|first| first.registration.program.feed.as_ref());
        feed.is_some_and(|feed| feed.follow)
    }

    /// By rank.
    pub fn status(&self) -> Vec<RankStatus> {
        let rank_status = |rank: usize| {
            let (seat, process) = (&self.seats[rank], self.process_of(rank));
            RankStatus {
                rank,
                role: self.role(rank),
                place: process.map(|p| (p.registration.host.clone(), p.registration.pid)),
                progress: seat.progress,
                rate: seat.rate,
                silent_seconds: process.map_or(0.0, |process| process.heard.elapsed().as_secs_f64()),
            }
        };
        (0..self.seats.len()).map(rank_status).collect()
    }

    /// Who waits for whom, in words.
    pub fn waits(&self) -> String {
        if let Some(missing) = self.missing() {
            return format!("all wait for {missing} to register");
        }
        // An evaluator is behind by nature.
        let trainers = (0..self.seats.len()).filter(|&rank| self.role(rank) != Role::Evaluator);
        let steps: Vec<(u64, usize)> = trainers.map(|rank| (self.seats[rank].progress.step, rank)).collect();
        let (Some(&(least, _)), Some(&(most, _))) = (steps.iter().min(), steps.iter().max()) else {
            return String::new();
        };
        if least == most {
            return String::new();
        }
        let behind: Vec<String> =
            steps.iter().filter(|(step, _)| *step == least).map(|(_, rank)| rank.to_string()).collect();
        format!("ranks at step {most} wait for rank {} at step {least}", behind.join(", "))
    }
}
