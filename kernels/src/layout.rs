//! Panels: how every matrix of a model lies in memory.
//!
//! A matrix `[rows, cols]` is cut into panels of 32 columns (16 if that is enough for all of them), each
//! contiguous and row-major; columns past `cols` are zero. Weights `[in, out]` are thereby packed right operands
//! of a product already, and a row of activations is one or two cache lines a panel.

use std::array::from_fn;

use crate::simd::{LANES, Simd};
use crate::table::Kernels;

/// Columns of the panels of a matrix with `cols` columns: 16 or 32.
pub const fn panel_width(cols: usize) -> usize {
    if cols <= LANES { LANES } else { 2 * LANES }
}

/// Number of panels of a matrix with `cols` columns.
pub const fn panel_count(cols: usize) -> usize {
    cols.div_ceil(panel_width(cols))
}

/// Length in floats of a matrix `[rows, cols]` in panels, padding included.
pub const fn panels_len(rows: usize, cols: usize) -> usize {
    panel_count(cols) * rows * panel_width(cols)
}

/// A borrowed matrix in panels, or a run of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    data: &'a [f32],
    /// Rows of the whole matrix, thus the distance of two panels in rows.
    stored_rows: usize,
    first_row: usize,
    rows: usize,
    cols: usize,
    width: usize,
}

impl<'a> Panels<'a> {
    /// The matrix `[rows, cols]` whose panels, of `width` columns each, are `data`. The width is not derived from `cols`, because the
    /// columns may be a slice of a wider matrix.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, width: usize) -> Self {
        check_len(data, rows, cols, width);
        Panels { data, stored_rows: rows, first_row: 0, rows, cols, width }
    }

    /// The same columns of the rows in `range`, counted from this window's first row.
    pub fn window(self, range: std::ops::Range<usize>) -> Self {
        let rows = self.rows;
        assert!(range.start <= range.end && range.end <= rows, "rows {range:?} of a matrix of {rows}");
        Panels { first_row: self.first_row + range.start, rows: range.len(), ..self }
    }

    /// The columns of some panels, all rows of the window.
    pub fn panels(self, range: std::ops::Range<usize>) -> Self {
        let count = self.count();
        assert!(range.start <= range.end && range.end <= count, "panels {range:?} of {count}");
        let len = self.stored_rows * self.width;
        let cols = self.cols.min(range.end * self.width) - range.start * self.width;
        Panels { data: &self.data[range.start * len..range.end * len], cols, ..self }
    }

    /// Panel `q` alone: the columns from `q * width()` on, all rows of the window.
    pub fn panel(self, q: usize) -> Self {
        let count = self.count();
        assert!(q < count, "panel {q} of {count}");
        let len = self.stored_rows * self.width;
        let cols = self.width.min(self.cols - q * self.width);
        Panels { data: &self.data[q * len..(q + 1) * len], cols, ..self }
    }

    /// Rows of the window.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Columns without padding.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// Columns of a panel with padding: 16 or 32.
    pub fn width(self) -> usize {
        self.width
    }

    /// Number of panels.
    pub fn count(self) -> usize {
        self.cols.div_ceil(self.width)
    }

    /// Where the window's first row starts, and the floats from one panel to the next.
    pub(crate) fn origin(self) -> (*const f32, usize) {
        (self.data.as_ptr().wrapping_add(self.first_row * self.width), self.stored_rows * self.width)
    }
}

impl Kernels {
    /// Row `i` of the panels `x` `[m, row.len()]` becomes `f32(pixel) * scale`; padding becomes zero.
    pub fn pixels_to_panels(&self, row: &[u8], scale: f32, x: &mut [f32], m: usize, i: usize) {
        check_row(x, m, row.len(), i);
        self.table.pixels_to_panels(row, scale, x, m, i);
    }

    /// Row `i` of the panels `x` `[m, row.len()]` becomes `row`; padding becomes zero.
    pub fn row_to_panels(&self, row: &[f32], x: &mut [f32], m: usize, i: usize) {
        check_row(x, m, row.len(), i);
        let width = panel_width(row.len());
        for (panel, part) in x.chunks_exact_mut(m * width).zip(row.chunks(width)) {
            let to = &mut panel[i * width..(i + 1) * width];
            to[..part.len()].copy_from_slice(part);
            to[part.len()..].fill(0.0);
        }
    }

    /// `row` `[n]` becomes row `i` of the panels `x` `[m, n]`.
    pub fn panels_to_row(&self, x: &[f32], m: usize, n: usize, i: usize, row: &mut [f32]) {
        check_row(x, m, n, i);
        assert_eq!(row.len(), n, "length of the row");
        let width = panel_width(n);
        for (panel, part) in x.chunks_exact(m * width).zip(row.chunks_mut(width)) {
            part.copy_from_slice(&panel[i * width..][..part.len()]);
        }
    }

    /// `out` `[cols][out_width]` becomes the transposed rows `q * out_width ..` of the panels `w` `[rows, cols]`, of `w_width` columns
    /// each: the packed right operand of the input gradient `dA_q = dOut · W_qᵀ`. Lanes past `rows` become zero.
    #[expect(clippy::too_many_arguments, reason = "two matrices with their shapes")]
    pub fn transpose_block(
        &self,
        w: &[f32],
        rows: usize,
        cols: usize,
        w_width: usize,
        q: usize,
        out: &mut [f32],
        out_width: usize,
    ) {
        check_len(w, rows, cols, w_width);
        assert!(q * out_width < rows, "block {q} of {out_width} rows of {rows}");
        assert_eq!(out.len(), cols * out_width, "length of a [{cols}][{out_width}] block");
        self.table.transpose_block(w, rows, cols, w_width, q, out, out_width);
    }
}

fn check_len(data: &[f32], rows: usize, cols: usize, width: usize) {
    assert!(width == LANES || width == 2 * LANES, "panels of {width} columns; there are 16 and 32");
    assert_eq!(
        data.len(),
        cols.div_ceil(width) * rows * width,
        "length of a [{rows}, {cols}] matrix in panels of {width}"
    );
}

fn check_row(x: &[f32], m: usize, n: usize, i: usize) {
    assert_eq!(x.len(), panels_len(m, n), "length of a [{m}, {n}] matrix in panels");
    assert!(i < m, "row {i} of {m}");
}

#[inline(always)]
pub(crate) fn pixels_to_panels<S: Simd>(s: S, row: &[u8], scale: f32, x: &mut [f32], m: usize, i: usize) {
    let width = panel_width(row.len());
    let scale = s.splat(scale);
    for (panel, part) in x.chunks_exact_mut(m * width).zip(row.chunks(width)) {
        let (to, _) = panel[i * width..(i + 1) * width].as_chunks_mut::<LANES>();
        let (full, rest) = part.as_chunks::<LANES>();
        for (to, pixels) in to.iter_mut().zip(full) {
            *to = s.to_array(s.mul(s.load_u8(pixels), scale));
        }
        if full.len() < to.len() {
            let mut padded = [0; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            to[full.len()] = s.to_array(s.mul(s.load_u8(&padded), scale));
            to[full.len() + 1..].fill([0.0; LANES]);
        }
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices with their shapes")]
pub(crate) fn transpose_block<S: Simd>(
    s: S,
    w: &[f32],
    rows: usize,
    cols: usize,
    w_width: usize,
    q: usize,
    out: &mut [f32],
    width: usize,
) {
    let zero = [0.0; LANES];
    for lane in (0..width).step_by(LANES) {
        let first = q * width + lane;
        for col in (0..cols).step_by(LANES) {
            let panel = &w[col / w_width * rows * w_width..];
            let block: [&[f32; LANES]; LANES] = from_fn(|j| {
                let at = (first + j) * w_width + col % w_width;
                if first + j < rows { panel[at..].first_chunk().expect("a whole row") } else { &zero }
            });
            s.for_each_column(block, |j, column| {
                if col + j < cols {
                    let to = &mut out[(col + j) * width + lane..];
                    *to.first_chunk_mut().expect("a whole row") = s.to_array(column);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::naive;
    use crate::testing::{floats, on_each, to_panels};

    proptest! {
        #[test]
        fn rows_go_into_panels_and_back(m in 1_usize..9, n in 0_usize..70, seed: u64) {
            let x = floats(m * n, seed);
            on_each(|kernels| {
                let panels = to_panels(kernels, &x, m, n);
                assert_eq!(naive::from_panels(&panels, m, n), x);
                let mut row = vec![0.0; n];
                kernels.panels_to_row(&panels, m, n, m - 1, &mut row);
                assert_eq!(row, x[(m - 1) * n..]);
                panels
            });
        }

        #[test]
        fn pixels_are_scaled_into_panels(m in 1_usize..9, row in prop::collection::vec(any::<u8>(), 0..70)) {
            on_each(|kernels| {
                let mut panels = vec![f32::NAN; panels_len(m, row.len())];
                for i in 0..m {
                    kernels.pixels_to_panels(&row, 1.0 / 255.0, &mut panels, m, i);
                }
                let expected = row.iter().map(|&pixel| f32::from(pixel) * (1.0 / 255.0));
                let expected: Vec<f32> = std::iter::repeat_n(expected, m).flatten().collect();
                assert_eq!(naive::from_panels(&panels, m, row.len()), expected);
                panels
            });
        }

        #[test]
        fn blocks_are_the_panels_of_the_transpose(rows in 1_usize..70, cols in 0_usize..70, seed: u64) {
            let w = floats(rows * cols, seed);
            on_each(|kernels| {
                let panels = to_panels(kernels, &w, rows, cols);
                let mut blocks = vec![f32::NAN; panels_len(cols, rows)];
                for (q, block) in blocks.chunks_mut((cols * panel_width(rows)).max(1)).enumerate() {
                    let (w, out) = (panel_width(cols), panel_width(rows));
                    kernels.transpose_block(&panels, rows, cols, w, q, block, out);
                }
                assert_eq!(naive::from_panels(&blocks, cols, rows), naive::transpose(rows, cols, &w));
                blocks
            });
        }
    }

    #[test]
    #[should_panic(expected = "length of a [3, 40] matrix in panels")]
    fn panels_of_the_wrong_length_are_refused() {
        Panels::new(&[0.0; 120], 3, 40, 32);
    }
}
