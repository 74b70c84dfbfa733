//! Writing a file of HDFS: the whole of it under a temporary name, again under another when that breaks off, and renamed
//! at the end.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hdfs_native::file::FileWriter;
use hdfs_native::{HdfsError, WriteOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::failure::{Patience, bounded, to_io};
use super::{Link, RUNTIME, text};
use crate::storage::Fill;

/// What is handed to the uploading task at a time, and how much of it may wait there.
const CHUNK_LEN: usize = 1 << 20;
const WRITE_BEHIND_CHUNKS: usize = 4;

/// Why an attempt ended: what HDFS did may be different the next time.
enum Failure {
    Upload(HdfsError),
    Final(io::Error),
}

/// A NameNode hears of a dead DataNode late, after 10 minutes by default, and until then gives it out for new blocks;
/// hdfs-native cannot exclude it. So once a pipeline broke, one DataNode at a time is asked to take the file, and the
/// NameNode is told at the end to make the other replicas.
pub(super) fn create(link: &Link, path: &Path, fill: &Fill) -> io::Result<()> {
    let mut patience = Patience::new(format!("writing to DataNodes of {}", link.url), true);
    let mut replicas = None;
    loop {
        let temporary = temporary_name(path)?;
        let failure = match attempt(link, &temporary, &text(path), replicas, fill) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Upload(_)) && replicas.is_none() {
            match link.call(async |client| client.get_file_info(&temporary).await) {
                Ok(status) => replicas = status.replication,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // The NameNode is away for longer than it is waited for.
                Err(error) => return Err(error),
            }
        }
        // What is left of the attempt is hidden, so a failure to delete it matters less than the one before.
        let _ = link.call(async |client| client.delete(&temporary, false).await);
        match failure {
            Failure::Final(error) => return Err(error),
            Failure::Upload(error) => RUNTIME.block_on(patience.wait_after(error)).map_err(to_io)?,
        }
    }
}

/// `replicas` are made after the file was written with one, none when the NameNode should decide as usual.
fn attempt(
    link: &Link,
    temporary: &str,
    path: &str,
    replicas: Option<u32>,
    fill: &Fill,
) -> Result<(), Failure> {
    let mut options = WriteOptions::default().overwrite(true).permission(link.config.masked(0o666));
    options.replication = replicas.map(|_| 1);
    let file = link.call(async |client| client.create(temporary, &options).await).map_err(Failure::Final)?;
    let (sender, chunks) = mpsc::channel(WRITE_BEHIND_CHUNKS);
    let task = RUNTIME.spawn(upload(file, chunks, link.stall_limit()));
    let mut writer = ChunkWriter { chunk: BytesMut::with_capacity(CHUNK_LEN), sender, broken: false };
    match fill(&mut writer).and_then(|()| writer.flush()) {
        Err(error) if !writer.broken => {
            task.abort();
            return Err(Failure::Final(error));
        }
        // Where the task ended early, it says why.
        _ => drop(writer),
    }
    finish(task).map_err(Failure::Upload)?;
    if let Some(replicas) = replicas {
        link.call(async |client| client.set_replication(temporary, replicas).await)
            .map_err(Failure::Final)?;
    }
    link.rename(temporary, path, true).map_err(Failure::Final)
}

/// Writes chunks until their sender is dropped, then closes the file.
async fn upload(
    mut file: FileWriter,
    mut chunks: mpsc::Receiver<Bytes>,
    limit: Duration,
) -> Result<(), HdfsError> {
    while let Some(chunk) = chunks.recv().await {
        bounded(limit, "its DataNodes", file.write_bytes(chunk)).await?;
    }
    bounded(limit, "its DataNodes", file.close()).await
}

fn finish(task: JoinHandle<Result<(), HdfsError>>) -> Result<(), HdfsError> {
    // hdfs-native panics when several DataNodes of a pipeline fail at once.
    RUNTIME.block_on(task).unwrap_or_else(|panic| Err(HdfsError::DataTransferError(panic.to_string())))
}

/// `dir/name` → `dir/.name.1f…`: hidden, and of nobody else's choice.
fn temporary_name(path: &Path) -> io::Result<String> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
    let random = RandomState::new().build_hasher().finish();
    Ok(text(&path.with_file_name(format!(".{name}.{random:016x}"))))
}

/// Hands what is written to the uploading task, chunk by chunk.
struct ChunkWriter {
    chunk: BytesMut,
    sender: mpsc::Sender<Bytes>,
    /// Whether the task ended before it had everything.
    broken: bool,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_LEN - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_LEN {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK_LEN)).freeze();
        if !chunk.is_empty() && self.sender.blocking_send(chunk).is_err() {
            self.broken = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}
