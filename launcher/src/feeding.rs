//! The part of an attempt that feeds its ranks: reads, while they register, then pushes, while they work. Each in a thread of its own, so
//! that the driver goes on watching.

use crate::error::Error;
use crate::feed::spec::FeedSpec;
use crate::feed::{Feeder, Supply, Tally};
use crate::key::JobKey;
use muster::feed::Facts;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// See the module.
pub struct Feeding {
    stage: Stage,
    stop: Arc<AtomicBool>,
}

enum Stage {
    Reading(Receiver<Result<Supply, Error>>),
    Ready(Box<Supply>),
    Pushing(Receiver<Pushed>),
    /// What went wrong, and when that was noticed. The feeder is kept: workers whose connection ended would only add to the confusion.
    Failed(
        Error,
        Instant,
        #[expect(dead_code, reason = "it is dropped with the attempt")] Option<Box<Feeder>>,
    ),
    Done,
}

/// How it ended; the feeder, if that was badly.
type Pushed = Result<Tally, (Error, Option<Box<Feeder>>)>;

impl Feeding {
    /// Begins to read.
    pub fn read(spec: FeedSpec) -> Feeding {
        let (sender, receiver) = channel();
        let stop: Arc<AtomicBool> = Arc::default();
        let stopped = stop.clone();
        std::thread::spawn(move || drop(sender.send(Supply::prepare(&spec, &stopped))));
        Feeding { stage: Stage::Reading(receiver), stop }
    }

    /// Whether all has been read that has to be read before ranks begin.
    ///
    /// # Errors
    /// If it could not be read.
    pub fn is_ready(&mut self) -> Result<bool, Error> {
        let Stage::Reading(receiver) = &self.stage else { return Ok(true) };
        match receiver.try_recv() {
            Ok(supply) => self.stage = Stage::Ready(Box::new(supply?)),
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => return Err(panicked()),
        }
        Ok(true)
    }

    /// What ranks have to know of their records, once it is ready.
    pub fn facts(&self) -> Option<Facts> {
        let Stage::Ready(supply) = &self.stage else { return None };
        Some(supply.facts().clone())
    }

    /// Begins to push, once it is ready.
    pub fn push(&mut self, key: JobKey, workers: Vec<SocketAddr>, timeout: Duration) {
        let Stage::Ready(supply) = std::mem::replace(&mut self.stage, Stage::Done) else { return };
        let (sender, receiver) = channel();
        let stop = self.stop.clone();
        std::thread::spawn(move || {
            let pushed = Feeder::connect(&key, &workers, supply.wants_results(), timeout)
                .map_err(|error| (error, None))
                .and_then(|mut feeder| {
                    let fed = supply.feed(&mut feeder, &stop);
                    fed.map_err(|error| (error, Some(Box::new(feeder))))
                });
            // Nobody waits for it any more only if the attempt has failed already.
            let _ = sender.send(pushed);
        });
        self.stage = Stage::Pushing(receiver);
    }

    /// What is followed is to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether there is nothing more to do.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// What has been used, when that has just become known.
    ///
    /// # Errors
    /// What went wrong, if no rank has a better explanation within `settle`.
    pub fn look(&mut self, now: Instant, settle: Duration) -> Result<Option<Tally>, Error> {
        if let Stage::Pushing(receiver) = &self.stage {
            let pushed = match receiver.try_recv() {
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => Err((panicked(), None)),
                Ok(pushed) => pushed,
            };
            match pushed {
                Ok(tally) => {
                    self.stage = Stage::Done;
                    return Ok(Some(tally));
                }
                Err((error, feeder)) => self.stage = Stage::Failed(error, now, feeder),
            }
        }
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Failed(error, since, _) if now - since > settle => Err(error),
            stage => {
                self.stage = stage;
                Ok(None)
            }
        }
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.stop();
    }
}

fn panicked() -> Error {
    let text = "the thread that feeds has panicked; its message stands above".to_owned();
    muster::Error::Reading { text }.into()
}
