//! The fast path of csv: a line of integers from 0 to 255.
//!
//! The careful reader in `csv` is the specification: whatever this one refuses goes there, for the answer or for the error.
//! Commas are found 64 bytes at a time, so that the place of a field does not wait for the length of the one before it, and
//! a field's digits are turned into its value without a branch on their number.

/// Bytes whose commas are found together: one bit each of a `u64`.
const BLOCK: usize = 64;
/// A field's digits are loaded as one word, so it must begin this far from the end of the line.
const WORD: usize = 4;

/// Reads `row.len()` fields of one to three digits each; false when `line` is anything else.
pub(super) fn parse_line(line: &[u8], row: &mut [u8]) -> bool {
    let mut fields = Fields { line, start: 0, invalid: 0 };
    let mut filled = 0;
    for (block, base) in line.chunks_exact(BLOCK).zip((0..).step_by(BLOCK)) {
        let mut commas = comma_mask(block);
        let count = commas.count_ones() as usize;
        let Some(values) = row.get_mut(filled..filled + count) else { return false };
        for value in values {
            *value = fields.until(base + commas.trailing_zeros() as usize);
            commas &= commas - 1;
        }
        filled += count;
    }
    let rest = line.len() / BLOCK * BLOCK;
    for (end, _) in line.iter().enumerate().skip(rest).filter(|&(_, &byte)| byte == b',') {
        let Some(value) = row.get_mut(filled) else { return false };
        *value = fields.until(end);
        filled += 1;
    }
    let [last] = &mut row[filled..] else { return false };
    *last = fields.until(line.len());
    fields.invalid == 0
}

/// Bit `i` says whether byte `i` is a comma.
#[inline]
fn comma_mask(block: &[u8]) -> u64 {
    block.iter().rev().fold(0, |mask, &byte| mask << 1 | u64::from(byte == b','))
}

/// The fields of a line, from left to right.
struct Fields<'a> {
    line: &'a [u8],
    start: usize,
    /// Not zero once a field was not one to three digits that make a `u8`.
    invalid: u32,
}

impl Fields<'_> {
    /// The value of the field that ends before `end`.
    #[inline]
    fn until(&mut self, end: usize) -> u8 {
        let length = end - self.start;
        let word = match self.line.get(self.start..self.start + WORD) {
            Some(bytes) => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            None => self.line[self.start..].iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)),
        };
        self.start = end + 1;
        // The digits move to the top of the word, ones last; what follows them falls out, zeros come in below.
        let digits = (word ^ 0x3030_3030) << ((WORD.wrapping_sub(length) as u32).wrapping_mul(8) & 31);
        let above_nine = (digits.wrapping_add(0x7676_7676) | digits) & 0x8080_8080;
        let value = (digits >> 24) + 10 * (digits >> 16 & 0xff) + 100 * (digits >> 8 & 0xff);
        self.invalid |= above_nine | (value >> 8) | u32::from(length.wrapping_sub(1) > 2);
        value as u8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn careful(line: &[u8], width: usize) -> Option<Vec<u8>> {
        let fields: Option<Vec<u8>> = std::str::from_utf8(line).ok()?.split(',').map(|f| f.parse().ok()).collect();
        fields.filter(|row| row.len() == width)
    }

    proptest! {
        #[test]
        fn reads_every_row_of_pixels(row in prop::collection::vec(any::<u8>(), 1..300)) {
            let line = row.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
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
    fn refuses_what_is_not_one_to_three_digits() {
        for line in ["", ",", "1,", ",1", "256,0", "999,0", "1.0,0", "0001,0", "1 ,0", "-1,0", "1,2,3", "1", "a,0", "0,a", "::,0"] {
            assert!(!parse_line(line.as_bytes(), &mut [0; 2]), "{line:?}");
        }
        assert!(!parse_line(b"0", &mut []));
        let long = "0,".repeat(100) + "0";
        assert!(!parse_line(long.as_bytes(), &mut [0; 100]) && parse_line(long.as_bytes(), &mut [0; 101]));
    }
}
