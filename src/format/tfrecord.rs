//! TFRecord: frames with checksums.
//!
//! `u64 length | u32 masked crc(length) | data | u32 masked crc(data)`, little-endian; the checksum is CRC-32C
//! (Castagnoli), masked as TensorFlow's `record_writer.h` does so that frames may be nested.

use std::io::{self, Read, Write};

use super::window::{MESSAGE_BYTES_MAX, Window};
use super::{Position, malformed};
use crate::error::Result;

const HEADER_BYTES: usize = 12;
const FOOTER_BYTES: usize = 4;

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Reads frames.
pub struct Reader<R> {
    window: Window<R>,
    /// Records read so far.
    record: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the frames of `input`.
    pub fn new(input: R) -> Self {
        Reader { window: Window::new(input), record: 0 }
    }

    /// The same input, which begins at `position` of its file.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Reader { window: self.window.at(position.bytes), record: position.units }
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        Position { bytes: self.window.position(), units: self.record, rows: 0 }
    }

    /// Number of the record last read, counted from 1.
    pub fn record(&self) -> u64 {
        self.record
    }

    /// The next record's data; `None` at the end of the input.
    ///
    /// # Errors
    /// Says the record and which of its fields is damaged or missing.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>> {
        let Some(length) = self.next_frame()? else { return Ok(None) };
        let record = self.record;
        let (data, crc) =
            self.window.take(HEADER_BYTES + length + FOOTER_BYTES)[HEADER_BYTES..].split_at(length);
        if masked_crc(data) != le_u32(crc) {
            let what = "the checksum of its data does not match: the file is damaged";
            return Err(malformed("record", record, what));
        }
        Ok(Some(data))
    }

    /// Passes over the next record, whose data is not looked at; false at the end of the input.
    ///
    /// # Errors
    /// As [`Reader::next_record`], but for damaged data.
    pub fn skip_record(&mut self) -> Result<bool> {
        let Some(length) = self.next_frame()? else { return Ok(false) };
        self.window.take(HEADER_BYTES + length + FOOTER_BYTES);
        Ok(true)
    }

    /// Makes the next frame visible and returns the length of its data.
    fn next_frame(&mut self) -> Result<Option<usize>> {
        self.record += 1;
        let record = self.record;
        let damaged = |what: String| Err(malformed("record", record, what));
        if !self.window.demand(HEADER_BYTES)? {
            return match self.window.bytes().len() {
                0 => Ok(None),
                found => {
                    damaged(format!("expected a header of {HEADER_BYTES} bytes, the file ends after {found}"))
                }
            };
        }
        let header = self.window.bytes();
        let length = u64::from(le_u32(header)) | u64::from(le_u32(&header[4..])) << 32;
        if masked_crc(&header[..8]) != le_u32(&header[8..]) {
            return damaged(
                "the checksum of its length does not match: the file is damaged, or no TFRecord".into(),
            );
        }
        if length > MESSAGE_BYTES_MAX as u64 {
            return damaged(format!("expected at most {MESSAGE_BYTES_MAX} bytes, its length says {length}"));
        }
        let length = length as usize;
        if !self.window.demand(HEADER_BYTES + length + FOOTER_BYTES)? {
            let found = self.window.bytes().len() - HEADER_BYTES;
            return damaged(format!("expected {length} bytes and a checksum, the file ends after {found}"));
        }
        Ok(Some(length))
    }
}

/// Writes one frame around `data`.
///
/// # Errors
/// Those of `out`.
pub fn write_record(data: &[u8], out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked_crc(&length).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&masked_crc(data).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        write_record(data, &mut frame).unwrap();
        frame
    }

    fn first_error(bytes: &[u8]) -> String {
        Reader::new(bytes).next_record().unwrap_err().to_string()
    }

    #[test]
    fn frames_are_those_of_tensorflow() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(
            framed(b""),
            0u64.to_be_bytes().into_iter().chain(*b"\x29\x03\x98\x07\xd8\xea\x82\xa2").collect::<Vec<_>>()
        );
    }

    #[test]
    fn reads_what_it_writes() {
        let records: Vec<Vec<u8>> = [0, 1, 300_000, 5].map(|length| vec![7; length]).into();
        let file: Vec<u8> = records.iter().flat_map(|data| framed(data)).collect();
        let mut reader = Reader::new(file.as_slice());
        for data in &records {
            assert_eq!(reader.next_record().unwrap(), Some(data.as_slice()));
        }
        assert_eq!(reader.next_record().unwrap(), None);
    }

    #[test]
    fn damage_in_each_field_is_found() {
        let frame = framed(b"data");
        for (at, message) in [
            (0, "record 1: the checksum of its length"),
            (9, "record 1: the checksum of its length"),
            (13, "record 1: the checksum of its data"),
            (17, "record 1: the checksum of its data"),
        ] {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            assert!(first_error(&damaged).starts_with(message), "{at}");
        }
        for end in 1..frame.len() {
            assert!(first_error(&frame[..end]).contains("the file ends after"), "{end}");
        }
    }

    #[test]
    fn a_length_beyond_memory_is_refused() {
        let mut header = u64::MAX.to_le_bytes().to_vec();
        header.extend(masked_crc(&header).to_le_bytes());
        assert!(first_error(&header).contains("expected at most"));
    }
}
