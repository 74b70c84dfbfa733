//! What each phase waits for.

use super::{Cluster, Stop, TICK};
use crate::driver::Outcome;
use crate::error::Error;
use crate::feeding::Feeding;
use crate::job::Input;
use crate::message::{Role, ToRank};
use std::time::Instant;

impl Cluster<'_, '_> {
    pub fn wait_for_registrations(&mut self) -> Result<(), Error> {
        let limit = self.driver.job.limits.reservation;
        self.wait(|cluster| cluster.roster.missing().is_none() || cluster.entered.elapsed() > limit)?;
        let Some(missing) = self.roster.missing() else { return Ok(()) };
        let words =
            self.running.last_words(None).map_or(String::new(), |words| format!("; it said: {words}"));
        let reason = format!(
            "not within {} s (--reservation-timeout), while its processes run: a host is not reached, or it is no program of muster's{words}",
            limit.as_secs_f64()
        );
        Err(Error::Missing { missing, reason })
    }

    /// Makes sure that launcher and program mean the same ranks.
    pub fn check_evaluator(&self) -> Result<(), Error> {
        let (wanted, known) = (self.driver.job.evaluator, self.roster.evaluates());
        let what = match (wanted, known) {
            (true, false) => "the job has an evaluator, but the program knows none",
            (false, true) => "the program has an evaluator, but the job has none",
            _ => return Ok(()),
        };
        let mend = "give --evaluator to `muster run`, to a program that trains and knows evaluators, or leave it out";
        Err(Error::Usage { what: what.to_owned(), mend })
    }

    /// Waits until there is something to feed the ranks with, if they are to be fed.
    pub fn wait_for_records(&mut self) -> Result<(), Error> {
        if self.feeding.is_none() && self.driver.job.input != Input::Program {
            let what = "the job is to be fed, but the program reads its records itself".to_owned();
            return Err(Error::Usage {
                what,
                mend: "leave --feed out, or let the program say what it is fed with",
            });
        }
        loop {
            if self.feeding.as_mut().map_or(Ok(true), Feeding::is_ready)? {
                return Ok(());
            }
            if let Some(event) = self.driver.control.next(TICK) {
                self.handle(event)?;
            }
            self.look_after()?;
        }
    }

    /// Tells all ranks to begin, and begins to feed them.
    pub fn start(&mut self) {
        let facts = self.feeding.as_ref().and_then(Feeding::facts);
        self.roster.tell_all(&ToRank::Start(facts));
        if let Some(feeding) = &mut self.feeding {
            let workers = self.roster.spec().nodes.iter().filter_map(|node| node.data_listener).collect();
            feeding.push(self.driver.key.clone(), workers, self.driver.job.limits.feed);
        }
    }

    /// Tells the evaluator, if there is one, that no checkpoint will follow, and waits until it has evaluated all there are.
    pub fn wait_for_evaluator(&mut self) -> Result<(), Error> {
        self.roster.tell(Role::Evaluator.order(), &ToRank::Trained);
        self.wait_with_grace(|cluster| cluster.roster.all_done())
    }

    /// Whether there are ranks that are released together with this role.
    pub fn has(&self, role: Role) -> bool {
        let ranks = self.driver.job.ranks;
        (0..ranks).any(|rank| Role::of(rank, ranks, self.driver.job.evaluator).order() == role.order())
    }

    /// Releases those of this order (see [`Role::order`]), and waits until they are gone.
    pub fn release(&mut self, order: usize) -> Result<(), Error> {
        self.released = order + 1;
        self.roster.tell(order, &ToRank::Release);
        self.wait_with_grace(|cluster| !cluster.roster.holds(order))
    }

    /// Waits until all processes have ended by themselves.
    pub fn wait_for_end(&mut self) -> Result<Outcome, Error> {
        self.wait_with_grace(|cluster| cluster.exit.is_some())?;
        self.over = true;
        let (exit, _) = self.exit.as_ref().expect("it was waited for");
        match self.stop {
            Some(Stop::Timeout(time, _)) => Err(self.overtime(time)),
            // Programs end with 128 and the signal's number when they were stopped.
            Some(Stop::Signal(signal, _)) => Ok(Outcome::Stopped(signal)),
            None if exit.success => Ok(Outcome::Finished),
            None => Err(self.engine_error(exit)),
        }
    }

    fn wait_with_grace(&mut self, mut until: impl FnMut(&Self) -> bool) -> Result<(), Error> {
        let (since, time) = (Instant::now(), self.driver.job.limits.grace);
        let mut late = false;
        self.wait(|cluster| {
            let there = until(cluster);
            late = !there && since.elapsed() > time;
            there || late
        })?;
        if late {
            return Err(Error::Timeout { doing: self.doing.to_owned(), time, option: "--grace-secs" });
        }
        Ok(())
    }
}
