//! `C = Aᵀ·D` for one panel: the weight gradient, summed over the tree of micro-batches.
//!
//! Every micro-batch is one chain of multiply-adds from zero over its rows in order; [`Tree`] adds the chains.
#![allow(unsafe_code)] // The micro-kernel walks its operands by pointers; `matmul_tn_panel` checks their lengths first.

use crate::layout::Panels;
use crate::panel::{Start, check_width};
use crate::simd::{LANES, Simd};
use crate::table::Kernels;
use crate::tile::{Block, Tile, for_each_tile, load, load_block, store_block};
use crate::tree::{Tree, check_leaves};

impl Kernels {
    /// `c = aᵀ · d` for one panel: `a` `[m, k]`, `d` `[m][width]`, `c` `[k][width]`, `width` 16 or 32.
    ///
    /// `leaves` are the ends of the micro-batches, the last one `m`.
    pub fn matmul_tn_panel(&self, a: Panels<'_>, leaves: &[usize], d: &[f32], width: usize, c: &mut [f32]) {
        check_width(width);
        check_leaves(leaves, a.rows());
        assert_eq!(c.len(), a.cols() * width, "length of c [{}][{width}]", a.cols());
        self.table.matmul_tn_panel(a, leaves, d, width, Start::Zero, c, width);
    }
}

/// Rows of `c` are `ldc` floats apart. [`Start::Continue`] is for one leaf: its chain goes on from C.
#[expect(clippy::too_many_arguments, reason = "the operands of a product with the distance of rows")]
#[inline(always)]
pub(crate) fn matmul_tn_panel<S: Simd>(
    s: S,
    a: Panels<'_>,
    leaves: &[usize],
    d: &[f32],
    width: usize,
    start: Start,
    c: &mut [f32],
    ldc: usize,
) {
    let (m, k) = (a.rows(), a.cols());
    assert_eq!(d.len(), m * width, "length of d [{m}][{width}]");
    if k == 0 {
        return;
    }
    assert!(ldc >= width && c.len() >= (k - 1) * ldc + width, "c [{k}][{width}], rows {ldc} apart");
    let (a_origin, panel_len) = a.origin();
    let vectors = S::TILE_VECTORS.min(width / LANES);
    for feature in (0..k).step_by(a.width()) {
        let features = a.width().min(k - feature);
        let a_panel = a_origin.wrapping_add(feature / a.width() * panel_len);
        for col in (0..width).step_by(vectors * LANES) {
            let d = d.as_ptr().wrapping_add(col);
            let c = c[feature * ldc + col..].as_mut_ptr();
            let product = Product { s, a: a_panel, lda: a.width(), leaves, d, width, start, c, ldc };
            // SAFETY: the asserts above and the construction of `Panels` cover all rows and vectors of every tile.
            unsafe {
                if const { S::TILE_VECTORS == 2 } && vectors == 2 {
                    for_each_tile(features, &Features::<S, 2>(&product));
                } else {
                    for_each_tile(features, &Features::<S, 1>(&product));
                }
            }
        }
    }
}

/// The operands of one panel of A and some columns of C; `d` and `c` point at those already.
struct Product<'a, S> {
    s: S,
    a: *const f32,
    lda: usize,
    leaves: &'a [usize],
    d: *const f32,
    width: usize,
    start: Start,
    c: *mut f32,
    ldc: usize,
}

/// Features of a panel of A, `N` vectors of C.
struct Features<'a, S, const N: usize>(&'a Product<'a, S>);

impl<S: Simd, const N: usize> Tile for Features<'_, S, N> {
    const ROWS: usize = S::TILE_FEATURES;

    #[inline(always)]
    unsafe fn run<const MR: usize>(&self, first: usize) {
        let &Product { s, leaves, start, c, ldc, .. } = self.0;
        // SAFETY: `matmul_tn_panel` has checked that A, D and C hold the features of this tile.
        unsafe {
            let c = c.add(first * ldc);
            let zero = [[s.splat(0.0); N]; MR];
            let mut sum = if start == Start::Zero { zero } else { load_block(s, c, ldc) };
            let mut tree = Tree::new(s);
            let mut row = 0;
            for (leaf, &end) in leaves.iter().enumerate() {
                sum = self.chain(first, row..end, sum);
                row = end;
                if leaf + 1 < leaves.len() {
                    tree.push(sum);
                    sum = zero;
                }
            }
            let sum = tree.finish(sum);
            store_block(s, sum, c, ldc);
        }
    }
}

impl<S: Simd, const N: usize> Features<'_, S, N> {
    /// The chain over `rows` for the features `first..first + MR`, from `sum` on.
    ///
    /// # Safety
    /// A and D must hold these rows and features.
    #[inline(always)]
    unsafe fn chain<const MR: usize>(
        &self,
        first: usize,
        rows: std::ops::Range<usize>,
        mut sum: Block<S, MR, N>,
    ) -> Block<S, MR, N> {
        let &Product { s, a, lda, d, width, .. } = self.0;
        // SAFETY: the caller vouches for the rows and features.
        unsafe {
            let mut a = a.add(rows.start * lda + first);
            let mut d = d.add(rows.start * width);
            for _ in rows {
                let mut d_row = [s.splat(0.0); N];
                for (v, x) in d_row.iter_mut().enumerate() {
                    *x = load(s, d.add(v * LANES));
                }
                for (r, row) in sum.iter_mut().enumerate() {
                    let x = s.splat(*a.add(r));
                    for (sum, &y) in row.iter_mut().zip(&d_row) {
                        *sum = s.mul_add(x, y, *sum);
                    }
                }
                a = a.wrapping_add(lda);
                d = d.wrapping_add(width);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, floats, leaves, on_each, to_panels};
    use crate::{naive, panel_width};

    proptest! {
        #[test]
        fn the_weight_gradient_is_the_product_of_the_transpose(
            (first, m, leaves) in (0_usize..5, 0_usize..70).prop_flat_map(|(f, m)| (Just(f), Just(m), leaves(m))),
            k in 0_usize..70, n in 1_usize..=32, seed: u64,
        ) {
            let (a, d) = (floats((first + m) * k, seed), floats(m * n, seed ^ 1));
            let width = panel_width(n);
            let results = on_each(|kernels| {
                let (a, d) = (to_panels(kernels, &a, first + m, k), to_panels(kernels, &d, m, n));
                let mut c = vec![f32::NAN; k * width];
                let a = Panels::new(&a, first + m, k, panel_width(k)).window(first..first + m);
                kernels.matmul_tn_panel(a, &leaves, &d, width, &mut c);
                c
            });
            let expected = naive::matmul(k, n, m, &naive::transpose(m, k, &a[first * k..]), &d);
            for (backend, c) in results {
                assert_close(backend, &naive::from_panels(&c, k, n), &expected, 1e-5);
            }
        }

        #[test]
        fn leaves_are_summed_as_the_tree_says((m, leaves) in (1_usize..70).prop_flat_map(|m| (Just(m), leaves(m))),
            k in 1_usize..40, seed: u64,
        ) {
            let (a, d) = (floats(m * k, seed), floats(m * 16, seed ^ 1));
            on_each(|kernels| {
                let a = to_panels(kernels, &a, m, k);
                let a = Panels::new(&a, m, k, panel_width(k));
                let mut c = vec![0.0; k * 16];
                kernels.matmul_tn_panel(a, &leaves, &d, 16, &mut c);
                let mut starts = vec![0];
                starts.extend(&leaves[..leaves.len() - 1]);
                let parts: Vec<Vec<f32>> = starts.iter().zip(&leaves).map(|(&start, &end)| {
                    let mut part = vec![0.0; k * 16];
                    let d = &d[start * 16..end * 16];
                    kernels.matmul_tn_panel(a.window(start..end), &[end - start], d, 16, &mut part);
                    part
                }).collect();
                for (at, &c) in c.iter().enumerate() {
                    let expected = naive::tree(parts.iter().map(|part| part[at]).collect());
                    assert_eq!(c.to_bits(), expected.to_bits(), "element {at}");
                }
                c
            });
        }
    }
}
