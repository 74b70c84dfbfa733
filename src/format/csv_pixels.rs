//! The fast paths of csv: lines of integers from 0 to 255.
//!
//! The careful reader in `csv` is the specification: whatever this one refuses goes there, for the answer or for the error.
//! 64 bytes are looked at together: for every byte the value of a field that began there is computed, without a branch on
//! the number of its digits and without waiting for the field before; the values at the bytes where fields do begin are kept.

use wide::u8x16;

use super::Element;

/// Bytes looked at together: as many as a `u64` has bits.
const BLOCK: usize = 64;
/// A field may begin at the last byte of a block and has up to three digits.
const LOADED: usize = BLOCK + 2;
/// The commas of a block of fields of one digit: backgrounds are runs of zeros.
const ONE_DIGIT_FIELDS: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// Reads `row.len()` fields of one to three digits each; false when `line` is anything else.
pub(super) fn parse_line(mut line: &[u8], mut row: &mut [u8]) -> bool {
    let mut invalid = 0;
    while let Some(bytes) = line.first_chunk() {
        let block = Block::of(bytes);
        let Some(last_comma) = block.commas.checked_ilog2() else { return false };
        let Some((fields, rest)) = row.split_at_mut_checked(block.commas.count_ones() as usize) else {
            return false;
        };
        invalid |= block.invalid(last_comma);
        block.copy_values(fields);
        line = &line[last_comma as usize + 1..];
        row = rest;
    }
    invalid == 0 && parse_rest(line, row)
}

/// Reads the fields that are too near to the end of the line to look at 64 bytes.
fn parse_rest(line: &[u8], row: &mut [u8]) -> bool {
    let mut fields = line.split(|&byte| byte == b',');
    let read = row.iter_mut().all(|value| match fields.next() {
        Some(&[ones @ b'0'..=b'9']) => {
            *value = ones - b'0';
            true
        }
        Some(field) => u8::from_text(field).map(|parsed| *value = parsed).is_some(),
        None => false,
    });
    read && fields.next().is_none()
}

/// What is known of 64 bytes of which the first begins a field. Bit `i` of a mask tells of byte `i`.
struct Block {
    commas: u64,
    digits: u64,
    /// A field of three digits that began here would be at most 255.
    fits: u64,
    /// The value of a field that began at each byte.
    values: [u8; BLOCK],
}

impl Block {
    #[inline]
    fn of(bytes: &[u8; LOADED]) -> Block {
        let mut block = Block { commas: 0, digits: 0, fits: 0, values: [0; BLOCK] };
        for part in 0..BLOCK / 16 {
            let load = |at: usize| {
                let mut bytes16 = [0; 16];
                bytes16.copy_from_slice(&bytes[16 * part + at..][..16]);
                u8x16::new(bytes16)
            };
            let (commas, values, digits, fits) = values_at(load(0), load(1), load(2));
            block.commas |= u64::from(commas.to_bitmask()) << (16 * part);
            block.digits |= u64::from(digits.to_bitmask()) << (16 * part);
            block.fits |= u64::from(fits.to_bitmask()) << (16 * part);
            block.values[16 * part..][..16].copy_from_slice(values.as_array());
        }
        block
    }

    /// Where fields begin that end up to `last_comma`.
    fn starts(&self, last_comma: u32) -> u64 {
        (self.commas << 1 | 1) & (u64::MAX >> (63 - last_comma))
    }

    /// Not zero when a byte up to `last_comma` is neither digit nor comma, or a field has no digit, more than three, or
    /// three that make more than 255.
    #[inline]
    fn invalid(&self, last_comma: u32) -> u64 {
        let starts = self.starts(last_comma);
        let whole = u64::MAX >> (63 - last_comma);
        let three_digits = starts & !(self.commas >> 1 | self.commas >> 2);
        whole & !(self.commas | self.digits)
            | starts & self.commas
            | three_digits & !(self.commas >> 3 & self.fits)
    }

    /// Copies the values of the `fields.len()` fields that the block ends.
    #[inline]
    fn copy_values(&self, fields: &mut [u8]) {
        if self.commas == ONE_DIGIT_FIELDS {
            for (field, pair) in fields.iter_mut().zip(self.values.as_chunks::<2>().0) {
                *field = pair[0];
            }
            return;
        }
        let mut starts = self.commas << 1 | 1;
        for field in fields {
            *field = self.values[starts.trailing_zeros() as usize % BLOCK];
            starts &= starts - 1;
        }
    }
}

/// For 16 bytes and the two after each: commas, values of fields that begin there, digits, and whether three digits fit.
#[inline]
fn values_at(first: u8x16, second: u8x16, third: u8x16) -> (u8x16, u8x16, u8x16, u8x16) {
    let (comma, zero) = (u8x16::splat(b','), u8x16::splat(b'0'));
    let (hundreds, tens, ones) = (first ^ zero, second ^ zero, third ^ zero);
    let one_digit = second.simd_eq(comma);
    let two_digits = third.simd_eq(comma);
    let hundred = hundreds.simd_eq(u8x16::splat(1)) & u8x16::splat(100);
    let two_hundred = hundreds.simd_eq(u8x16::splat(2)) & u8x16::splat(200);
    let below_hundred = times_ten(tens) + ones;
    let three = (hundred | two_hundred) + below_hundred;
    let fits = three.simd_eq((hundred | two_hundred).saturating_add(below_hundred))
        & hundreds.simd_eq(hundreds.min(u8x16::splat(2)));
    let two = times_ten(hundreds) + tens;
    let values = one_digit.select(hundreds, two_digits.select(two, three));
    (first.simd_eq(comma), values, hundreds.simd_eq(hundreds.min(u8x16::splat(9))), fits)
}

#[inline]
fn times_ten(digits: u8x16) -> u8x16 {
    let twice = digits + digits;
    let four_times = twice + twice;
    twice + four_times + four_times
}

/// Each value as text with a comma behind it, and the length of both.
const TEXTS: [([u8; 4], usize); 256] = {
    let mut texts = [([b','; 4], 2); 256];
    let mut value = 0;
    while value < 256 {
        let [hundreds, tens, ones] =
            [b'0' + (value / 100) as u8, b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8];
        texts[value] = match value {
            0..10 => ([ones, b',', 0, 0], 2),
            10..100 => ([tens, ones, b',', 0], 3),
            _ => ([hundreds, tens, ones, b','], 4),
        };
        value += 1;
    }
    texts
};

/// Appends `row` as text, with commas between.
pub(super) fn put_line(row: &[u8], text: &mut Vec<u8>) {
    let mut end = text.len();
    text.resize(end + 4 * row.len(), 0);
    for &value in row {
        let (digits, length) = TEXTS[usize::from(value)];
        text[end..end + 4].copy_from_slice(&digits);
        end += length;
    }
    text.truncate(end - usize::from(!row.is_empty()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn careful(line: &[u8], width: usize) -> Option<Vec<u8>> {
        let fields: Option<Vec<u8>> =
            std::str::from_utf8(line).ok()?.split(',').map(|f| f.parse().ok()).collect();
        fields.filter(|row| row.len() == width)
    }

    proptest! {
        #[test]
        fn writes_and_reads_every_row_of_pixels(row in prop::collection::vec(any::<u8>(), 1..300)) {
            let line = row.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
            let mut written = b"5|".to_vec();
            put_line(&row, &mut written);
            prop_assert_eq!(&written[2..], line.as_bytes());
            let mut read = vec![0; row.len()];
            prop_assert!(parse_line(line.as_bytes(), &mut read));
            prop_assert_eq!(read, row);
        }

        #[test]
        fn what_it_accepts_the_careful_reader_reads_alike(
            mut line in "[0-9]{1,3}(,[0-9]{1,3}){0,60}", at in any::<prop::sample::Index>(), byte in 0u8..128, cut in any::<bool>(),
            width in 1usize..62,
        ) {
            let at = at.index(line.len());
            line.replace_range(at..=at, if cut { "" } else { std::str::from_utf8(std::slice::from_ref(&byte)).unwrap() });
            let width = if width % 2 == 0 { width } else { line.split(',').count() };
            let mut read = vec![0; width];
            if parse_line(line.as_bytes(), &mut read) {
                prop_assert_eq!(careful(line.as_bytes(), width), Some(read));
            }
        }
    }

    #[test]
    fn refuses_what_is_not_a_row_of_pixels() {
        for line in [
            "", ",", "1,", ",1", "256,0", "999,0", "1.0,0", "1 ,0", "-1,0", "1,2,3", "1", "a,0", "0,a",
            "::,0",
        ] {
            assert!(!parse_line(line.as_bytes(), &mut [0; 2]), "{line:?}");
        }
        assert!(!parse_line(b"0", &mut []));
        for field in ["256", "0000", "", "x", "300", "999"] {
            let line = format!("{}{field},{}0", "0,".repeat(10), "7,".repeat(89));
            assert!(!parse_line(line.as_bytes(), &mut [0; 101]), "{field:?}");
        }
        let long = "0,".repeat(100) + "0";
        assert!(!parse_line(long.as_bytes(), &mut [0; 100]) && parse_line(long.as_bytes(), &mut [0; 101]));
    }
}
