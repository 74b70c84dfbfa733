//! An authenticated channel over TCP.
//!
//! ```text
//! both    magic and version (8 bytes) ‖ nonce (32)
//! acceptor  ─► HMAC(key, "muster acceptor" ‖ connector's nonce ‖ acceptor's nonce)
//! connector ─► HMAC(key, "muster connector" ‖ connector's nonce ‖ acceptor's nonce)
//! then, each way: length (u32, little endian) ‖ payload ‖ BLAKE3(key of this way, payload ‖ frame's number ‖ length)
//! ```
//! The keys of the two ways are derived from the job's key and both nonces, so that a frame of another connection, of the other way
//! or of another place in the sequence is never taken for a valid one. Nothing is encrypted.

use crate::error::Error;
use crate::key::{self, JobKey, LENGTH};
use hmac::Mac;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The protocol's name and version; another version is another magic.
const MAGIC: [u8; 8] = *b"muster\x00\x04";
/// A handshake takes a round trip or two; who has not finished it by then is dropped.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Room for the first bytes of a frame.
const ROOM_MIN: usize = 64 * 1024;

/// The sending half.
pub struct Sender {
    stream: TcpStream,
    seal: Seal,
    frame: Vec<u8>,
}

/// The receiving half.
pub struct Receiver<R = TcpStream> {
    stream: R,
    seal: Seal,
    /// The largest payload that is taken, in bytes.
    limit: usize,
}

/// Which side of the handshake this process is on.
#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    /// It has called `connect`.
    Connector,
    /// It has called `accept`.
    Acceptor,
}

/// Authenticates both sides to each other; payloads of more than `limit` bytes will be refused before memory is taken for them.
///
/// # Errors
/// If the other side does not know the key, speaks another protocol, or is too slow.
pub fn open(stream: TcpStream, key: &JobKey, side: Side, limit: usize) -> Result<(Sender, Receiver), Error> {
    let peer = stream.peer_addr().map_or("a stranger".to_owned(), |peer| peer.to_string());
    let [to_acceptor, to_connector] =
        handshake(&stream, key, side).map_err(|cause| Error::Handshake { peer: peer.clone(), cause })?;
    let reading = stream.try_clone().map_err(Error::io("use the connection to", &peer))?;
    let (sending, receiving) = match side {
        Side::Connector => (to_acceptor, to_connector),
        Side::Acceptor => (to_connector, to_acceptor),
    };
    let sender = Sender { stream, seal: Seal::new(sending), frame: Vec::new() };
    Ok((sender, Receiver::over(reading, receiving, limit)))
}

/// The keys of the two ways.
fn handshake(mut stream: &TcpStream, key: &JobKey, side: Side) -> io::Result<[JobKey; 2]> {
    let deadline = Instant::now() + HANDSHAKE_MAX;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(HANDSHAKE_MAX))?;
    let mine = key::random();
    stream.write_all(&[&MAGIC[..], &mine].concat())?;
    let mut hello = [0; MAGIC.len() + LENGTH];
    read_by(stream, &mut hello, deadline)?;
    let (magic, theirs) = hello.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(io::Error::other("it does not speak this version of muster's protocol"));
    }
    let (connector, acceptor) =
        if side == Side::Connector { (&mine[..], theirs) } else { (theirs, &mine[..]) };
    let proof = |name: &[u8]| key.mac(&[b"muster ", name, connector, acceptor]);
    let send = |name: &[u8]| (&mut &*stream).write_all(&proof(name).finalize().into_bytes());
    let check = |name: &[u8]| {
        let mut tag = [0; LENGTH];
        read_by(stream, &mut tag, deadline)?;
        proof(name).verify_slice(&tag).map_err(|_| io::Error::other("it does not have the job's key"))
    };
    // The acceptor proves itself first: a connector gives nothing away to a stranger who has taken the driver's port.
    match side {
        Side::Acceptor => send(b"acceptor").and_then(|()| check(b"connector"))?,
        Side::Connector => check(b"acceptor").and_then(|()| send(b"connector"))?,
    }
    stream.set_read_timeout(None)?;
    let way = |name: &[u8]| key.derive(&[b"muster ", name, connector, acceptor]);
    Ok([way(b"to acceptor"), way(b"to connector")])
}

/// Fills `bytes` before the deadline, however slowly they trickle in.
fn read_by(mut stream: &TcpStream, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What makes the tags of one way.
struct Seal {
    key: JobKey,
    /// Frames so far; part of every tag, so that none can be repeated, dropped or moved.
    count: u64,
}

impl Seal {
    fn new(key: JobKey) -> Seal {
        Seal { key, count: 0 }
    }

    /// The tag of the next frame; comparing it takes the same time wherever it differs.
    fn next(&mut self, length: [u8; 4], payload: &[u8]) -> blake3::Hash {
        let mut tag = self.key.frame_tag();
        // Aligned at its beginning, a payload is hashed many blocks at a time.
        tag.update(payload).update(&self.count.to_le_bytes()).update(&length);
        self.count += 1;
        tag.finalize()
    }
}

impl Sender {
    /// Sends a frame whose payload is what `parts` hold, one after the other.
    ///
    /// # Errors
    /// If the connection is broken, or takes nothing for the time of [`Sender::set_timeout`].
    pub fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let length = u32::try_from(length).expect("a frame is smaller than 4 GiB").to_le_bytes();
        self.frame.clear();
        self.frame.extend_from_slice(&length);
        parts.iter().for_each(|part| self.frame.extend_from_slice(part));
        let tag = self.seal.next(length, &self.frame[4..]);
        self.frame.extend_from_slice(tag.as_bytes());
        self.stream.write_all(&self.frame)
    }

    /// How long a `send` may take; without one a peer that has stopped reading would hold this side up for ever.
    pub fn set_timeout(&self, time: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(time))
    }

    /// This end's address.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn local_address(&self) -> Result<SocketAddr, Error> {
        self.stream.local_addr().map_err(Error::io("use the connection to", "the driver"))
    }

    /// Ends the connection, for both halves and both sides.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Receiver {
    /// How long [`Receiver::receive`] waits for bytes.
    pub fn set_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(time)
    }
}

impl<R: Read> Receiver<R> {
    /// Takes frames from any stream, with the key of its way.
    pub(crate) fn over(stream: R, key: JobKey, limit: usize) -> Receiver<R> {
        Receiver { stream, seal: Seal::new(key), limit }
    }

    /// The next frame's payload, in place of what `payload` held; `false` at the end of the connection.
    ///
    /// # Errors
    /// If the connection breaks within a frame, or a frame is too long or not the peer's.
    pub fn receive(&mut self, payload: &mut Vec<u8>) -> io::Result<bool> {
        let mut length = [0; 4];
        if !read_or_end(&mut self.stream, &mut length)? {
            return Ok(false);
        }
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > self.limit {
            let text = format!("a frame of {bytes} bytes; at most {} are taken", self.limit);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // A length is not believed before as many bytes have come: room grows with them.
        let mut here = 0;
        while here < bytes {
            let room = payload.capacity().max(2 * here).max(ROOM_MIN).min(bytes);
            payload.resize(room, 0);
            self.stream.read_exact(&mut payload[here..])?;
            here = room;
        }
        payload.truncate(bytes);
        let mut tag = [0; LENGTH];
        self.stream.read_exact(&mut tag)?;
        if self.seal.next(length, payload) != tag {
            let text = "a frame that the peer did not send, or not here";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(true)
    }
}

/// Fills `bytes`; `false` if the stream ends before the first of them.
fn read_or_end(stream: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    let first = loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    if first > 0 {
        stream.read_exact(&mut bytes[first..])?;
    }
    Ok(first > 0)
}

#[cfg(test)]
mod tests;
