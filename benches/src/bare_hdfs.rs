//! hdfs-native as its documentation has it: what reading from HDFS through `Storage` is measured by.

use std::path::Path;

use futures_util::StreamExt;
use hdfs_native::{Client, ClientBuilder, HdfsError};
use muster::storage::HadoopConfig;
use tokio::runtime::Runtime;

use crate::Error;

/// A client, and what runs it.
pub struct BareHdfs {
    runtime: Runtime,
    client: Client,
}

impl BareHdfs {
    /// For the file system that a configuration names.
    ///
    /// # Errors
    /// If there is none, or no thread can be started.
    pub fn connect(config: &HadoopConfig) -> Result<BareHdfs, Error> {
        let runtime = Runtime::new().map_err(Error::io("start threads for", Path::new("hdfs-native")))?;
        let values = config.values().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let client = ClientBuilder::new().with_url(config.default_fs()).with_config(values).build();
        Ok(BareHdfs { runtime, client: client.map_err(of_hdfs)? })
    }

    /// Copies a whole file through `buffer`, and returns how many bytes there were.
    ///
    /// # Errors
    /// Those of the client.
    pub fn read(&self, path: &str, buffer: &mut [u8]) -> Result<usize, Error> {
        self.runtime.block_on(async {
            let file = self.client.read(path).await.map_err(of_hdfs)?;
            let mut packets = std::pin::pin!(file.read_range_stream(0, file.file_length()));
            let mut bytes = 0;
            while let Some(packet) = packets.next().await {
                let packet = packet.map_err(of_hdfs)?;
                for piece in packet.chunks(buffer.len()) {
                    buffer[..piece.len()].copy_from_slice(piece);
                }
                bytes += std::hint::black_box(packet.len());
            }
            Ok(bytes)
        })
    }
}

fn of_hdfs(error: HdfsError) -> Error {
    Error::Usage(format!("hdfs-native: {error}"))
}
