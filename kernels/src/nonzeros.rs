//! The entries of a matrix of bytes that are not zero.
#![allow(unsafe_code)] // Transposing writes entries where it has counted that there is room.

use crate::simd::{LANES, Simd};
use crate::table::Kernels;
use std::ops::Range;

/// Columns of a row that can be asked for on their own.
pub(crate) const SEGMENT: usize = 32;

/// A matrix with many zeros as the list of its other entries, row after row and by column within each. Rows are cut into segments: of 32
/// columns, or of micro-batches where it is transposed.
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
    /// Number of entries.
    end: usize,
    /// Of each entry, and room for a vector more.
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Nonzeros {
    /// Room for a matrix `[rows, cols]` in which nothing is zero; it has no row yet.
    pub fn with_room(rows: usize, cols: usize) -> Nonzeros {
        let (segments, entries) = (cols.div_ceil(SEGMENT), rows * cols);
        assert!(u32::try_from(entries).is_ok(), "a batch of [{rows}, {cols}] has too many entries");
        Nonzeros {
            rows: 0,
            cols,
            segments,
            rows_max: rows,
            starts: vec![0; (segments + 1) * rows],
            end: 0,
            columns: vec![0; entries + LANES],
            values: vec![0.0; entries + LANES],
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

    /// Takes all rows away.
    pub fn clear(&mut self) {
        (self.rows, self.end) = (0, 0);
    }

    /// Becomes the transpose of `a`, whose rows are cut into micro-batches that end at `leaves`.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn transpose(&mut self, a: &Nonzeros, leaves: &[usize]) {
        assert_eq!(leaves.last().copied().unwrap_or(0), a.rows, "end of the last micro-batch and rows");
        assert!(leaves.is_sorted(), "ends of micro-batches {leaves:?} must not decrease");
        assert!(a.end + LANES <= self.columns.len(), "{} entries have no room", a.end);
        let rows = a.cols;
        (self.rows, self.cols, self.segments, self.end) = (rows, a.rows, leaves.len(), a.end);
        self.rows_max = rows;
        self.starts.clear();
        self.starts.resize((self.segments + 1) * rows, 0);
        let (before, next) = self.starts.split_at_mut(self.segments * rows);
        for &column in &a.columns[..a.end] {
            // SAFETY: `push_bytes` makes columns below `a.cols`, which is the length of `next`.
            unsafe { *next.get_unchecked_mut(column as usize) += 1 };
        }
        let mut start = 0;
        for next in next.iter_mut() {
            start += std::mem::replace(next, start);
        }
        let mut first = 0;
        for (&end, starts) in leaves.iter().zip(before.chunks_exact_mut(rows.max(1))) {
            starts.copy_from_slice(next);
            for row in first..end {
                let entries = a.entries(row, 0..a.segments);
                for (&column, &value) in a.columns[entries.clone()].iter().zip(&a.values[entries]) {
                    // SAFETY: as above; each entry of `a` has a place of its own below `a.end`, which is within both lists.
                    unsafe {
                        let next = next.get_unchecked_mut(column as usize);
                        *self.columns.get_unchecked_mut(*next as usize) = row as u32;
                        *self.values.get_unchecked_mut(*next as usize) = value;
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

    /// Columns and values of all entries.
    #[inline(always)]
    pub(crate) fn lists(&self) -> (&[u32], &[f32]) {
        (&self.columns, &self.values)
    }
}

impl Kernels {
    /// Adds a row of bytes, each of which stands for `byte as f32 * scale`.
    ///
    /// # Panics
    /// If it has another number of columns, or there is no room.
    pub fn push_bytes(&self, row: &[u8], scale: f32, matrix: &mut Nonzeros) {
        assert_eq!(row.len(), matrix.cols, "columns of the row and of the matrix");
        assert_eq!(
            matrix.segments,
            matrix.cols.div_ceil(SEGMENT),
            "segments of a matrix that is not transposed"
        );
        assert!(matrix.rows < matrix.rows_max, "row {} has no room", matrix.rows);
        self.table.push_bytes(row, scale, matrix);
        matrix.rows += 1;
    }
}

#[inline(always)]
pub(crate) fn push_bytes<S: Simd>(s: S, row: &[u8], scale: f32, matrix: &mut Nonzeros) {
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
            let columns = matrix.columns[end..].first_chunk_mut().expect("room for a vector");
            let values = matrix.values[end..].first_chunk_mut().expect("room for a vector");
            let first = index * SEGMENT + part * LANES;
            end += s.nonzeros(bytes, first as u32, scale, columns, values);
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
        let (columns, values) = matrix.lists();
        let of = |row, segment| {
            let entry = move |at: usize| (row, segment, columns[at] as usize, values[at]);
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
                let mut matrix = Nonzeros::with_room(m, k);
                for _ in 0..2 {
                    matrix.clear();
                    a.chunks_exact(k).for_each(|row| kernels.push_bytes(row, 0.25, &mut matrix));
                    let expected = all.iter().map(|&(row, column, value)| (row, column / SEGMENT, column, value));
                    prop_assert_eq!(list(&matrix), expected.collect::<Vec<_>>());
                }
                let mut transposed = Nonzeros::with_room(k, m);
                transposed.transpose(&matrix, &ends);
                let mut expected: Vec<_> = all.iter().map(|&(row, column, value)| (column, leaf(row), row, value)).collect();
                expected.sort_by_key(|&(column, _, row, _)| (column, row));
                prop_assert_eq!(list(&transposed), expected);
            }
        }
    }
}
