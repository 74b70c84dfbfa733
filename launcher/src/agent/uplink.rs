//! The agent's connection to the driver: made, listened to, and told of every sign of life.

use super::OnLost;
use crate::channel::{self, Receiver, Sender, Side};
use crate::environment::Environment;
use crate::error::Error;
use crate::inject::Kind;
use crate::message::{self, MESSAGE_MAX, Phase, Progress, Score, ToDriver, ToRank};
use rustix::process::Signal;
use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Between two tries to reach the driver.
const RETRY: Duration = Duration::from_millis(50);
/// The longest time between two signs of life: what the driver knows of a rank's steps is at most this old.
const BEAT_MAX: Duration = Duration::from_millis(250);
/// The number of SIGTERM: an order to stop means what that signal means.
const SIGTERM: usize = 15;

/// What the agent and its threads share.
pub(super) struct Uplink {
    pub sender: Mutex<Sender>,
    pub ranks: Vec<usize>,
    /// In the order of `ranks`.
    pub progress: Mutex<Vec<Progress>>,
    pub stop: Arc<AtomicUsize>,
    /// Of all of them.
    pub score: Mutex<Score>,
    /// From then on the end of the connection is no surprise.
    pub closing: AtomicBool,
}

impl Uplink {
    /// Takes what the driver sends, until its end or this process's.
    pub fn listen(
        &self,
        mut receiver: Receiver,
        (address, lifetime): (&str, Duration),
        order: &mpsc::Sender<ToRank>,
        on_lost: OnLost,
    ) {
        let _ = receiver.set_timeout(Some(lifetime));
        let reason = loop {
            match message::receive(&mut receiver) {
                Ok(Some(ToRank::Beat)) => {}
                Ok(Some(ToRank::Stop)) => self.stop.store(SIGTERM, Ordering::Relaxed),
                Ok(Some(ToRank::Abort)) => break None,
                // Nobody takes it any more only when the agent is gone.
                Ok(Some(message)) => drop(order.send(message)),
                Ok(None) => break Some("its connection has ended".to_owned()),
                Err(error) => break Some(error.to_string()),
            }
        };
        if !self.closing.load(Ordering::Acquire) {
            on_lost(reason.map(|reason| Error::DriverLost { address: address.to_owned(), reason }));
        }
    }

    /// Gives signs of life, at least four in the time after which one is missed.
    pub fn beat(&self, lifetime: Duration, ended: &mpsc::Receiver<()>) {
        let pause = (lifetime / 4).min(BEAT_MAX);
        while ended.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
            let progress = self.progress.lock().expect("no panic while it is held").clone();
            self.send(&ToDriver::Beat(progress));
        }
    }

    /// A lost driver is noticed where its messages are read.
    fn send(&self, message: &ToDriver) {
        let _ = message::send(&mut self.sender.lock().expect("no panic while it is held"), message);
    }

    pub fn report(&self, result: &Result<(), String>) {
        // With the last steps, which no sign of life has told yet.
        let progress = {
            let mut progress = self.progress.lock().expect("no panic while it is held");
            progress.iter_mut().for_each(|progress| progress.phase = Phase::Done);
            progress.clone()
        };
        self.send(&ToDriver::Beat(progress));
        // That of the process counts once.
        let mut score = std::mem::take(&mut *self.score.lock().expect("no panic while it is held"));
        for &rank in &self.ranks {
            self.send(&ToDriver::Done { rank, result: result.clone(), score: std::mem::take(&mut score) });
        }
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.sender.lock().expect("no panic while it is held").close();
    }

    pub fn execute(&self, kind: Kind) {
        let signal = match kind {
            Kind::Kill => Signal::KILL,
            Kind::Stop => Signal::STOP,
            Kind::Drop => return self.sender.lock().expect("no panic while it is held").close(),
        };
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
}

/// Connects to the first of the driver's addresses that answers as it should.
pub(super) fn connect(environment: &Environment) -> Result<(Sender, Receiver), Error> {
    let deadline = Instant::now() + environment.heartbeat_timeout;
    loop {
        let (mut last, mut is_gone) = (None, true);
        for address in &environment.drivers {
            match connect_to(address, environment) {
                Ok(channel) => return Ok(channel),
                Err(error) => {
                    is_gone &= is_refused(&error);
                    last = Some(error);
                }
            }
        }
        if is_gone || Instant::now() > deadline {
            let address = environment.drivers.join(", ");
            let reason = last.map_or("it has no address".to_owned(), |error| error.to_string());
            return Err(Error::DriverLost { address, reason });
        }
        std::thread::sleep(RETRY);
    }
}

/// Whether nobody listens where the driver did before it started this process.
fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Io { cause, .. } if cause.kind() == ErrorKind::ConnectionRefused)
}

fn connect_to(address: &str, environment: &Environment) -> Result<(Sender, Receiver), Error> {
    let failed = || Error::io("connect to the driver at", address);
    let target = address.to_socket_addrs().map_err(failed())?.next();
    let target = target.ok_or_else(|| failed()(std::io::ErrorKind::NotFound.into()))?;
    let stream = TcpStream::connect_timeout(&target, channel::HANDSHAKE_MAX).map_err(failed())?;
    let channel = channel::open(stream, &environment.key, Side::Connector, MESSAGE_MAX)?;
    channel.0.set_timeout(environment.heartbeat_timeout).map_err(failed())?;
    Ok(channel)
}
