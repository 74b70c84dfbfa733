//! The entries of a matrix of bytes that are not zero.
#![allow(unsafe_code)] // Transposing writes entries where it has counted that there is room.

use crate::simd::{LANES, Simd};
use crate::table::Kernels;
use std::ops::Range;

/// Columns of a row that can be asked for on their own.
pub(crate) const SEGMENT: usize = 32;

/// The most columns: of the four bytes of an entry three are its column.
const COLUMNS_MAX: usize = 1 << 24;

/// A matrix of bytes with many zeros as the list of its other entries, row after row and by column within each. Rows are cut into segments:
/// of 32 columns, or of micro-batches where it is transposed.
#[derive(Clone, Debug)]
pub struct Nonzeros {
    rows: usize,
    cols: usize,
    /// Segments of each row.
    segments: usize,
    /// Rows that `starts` has room for.
    rows_max: usize,
    /// `[segments + 1][rows_max]`: the first entry of each segment, and the end of the last.
    starts: Vec<u32>,
    /// Number of entries; of a transposed matrix, where they end.
    end: usize,
    /// `column << 8 | byte`, and room for a vector more. Half of what a column and a float take: what transposing and the products wait
    /// for is memory.
    entries: Vec<u32>,
    /// What each byte stands for.
    values: [f32; 256],
}

impl Nonzeros {
    /// Room for a matrix `[rows, cols]` in which nothing is zero; it has no row yet. A byte stands for `byte as f32 * scale`.
    pub fn with_room(rows: usize, cols: usize, scale: f32) -> Nonzeros {
        let (segments, entries) = (cols.div_ceil(SEGMENT), rows * cols);
        assert!(u32::try_from(entries).is_ok(), "a batch of [{rows}, {cols}] has too many entries");
        assert!(
            rows.max(cols) <= COLUMNS_MAX,
            "[{rows}, {cols}] has more than {COLUMNS_MAX} rows or columns"
        );
        Nonzeros {
            rows: 0,
            cols,
            segments,
            rows_max: rows,
            starts: vec![0; (segments + 1) * rows],
            end: 0,
            entries: vec![0; entries + LANES],
            values: std::array::from_fn(|byte| byte as f32 * scale),
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Takes all rows away; the next ones have `cols` columns.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn clear(&mut self, cols: usize) {
        self.check_room(self.rows_max, cols);
        (self.rows, self.end, self.cols, self.segments) = (0, 0, cols, cols.div_ceil(SEGMENT));
    }

    fn check_room(&self, rows: usize, cols: usize) {
        assert!(rows * cols + LANES <= self.entries.len(), "[{rows}, {cols}] has no room");
    }

    /// Becomes the transpose of `a`, whose rows are cut into micro-batches that end at `leaves`. Every row gets room for as many entries as
    /// it may have, which saves counting them first.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn transpose(&mut self, a: &Nonzeros, leaves: &[usize]) {
        assert_eq!(leaves.last().copied().unwrap_or(0), a.rows, "end of the last micro-batch and rows");
        assert!(leaves.is_sorted(), "ends of micro-batches {leaves:?} must not decrease");
        self.check_room(a.cols, a.rows);
        let rows = a.cols;
        (self.rows, self.cols, self.segments, self.end) = (rows, a.rows, leaves.len(), a.cols * a.rows);
        self.rows_max = rows;
        self.starts.resize((self.segments + 1) * rows, 0);
        let (starts, next) = self.starts.split_at_mut(self.segments * rows);
        next.iter_mut().enumerate().for_each(|(row, next)| *next = (row * a.rows) as u32);
        let mut first = 0;
        for (&end, starts) in leaves.iter().zip(starts.chunks_exact_mut(rows.max(1))) {
            starts.copy_from_slice(next);
            for row in first..end {
                for &entry in &a.entries[a.entries(row, 0..a.segments)] {
                    // SAFETY: `push_bytes` makes columns below `a.cols`, which is the length of `next`, and each of them once a row, so that no
                    // place is past the `a.rows` of its column; `check_room` has found that there are these.
                    unsafe {
                        let next = next.get_unchecked_mut((entry >> 8) as usize);
                        *self.entries.get_unchecked_mut(*next as usize) = (row as u32) << 8 | entry & 0xff;
                        *next += 1;
                    }
                }
            }
            first = end;
        }
    }

    /// Number of segments of each row.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }

    /// The entries of some segments of a row.
    #[inline(always)]
    pub(crate) fn entries(&self, row: usize, segments: Range<usize>) -> Range<usize> {
        self.starts[segments.start * self.rows_max + row] as usize
            ..self.starts[segments.end * self.rows_max + row] as usize
    }

    /// Column and value of an entry.
    ///
    /// # Safety
    /// It must exist.
    #[inline(always)]
    pub(crate) unsafe fn entry(&self, at: usize) -> (usize, f32) {
        // SAFETY: the caller vouches for it.
        let entry = unsafe { *self.entries.get_unchecked(at) };
        ((entry >> 8) as usize, self.values[(entry & 0xff) as usize])
    }
}

impl Kernels {
    /// Adds a row of bytes.
    ///
    /// # Panics
    /// If it has another number of columns, or there is no room.
    pub fn push_bytes(&self, row: &[u8], matrix: &mut Nonzeros) {
        assert_eq!(row.len(), matrix.cols, "columns of the row and of the matrix");
        assert_eq!(
            matrix.segments,
            matrix.cols.div_ceil(SEGMENT),
            "segments of a matrix that is not transposed"
        );
        assert!(matrix.rows < matrix.rows_max, "row {} has no room", matrix.rows);
        self.table.push_bytes(row, matrix);
        matrix.rows += 1;
    }
}

#[inline(always)]
pub(crate) fn push_bytes<S: Simd>(s: S, row: &[u8], matrix: &mut Nonzeros) {
    let (row_of_starts, mut end) = (matrix.rows, matrix.end);
    matrix.starts[row_of_starts] = end as u32;
    let ends = matrix.starts[matrix.rows_max..].chunks_exact_mut(matrix.rows_max);
    for (index, (segment, segment_end)) in row.chunks(SEGMENT).zip(ends).enumerate() {
        for part in 0..SEGMENT / LANES {
            let mut padded = [0; LANES];
            let bytes = match segment.get(part * LANES..(part + 1) * LANES) {
                Some(whole) => whole.first_chunk().expect("as many"),
                None => {
                    let rest = segment.get(part * LANES..).unwrap_or(&[]);
                    padded.iter_mut().zip(rest).for_each(|(to, &byte)| *to = byte);
                    &padded
                }
            };
            let entries = matrix.entries[end..].first_chunk_mut().expect("room for a vector");
            end += s.nonzeros(bytes, (index * SEGMENT + part * LANES) as u32, entries);
        }
        segment_end[row_of_starts] = end as u32;
    }
    matrix.end = end;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bytes, leaves};
    use proptest::prelude::*;

    /// Row, segment, column and value of each entry.
    fn list(matrix: &Nonzeros) -> Vec<(usize, usize, usize, f32)> {
        let of = |row, segment| {
            let entry = move |at: usize| {
                // SAFETY: the matrix names it.
                let (column, value) = unsafe { matrix.entry(at) };
                (row, segment, column, value)
            };
            matrix.entries(row, segment..segment + 1).map(entry)
        };
        (0..matrix.rows()).flat_map(|row| (0..matrix.segments()).flat_map(move |s| of(row, s))).collect()
    }

    proptest! {
        #[test]
        fn both_ways_list_what_is_not_zero(
            (m, ends) in (0_usize..40).prop_flat_map(|m| (Just(m), leaves(m))), k in 1_usize..150, density in 0_u64..101, seed: u64,
        ) {
            let a = bytes(m * k, density, seed);
            let entry = |at: usize| (at / k, at % k, f32::from(a[at]) * 0.25);
            let all: Vec<_> = (0..m * k).map(entry).filter(|entry| entry.2 != 0.0).collect();
            let leaf = |row: usize| ends.iter().position(|&end| row < end).expect("a leaf");
            for kernels in crate::testing::all() {
                let mut matrix = Nonzeros::with_room(m, k, 0.25);
                for _ in 0..2 {
                    matrix.clear(k);
                    a.chunks_exact(k).for_each(|row| kernels.push_bytes(row, &mut matrix));
                    let expected = all.iter().map(|&(row, column, value)| (row, column / SEGMENT, column, value));
                    prop_assert_eq!(list(&matrix), expected.collect::<Vec<_>>());
                }
                let mut transposed = Nonzeros::with_room(k, m, 0.25);
                transposed.transpose(&matrix, &ends);
                let mut expected: Vec<_> = all.iter().map(|&(row, column, value)| (column, leaf(row), row, value)).collect();
                expected.sort_by_key(|&(column, _, row, _)| (column, row));
                prop_assert_eq!(list(&transposed), expected);
            }
        }
    }
}
