//! The four phases of a job, as four types: [`Driver::reserve`] → [`Reserved::start`] → [`Started::train`] or
//! [`Started::inference`] → [`Finished::shutdown`]. A phase that fails, or is dropped, ends all processes.

use crate::cluster::Cluster;
use crate::control::Control;
use crate::environment::Environment;
use crate::error::Error;
use crate::job::{Executor, Job};
use crate::key::JobKey;
use crate::message::{ClusterSpec, Role, Task, ToRank};
use crate::notice::Notice;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

/// How a job ended, if nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program took all its steps.
    Finished,
    /// It was stopped before, by this signal or by `muster stop` (SIGTERM's number), and has saved what it had.
    Stopped(usize),
}

/// The side that listens, for all attempts of a job.
pub struct Driver<'a> {
    pub(crate) job: &'a Job,
    pub(crate) key: JobKey,
    pub(crate) control: Control,
    pub(crate) began: Instant,
    /// The number of a signal once one has come, before that 0.
    pub(crate) interrupt: &'a AtomicUsize,
    pub(crate) watch: &'a mut dyn FnMut(&Notice),
}

/// All ranks are there and know the cluster.
pub struct Reserved<'d, 'a>(Cluster<'d, 'a>);

/// All ranks were told to begin.
pub struct Started<'d, 'a>(Cluster<'d, 'a>);

/// All ranks have done their work.
pub struct Finished<'d, 'a>(Cluster<'d, 'a>);

impl<'a> Driver<'a> {
    /// Opens the control channel, with a new key. `watch` is told what happens.
    ///
    /// # Errors
    /// If no port is free.
    pub fn listen(
        job: &'a Job,
        interrupt: &'a AtomicUsize,
        watch: &'a mut dyn FnMut(&Notice),
    ) -> Result<Driver<'a>, Error> {
        let key = JobKey::random();
        let control = Control::listen(job.bind_address(), job.ports, key.clone())?;
        watch(&Notice::Listening(control.address()));
        Ok(Driver { job, key, control, began: Instant::now(), interrupt, watch })
    }

    /// The key that opens the control channel.
    pub fn key(&self) -> &JobKey {
        &self.key
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.control.address()
    }

    /// What the ranks of an attempt find in their environment.
    fn environment(&self, attempt: u32) -> Environment {
        let job = self.job;
        Environment {
            drivers: job.driver_addresses(self.address().port()),
            key: self.key.clone(),
            engine: job.engine,
            world_size: job.ranks,
            attempt,
            heartbeat_timeout: job.limits.heartbeat,
            evaluator: job.evaluator,
            faults: job.faults.clone(),
            input: job.input,
            feed_timeout: job.limits.feed,
            log_dir: job.log_dir.clone(),
        }
    }

    /// Starts the processes of an attempt and waits until every rank has registered; then tells all of them the cluster.
    /// The processes end with the thread that calls this.
    ///
    /// # Errors
    /// If the processes cannot be started, if one fails, or if not all register in time.
    pub fn reserve<'d>(
        &'d mut self,
        executor: &mut dyn Executor,
        attempt: u32,
    ) -> Result<Reserved<'d, 'a>, Error> {
        let places = self.job.places()?;
        (self.watch)(&Notice::Attempt(attempt));
        let environment = self.environment(attempt);
        let running = executor.spawn(self.job, &environment)?;
        (self.watch)(&Notice::Spawned);
        let mut cluster = Cluster::new(self, running, places, attempt);
        cluster.wait_for_registrations()?;
        cluster.check_evaluator()?;
        let spec = cluster.roster.spec();
        cluster.roster.tell_all(&ToRank::Reserved(spec.clone()));
        cluster.notify(&Notice::Reserved(spec));
        Ok(Reserved(cluster))
    }
}

impl<'d, 'a> Reserved<'d, 'a> {
    /// The cluster.
    pub fn spec(&self) -> ClusterSpec {
        self.0.roster.spec()
    }

    /// Lets all ranks begin.
    ///
    /// # Errors
    /// If one of them has failed meanwhile.
    pub fn start(mut self) -> Result<Started<'d, 'a>, Error> {
        self.0.enter("the ranks begin");
        self.0.wait_for_records()?;
        self.0.pass_the_time()?;
        self.0.start();
        self.0.notify(&Notice::Started);
        Ok(Started(self.0))
    }
}

impl<'d, 'a> Started<'d, 'a> {
    /// What the program is about to do.
    pub fn task(&self) -> Task {
        self.0.roster.task().unwrap_or(Task::Train)
    }

    /// Waits until all ranks have trained.
    ///
    /// # Errors
    /// The first failure of a rank.
    pub fn train(self) -> Result<Finished<'d, 'a>, Error> {
        self.work("the ranks train")
    }

    /// Waits until all ranks have classified their records.
    ///
    /// # Errors
    /// The first failure of a rank.
    pub fn inference(self) -> Result<Finished<'d, 'a>, Error> {
        self.work("the ranks classify")
    }

    fn work(mut self, doing: &'static str) -> Result<Finished<'d, 'a>, Error> {
        self.0.enter(doing);
        self.0.wait(|cluster| cluster.roster.has_trained() && cluster.has_fed())?;
        self.0.notify(&Notice::Finished);
        let score = self.0.score;
        if score.labelled > 0 {
            self.0.notify(&Notice::Scored(score));
        }
        Ok(Finished(self.0))
    }
}

impl Finished<'_, '_> {
    /// Releases workers, then the evaluator, then the server, and waits until all processes have ended.
    ///
    /// # Errors
    /// If a rank or the engine fails even now, or does not end in time.
    pub fn shutdown(mut self) -> Result<Outcome, Error> {
        self.0.enter("the ranks end");
        for role in [Role::Worker, Role::Evaluator, Role::Ps] {
            if role == Role::Evaluator {
                self.0.wait_for_evaluator()?;
            }
            self.0.release(role.order())?;
            if self.0.has(role) {
                self.0.notify(&Notice::Released(role));
            }
        }
        let outcome = self.0.wait_for_end()?;
        self.0.notify(&Notice::Ended);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
