//! What the driver looks after while it waits: signals and limits, the engine, silent ranks, the feeding.

use super::{Cluster, REMIND, SETTLE, Stop};
use crate::engine::Engine;
use crate::error::{Error, Failure};
use crate::message::ToRank;
use crate::notice::Notice;
use crate::process::Exit;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Cluster<'_, '_> {
    /// Adds to a lost rank's failure what the engine knows.
    pub(super) fn explain(&mut self, mut failure: Failure) -> Error {
        let deadline = Instant::now() + SETTLE;
        let is_program = self.driver.job.engine == Engine::Threads;
        while is_program && self.running.try_wait().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(exit) = self.running.try_wait().filter(|_| is_program) {
            failure.reason += &format!(": it ended with {}", exit.status);
        }
        if let Some(words) = self.running.last_words(Some(failure.rank).filter(|_| !is_program)) {
            failure.reason += &format!("; its last line: {words}");
        }
        Error::Rank(failure)
    }

    pub(super) fn look_after(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        self.look_for_orders(now)?;
        self.look_at_engine(now)?;
        let fed = self.feeding.as_mut().map_or(Ok(None), |feeding| feeding.look(now, SETTLE))?;
        if let Some(tally) = fed {
            self.notify(&Notice::Fed(tally));
        }
        let heartbeat = self.driver.job.limits.heartbeat;
        if let Some(failure) = self.roster.overdue(now, heartbeat) {
            return Err(Error::Rank(failure));
        }
        if now - self.beaten > heartbeat / 4 {
            self.beaten = now;
            self.roster.tell_all(&ToRank::Beat);
        }
        if now - self.reminded > REMIND && self.roster.missing().is_some() {
            self.reminded = now;
            self.notify(&Notice::Waiting(self.roster.waits()));
        }
        Ok(())
    }

    /// Signals, the time that the job may take, and the time of grace after an order to stop.
    fn look_for_orders(&mut self, now: Instant) -> Result<(), Error> {
        let limits = &self.driver.job.limits;
        let signal = self.driver.interrupt.load(Ordering::Relaxed);
        let over_time = limits.job.filter(|&time| self.driver.began.elapsed() > time);
        match (&self.stop, over_time) {
            (None, _) if signal != 0 => {
                self.order_stop(Stop::Signal(signal, now), &format!("signal {signal}"))
            }
            (None, Some(time)) => self.order_stop(Stop::Timeout(time, now), "--timeout is over"),
            (Some(Stop::Signal(_, since) | Stop::Timeout(_, since)), _) if now - *since > limits.grace => {
                Err(Error::Timeout {
                    doing: self.doing.to_owned(),
                    time: limits.grace,
                    option: "--grace-secs",
                })
            }
            _ => Ok(()),
        }
    }

    /// Tells all ranks to stop. While some are missing there is nothing that could be saved: the attempt ends at once.
    pub(super) fn order_stop(&mut self, stop: Stop, reason: &str) -> Result<(), Error> {
        self.notify(&Notice::Stopping(reason.to_owned()));
        if self.roster.missing().is_some() {
            return Err(match stop {
                Stop::Signal(signal, _) => Error::Interrupted { signal },
                Stop::Timeout(time, _) => self.overtime(time),
            });
        }
        self.stop = Some(stop);
        if let Some(feeding) = &self.feeding {
            feeding.stop();
        }
        self.roster.tell_all(&ToRank::Stop);
        Ok(())
    }

    pub(super) fn overtime(&self, time: Duration) -> Error {
        Error::Timeout { doing: self.doing.to_owned(), time, option: "--timeout" }
    }

    fn look_at_engine(&mut self, now: Instant) -> Result<(), Error> {
        if self.exit.is_none() {
            self.exit = self.running.try_wait().map(|exit| (exit, now));
        }
        match &self.exit {
            // Ranks that have registered tell more about their end than the engine does: their news are waited for.
            Some((exit, since)) if !self.roster.all_done() && now - *since > SETTLE => {
                Err(match self.roster.missing() {
                    Some(missing) => Error::Missing {
                        missing,
                        reason: format!("its process ended with {}", self.end_of(exit)),
                    },
                    None => self.engine_error(exit),
                })
            }
            _ => Ok(()),
        }
    }

    fn end_of(&self, exit: &Exit) -> String {
        let words = self.running.last_words(None).map_or(String::new(), |words| format!(": {words}"));
        format!("{}{words}", exit.status)
    }

    pub(super) fn engine_error(&self, exit: &Exit) -> Error {
        let engine = match self.driver.job.engine {
            Engine::Threads => self.driver.job.program[0].display().to_string(),
            engine => engine.name().to_owned(),
        };
        Error::Engine { engine, status: self.end_of(exit) }
    }
}
