//! Products whose left operand is a matrix of bytes with many zeros: pixels, as they lie in the data set.
//!
//! A zero adds `0 · b` to a chain of multiply-adds, which changes nothing while `b` is finite; so it is left out, and the bits are those of
//! the dense product. The non-zeros of 64 bytes are one mask, whose bits are visited in order. Several rows go on in step, so that their
//! chains hide each other's latency; one that has no bit left takes part with a zero.
#![allow(unsafe_code)] // The micro-kernel walks its operands by pointers; the methods of `Kernels` check the lengths first.

use crate::panel::{Finish, check_width};
use crate::simd::{LANES, Simd};
use crate::table::Kernels;
use crate::tile::{Block, load};
use crate::tree::{Tree, check_leaves};
use std::ops::Range;

/// Bytes that are tested at once.
const CHUNK: usize = 64;

/// Bytes from one row of a [`Bytes`] of `cols` columns to the next: room to read whole chunks from any column on.
pub const fn bytes_stride(cols: usize) -> usize {
    cols.next_multiple_of(CHUNK) + CHUNK
}

/// A matrix of bytes `[rows, cols]`, or a run of its columns. A byte `x` stands for `values[x]`, and `values[0]` is 0.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    data: &'a [u8],
    values: &'a [f32; 256],
    stride: usize,
    rows: usize,
    cols: usize,
}

impl<'a> Bytes<'a> {
    /// The matrix `[rows, cols]` whose rows are [`bytes_stride`] bytes apart.
    pub fn new(data: &'a [u8], values: &'a [f32; 256], rows: usize, cols: usize) -> Self {
        let stride = bytes_stride(cols);
        assert_eq!(data.len(), rows * stride, "length of [{rows}, {cols}] bytes");
        assert_eq!(values[0], 0.0, "the value of byte 0");
        Bytes { data, values, stride, rows, cols }
    }

    /// The same rows of some columns.
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.cols, "columns {range:?} of {}", self.cols);
        Bytes { data: self.data.get(range.start..).unwrap_or(&[]), cols: range.len(), ..self }
    }

    /// All columns of some rows.
    pub fn row_range(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        Bytes { data: &self.data[range.start * self.stride..], rows: range.len(), ..self }
    }

    /// Rows.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(self) -> usize {
        self.cols
    }
}

impl Kernels {
    /// `c = finish(a · b)` for some panels at once: `a` `[m, k]`, `b` `[panels][b_rows][width]`, of which the first `k` rows take part, `c`
    /// `[panels][m][width]`. A bias is one row of `width` a panel, `b_rows` rows apart, such as row `k` of `b`; a mask is `[panels][m][width]`.
    /// The bits are those of [`Kernels::matmul_panel`].
    pub fn matmul_bytes(
        &self,
        a: Bytes<'_>,
        b: &[f32],
        b_rows: usize,
        width: usize,
        finish: Finish<'_>,
        c: &mut [f32],
    ) {
        check_width(width);
        assert!(a.cols() <= b_rows, "{b_rows} rows of b for {} columns of a", a.cols());
        let panels = check_panels(b.len(), b_rows * width, c.len(), a.rows() * width);
        match finish {
            Finish::None => {}
            Finish::Bias(bias) | Finish::BiasRelu(bias) => {
                let last = panels.checked_sub(1).map_or(0, |last| last * b_rows * width + width);
                assert!(bias.len() >= last, "length of the bias");
            }
            Finish::Mask(mask) => assert_eq!(mask.len(), c.len(), "length of the mask"),
        }
        self.table.matmul_bytes(a, b, b_rows, width, panels, finish, c);
    }

    /// `c = aᵀ · d` for some panels at once, from the transposed `at` `[k, m]`: `d` `[panels][d_rows][width]`, of which the `m` rows from
    /// `first` on take part, `c` `[panels][c_rows][width]`, of which the first `k` rows are written. `leaves` are the ends of the
    /// micro-batches, the last one `m`. The bits are those of [`Kernels::matmul_tn_panel`].
    #[expect(clippy::too_many_arguments, reason = "two operands with their shapes")]
    pub fn matmul_tn_bytes(
        &self,
        at: Bytes<'_>,
        leaves: &[usize],
        d: &[f32],
        (d_rows, first): (usize, usize),
        width: usize,
        c: &mut [f32],
        c_rows: usize,
    ) {
        check_width(width);
        check_leaves(leaves, at.cols());
        assert!(first + at.cols() <= d_rows, "rows {first} and {} more of {d_rows}", at.cols());
        assert!(at.rows() <= c_rows, "{c_rows} rows of c for {} columns of a", at.rows());
        let panels = check_panels(d.len(), d_rows * width, c.len(), c_rows * width);
        self.table.matmul_tn_bytes(at, leaves, d, d_rows, first, width, panels, c, c_rows);
    }
}

/// The number of panels, which must be that of both operands.
fn check_panels(b: usize, b_panel: usize, c: usize, c_panel: usize) -> usize {
    let panels = b.checked_div(b_panel).unwrap_or(0);
    assert_eq!(
        (b, c),
        (panels * b_panel, panels * c_panel),
        "lengths of the right operand and of c, panel by panel"
    );
    panels
}

/// `out` `[cols, rows]` becomes the transposed bytes of `a` `[rows, cols]`, both with rows [`bytes_stride`] apart.
pub fn transpose_bytes(a: &[u8], rows: usize, cols: usize, out: &mut [u8]) {
    let (from, to) = (bytes_stride(cols), bytes_stride(rows));
    assert_eq!(
        (a.len(), out.len()),
        (rows * from, cols * to),
        "lengths of [{rows}, {cols}] bytes and of its transposed"
    );
    for row in (0..rows).step_by(8) {
        for col in (0..cols).step_by(8) {
            // The strides leave room for whole blocks; rows and columns past the ends are zero or are cut off.
            let word = |i: usize| match a.get((row + i) * from + col..) {
                Some(bytes) if row + i < rows => {
                    u64::from_le_bytes(*bytes.first_chunk().expect("a padded row"))
                }
                _ => 0,
            };
            let block = transpose_8x8(std::array::from_fn(word));
            for (i, word) in block.into_iter().enumerate().take(cols - col) {
                out[(col + i) * to + row..][..8].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// Byte `j` of word `i` becomes byte `i` of word `j`: blocks of 4, of 2 and of 1 change places.
fn transpose_8x8(mut w: [u64; 8]) -> [u64; 8] {
    for (distance, mask) in
        [(4, 0x0000_0000_ffff_ffff), (2, 0x0000_ffff_0000_ffff), (1, 0x00ff_00ff_00ff_00ff)]
    {
        for i in (0..8).filter(|i| i & distance == 0) {
            let shift = 8 * distance;
            let swap = ((w[i] >> shift) ^ w[i + distance]) & mask;
            w[i] ^= swap << shift;
            w[i + distance] ^= swap;
        }
    }
    w
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two operands with their shapes")]
pub(crate) fn matmul_bytes<S: Simd>(
    s: S,
    a: Bytes<'_>,
    b: &[f32],
    b_rows: usize,
    width: usize,
    panels: usize,
    finish: Finish<'_>,
    c: &mut [f32],
) {
    let (right, result) = (Vectors { width, rows: b_rows }, Vectors { width, rows: a.rows() });
    let product = Product { s, a, b: b.as_ptr(), right, c: c.as_mut_ptr(), result, leaves: None, finish };
    // SAFETY: `Kernels::matmul_bytes` has checked that the operands have these rows and panels.
    unsafe { product.all(panels * width / LANES) };
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two operands with their shapes")]
pub(crate) fn matmul_tn_bytes<S: Simd>(
    s: S,
    at: Bytes<'_>,
    leaves: &[usize],
    d: &[f32],
    rows: usize,
    first: usize,
    width: usize,
    panels: usize,
    c: &mut [f32],
    c_rows: usize,
) {
    let (right, result) = (Vectors { width, rows }, Vectors { width, rows: c_rows });
    let b = d.as_ptr().wrapping_add(first * width);
    let finish = Finish::None;
    let product = Product { s, a: at, b, right, c: c.as_mut_ptr(), result, leaves: Some(leaves), finish };
    // SAFETY: `Kernels::matmul_tn_bytes` has checked that the operands have these rows and panels.
    unsafe { product.all(panels * width / LANES) };
}

/// Where the vectors of a matrix in panels lie.
#[derive(Clone, Copy)]
struct Vectors {
    width: usize,
    rows: usize,
}

impl Vectors {
    /// Floats from the start of the matrix to vector `vector` of row `row`.
    #[inline(always)]
    fn at(self, row: usize, vector: usize) -> usize {
        let col = vector * LANES;
        (col / self.width * self.rows + row) * self.width + col % self.width
    }
}

/// The operands of a product. With leaves, its rows are trees of chains; without, each is one chain.
struct Product<'a, S> {
    s: S,
    a: Bytes<'a>,
    b: *const f32,
    right: Vectors,
    c: *mut f32,
    result: Vectors,
    leaves: Option<&'a [usize]>,
    finish: Finish<'a>,
}

impl<S: Simd> Product<'_, S> {
    /// All rows, and as many vectors of each at once as the registers hold.
    ///
    /// # Safety
    /// The operands must have the rows of `a` and `vectors` vectors in each.
    #[inline(always)]
    unsafe fn all(&self, vectors: usize) {
        let mut vector = 0;
        while vector < vectors {
            let left = vectors - vector;
            // SAFETY: the caller vouches for all vectors.
            unsafe {
                vector += match left {
                    8.. if const { S::CHAINS >= 8 } => self.rows::<1, 8>(vector),
                    4.. if const { S::CHAINS >= 8 } => self.rows::<2, 4>(vector),
                    4.. => self.rows::<1, 4>(vector),
                    2.. if const { S::CHAINS >= 8 } => self.rows::<4, 2>(vector),
                    2.. => self.rows::<2, 2>(vector),
                    _ => self.rows::<4, 1>(vector),
                };
            }
        }
    }

    /// All rows of the `N` vectors from `vector` on, `R` rows in step; returns `N`.
    ///
    /// # Safety
    /// The operands must have these rows and vectors.
    #[inline(always)]
    unsafe fn rows<const R: usize, const N: usize>(&self, vector: usize) -> usize {
        let rows = self.a.rows();
        // SAFETY: the caller vouches for all rows and vectors.
        unsafe {
            for row in (0..rows / R * R).step_by(R) {
                self.tile::<R, N>(row, vector);
            }
            for row in rows / R * R..rows {
                self.tile::<1, N>(row, vector);
            }
        }
        N
    }

    /// `R` rows of `N` vectors.
    ///
    /// # Safety
    /// The operands must have these rows and vectors.
    #[inline(always)]
    unsafe fn tile<const R: usize, const N: usize>(&self, row: usize, vector: usize) {
        // SAFETY: the caller vouches for these rows and vectors.
        unsafe {
            let mut sum = match self.leaves {
                None => self.chain::<R, N>(row, 0..self.a.cols(), vector),
                Some(leaves) => {
                    let (last, before) = leaves.split_last().unwrap_or((&0, &[]));
                    let mut tree = Tree::new(self.s);
                    let mut start = 0;
                    for &end in before {
                        tree.push(self.chain::<R, N>(row, start..end, vector));
                        start = end;
                    }
                    tree.finish(self.chain::<R, N>(row, start..*last, vector))
                }
            };
            self.finish(row, vector, &mut sum);
            for (r, row_sum) in sum.iter().enumerate() {
                for (v, &x) in row_sum.iter().enumerate() {
                    *self.c.add(self.result.at(row + r, vector + v)).cast() = self.s.to_array(x);
                }
            }
        }
    }

    /// The chains of `R` rows over the columns `cols` of A.
    ///
    /// # Safety
    /// A and B must have these rows, columns and vectors.
    #[inline(always)]
    unsafe fn chain<const R: usize, const N: usize>(
        &self,
        row: usize,
        cols: Range<usize>,
        vector: usize,
    ) -> Block<S, R, N> {
        let (s, width, values) = (self.s, self.right.width, self.a.values);
        let mut sum = [[s.splat(0.0); N]; R];
        let b: [*const f32; N] = std::array::from_fn(|v| self.b.wrapping_add(self.right.at(0, vector + v)));
        for start in cols.clone().step_by(CHUNK) {
            let length = CHUNK.min(cols.end - start);
            let bytes: [&[u8; CHUNK]; R] = std::array::from_fn(|r| {
                let bytes = &self.a.data[(row + r) * self.a.stride + start..];
                bytes.first_chunk().expect("the stride leaves room for a chunk")
            });
            let mut masks: [u64; R] =
                std::array::from_fn(|r| s.nonzero(bytes[r]) & (u64::MAX >> (CHUNK - length)));
            let steps = masks.iter().map(|mask| mask.count_ones()).max().unwrap_or(0);
            for _ in 0..steps {
                for r in 0..R {
                    // A row without bits left adds 0 · b[start], which changes nothing.
                    let some = masks[r] != 0;
                    let j = masks[r].trailing_zeros() as usize % CHUNK;
                    let byte = if R == 1 || some { bytes[r][j] } else { 0 };
                    masks[r] &= masks[r].wrapping_sub(1);
                    let x = s.splat(values[byte as usize]);
                    for v in 0..N {
                        // SAFETY: column `start + j` is one of `cols`; the caller vouches for the vectors.
                        let y = unsafe { load(s, b[v].add((start + j) * width)) };
                        sum[r][v] = s.mul_add(x, y, sum[r][v]);
                    }
                }
            }
        }
        sum
    }

    /// Applies [`Finish`] to a tile.
    ///
    /// # Safety
    /// Bias or mask must have these rows and vectors.
    #[inline(always)]
    unsafe fn finish<const R: usize, const N: usize>(
        &self,
        row: usize,
        vector: usize,
        sum: &mut Block<S, R, N>,
    ) {
        let (s, zero) = (self.s, self.s.splat(0.0));
        for (r, sum) in sum.iter_mut().enumerate() {
            for (v, x) in sum.iter_mut().enumerate() {
                // SAFETY: the caller vouches for these rows and vectors.
                unsafe {
                    *x = match self.finish {
                        Finish::None => return,
                        Finish::Bias(bias) => {
                            s.add(*x, load(s, bias.as_ptr().add(self.right.at(0, vector + v))))
                        }
                        // In this order a NaN stays one.
                        Finish::BiasRelu(bias) => {
                            s.max(zero, s.add(*x, load(s, bias.as_ptr().add(self.right.at(0, vector + v)))))
                        }
                        Finish::Mask(mask) => {
                            let mask = load(s, mask.as_ptr().add(self.result.at(row + r, vector + v)));
                            s.if_greater(mask, zero, *x, zero)
                        }
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, Panels, Start, panel_width};
    use proptest::prelude::*;

    /// Bytes `[rows, cols]` of a density, padded with garbage that must not be read as columns.
    fn matrix(rows: usize, cols: usize, density: u64, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 40
        };
        let stride = bytes_stride(cols);
        let byte = |at: usize, next: &mut dyn FnMut() -> u64| match at % stride {
            col if col < cols && next() % 100 >= density => 0,
            _ => (next() % 255 + 1) as u8,
        };
        (0..rows * stride).map(|at| byte(at, &mut next)).collect()
    }

    fn floats(len: usize, seed: u64) -> Vec<f32> {
        (0..len as u64).map(|i| ((i * 7919 + seed % 1000) % 401) as f32 / 97.0 - 2.0).collect()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn the_bits_are_those_of_the_dense_product(
            m in 1usize..40, k in 1usize..200, n in 1usize..150, density in 0u64..100, seed: u64, cuts in prop::collection::vec(0usize..40, 0..5),
            first in 0usize..3,
        ) {
            let values = std::array::from_fn(|byte| byte as f32 * (1.0 / 255.0));
            let a = matrix(m, k, density, seed);
            let mut at = vec![0xa5; k * bytes_stride(m)];
            transpose_bytes(&a, m, k, &mut at);
            let (width, panels) = (panel_width(n), n.div_ceil(panel_width(n)));
            // The bias is the last row of each panel.
            let b = floats(panels * (k + 1) * width, seed);
            let d = floats(panels * (m + first) * width, seed + 2);
            let panel = (k + 1) * width;
            let mut leaves: Vec<usize> = cuts.iter().map(|&cut| cut.min(m)).chain([m]).collect();
            leaves.sort_unstable();
            for backend in Backend::ALL {
                let Some(kernels) = Kernels::of(backend) else { continue };
                let mut x = vec![0.0; k.div_ceil(panel_width(k)) * m * panel_width(k)];
                for i in 0..m {
                    kernels.pixels_to_panels(&a[i * bytes_stride(k)..][..k], 1.0 / 255.0, &mut x, m, i);
                }
                let dense = Panels::new(&x, m, k, panel_width(k));
                let mut c = vec![f32::NAN; panels * m * width];
                kernels.matmul_bytes(Bytes::new(&a, &values, m, k), &b, k + 1, width, Finish::BiasRelu(&b[k * width..]), &mut c);
                let mut g = vec![f32::NAN; panels * panel];
                kernels.matmul_tn_bytes(Bytes::new(&at, &values, k, m), &leaves, &d, (m + first, first), width, &mut g, k + 1);
                for p in 0..panels {
                    let mut expected = vec![0.0; m * width];
                    let (w, bias) = b[p * panel..(p + 1) * panel].split_at(k * width);
                    let finish = Finish::BiasRelu(bias);
                    kernels.matmul_panel(dense, w, width, Start::Zero, finish, &mut expected);
                    prop_assert_eq!(bits(&c[p * m * width..(p + 1) * m * width]), bits(&expected));
                    let mut expected = vec![0.0; k * width];
                    let d = &d[(p * (m + first) + first) * width..(p + 1) * (m + first) * width];
                    kernels.matmul_tn_panel(dense, &leaves, d, width, &mut expected);
                    prop_assert_eq!(bits(&g[p * panel..p * panel + k * width]), bits(&expected));
                }
            }
        }

        #[test]
        fn transposing_is_its_definition(rows in 1usize..30, cols in 1usize..150, seed: u64) {
            let a = matrix(rows, cols, 50, seed);
            let mut out = vec![0; cols * bytes_stride(rows)];
            transpose_bytes(&a, rows, cols, &mut out);
            for row in 0..rows {
                for col in 0..cols {
                    prop_assert_eq!(out[col * bytes_stride(rows) + row], a[row * bytes_stride(cols) + col]);
                }
            }
        }
    }
}
