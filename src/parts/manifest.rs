//! `_manifest.json`: the shape of a record; rows, bytes and SHA-256 of each part.

use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::storage::Storage;

/// The manifest's name, which readers of data sets skip.
pub const MANIFEST: &str = "_manifest.json";

/// What a directory of parts holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Records of all parts.
    pub rows: u64,
    /// The shape of a record, such as `[rows, columns]` of a picture, which the parts themselves do not tell.
    pub shape: Vec<usize>,
    /// The parts, in order.
    pub parts: Vec<PartEntry>,
}

/// What one part holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// Its file's name.
    pub name: String,
    /// Its records.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of the parts in `dir`; `None` when it has none, as with data that Spark wrote.
    ///
    /// # Errors
    /// When it cannot be read, or is no manifest.
    pub fn read(storage: &Storage, dir: &Path) -> Result<Option<Manifest>> {
        let path = dir.join(MANIFEST);
        let Some(entry) = storage.stat(&path)? else { return Ok(None) };
        let mut text = Vec::new();
        storage.open(&path, 0..entry.bytes)?.read_to_end(&mut text).map_err(Error::io("read", &path))?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::Invalid(error.to_string()).in_file(&path))
    }

    /// Reads every part in `dir` again and compares its bytes with the manifest.
    ///
    /// # Errors
    /// Names the first part that is not what was written.
    pub fn verify(&self, storage: &Storage, dir: &Path) -> Result<()> {
        for part in &self.parts {
            let path = dir.join(&part.name);
            let mut sum = Checksum::new(io::sink());
            let length = storage.stat(&path)?.map_or(0, |entry| entry.bytes);
            let mut input = storage.open(&path, 0..length)?;
            io::copy(&mut input, &mut sum).map_err(Error::io("read", &path))?;
            let (bytes, sha256) = sum.finish();
            if (bytes, &sha256) != (part.bytes, &part.sha256) {
                let what = format!(
                    "expected {} bytes of SHA-256 {}, found {bytes} of {sha256}: prepare the data again",
                    part.bytes, part.sha256
                );
                return Err(Error::Invalid(what).in_file(&path));
            }
        }
        Ok(())
    }
}

/// Passes bytes on and remembers their number and SHA-256.
pub(super) struct Checksum<W> {
    out: W,
    bytes: u64,
    sha256: Sha256,
}

impl<W: Write> Checksum<W> {
    pub fn new(out: W) -> Self {
        Checksum { out, bytes: 0, sha256: Sha256::new() }
    }

    pub fn finish(self) -> (u64, String) {
        (self.bytes, self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl<W: Write> Write for Checksum<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.out.write(buffer)?;
        self.sha256.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
