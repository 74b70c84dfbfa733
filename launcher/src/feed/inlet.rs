//! A worker's side of feed mode.

use super::ledger::{Tally, digest};
use super::protocol::{FRAME_MAX, ToFeeder, ToWorker};
use super::{Portion, WINDOW};
use crate::channel::{self, Receiver, Sender, Side};
use crate::control::{Ports, bind};
use crate::error::Error;
use crate::key::JobKey;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Connections that have not shown yet that they know the key. More are closed at once.
const STRANGERS_MAX: usize = 64;

/// Takes portions from the driver.
pub struct Inlet {
    address: SocketAddr,
    incoming: mpsc::Receiver<Incoming>,
    /// Back to the driver, once it has connected.
    sender: Option<Sender>,
    tally: Tally,
}

/// What the thread that reads the connection hands on.
enum Incoming {
    Connected(Sender),
    Portion(Batch),
    End,
    Broken(String),
}

/// A portion that is to be used; dropped unused, it is not acknowledged.
#[derive(Debug)]
pub struct Batch {
    lease: u64,
    /// Of the portion as it came.
    digest: [u8; 32],
    /// The records.
    pub portion: Portion,
}

impl Inlet {
    /// Listens for the driver on any port. Others than one with the job's key are not let in.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn listen(host: IpAddr, key: JobKey) -> Result<Inlet, Error> {
        let listener = bind(host, Ports(0, 0))?;
        let address = listener.local_addr().map_err(Error::io("listen on", host))?;
        // The driver never has more than a window of portions under way, so that this thread is held up only by a driver that does.
        let (sender, incoming) = mpsc::sync_channel(WINDOW + 2);
        std::thread::spawn(move || serve(&listener, &key, &sender));
        Ok(Inlet { address, incoming, sender: None, tally: Tally::default() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next portion; none when no more will come.
    ///
    /// # Errors
    /// If the driver is lost, or nothing comes for `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Batch>, Error> {
        loop {
            match self.receive(timeout)? {
                Incoming::Connected(sender) => self.sender = Some(sender),
                Incoming::Portion(batch) => return Ok(Some(batch)),
                Incoming::End => {
                    self.send(&ToFeeder::Total(self.tally))?;
                    return Ok(None);
                }
                Incoming::Broken(reason) => return Err(self.lost(reason)),
            }
        }
    }

    fn receive(&self, timeout: Duration) -> Result<Incoming, Error> {
        self.incoming.recv_timeout(timeout).map_err(|error| match error {
            mpsc::RecvTimeoutError::Disconnected => self.lost("it has ended".to_owned()),
            mpsc::RecvTimeoutError::Timeout => {
                let doing = "a worker waits for records from the driver".to_owned();
                Error::Timeout { doing, time: timeout, option: "--feed-timeout" }
            }
        })
    }

    /// Waits for the driver, whose first word this may be.
    fn meet(&mut self, timeout: Duration) -> Result<(), Error> {
        if self.sender.is_none() {
            match self.receive(timeout)? {
                Incoming::Connected(sender) => self.sender = Some(sender),
                Incoming::Broken(reason) => return Err(self.lost(reason)),
                Incoming::Portion(_) | Incoming::End => unreachable!("they come over the connection"),
            }
        }
        Ok(())
    }

    /// Asks for the records of a step; see [`ToFeeder::Want`].
    ///
    /// # Errors
    /// If the driver is lost, or does not come for `timeout`.
    pub fn want(&mut self, step: u64, timeout: Duration) -> Result<(), Error> {
        self.meet(timeout)?;
        self.send(&ToFeeder::Want(step))
    }

    /// What was used so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Acknowledges a portion; in inference with `count` results, one for each record.
    ///
    /// # Errors
    /// If the driver is lost.
    pub fn used(&mut self, batch: &Batch, count: u32, results: &[u8]) -> Result<(), Error> {
        let Batch { lease, digest, portion } = batch;
        self.tally.add(portion.count, digest);
        self.send(&ToFeeder::Used { lease: *lease, digest: *digest, count, results })
    }

    /// No more is wanted: the driver stops at once. What still comes before the end need not be used.
    ///
    /// # Errors
    /// If the driver is lost, or does not come for `timeout`.
    pub fn enough(&mut self, timeout: Duration) -> Result<(), Error> {
        self.meet(timeout)?;
        self.send(&ToFeeder::Enough)
    }

    fn send(&mut self, message: &ToFeeder) -> Result<(), Error> {
        let (head, results) = message.encode();
        let sender = self.sender.as_mut().expect("it has been met");
        sender.send(&[&head, results]).map_err(|error| self.lost(error.to_string()))
    }

    fn lost(&self, reason: String) -> Error {
        Error::DriverLost { address: format!("the other end of {}", self.address), reason }
    }
}

impl Drop for Inlet {
    /// The driver must not wait for a worker that is gone.
    fn drop(&mut self) {
        self.sender.iter().for_each(Sender::close);
    }
}

/// Lets the first one with the key in, and reads what it sends. Strangers have threads of their own, so that they hold nobody up.
fn serve(listener: &TcpListener, key: &JobKey, incoming: &mpsc::SyncSender<Incoming>) {
    let (taken, strangers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            if taken.load(Ordering::Acquire) {
                return;
            }
            let Ok(stream) = stream else { continue };
            if strangers.fetch_add(1, Ordering::AcqRel) >= STRANGERS_MAX {
                strangers.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            scope.spawn(|| {
                let opened = channel::open(stream, key, Side::Acceptor, FRAME_MAX);
                strangers.fetch_sub(1, Ordering::AcqRel);
                let Ok((sender, receiver)) = opened else { return };
                if !taken.swap(true, Ordering::AcqRel) && incoming.send(Incoming::Connected(sender)).is_ok() {
                    let _ = incoming.send(read(receiver, incoming));
                }
            });
        }
    });
}

/// Reads portions until the end, and returns what the end was.
fn read(mut receiver: Receiver, incoming: &mpsc::SyncSender<Incoming>) -> Incoming {
    let mut frame = Vec::new();
    loop {
        let end = match receiver.receive(&mut frame).map(|there| there.then(|| ToWorker::decode(&frame))) {
            Ok(Some(Ok(ToWorker::Portion { lease, first, count, records }))) => {
                let digest = digest(first, count, records);
                let portion = Portion { first, count, worker: None, bytes: records.to_vec() };
                match incoming.send(Incoming::Portion(Batch { lease, digest, portion })) {
                    Ok(()) => continue,
                    Err(_) => Incoming::End,
                }
            }
            Ok(Some(Ok(ToWorker::End))) => Incoming::End,
            Ok(Some(Err(error))) => Incoming::Broken(error.to_string()),
            Ok(None) => Incoming::Broken("its connection has ended".to_owned()),
            Err(error) => Incoming::Broken(error.to_string()),
        };
        return end;
    }
}
