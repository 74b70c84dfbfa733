//! As much of protobuf's wire format (<https://protobuf.dev/programming-guides/encoding>) as `tf.train.Example` and TensorBoard's
//! events need.

use wide::u8x16;

/// What is said of a message that is cut short.
pub(super) const CUT: &str = "expected a tf.train.Example, found a message that ends inside of a field";

/// The rest of a protobuf message.
pub(super) struct Message<'a>(pub &'a [u8]);

/// The value of a field.
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// 64 bits, which no field of an example has.
    Fixed64,
}

impl<'a> Message<'a> {
    /// Number and value of the next field; `None` at the end.
    pub fn next_field(&mut self) -> Result<Option<(u64, Field<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.take(8).map(|_| Field::Fixed64)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            wire_type => {
                return Err(format!("expected a tf.train.Example, found a field of wire type {wire_type}"));
            }
        };
        Ok(Some((tag >> 3, field)))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// The next varint.
    pub fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for (at, &byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 {
            CUT.into()
        } else {
            "expected a varint, found more than 10 bytes of one".into()
        })
    }
}

/// Reads `row.len()` varints from 0 to 255; false when `packed` is anything else.
///
/// The varint of a value from 128 on is that very byte and then a 1, so the pixels are the bytes without those behind high
/// ones. Sixteen bytes are looked at together: where none is dropped, which backgrounds make the common case, they are
/// copied at once.
pub(super) fn unpack_pixels(packed: &[u8], row: &mut [u8]) -> bool {
    let (mut filled, mut invalid, mut after_high) = (0, 0, 0);
    let (chunks, rest) = packed.as_chunks();
    for chunk in chunks {
        let bytes = u8x16::new(*chunk);
        let high = bytes.to_bitmask();
        let dropped = (high << 1 | after_high) & 0xffff;
        invalid |= dropped & !bytes.simd_eq(u8x16::splat(1)).to_bitmask();
        after_high = high >> 15;
        filled += match row.get_mut(filled..).and_then(<[u8]>::first_chunk_mut) {
            Some(pixels) if dropped == 0 => {
                *pixels = *chunk;
                pixels.len()
            }
            Some(pixels) => compact(chunk, dropped, pixels),
            None => copy_kept(chunk, dropped, row.get_mut(filled..).unwrap_or_default()),
        };
    }
    let high = rest.iter().rev().fold(0, |mask, &byte| mask << 1 | u32::from(byte >> 7));
    let dropped = high << 1 | after_high;
    invalid |=
        rest.iter().enumerate().fold(0, |wrong, (at, &byte)| wrong | (dropped >> at & u32::from(byte != 1)));
    filled += copy_kept(rest, dropped, row.get_mut(filled..).unwrap_or_default());
    invalid == 0 && dropped >> rest.len() == 0 && filled == row.len()
}

/// Moves the bytes that are not `dropped` to the front of `pixels`, and returns how many there are.
#[inline]
fn compact(bytes: &[u8; 16], dropped: u32, pixels: &mut [u8; 16]) -> usize {
    let mut kept = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        pixels[kept % 16] = byte;
        kept += (!dropped >> at & 1) as usize;
    }
    kept
}

/// As [`compact`] for the end of a row: counts the bytes that do not fit, too.
fn copy_kept(bytes: &[u8], dropped: u32, pixels: &mut [u8]) -> usize {
    let kept = bytes.iter().enumerate().filter(|(at, _)| dropped >> at & 1 == 0);
    let count = kept.clone().count();
    kept.zip(pixels).for_each(|((_, &byte), pixel)| *pixel = byte);
    count
}

/// A field of bytes.
pub(crate) fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(body.len() + 6);
    put_bytes(number, body, &mut field);
    field
}

/// Appends a field of a varint.
pub(crate) fn put_number(number: u8, value: u64, out: &mut Vec<u8>) {
    out.push(number << 3);
    put_varint(value, out);
}

/// Appends a field of a double.
pub(crate) fn put_double(number: u8, value: f64, out: &mut Vec<u8>) {
    out.push(number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of a float.
pub(crate) fn put_float(number: u8, value: f32, out: &mut Vec<u8>) {
    out.push(number << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of bytes.
pub(crate) fn put_bytes(number: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    put_varint(body.len() as u64, out);
    out.extend_from_slice(body);
}

/// Appends the varint of `value`.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fast_path_unpacks_pixels_and_nothing_else(
            row in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..200), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut packed = Vec::new();
            row.iter().for_each(|&pixel| put_varint(pixel.into(), &mut packed));
            let mut read = vec![0; row.len()];
            prop_assert!(unpack_pixels(&packed, &mut read));
            prop_assert_eq!(&read, &row);
            if !packed.is_empty() {
                packed[at.index(row.len())] = byte;
                let mut read = vec![0; row.len()];
                let mut rest = Message(&packed);
                let mut next = || rest.varint().ok().and_then(|value| u8::try_from(value).ok());
                let values: Option<Vec<u8>> = row.iter().map(|_| next()).collect();
                if unpack_pixels(&packed, &mut read) {
                    prop_assert_eq!(values, Some(read));
                    prop_assert!(rest.0.is_empty());
                }
            }
        }
    }
}
