//! Hadoop's SequenceFile, version 6, uncompressed, of `NullWritable` → `BytesWritable`.
//!
//! After the header come records, `i32 length | i32 key length | key | value`, big-endian, with the value of a
//! `BytesWritable` being `i32 length | bytes`. Now and then, in the place of a record's length, −1 and the 16 bytes of the
//! file's marker tell a reader that starts in the middle where a record begins.

use std::io::{self, Read, Write};

use super::window::{MESSAGE_BYTES_MAX, Window};
use super::{Position, malformed};
use crate::error::{Error, Result};

/// Version, classes of key and value, neither kind of compression, no metadata.
const HEADER: &[u8] =
    b"SEQ\x06\x21org.apache.hadoop.io.NullWritable\x22org.apache.hadoop.io.BytesWritable\x00\x00\x00\x00\x00\x00";
const SYNC_BYTES: usize = 16;
/// Header and marker, without which no value can be read.
pub const HEADER_BYTES: u64 = (HEADER.len() + SYNC_BYTES) as u64;
/// What our files are marked with: fixed, so that the same records give the same file, and unlike anything in a pickle.
const SYNC: &[u8; SYNC_BYTES] = b"\x9b\x1e\xf3\x52\xc6\x0d\xa7\x88\x3c\xe4\x71\xbf\x05\xd9\x66\xfa";
/// Hadoop marks every 2000 bytes (`SYNC_INTERVAL`) where a record ends.
const SYNC_INTERVAL_BYTES: usize = 2000;

/// Reads the values.
pub struct Reader<R> {
    window: Window<R>,
    /// The file's marker, once the header was read.
    sync: Option<[u8; SYNC_BYTES]>,
    /// Values read so far.
    value: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the values of `input`.
    pub fn new(input: R) -> Self {
        Reader { window: Window::new(input), sync: None, value: 0 }
    }

    /// The same input: the header of a file, and then what begins at `position` of it.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        let before = position.bytes.saturating_sub(HEADER_BYTES);
        Reader { window: self.window.at(before), value: position.units, ..self }
    }

    /// Where the next value begins, or a marker before it.
    pub fn position(&self) -> Position {
        Position { bytes: self.window.position(), units: self.value, rows: 0 }
    }

    /// Number of the value last read, counted from 1.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// The next value; `None` at the end of the input.
    ///
    /// # Errors
    /// Says the value and what was expected of it.
    pub fn next_value(&mut self) -> Result<Option<&[u8]>> {
        self.value += 1;
        let sync = match self.sync {
            Some(sync) => sync,
            None => self.read_header()?,
        };
        while self.window.demand(4 + SYNC_BYTES)? && self.window.bytes()[..4] == [0xff; 4] {
            if self.window.take(4 + SYNC_BYTES)[4..] != sync {
                return Err(self.damaged("expected the marker of the file, found other bytes"));
            }
        }
        if self.window.bytes().is_empty() {
            return Ok(None);
        }
        let length = self.read_lengths()?;
        if !self.window.demand(length)? {
            let found = self.window.bytes().len();
            return Err(self.damaged(format!("expected {length} bytes, the file ends after {found}")));
        }
        Ok(Some(self.window.take(length)))
    }

    fn read_header(&mut self) -> Result<[u8; SYNC_BYTES]> {
        self.window.demand(HEADER.len() + SYNC_BYTES)?;
        if !self.window.bytes().starts_with(HEADER) || self.window.bytes().len() < HEADER.len() + SYNC_BYTES {
            let what = "expected a SequenceFile of version 6 of NullWritable and BytesWritable, not compressed, without metadata";
            return Err(Error::Invalid(what.into()));
        }
        let mut sync = [0; SYNC_BYTES];
        sync.copy_from_slice(&self.window.take(HEADER.len() + SYNC_BYTES)[HEADER.len()..]);
        self.sync = Some(sync);
        Ok(sync)
    }

    /// Reads the lengths of record, key and value, and returns the last.
    fn read_lengths(&mut self) -> Result<usize> {
        if !self.window.demand(12)? {
            let found = self.window.bytes().len();
            return Err(self.damaged(format!("expected three lengths, the file ends after {found} bytes")));
        }
        let (lengths, _) = self.window.take(12).as_chunks();
        let [record, key, value] = [0, 1, 2].map(|at| i64::from(i32::from_be_bytes(lengths[at])));
        if key != 0 || value < 0 || record != value + 4 {
            return Err(self.damaged(format!(
                "expected lengths of record, key and value like 104, 0 and 100, found {record}, {key} and {value}"
            )));
        }
        if value as usize > MESSAGE_BYTES_MAX {
            return Err(
                self.damaged(format!("expected at most {MESSAGE_BYTES_MAX} bytes, its length says {value}"))
            );
        }
        Ok(value as usize)
    }

    fn damaged(&self, what: impl Into<String>) -> Error {
        malformed("value", self.value, what)
    }
}

/// Writes a SequenceFile of `values`.
///
/// # Errors
/// Those of `out`.
pub fn write(values: impl Iterator<Item = Vec<u8>>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(HEADER)?;
    out.write_all(SYNC)?;
    let mut since_sync = 0;
    for value in values {
        if since_sync >= SYNC_INTERVAL_BYTES {
            out.write_all(&[0xff; 4])?;
            out.write_all(SYNC)?;
            since_sync = 0;
        }
        let length = value.len() as u32;
        out.write_all(&[(length + 4).to_be_bytes(), [0; 4], length.to_be_bytes()].concat())?;
        out.write_all(&value)?;
        since_sync += 12 + value.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(values: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(values.iter().cloned(), &mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut reader = Reader::new(bytes);
        let mut values = Vec::new();
        while let Some(value) = reader.next_value()? {
            values.push(value.to_vec());
        }
        Ok(values)
    }

    #[test]
    fn reads_what_it_writes() {
        let values: Vec<Vec<u8>> = [0, 1, 1999, 500_000, 2, 2000].map(|length| vec![3; length]).into();
        assert_eq!(read(&file(&values)).unwrap(), values);
        assert_eq!(read(&file(&[])).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn damage_is_named() {
        let good = file(&[vec![5; 3000], vec![6; 8]]);
        let head = HEADER.len() + SYNC_BYTES;
        let second = head + 12 + 3000;
        for end in (0..good.len()).filter(|end| ![head, second, second + 20].contains(end)) {
            read(&good[..end]).unwrap_err();
        }
        let damaged = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            read(&bytes).unwrap_err().to_string()
        };
        assert!(damaged(3, 5).starts_with("expected a SequenceFile of version 6"));
        assert!(damaged(HEADER.len() - 6, 1).contains("not compressed"));
        assert!(damaged(head + 7, 1).starts_with("value 1: expected lengths of record, key and value"));
        assert!(damaged(second + 5, 1).starts_with("value 2: expected the marker of the file"));
    }

    #[test]
    fn a_length_beyond_memory_is_refused() {
        let mut bytes = file(&[]);
        bytes.extend([0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xfb]);
        assert!(read(&bytes).unwrap_err().to_string().starts_with("value 1: expected at most"));
    }
}
