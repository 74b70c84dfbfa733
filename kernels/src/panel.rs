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

impl Finish<'_> {
    /// Panics unless it is long enough for a product in `panels` panels with biases `bias_rows` rows apart, of `len` floats in all.
    pub(crate) fn check(&self, panels: usize, bias_rows: usize, width: usize, len: usize) {
        match self {
            Finish::None => {}
            Finish::Bias(bias) | Finish::BiasRelu(bias) => {
                let last = panels.checked_sub(1).map_or(0, |last| last * bias_rows * width + width);
                assert!(bias.len() >= last, "length of the bias");
            }
            Finish::Mask(mask) => assert_eq!(mask.len(), len, "length of the mask"),
        }
    }

    /// What becomes of the vector `x`, for which `bias` and `mask` are the places in these.
    ///
    /// # Safety
    /// They must hold a vector there.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(self, s: S, x: S::V, bias: usize, mask: usize) -> S::V {
        let zero = s.splat(0.0);
        // SAFETY: the caller vouches for them.
        unsafe {
            match self {
                Finish::None => x,
                Finish::Bias(b) => s.add(x, load(s, b.as_ptr().add(bias))),
                // In this order a NaN stays one.
                Finish::BiasRelu(b) => s.max(zero, s.add(x, load(s, b.as_ptr().add(bias)))),
                Finish::Mask(m) => s.if_greater(load(s, m.as_ptr().add(mask)), zero, x, zero),
            }
        }
    }
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
#[expect(clippy::too_many_arguments, reason = "the operands of a product with the distance of rows")]
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
    finish.check(1, 0, width, m * width);
    if let Finish::Bias(bias) | Finish::BiasRelu(bias) = finish {
        assert_eq!(bias.len(), width, "length of the bias");
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
    /// Applies [`Finish`] to the tile of rows `first..`, as [`Finish::apply`] does, but with one load of the bias for all rows.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, floats, on_each, to_panels};
    use crate::{naive, panel_width};

    proptest! {
        #[test]
        fn a_panel_is_start_plus_product_then_finish(
            (m, from, to) in (0_usize..70).prop_flat_map(|m| (Just(m), 0..=m, 0..=m)),
            k in 0_usize..100, n in 1_usize..=32, start in 0..2, finish in 0_usize..4, seed: u64,
        ) {
            let (from, to) = (from.min(to), from.max(to));
            let (a, b) = (floats(m * k, seed), floats(k * n, seed ^ 1));
            let (rows, width) = (to - from, panel_width(n));
            let (c, bias, mask) =
                (floats(rows * width, seed ^ 2), floats(width, seed ^ 3), floats(rows * width, seed ^ 4));
            let results = on_each(|kernels| {
                let (a, b) = (to_panels(kernels, &a, m, k), to_panels(kernels, &b, k, n));
                let mut c = if start == 0 { vec![f32::NAN; c.len()] } else { c.clone() };
                let start = [Start::Zero, Start::Continue][start as usize];
                let finish =
                    [Finish::None, Finish::Bias(&bias), Finish::BiasRelu(&bias), Finish::Mask(&mask)][finish];
                kernels.matmul_panel(Panels::new(&a, m, k, panel_width(k)).window(from..to), &b, width, start, finish, &mut c);
                c
            });
            let product = naive::matmul(rows, n, k, &a[from * k..to * k], &b);
            let expected: Vec<f64> = (0..rows * width).map(|at| {
                let (i, j) = (at / width, at % width);
                let product = if j < n { product[i * n + j] } else { 0.0 };
                let x = product + if start == 0 { 0.0 } else { f64::from(c[at]) };
                match finish {
                    0 => x,
                    1 => x + f64::from(bias[j]),
                    2 => (x + f64::from(bias[j])).max(0.0),
                    _ => if mask[at] > 0.0 { x } else { 0.0 },
                }
            }).collect();
            for (backend, c) in results {
                assert_close(backend, &c, &expected, 1e-5);
            }
        }

        #[test]
        fn a_row_has_the_same_bits_in_every_window(m in 1_usize..70, k in 1_usize..900, row in 0..70_usize, seed: u64) {
            let row = row % m;
            let (a, b) = (floats(m * k, seed), floats(k * 32, seed ^ 1));
            on_each(|kernels| {
                let a = to_panels(kernels, &a, m, k);
                let a = Panels::new(&a, m, k, panel_width(k));
                let (mut all, mut one) = (vec![0.0; m * 32], vec![0.0; 32]);
                kernels.matmul_panel(a, &b, 32, Start::Zero, Finish::None, &mut all);
                kernels.matmul_panel(a.window(row..row + 1), &b, 32, Start::Zero, Finish::None, &mut one);
                assert_eq!(&all[row * 32..(row + 1) * 32], one);
                all
            });
        }
    }

    #[test]
    fn nan_and_infinity_reach_their_outputs_through_relu() {
        let a = [f32::NAN, f32::INFINITY, 1.0];
        on_each(|kernels| {
            let a = to_panels(kernels, &a, 3, 1);
            let mut c = vec![0.0; 3 * 16];
            let finish = Finish::BiasRelu(&[0.0; 16]);
            kernels.matmul_panel(
                Panels::new(&a, 3, 1, panel_width(1)),
                &[1.0; 16],
                16,
                Start::Zero,
                finish,
                &mut c,
            );
            assert!(c[..16].iter().all(|x| x.is_nan()));
            assert!(c[16..32].iter().all(|&x| x == f32::INFINITY));
            c
        });
    }
}
