//! How long a rank waited for which other, and how long it sent and received. Every wait has a limit.

use crate::end::Arrival;
use crate::wait::Patience;
use crate::{Error, Roster};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where a rank's time went, in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// Sending and receiving.
    pub communication: f64,
    /// Waiting for each rank.
    pub waiting: Vec<f64>,
}

/// A rank's account.
pub(crate) struct Account {
    pub roster: Arc<Roster>,
    times: Mutex<Times>,
}

impl Account {
    pub fn new(roster: Arc<Roster>) -> Account {
        let times = Times { communication: 0.0, waiting: vec![0.0; roster.len()] };
        Account { roster, times: Mutex::new(times) }
    }

    /// Waits for a rank until `poll` says that all has come. When the wait grows long, `lives` is asked for failures and whether the
    /// rank has given a new sign of life: the limit counts from the last one.
    pub fn wait(
        &self,
        (rank, limit): (usize, Duration),
        mut poll: impl FnMut() -> Result<Arrival, Error>,
        lives: impl Fn() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let (start, mut patience, mut begun) = (Instant::now(), Patience::default(), None);
        let mut heard = start;
        loop {
            match poll()? {
                Arrival::Complete => break,
                Arrival::Begun => _ = begun.get_or_insert_with(Instant::now),
                Arrival::Nothing => {}
            }
            if patience.is_long() {
                if lives()? {
                    heard = Instant::now();
                }
                if heard.elapsed() > limit {
                    return Err(self.stuck(rank, limit));
                }
            }
            patience.pause();
        }
        let end = Instant::now();
        let mut times = self.times.lock().expect("no panic while it is held");
        times.waiting[rank] += (begun.unwrap_or(end) - start).as_secs_f64();
        times.communication += (end - begun.unwrap_or(end)).as_secs_f64();
        Ok(())
    }

    pub fn stuck(&self, rank: usize, limit: Duration) -> Error {
        Error::Stuck { who: self.roster.name(rank), limit }
    }

    /// Does what counts as communication.
    pub fn communicate<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.times.lock().expect("no panic while it is held").communication += start.elapsed().as_secs_f64();
        done
    }

    pub fn times(&self) -> Times {
        self.times.lock().expect("no panic while it is held").clone()
    }

    /// Seconds of communication and of waiting for all ranks together.
    pub fn spent(&self) -> (f64, f64) {
        let times = self.times.lock().expect("no panic while it is held");
        (times.communication, times.waiting.iter().sum())
    }
}
