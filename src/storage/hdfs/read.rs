//! Reading a file of HDFS: ranges that go on behind the last byte that came, whatever happens to DataNodes meanwhile.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::vec;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use hdfs_native::HdfsError;
use hdfs_native::file::FileReader;
use tokio::sync::mpsc;

use super::failure::{Patience, bounded, to_io};
use super::{Link, RUNTIME};
use crate::storage::{Source, beyond_the_end};

/// Packets have up to 64 KiB. Those that are there together are handed over together, because waking a thread takes as long
/// as receiving some packets; and so many batches may wait for the reader, beside the 100 packets that hdfs-native holds.
const BATCH_PACKETS_MAX: usize = 16;
const READ_AHEAD_BATCHES: usize = 2;

type Batch = Vec<Bytes>;

/// An open file.
#[derive(Clone)]
pub(super) struct HdfsFile {
    link: Arc<Link>,
    path: Arc<str>,
    length: u64,
    /// The blocks of the file and where their replicas are; looked up again when all replicas of one have failed.
    blocks: Arc<Mutex<Arc<FileReader>>>,
}

impl HdfsFile {
    pub(super) fn open(link: &Arc<Link>, path: &str) -> io::Result<HdfsFile> {
        let reader = link.call(async |client| client.read(path).await)?;
        Ok(HdfsFile {
            link: Arc::clone(link),
            path: path.into(),
            length: reader.file_length() as u64,
            blocks: Arc::new(Mutex::new(Arc::new(reader))),
        })
    }

    fn blocks(&self) -> Arc<FileReader> {
        Arc::clone(&self.blocks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn look_up_blocks(&self) -> Result<(), HdfsError> {
        let reader = self.link.call_async(async |client| client.read(&self.path).await).await?;
        if reader.file_length() as u64 != self.length {
            let what = format!("the file had {} bytes and now has {}", self.length, reader.file_length());
            return Err(HdfsError::InvalidArgument(what));
        }
        *self.blocks.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(reader);
        Ok(())
    }

    /// Sends the bytes of `range`, which lies within the file, until they are through or nobody receives them.
    async fn send(self, mut range: Range<u64>, batches: mpsc::Sender<io::Result<Batch>>) {
        let mut patience = Patience::new(format!("reading from DataNodes of {}", self.link.url), true);
        while let Err(error) = self.send_some(&mut range, &batches, &mut patience).await {
            let next = match patience.wait_after(error).await {
                Ok(()) => self.look_up_blocks().await,
                Err(error) => Err(error),
            };
            if let Err(error) = next {
                // A receiver that is gone has no use for the error.
                let _ = batches.send(Err(to_io(error))).await;
                return;
            }
        }
    }

    /// Moves the start of `range` forward over what was sent.
    async fn send_some(
        &self,
        range: &mut Range<u64>,
        batches: &mpsc::Sender<io::Result<Batch>>,
        patience: &mut Patience,
    ) -> Result<(), HdfsError> {
        let wanted = (range.end - range.start) as usize;
        let stream = self.blocks().read_range_stream(range.start as usize, wanted);
        let mut stream = pin!(stream.ready_chunks(BATCH_PACKETS_MAX));
        while !range.is_empty() {
            let next =
                bounded(self.link.stall_limit(), "its DataNodes", async { Ok(stream.next().await) }).await?;
            let mut failure = None;
            let mut batch = Batch::with_capacity(BATCH_PACKETS_MAX);
            for packet in next.unwrap_or_default() {
                packet.map_or_else(|error| failure = Some(error), |packet| batch.push(packet));
            }
            if batch.is_empty() {
                let early = || HdfsError::DataTransferError("a block ended early".to_owned());
                return Err(failure.unwrap_or_else(early));
            }
            range.start += batch.iter().map(|packet| packet.len() as u64).sum::<u64>();
            patience.restore();
            if batches.send(Ok(batch)).await.is_err() {
                break;
            }
            failure.map_or(Ok(()), Err)?;
        }
        Ok(())
    }
}

impl Source for HdfsFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.end > self.length || range.start > range.end {
            return Err(beyond_the_end(&range, self.length));
        }
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut reader = PacketReader::start(self.clone(), range);
        while reader.fill()? {
            bytes.extend_from_slice(&reader.packet);
            reader.packet.clear();
        }
        Ok(bytes.freeze())
    }

    fn reader(&self, range: Range<u64>) -> Box<dyn BufRead + Send> {
        let end = range.end.min(self.length);
        Box::new(PacketReader::start(self.clone(), range.start.min(end)..end))
    }
}

/// The bytes of a range in the packets in which they come.
struct PacketReader {
    batches: mpsc::Receiver<io::Result<Batch>>,
    batch: vec::IntoIter<Bytes>,
    /// What is left of the packet taken last.
    packet: Bytes,
    /// Bytes of the range in packets that were not yet taken.
    missing: u64,
}

impl PacketReader {
    fn start(file: HdfsFile, range: Range<u64>) -> PacketReader {
        let (sender, batches) = mpsc::channel(READ_AHEAD_BATCHES);
        let missing = range.end - range.start;
        RUNTIME.spawn(file.send(range, sender));
        PacketReader { batches, batch: Batch::new().into_iter(), packet: Bytes::new(), missing }
    }

    /// Takes the next packet if the last one is used up; says whether there are bytes left.
    fn fill(&mut self) -> io::Result<bool> {
        while self.packet.is_empty() && self.missing > 0 {
            match self.batch.next() {
                Some(packet) => {
                    self.missing -= packet.len() as u64;
                    self.packet = packet;
                }
                // The task sends an error before it ends early, unless hdfs-native panicked.
                None => {
                    let panicked = || Err(io::Error::other("the HDFS client failed; its message is above"));
                    self.batch = self.batches.blocking_recv().unwrap_or_else(panicked)?.into_iter();
                }
            }
        }
        Ok(!self.packet.is_empty())
    }
}

impl BufRead for PacketReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill()?;
        Ok(&self.packet)
    }

    fn consume(&mut self, amount: usize) {
        self.packet.advance(amount);
    }
}

impl Read for PacketReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let taken = buffer.len().min(self.packet.len());
        self.packet.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}
