//! One attempt: its processes, its roster, and the loop in which the driver waits for something while it watches over them.

use crate::channel::Sender;
use crate::control::{Connection, Event};
use crate::driver::Driver;
use crate::error::Error;
use crate::feeding::Feeding;
use crate::message::{self, Hello, Registration, Score, Status, ToDriver, ToRank};
use crate::notice::Notice;
use crate::process::{Exit, Running, kill_job};
use crate::roster::Roster;
use std::time::{Duration, Instant};

mod phases;
mod watch;

/// How long the driver sleeps when nothing happens: it looks after processes and signals this often.
const TICK: Duration = Duration::from_millis(10);
/// How long the engine and its ranks may differ on whether they are there: news takes several ways.
const SETTLE: Duration = Duration::from_millis(300);
/// How long processes may take to end when they are asked to, and again when they are killed.
const END_MAX: Duration = Duration::from_secs(1);
/// A person who waits is told for whom this often.
const REMIND: Duration = Duration::from_secs(10);
/// The number of SIGTERM, which `muster stop` stands for.
const SIGTERM: usize = 15;

/// Why the ranks were told to stop, and when.
enum Stop {
    Signal(usize, Instant),
    Timeout(Duration, Instant),
}

/// See the module.
pub struct Cluster<'d, 'a> {
    driver: &'d mut Driver<'a>,
    pub roster: Roster,
    running: Box<dyn Running>,
    attempt: u32,
    /// What is going on, for messages.
    doing: &'static str,
    entered: Instant,
    reminded: Instant,
    beaten: Instant,
    stop: Option<Stop>,
    /// How the engine ended, and when that was noticed.
    exit: Option<(Exit, Instant)>,
    /// Processes of orders below this have been released.
    released: usize,
    /// What the ranks are fed with, if they are.
    feeding: Option<Feeding>,
    /// How right the ranks were that have done their work.
    pub score: Score,
    over: bool,
}

impl<'d, 'a> Cluster<'d, 'a> {
    pub fn new(
        driver: &'d mut Driver<'a>,
        running: Box<dyn Running>,
        places: Vec<String>,
        attempt: u32,
    ) -> Self {
        let now = Instant::now();
        let roster = Roster::new(places, attempt, driver.job.evaluator);
        Cluster {
            driver,
            roster,
            running,
            attempt,
            doing: "ranks register",
            entered: now,
            reminded: now,
            beaten: now,
            stop: None,
            exit: None,
            released: 0,
            feeding: None,
            score: Score::default(),
            over: false,
        }
    }

    pub fn notify(&mut self, notice: &Notice) {
        (self.driver.watch)(notice);
    }

    /// Begins the next phase.
    pub fn enter(&mut self, doing: &'static str) {
        (self.doing, self.entered) = (doing, Instant::now());
    }

    /// Whether the feeding has ended, or there is none.
    pub fn has_fed(&self) -> bool {
        self.feeding.as_ref().is_none_or(Feeding::is_done)
    }

    /// Takes note of everything that has happened so far.
    pub fn pass_the_time(&mut self) -> Result<(), Error> {
        while let Some(event) = self.driver.control.next(Duration::ZERO) {
            self.handle(event)?;
        }
        self.look_after()
    }

    /// Waits for something, and meanwhile for everything else.
    pub fn wait(&mut self, mut until: impl FnMut(&Self) -> bool) -> Result<(), Error> {
        loop {
            if until(self) {
                return Ok(());
            }
            if let Some(event) = self.driver.control.next(TICK) {
                self.handle(event)?;
            }
            self.look_after()?;
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Opened(connection, sender, Hello::Register(registration)) => {
                self.register(connection, sender, *registration);
                Ok(())
            }
            Event::Opened(_, sender, hello) => self.answer(sender, &hello),
            Event::Heard(connection, ToDriver::Beat(progress)) => {
                self.roster.beat(connection, &progress);
                Ok(())
            }
            Event::Heard(connection, ToDriver::Done { rank, result, score }) => {
                self.score.labelled += score.labelled;
                self.score.right += score.right;
                self.roster.done(connection, rank, result).map_err(Error::Rank)
            }
            Event::Closed(connection, reason) => {
                self.hear_out(connection)?;
                let closed = self.roster.closed(connection, reason, self.released);
                closed.map_err(|failure| self.explain(failure))
            }
            Event::Stranger(error) => {
                self.notify(&Notice::Refused(error.to_string()));
                Ok(())
            }
        }
    }

    /// Whoever ended its connection before this one is heard first: MPI's launchers kill all ranks when one has died, and threads may
    /// bring the news of them in any order.
    fn hear_out(&mut self, connection: Connection) -> Result<(), Error> {
        let hung_up = self.driver.control.hung_up();
        let before = hung_up.iter().take_while(|&&other| other != connection);
        let first = before.copied().find(|&other| self.roster.is_connected(other));
        let deadline = Instant::now() + SETTLE;
        while first.is_some_and(|first| self.roster.is_connected(first)) && Instant::now() < deadline {
            if let Some(event) = self.driver.control.next(TICK) {
                self.handle(event)?;
            }
        }
        Ok(())
    }

    fn register(&mut self, connection: Connection, sender: Sender, registration: Registration) {
        let silence = self.driver.job.limits.heartbeat;
        let Registration { host, pid, ranks, cores, program, .. } = registration.clone();
        match self.roster.register(connection, sender, registration, silence) {
            Ok(()) => {
                let place = format!(
                    "{} {} on {host}, process {pid}, {cores} cores, kernels {}",
                    program.name, program.version, program.kernels
                );
                self.notify(&Notice::Registered(ranks, place));
                if let (None, Some(spec)) = (&self.feeding, program.feed) {
                    self.feeding = Some(Feeding::read(spec));
                }
            }
            Err(reason) => self.notify(&Notice::Refused(reason)),
        }
    }

    /// Answers `muster status` and `muster stop`.
    fn answer(&mut self, mut sender: Sender, hello: &Hello) -> Result<(), Error> {
        let status = Status {
            phase: self.doing.to_owned(),
            attempt: self.attempt,
            seconds: self.driver.began.elapsed().as_secs_f64(),
            ranks: self.roster.status(),
            waits: self.roster.waits(),
        };
        // Whoever asked may be gone already.
        let _ = sender.set_timeout(END_MAX).and_then(|()| message::send(&mut sender, &status));
        if *hello == Hello::Stop && self.stop.is_none() {
            return self.order_stop(Stop::Signal(SIGTERM, Instant::now()), "muster stop");
        }
        Ok(())
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            if self.running.try_wait().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

impl Drop for Cluster<'_, '_> {
    /// Nothing outlives an attempt.
    fn drop(&mut self) {
        if !self.over {
            self.roster.tell_all(&ToRank::Abort);
            self.running.terminate();
            if !self.ends_within(END_MAX) {
                self.running.kill();
                self.ends_within(END_MAX);
            }
            // Killed, an engine leaves its ranks behind.
            kill_job(&self.driver.key.job());
        }
        self.roster.close();
    }
}
