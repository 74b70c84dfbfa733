//! The program's side of the control channel: a program that is run by the launcher registers, says how far it is, and ends when it
//! is told to.
//!
//! ```no_run
//! use muster_launcher::agent::Agent;
//! use muster_launcher::message::{Program, Task};
//!
//! let program =
//!     Program { name: "mine".into(), version: "1.0.0".into(), kernels: "wide".into(), task: Task::Train, evaluates: false, feed: None };
//! if let Some(agent) = Agent::of_this_process(program)? {
//!     agent.wait_for_start()?;
//!     for step in 1..=100 {
//!         // … work …
//!         agent.ranks().iter().for_each(|&rank| agent.step(rank, step));
//!         if agent.stop().load(std::sync::atomic::Ordering::Relaxed) != 0 {
//!             break;
//!         }
//!     }
//!     agent.finish(Ok(()))?;
//! }
//! # Ok::<(), muster_launcher::Error>(())
//! ```

use crate::engine::Engine;
use crate::environment::Environment;
use crate::error::Error;
use crate::feed::spec::FeedSpec;
use crate::feed::{Fed, Inlet};
use crate::inject::Fault;
use crate::job::Input;
use crate::message::{self, ClusterSpec, Hello, Phase, Program, Progress, Score, ToRank};
use muster::feed::Facts;
use registration::{first_rank, listen, registration};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;
use uplink::{Uplink, connect};

mod registration;
mod uplink;

/// See the module.
pub struct Agent {
    uplink: Arc<Uplink>,
    orders: Mutex<mpsc::Receiver<ToRank>>,
    /// Dropped to end the thread that gives signs of life.
    beating: Option<mpsc::Sender<()>>,
    environment: Environment,
    spec: ClusterSpec,
    feed: Option<FeedSpec>,
    /// Where records come in, by rank, until [`Agent::fed`] takes them.
    inlets: Mutex<BTreeMap<usize, Inlet>>,
    /// What the driver has said of the records.
    facts: OnceLock<Facts>,
}

/// Whether the launcher that has started this process is to feed it.
///
/// # Errors
/// If the environment is incomplete.
pub fn wants_feed() -> Result<bool, Error> {
    let environment = Environment::read(|name| std::env::var_os(name))?;
    Ok(environment.is_some_and(|environment| environment.input != Input::Program))
}

/// What happens when the driver is lost (the error) or has ended the job (none).
pub type OnLost = Box<dyn FnOnce(Option<Error>) + Send>;

impl Agent {
    /// Registers this process, if the launcher has started it, and waits until all ranks are there. From then on the process ends
    /// when the driver does, or says so.
    ///
    /// # Errors
    /// If the environment is incomplete, the driver is not reached, or it refuses.
    pub fn of_this_process(program: Program) -> Result<Option<Agent>, Error> {
        let variable = |name: &str| std::env::var_os(name);
        let Some(environment) = Environment::read(variable)? else { return Ok(None) };
        if environment.engine != Engine::Threads {
            // Whoever starts ranks on this host (orted, a Hydra proxy, slurmstepd) may be killed, too.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        }
        let ranks = environment.ranks(variable)?;
        let on_lost = |error: Option<Error>| {
            if let Some(error) = error {
                eprintln!("{error}");
            }
            std::process::exit(1);
        };
        Agent::register(environment, ranks, program, Box::new(on_lost)).map(Some)
    }

    /// Registers `ranks` and waits until all others are there. If the program is to be fed, its ranks listen for records.
    ///
    /// # Errors
    /// If the driver is not reached, or refuses.
    pub fn register(
        environment: Environment,
        ranks: Vec<usize>,
        program: Program,
        on_lost: OnLost,
    ) -> Result<Agent, Error> {
        let (mut sender, receiver) = connect(&environment)?;
        let feed = program.feed.clone();
        let inlets = match &feed {
            Some(feed) => listen(&sender, &environment, &ranks, feed)?,
            None => BTreeMap::new(),
        };
        let address = environment.drivers.join(", ");
        message::send(
            &mut sender,
            &Hello::Register(Box::new(registration(&environment, &ranks, program, &inlets))),
        )
        .map_err(Error::io("register with", address))?;
        let uplink = Arc::new(Uplink {
            sender: Mutex::new(sender),
            progress: Mutex::new(vec![Progress::default(); ranks.len()]),
            ranks,
            stop: Arc::default(),
            score: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let (order, orders) = mpsc::channel();
        let (beating, ended) = mpsc::channel();
        let (listening, lifetime) = (uplink.clone(), environment.heartbeat_timeout);
        let address = environment.drivers.join(", ");
        std::thread::spawn(move || listening.listen(receiver, (&address, lifetime), &order, on_lost));
        let alive = uplink.clone();
        std::thread::spawn(move || alive.beat(lifetime, &ended));
        let mut agent = Agent {
            uplink,
            orders: Mutex::new(orders),
            beating: Some(beating),
            environment,
            spec: ClusterSpec::default(),
            feed,
            inlets: Mutex::new(inlets),
            facts: OnceLock::new(),
        };
        agent.spec = match agent.next_order() {
            Ok(ToRank::Reserved(spec)) => spec,
            Ok(ToRank::Refused(reason)) => return Err(agent.give_up(Error::Refused(reason))),
            Ok(other) => return Err(agent.give_up(unexpected(&other))),
            Err(error) => return Err(agent.give_up(error)),
        };
        Ok(agent)
    }

    /// The cluster.
    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// The ranks of this process.
    pub fn ranks(&self) -> &[usize] {
        &self.uplink.ranks
    }

    /// What the launcher has told this process.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Becomes SIGTERM's number when the job is to be stopped: end after this step, with a checkpoint.
    pub fn stop(&self) -> &Arc<AtomicUsize> {
        &self.uplink.stop
    }

    /// Waits until all ranks may begin.
    ///
    /// # Errors
    /// If the driver is lost.
    pub fn wait_for_start(&self) -> Result<(), Error> {
        match self.next_order()? {
            ToRank::Start(facts) => {
                facts.map_or(Ok(()), |facts| self.facts.set(facts)).expect("a rank starts once");
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Whether this program is fed.
    pub fn is_fed(&self) -> bool {
        self.feed.is_some()
    }

    /// The records that the driver sends, if this program is fed: once, after the start. A byte of a feature stands for `byte * scale`.
    pub fn fed(&self, scale: f32) -> Option<Fed> {
        let (feed, facts) = (self.feed.clone()?, self.facts.get()?.clone());
        let inlets = std::mem::take(&mut *self.inlets.lock().expect("no panic while it is held"));
        let first = first_rank(&feed, self.environment.trainers());
        let by_worker = inlets.into_iter().map(|(rank, inlet)| (rank - first, inlet));
        Some(Fed::new(by_worker, (feed, facts), scale, self.environment.feed_timeout))
    }

    /// A rank has done `step` steps; faults that were ordered for then, or since its last ones, happen now.
    pub fn step(&self, rank: usize, step: u64) {
        self.reach(rank, Progress { step, phase: Phase::Training });
    }

    /// The evaluator has evaluated the model of `step` steps. Faults happen as in [`Agent::step`].
    pub fn evaluated(&self, step: u64) {
        self.reach(self.environment.trainers(), Progress { step, phase: Phase::Evaluating });
    }

    fn reach(&self, rank: usize, reached: Progress) {
        let (mut before, step) = (0, reached.step);
        self.update(rank, |progress| before = std::mem::replace(progress, reached).step);
        if self.environment.attempt == 0 {
            let is_due = |fault: &&Fault| fault.rank == rank && before < fault.step && fault.step <= step;
            let due = self.environment.faults.iter().filter(is_due);
            due.for_each(|fault| self.uplink.execute(fault.kind));
        }
    }

    /// Waits so long for the end of the training, in the process of an evaluator that is alone in it; whether it has come. What is there
    /// then is all that will be there to be evaluated.
    ///
    /// # Errors
    /// If the driver is lost.
    pub fn training_ends_within(&self, time: Duration) -> Result<bool, Error> {
        let order = self.orders.lock().expect("no panic while it is held").recv_timeout(time);
        match order {
            Ok(ToRank::Trained) => Ok(true),
            Ok(other) => Err(unexpected(&other)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(false),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.lost()),
        }
    }

    /// So many more labelled records were classified, and so many of them rightly. The driver is told at the end.
    pub fn classified(&self, labelled: u64, right: u64) {
        let mut score = self.uplink.score.lock().expect("no panic while it is held");
        *score = Score { labelled: score.labelled + labelled, right: score.right + right };
    }

    /// A rank does something else now.
    pub fn phase(&self, rank: usize, phase: Phase) {
        self.update(rank, |progress| progress.phase = phase);
    }

    fn update(&self, rank: usize, change: impl FnOnce(&mut Progress)) {
        if let Some(index) = self.uplink.ranks.iter().position(|&own| own == rank) {
            change(&mut self.uplink.progress.lock().expect("no panic while it is held")[index]);
        }
    }

    /// Tells the driver how the work of this process's ranks has ended, and waits until it is released.
    ///
    /// # Errors
    /// If the driver is lost before.
    pub fn finish(self, result: Result<(), String>) -> Result<(), Error> {
        self.uplink.report(&result);
        // After an error of a rank the driver ends the job, and with it this process; it need not be waited for.
        let released = if result.is_ok() { self.next_order().map(drop) } else { Ok(()) };
        self.uplink.close();
        released
    }

    fn next_order(&self) -> Result<ToRank, Error> {
        let orders = self.orders.lock().expect("no panic while it is held");
        orders.recv().map_err(|_| self.lost())
    }

    fn lost(&self) -> Error {
        let (address, reason) = (self.environment.drivers.join(", "), "its connection has ended".to_owned());
        Error::DriverLost { address, reason }
    }

    /// No signs of life from now on.
    #[cfg(test)]
    pub(crate) fn fall_silent(&mut self) {
        self.beating = None;
    }

    /// The end of a process that could not say anything any more.
    #[cfg(test)]
    pub(crate) fn die(self) {
        self.uplink.close();
    }

    fn give_up(self, error: Error) -> Error {
        self.uplink.close();
        error
    }
}

impl Drop for Agent {
    /// A rank that ends without a result has failed.
    fn drop(&mut self) {
        if !self.uplink.closing.load(Ordering::Acquire) {
            let panicking = std::thread::panicking();
            let reason = if panicking { "a thread panicked" } else { "it ended before its work was done" };
            self.uplink.report(&Err(reason.to_owned()));
            self.uplink.close();
        }
        self.beating = None;
    }
}

fn unexpected(order: &ToRank) -> Error {
    Error::Protocol { peer: "the driver".to_owned(), found: format!("{order:?}, which was not its turn") }
}
