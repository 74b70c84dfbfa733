//! Who is there, how far each rank is, and who is missing.

use crate::channel::Sender;
use crate::control::Connection;
use crate::error::Failure;
use crate::message::{self, ClusterSpec, Node, Phase, Program, Progress, Registration, Role, Task, ToRank};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

mod waits;

/// All ranks of one attempt, by what the driver has heard of them.
pub struct Roster {
    seats: Vec<Seat>,
    processes: BTreeMap<Connection, Process>,
    attempt: u32,
    evaluator: bool,
    /// Where each rank is to run, as far as that is known before.
    places: Vec<String>,
}

/// A rank.
#[derive(Clone, Default)]
struct Seat {
    connection: Option<Connection>,
    progress: Progress,
    /// When `progress` last changed.
    changed: Option<Instant>,
    rate: f64,
    result: Option<Result<(), String>>,
}

/// A connection and the process behind it.
struct Process {
    registration: Registration,
    sender: Sender,
    heard: Instant,
}

impl Process {
    /// When it is released.
    fn order(&self, world_size: usize, evaluator: bool) -> usize {
        let orders =
            self.registration.ranks.iter().map(|&rank| Role::of(rank, world_size, evaluator).order());
        orders.max().unwrap_or(0)
    }
}

impl Roster {
    /// Nobody is there yet. `places` names each rank's host.
    pub fn new(places: Vec<String>, attempt: u32, evaluator: bool) -> Roster {
        Roster {
            seats: vec![Seat::default(); places.len()],
            processes: BTreeMap::new(),
            attempt,
            evaluator,
            places,
        }
    }

    /// Takes a process in.
    ///
    /// # Errors
    /// In words, if it is not one that is waited for; it has been told so.
    pub fn register(
        &mut self,
        connection: Connection,
        mut sender: Sender,
        registration: Registration,
        heartbeat_timeout: Duration,
    ) -> Result<(), String> {
        if let Some(reason) = self.objection(&registration) {
            let _ = message::send(&mut sender, &ToRank::Refused(reason.clone()));
            let Registration { ranks, host, pid, .. } = registration;
            return Err(format!("ranks {ranks:?} on {host} (process {pid}) were refused: {reason}"));
        }
        // A process that has stopped reading must not hold up the driver.
        let _ = sender.set_timeout(heartbeat_timeout);
        let now = Instant::now();
        for &rank in &registration.ranks {
            self.seats[rank] = Seat { connection: Some(connection), changed: Some(now), ..Seat::default() };
        }
        self.processes.insert(connection, Process { registration, sender, heard: now });
        Ok(())
    }

    fn objection(&self, new: &Registration) -> Option<String> {
        let size = self.seats.len();
        if new.attempt != self.attempt {
            return Some(format!("it belongs to attempt {}, this is attempt {}", new.attempt, self.attempt));
        }
        if new.ranks.is_empty() {
            return Some("it names no rank".to_owned());
        }
        for (index, &rank) in new.ranks.iter().enumerate() {
            let Some(seat) = self.seats.get(rank) else {
                return Some(format!("rank {rank} is outside of a world of {size}"));
            };
            if let Some(other) = seat.connection.and_then(|connection| self.processes.get(&connection)) {
                let Registration { pid, host, .. } = &other.registration;
                return Some(format!("rank {rank} is registered already, by process {pid} on {host}"));
            }
            if new.ranks[..index].contains(&rank) {
                return Some(format!("it names rank {rank} twice"));
            }
        }
        let first = &self.processes.values().next()?.registration;
        let of = |what: &Registration| format!("{} {}", what.program.name, what.program.version);
        if of(first) != of(new) {
            return Some(format!("it runs {}, rank {} runs {}", of(new), first.ranks[0], of(first)));
        }
        let what = |what: &Registration| {
            let Program { task, evaluates, feed, .. } = &what.program;
            (*task, *evaluates, feed.clone())
        };
        (what(first) != what(new)).then(|| "it is not about to do what the others do".to_owned())
    }

    /// Ranks that have not registered, with their hosts; none if all have.
    pub fn missing(&self) -> Option<String> {
        let missing = |&rank: &usize| self.seats[rank].connection.is_none();
        let names: Vec<String> = (0..self.seats.len())
            .filter(missing)
            .map(|rank| format!("rank {rank} on {}", self.places[rank]))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// What rank 0 said it will do.
    pub fn task(&self) -> Option<Task> {
        self.process_of(0).map(|process| process.registration.program.task)
    }

    /// Whether the program says that the last rank evaluates.
    pub fn evaluates(&self) -> bool {
        self.processes.values().any(|process| process.registration.program.evaluates)
    }

    /// The cluster, once nobody is missing.
    pub fn spec(&self) -> ClusterSpec {
        let node = |rank| {
            let Registration { ranks, host, pid, data_listeners, .. } = &self.process_of(rank)?.registration;
            let at = ranks.iter().position(|&own| own == rank)?;
            let (host, pid) = (host.clone(), *pid);
            let data_listener = data_listeners.get(at).copied().flatten();
            Some(Node { rank, role: self.role(rank), host, pid, data_listener })
        };
        ClusterSpec { nodes: (0..self.seats.len()).filter_map(node).collect() }
    }

    fn role(&self, rank: usize) -> Role {
        Role::of(rank, self.seats.len(), self.evaluator)
    }

    fn process_of(&self, rank: usize) -> Option<&Process> {
        self.processes.get(&self.seats[rank].connection?)
    }

    /// Says something to every process. One that cannot be reached is found out by its silence.
    pub fn tell_all(&mut self, message: &ToRank) {
        for process in self.processes.values_mut() {
            let _ = message::send(&mut process.sender, message);
        }
    }

    /// Says something to the processes of a turn; see [`Role::order`]. One with several roles has the turn of the last.
    pub fn tell(&mut self, order: usize, message: &ToRank) {
        let (size, evaluator) = (self.seats.len(), self.evaluator);
        for process in self.processes.values_mut() {
            if process.order(size, evaluator) == order {
                let _ = message::send(&mut process.sender, message);
            }
        }
    }

    /// Whether processes of this turn are still connected.
    pub fn holds(&self, order: usize) -> bool {
        self.processes.values().any(|process| process.order(self.seats.len(), self.evaluator) == order)
    }

    /// A sign of life, with how far each rank of the process is.
    pub fn beat(&mut self, connection: Connection, progress: &[Progress]) {
        let Some(process) = self.processes.get_mut(&connection) else { return };
        let now = Instant::now();
        let since = now - std::mem::replace(&mut process.heard, now);
        for (&rank, &progress) in process.registration.ranks.iter().zip(progress) {
            let seat = &mut self.seats[rank];
            if seat.progress != progress {
                let steps = progress.step.saturating_sub(seat.progress.step);
                let rate = steps as f64 / since.as_secs_f64().max(1e-3);
                seat.rate = if seat.rate == 0.0 { rate } else { 0.5 * (seat.rate + rate) };
                seat.progress = progress;
                seat.changed = Some(now);
            }
        }
    }

    /// A rank has ended its work; an error of its is a failure.
    ///
    /// # Errors
    /// What the rank said.
    pub fn done(
        &mut self,
        connection: Connection,
        rank: usize,
        result: Result<(), String>,
    ) -> Result<(), Failure> {
        if self.seats.get(rank).and_then(|seat| seat.connection) != Some(connection) {
            return Ok(());
        }
        self.seats[rank].progress.phase = Phase::Done;
        self.seats[rank].result = Some(result.clone());
        result.map_err(|reason| self.failure(rank, reason))
    }

    /// A connection is over. The process is forgotten; that is a failure unless its order is below `released`.
    ///
    /// # Errors
    /// The failure of its first rank that has not done its work, with `reason` if that is more than an end.
    pub fn closed(
        &mut self,
        connection: Connection,
        reason: Option<String>,
        released: usize,
    ) -> Result<(), Failure> {
        let Some(process) = self.processes.get(&connection) else { return Ok(()) };
        let ranks = &process.registration.ranks;
        let rank = *ranks.iter().find(|&&rank| !self.is_done(rank)).unwrap_or(&ranks[0]);
        let step = self.seats[rank].progress.step;
        let cause = reason.map_or(String::new(), |reason| format!(" ({reason})"));
        let failure = self.failure(rank, format!("gone without a word, last heard of at step {step}{cause}"));
        let process = self.processes.remove(&connection).expect("it was found above");
        process.sender.close();
        let was_released = process.order(self.seats.len(), self.evaluator) < released;
        if was_released { Ok(()) } else { Err(failure) }
    }

    /// Whether this is the connection of a process that is there.
    pub fn is_connected(&self, connection: Connection) -> bool {
        self.processes.contains_key(&connection)
    }

    fn is_done(&self, rank: usize) -> bool {
        self.seats[rank].result.is_some()
    }

    /// Whether every rank has done its work.
    pub fn all_done(&self) -> bool {
        (0..self.seats.len()).all(|rank| self.is_done(rank))
    }

    /// Whether every rank that trains has done its work.
    pub fn has_trained(&self) -> bool {
        (0..self.seats.len()).all(|rank| self.role(rank) == Role::Evaluator || self.is_done(rank))
    }

    /// What happened to a rank, with its place.
    fn failure(&self, rank: usize, reason: String) -> Failure {
        let place = self.process_of(rank).map(|process| &process.registration);
        let (host, pid) =
            place.map_or((self.places[rank].clone(), 0), |place| (place.host.clone(), place.pid));
        Failure { rank, host, pid, reason }
    }

    /// Cuts all connections.
    pub fn close(&mut self) {
        self.processes.values().for_each(|process| process.sender.close());
    }
}

#[cfg(test)]
mod tests;
