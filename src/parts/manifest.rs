//! `_manifest.json`: the shape of a record; rows, bytes and SHA-256 of each part.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::storage::{Entry, Storage};

/// The manifest's name, which readers of data sets skip.
pub const MANIFEST: &str = "_manifest.json";

/// A record with more features than this is taken for damage; whatever reads one makes room for all of it.
const WIDTH_MAX: usize = 1 << 26;

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
        Manifest::parse(&text).map(Some).map_err(|error| error.in_file(&path))
    }

    /// The manifest in the content of its file.
    ///
    /// # Errors
    /// Says what was expected, when it is none, or its records have a shape that none can have.
    pub fn parse(text: &[u8]) -> Result<Manifest> {
        let invalid =
            |what: String| Error::Invalid(format!("{what}: prepare the data again, or delete the file"));
        let manifest: Manifest = serde_json::from_slice(text)
            .map_err(|error| invalid(format!("expected rows, shape and parts as JSON: {error}")))?;
        let width = manifest.shape.iter().try_fold(1_usize, |width, &dim| width.checked_mul(dim));
        if !width.is_some_and(|width| (1..=WIDTH_MAX).contains(&width)) {
            let shape = &manifest.shape;
            return Err(invalid(format!("expected a shape of 1 to {WIDTH_MAX} features, found {shape:?}")));
        }
        if let Some(part) = manifest.parts.iter().find(|part| part.name.contains('/')) {
            return Err(invalid(format!("expected the names of files, found `{}`", part.name)));
        }
        Ok(manifest)
    }

    /// Compares names and lengths with those of the parts in `dir`: a listing tells what is missing or cut off before anything is read.
    /// Until a directory `is_whole`, parts may still come.
    ///
    /// # Errors
    /// Names the first part that is not as it was written.
    pub fn check(&self, dir: &Path, listed: &[Entry], is_whole: bool) -> Result<()> {
        let wrong = |name: &str, expected: String, found: String| {
            let what = format!(
                "expected {expected}, as {MANIFEST} says, found {found}; prepare the data again, or delete the manifest"
            );
            Err(Error::Invalid(what).in_file(&dir.join(name)))
        };
        let mut listed: BTreeMap<&str, u64> =
            listed.iter().map(|entry| (entry.name.as_str(), entry.bytes)).collect();
        for PartEntry { name, bytes, .. } in &self.parts {
            match listed.remove(name.as_str()) {
                Some(found) if found == *bytes => {}
                Some(found) => return wrong(name, format!("{bytes} bytes"), found.to_string()),
                None if !is_whole => {}
                None => return wrong(name, format!("a part of {bytes} bytes"), "none".to_owned()),
            }
        }
        let other = listed.into_keys().next().filter(|_| is_whole);
        other.map_or(Ok(()), |name| wrong(name, "no such part".to_owned(), "one".to_owned()))
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
