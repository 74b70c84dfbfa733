//! The driver's listener: takes connections, authenticates them, and turns what comes into events for one thread.

use crate::channel::{self, HANDSHAKE_MAX, Sender, Side};
use crate::error::Error;
use crate::key::JobKey;
use crate::message::{self, Hello, MESSAGE_MAX, ToDriver};
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Connections that have not shown yet that they know the key. More are closed at once; ranks try again.
const STRANGERS_MAX: usize = 256;
/// Events that wait for the driver's thread.
const EVENTS_MAX: usize = 1024;

/// Names a connection of this process.
pub type Connection = u64;

/// What happens on the control channel.
pub enum Event {
    /// Somebody with the key has connected and said what it wants.
    Opened(Connection, Sender, Hello),
    /// A registered process says something.
    Heard(Connection, ToDriver),
    /// A connection is over; the error says why, if it did not just end.
    Closed(Connection, Option<String>),
    /// Somebody could not show that it has the key.
    Stranger(Error),
}

/// A port or a range of ports, first and last included; port 0 is any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(pub u16, pub u16);

/// See the module.
pub struct Control {
    address: SocketAddr,
    events: Receiver<Event>,
    closing: Arc<AtomicBool>,
    hang_ups: Arc<OwnedFd>,
    hung_up: Vec<Connection>,
}

impl Control {
    /// Listens on the first free port.
    ///
    /// # Errors
    /// If none is free, or the address is not of this machine.
    pub fn listen(host: IpAddr, ports: Ports, key: JobKey) -> Result<Control, Error> {
        let listener = bind(host, ports)?;
        let address = listener.local_addr().map_err(Error::io("listen on", host))?;
        let (sender, events) = sync_channel(EVENTS_MAX);
        let closing = Arc::new(AtomicBool::new(false));
        let hang_ups = epoll::create(epoll::CreateFlags::CLOEXEC);
        let hang_ups =
            Arc::new(hang_ups.map_err(|errno| Error::io("watch connections of", host)(errno.into()))?);
        let strangers = Arc::default();
        let door =
            Door { key, events: sender, closing: closing.clone(), strangers, hang_ups: hang_ups.clone() };
        std::thread::spawn(move || door.keep(&listener));
        Ok(Control { address, events, closing, hang_ups, hung_up: Vec::new() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next event; none if there is none in this time.
    pub fn next(&self, wait: Duration) -> Option<Event> {
        match self.events.recv_timeout(wait) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the listener's thread holds a sender"),
        }
    }

    /// Connections that the other side has ended, in the order in which it did: the kernel's queue, which does not depend on when their
    /// threads come to run.
    pub fn hung_up(&mut self) -> &[Connection] {
        let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; 64];
        while let Ok(count @ 1..) = epoll::wait(&*self.hang_ups, &mut events, Some(&nothing)) {
            self.hung_up.extend(events[..count].iter().map(|event| event.data.u64()));
        }
        &self.hung_up
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                IpAddr::V6([0; 16].into())
            });
        }
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect_timeout(&address, Duration::from_millis(200));
    }
}

/// The first free port of the range.
pub(crate) fn bind(host: IpAddr, ports: Ports) -> Result<TcpListener, Error> {
    let mut last = None;
    for port in ports.0..=ports.1 {
        match TcpListener::bind((host, port)) {
            Ok(listener) => return Ok(listener),
            Err(cause) => last = Some(cause),
        }
    }
    let cause = last.unwrap_or_else(|| std::io::ErrorKind::InvalidInput.into());
    Err(Error::Port { range: ports.to_string(), host: host.to_string(), cause })
}

/// What the listener's threads share.
#[derive(Clone)]
struct Door {
    key: JobKey,
    events: SyncSender<Event>,
    closing: Arc<AtomicBool>,
    strangers: Arc<AtomicUsize>,
    /// Tells who ends a connection first.
    hang_ups: Arc<OwnedFd>,
}

impl Door {
    fn keep(&self, listener: &TcpListener) {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        for stream in listener.incoming() {
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            let Ok(stream) = stream else {
                // Out of descriptors, say: accepting again at once would only burn time.
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            if self.strangers.fetch_add(1, Ordering::AcqRel) >= STRANGERS_MAX {
                self.strangers.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let (door, connection) = (self.clone(), CONNECTIONS.fetch_add(1, Ordering::Relaxed));
            std::thread::spawn(move || door.serve(stream, connection));
        }
    }

    /// One connection from its handshake to its end. An event that nobody takes any more ends it, too.
    fn serve(&self, stream: TcpStream, connection: Connection) {
        let opened = self.open(stream, connection);
        self.strangers.fetch_sub(1, Ordering::AcqRel);
        let mut receiver = match opened {
            Ok((sender, receiver, hello)) => {
                if self.events.send(Event::Opened(connection, sender, hello)).is_err() {
                    return;
                }
                receiver
            }
            Err(error) => {
                let _ = self.events.send(Event::Stranger(error));
                return;
            }
        };
        let reason = loop {
            match message::receive(&mut receiver) {
                Ok(Some(message)) => {
                    if self.events.send(Event::Heard(connection, message)).is_err() {
                        return;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        let _ = self.events.send(Event::Closed(connection, reason));
    }

    fn open(
        &self,
        stream: TcpStream,
        connection: Connection,
    ) -> Result<(Sender, channel::Receiver, Hello), Error> {
        let peer = stream.peer_addr().map_or("a stranger".to_owned(), |peer| peer.to_string());
        let failed = || Error::io("use the connection to", &peer);
        let flags = epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&*self.hang_ups, stream.as_fd(), epoll::EventData::new_u64(connection), flags)
            .map_err(|errno| failed()(errno.into()))?;
        let (sender, mut receiver) = channel::open(stream, &self.key, Side::Acceptor, MESSAGE_MAX)?;
        receiver.set_timeout(Some(HANDSHAKE_MAX)).map_err(failed())?;
        let hello = message::receive(&mut receiver)?;
        receiver.set_timeout(None).map_err(failed())?;
        let hello = hello.ok_or(Error::Protocol { peer, found: "nothing after the handshake".to_owned() })?;
        Ok((sender, receiver, hello))
    }
}

impl FromStr for Ports {
    type Err = Error;

    fn from_str(text: &str) -> Result<Ports, Error> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Ports(first, last)),
            _ => Err(Error::Usage {
                what: format!("`{text}` is neither a port nor a range of ports"),
                mend: "write 8888 or 9997-9999 with --port or in MUSTER_SERVER_PORT",
            }),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

#[cfg(test)]
mod tests;
