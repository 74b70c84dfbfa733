//! `C = finish(start + A·B)` for one panel of B and C: the forward pass and the input gradient.
//!
//! Every output is one chain of multiply-adds over `k` in order.
#![allow(unsafe_code)] // The micro-kernel walks its operands by pointers; `matmul_panel` checks their lengths first.

use crate::layout::Panels;
use crate::simd::{LANES, Simd};
use crate::table::Kernels;
use crate::tile::{Tile, for_each_tile, load, load_block, store_block};

/// Where the chain of an output starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At zero; C is not read.
    Zero,
    /// At what C holds.
    Continue,
}

/// What happens to an output before it is stored.
#[derive(Clone, Copy, Debug)]
pub enum Finish<'a> {
    /// Nothing.
    None,
    /// Plus `bias[j]`; `[width]`.
    Bias(&'a [f32]),
    /// Plus `bias[j]`, then zero if negative; `[width]`.
    BiasRelu(&'a [f32]),
    /// Zero where `mask[i][j] <= 0`: the backward pass of ReLU over its output; `[m][width]`.
    Mask(&'a [f32]),
}

impl Kernels {
    /// `c = finish(start + a · b)` for one panel: `a` `[m, k]`, `b` `[k][width]`, `c` `[m][width]`, `width` 16 or 32.
    pub fn matmul_panel(
        &self,
        a: Panels<'_>,
        b: &[f32],
        width: usize,
        start: Start,
        finish: Finish<'_>,
        c: &mut [f32],
    ) {
        check_width(width);
        assert_eq!(c.len(), a.rows() * width, "length of c [{}][{width}]", a.rows());
        self.table.matmul_panel(a, b, width, start, finish, c, width);
    }
}

pub(crate) fn check_width(width: usize) {
    assert!(width == LANES || width == 2 * LANES, "width of a panel is 16 or 32, not {width}");
}

/// Rows of `c` are `ldc` floats apart, so that the row-major product can write where its caller wants it.
#[inline(always)]
pub(crate) fn matmul_panel<S: Simd>(
    s: S,
    a: Panels<'_>,
    b: &[f32],
    width: usize,
    start: Start,
    finish: Finish<'_>,
    c: &mut [f32],
    ldc: usize,
) {
    let (m, k) = (a.rows(), a.cols());
    assert_eq!(b.len(), k * width, "length of b [{k}][{width}]");
    match finish {
        Finish::None => {}
        Finish::Bias(bias) | Finish::BiasRelu(bias) => assert_eq!(bias.len(), width, "length of the bias"),
        Finish::Mask(mask) => assert_eq!(mask.len(), m * width, "length of the mask [{m}][{width}]"),
    }
    if m == 0 {
        return;
    }
    assert!(ldc >= width && c.len() >= (m - 1) * ldc + width, "c [{m}][{width}], rows {ldc} apart");
    let (a_origin, panel_len) = a.origin();
    let vectors = S::TILE_VECTORS.min(width / LANES);
    for col in (0..width).step_by(vectors * LANES) {
        let b = b.as_ptr().wrapping_add(col);
        let c = c[col..].as_mut_ptr();
        let product = Product { s, a: a_origin, panel_len, k, b, width, col, start, finish, c, ldc };
        // SAFETY: the asserts above and the construction of `Panels` cover all rows and vectors of every tile.
        unsafe {
            if const { S::TILE_VECTORS == 2 } && vectors == 2 {
                product.tiles::<2>(m, a.width());
            } else {
                product.tiles::<1>(m, a.width());
            }
        }
    }
}

/// The operands of the columns `col..` of a panel; `b` and `c` point at `col` already.
struct Product<'a, S> {
    s: S,
    a: *const f32,
    panel_len: usize,
    k: usize,
    b: *const f32,
    width: usize,
    col: usize,
    start: Start,
    finish: Finish<'a>,
    c: *mut f32,
    ldc: usize,
}

impl<S: Simd> Product<'_, S> {
    /// All `m` rows of `N` vectors.
    ///
    /// # Safety
    /// The operands must have them, and panels of A must be `width` wide.
    #[inline(always)]
    unsafe fn tiles<const N: usize>(&self, m: usize, width: usize) {
        // SAFETY: the caller vouches for the rows.
        unsafe {
            if width == LANES {
                for_each_tile(m, &Rows::<S, LANES, N>(self));
            } else {
                for_each_tile(m, &Rows::<S, { 2 * LANES }, N>(self));
            }
        }
    }
}

/// Rows of a product with panels of A `WA` columns wide, `N` vectors of C.
struct Rows<'a, S, const WA: usize, const N: usize>(&'a Product<'a, S>);

impl<S: Simd, const WA: usize, const N: usize> Tile for Rows<'_, S, WA, N> {
    const ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    unsafe fn run<const MR: usize>(&self, first: usize) {
        let &Product { s, a, panel_len, k, b, width, start, c, ldc, .. } = self.0;
        // SAFETY: `matmul_panel` has checked that A, B and C hold the rows of this tile.
        unsafe {
            let c = c.add(first * ldc);
            let mut sum = match start {
                Start::Zero => [[s.splat(0.0); N]; MR],
                Start::Continue => load_block(s, c, ldc),
            };
            let (mut a, mut b) = (a.add(first * WA), b);
            let mut left = k;
            while left > 0 {
                let depth = left.min(WA);
                for p in 0..depth {
                    let mut b_row = [s.splat(0.0); N];
                    for (v, x) in b_row.iter_mut().enumerate() {
                        *x = load(s, b.add(v * LANES));
                    }
                    for (r, row) in sum.iter_mut().enumerate() {
                        let x = s.splat(*a.add(r * WA + p));
                        for (sum, &y) in row.iter_mut().zip(&b_row) {
                            *sum = s.mul_add(x, y, *sum);
                        }
                    }
                    b = b.add(width);
                }
                a = a.wrapping_add(panel_len);
                left -= depth;
            }
            self.finish(first, &mut sum);
            store_block(s, sum, c, ldc);
        }
    }
}

impl<S: Simd, const WA: usize, const N: usize> Rows<'_, S, WA, N> {
    /// Applies [`Finish`] to the tile of rows `first..`.
    ///
    /// # Safety
    /// The mask must hold these rows.
    #[inline(always)]
    unsafe fn finish<const MR: usize>(&self, first: usize, sum: &mut [[S::V; N]; MR]) {
        let &Product { s, width, col, finish, .. } = self.0;
        let zero = s.splat(0.0);
        let (bias, relu) = match finish {
            Finish::None => return,
            Finish::Bias(bias) => (bias, false),
            Finish::BiasRelu(bias) => (bias, true),
            Finish::Mask(mask) => {
                // SAFETY: the caller vouches for the rows, `matmul_panel` has checked the width.
                let mask =
                    unsafe { load_block::<S, MR, N>(s, mask.as_ptr().add(first * width + col), width) };
                for (row, mask) in sum.iter_mut().zip(&mask) {
                    for (x, &mask) in row.iter_mut().zip(mask) {
                        *x = s.if_greater(mask, zero, *x, zero);
                    }
                }
                return;
            }
        };
        for v in 0..N {
            // SAFETY: `matmul_panel` has checked that the bias is as wide as the panel.
            let bias = unsafe { load(s, bias.as_ptr().add(col + v * LANES)) };
            for row in sum.iter_mut() {
                let x = s.add(row[v], bias);
                // In this order a NaN stays one.
                row[v] = if relu { s.max(zero, x) } else { x };
            }
        }
    }
}
