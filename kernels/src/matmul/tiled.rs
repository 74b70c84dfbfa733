//! Large products on a CPU with AMX: the same five loops around tiles of bf16, with the accuracy of floats.
//!
//! With three planes of each operand, `a·b` is nine products of planes. The six largest are computed, what the others come to is at most
//! 2⁻²⁴·(1 + 2⁻¹⁰)·|a·b|: as much as one rounding. See README.md, "Tiles of bf16", for the bound of the whole.
#![allow(unsafe_code)] // `Product` has checked what lies behind its pointers.

use std::mem;

use super::blocks::{self, Buffers, spans};
use super::micro::update;
use super::product::{Output, Product};
use crate::amx::planes::{self, PLANES, Pair, STRIP, Side, planes};
use crate::amx::planes::{load_left, load_right, multiply_pairs, store_sums, zero_sums};
use crate::amx::{DEPTH, SIDE, Tiles};
use crate::simd::Simd;
use crate::table::Table;

// By the sizes of the caches of a Sapphire Rapids (48 KB and 2 MB); nothing here has run on one yet.
/// Longest block of the chain: a strip of each operand is 48 KB, and the cost of adding to C a 25th.
pub(super) const KC: usize = 256;
/// Most rows of a block of the left operand: 768 KB of planes, half of the second-level cache with what else is there.
pub(super) const MC: usize = 512;
/// Most columns of a block of the right operand.
pub(super) const NC: usize = 1024;

/// Columns of C from which on tiles are taken: then all but the tiles takes a fifth (256³) to a half (100×256×784) of what AVX-512's product does.
pub(crate) const COLUMNS: usize = 256;
/// Steps of the chain from which on tiles pay, and the error is no larger than a chain's.
pub(crate) const STEPS: usize = 64;

/// Bits of the largest number that tiles multiply, 2⁵⁸: a thousand products of two of them are finite, in every order of addition.
const LARGEST: u32 = (127 + 58) << 23;

/// What a thread needs for products by tiles.
#[derive(Default)]
pub(super) struct TileBuffers {
    left: Vec<Pair>,
    right: Vec<Pair>,
    /// Of each row and each column of C.
    largest: [Vec<u32>; 2],
}

/// Computes `product`, whose `k` is not 0. An element whose row of the left operand or column of the right one holds a number that is too large
/// for tiles, or none, is computed by the chain.
#[inline(always)]
pub(crate) fn multiply<S: Simd, T: Tiles>(
    s: S,
    tiles: &mut T,
    table: &Table,
    product: &Product<'_>,
    buffers: &mut Buffers,
) {
    let mut own = mem::take(&mut buffers.tiles);
    let [mut rows, mut cols] = mem::take(&mut own.largest);
    planes::largest(product.left, product.m, product.k, &mut rows);
    planes::largest(product.right, product.n, product.k, &mut cols);
    let fits = |largest: &[u32]| largest[0] <= LARGEST;
    let runs = |largest| <[u32]>::chunk_by(largest, |&a, &b| fits(&[a]) == fits(&[b]));
    let mut row = 0;
    for rows in runs(&rows) {
        let mut col = 0;
        for cols in runs(&cols) {
            let (down, across) = (row..row + rows.len(), col..col + cols.len());
            // SAFETY: one is computed at a time.
            let block = unsafe { product.block(down, across) };
            if fits(rows) && fits(cols) {
                multiply_tiles(s, tiles, table, &block, &mut own);
            } else {
                blocks::multiply(table, &block, buffers);
            }
            col += cols.len();
        }
        row += rows.len();
    }
    own.largest = [rows, cols];
    buffers.tiles = own;
}

/// LOOP 5 to LOOP 1, for operands that tiles can hold.
#[inline(always)]
fn multiply_tiles<S: Simd, T: Tiles>(
    s: S,
    tiles: &mut T,
    table: &Table,
    product: &Product<'_>,
    buffers: &mut TileBuffers,
) {
    let TileBuffers { left, right, .. } = buffers;
    for jc in spans(product.n, NC, STRIP) {
        for pc in spans(product.k, KC, DEPTH) {
            let beta = if pc.start == 0 { product.beta } else { 1.0 };
            let strips = PLANES * pc.len().div_ceil(DEPTH);
            let from = product.right.from(jc.start, pc.start);
            right.clear();
            planes::pack(table, Side::Right, from, jc.len(), pc.len(), right);
            for ic in spans(product.m, MC, STRIP) {
                let from = product.left.from(ic.start, pc.start);
                left.clear();
                planes::pack(table, Side::Left, from, ic.len(), pc.len(), left);
                for (right, j) in right.chunks_exact(strips).zip(jc.clone().step_by(STRIP)) {
                    for (left, i) in left.chunks_exact(strips).zip(ic.clone().step_by(STRIP)) {
                        sum_products(tiles, planes(left), planes(right));
                        let (rows, cols) = (STRIP.min(ic.end - i), STRIP.min(jc.end - j));
                        add_sums(s, tiles, beta, rows, cols, product.c.from(i, j));
                    }
                }
            }
        }
    }
}

/// Registers 0 to 3 become `left · right`, `[32, 32]`: first the small products of planes over the whole block, while the sums are small and
/// hardly rounded, then the large one.
#[inline(always)]
fn sum_products<T: Tiles>(tiles: &mut T, left: [&[Pair]; PLANES], right: [&[Pair]; PLANES]) {
    let [[left_1, left_2, left_3], [right_1, right_2, right_3]] = [left, right];
    zero_sums(tiles);
    // Each step loads one operand and keeps the other.
    for step in 0..left_1.len() {
        load_left(tiles, &left_3[step]);
        load_right(tiles, &right_1[step]);
        multiply_pairs(tiles);
        load_left(tiles, &left_2[step]);
        multiply_pairs(tiles);
        load_right(tiles, &right_2[step]);
        multiply_pairs(tiles);
        load_left(tiles, &left_1[step]);
        multiply_pairs(tiles);
        load_right(tiles, &right_3[step]);
        multiply_pairs(tiles);
    }
    for (left, right) in left_1.iter().zip(right_1) {
        load_left(tiles, left);
        load_right(tiles, right);
        multiply_pairs(tiles);
    }
}

/// `c = beta * c +` registers 0 to 3, of which `[rows, cols]` are C's.
#[inline(always)]
fn add_sums<S: Simd, T: Tiles>(s: S, tiles: &mut T, beta: f32, rows: usize, cols: usize, c: Output) {
    for (half, sum) in store_sums(tiles).iter_mut().enumerate() {
        let first = half * SIDE;
        // SAFETY: C has these rows and columns, and nobody else touches them.
        unsafe { update(s, sum, beta, SIDE.min(rows.saturating_sub(first)), cols, c.from(first, 0)) };
    }
}

#[cfg(test)]
mod tests {
    use super::{KC, LARGEST};
    use crate::fences::{Guard, Operands};
    use crate::table::Tiled;
    use crate::testing::{all, bits, floats, tiled};
    use crate::{Form, Kernels, Workspace, naive};

    /// `a · b`, `[m, k]` and `[k, n]`, on `threads` threads.
    fn product(kernels: &Kernels, threads: usize, [m, n, k]: [usize; 3], a: &[f32], b: &[f32]) -> Vec<f32> {
        let mut c = vec![f32::NAN; m * n];
        let workspace = &mut Workspace::new(threads);
        kernels.matmul(workspace, Form::NN, [m, n, k], a, k, b, n, 0.0, &mut c, n);
        c
    }

    /// The best kernels of this machine that compute chains alone.
    fn chain() -> &'static Kernels {
        all().filter(|kernels| kernels.tiled.is_none()).last().expect("wide runs everywhere")
    }

    /// A number out of random ones in -1..1.
    type Draw = fn(&mut dyn FnMut() -> f32) -> f32;

    /// Numbers whose products make errors in every way, and whether what is left out does not make most of them: then a chain errs more.
    const DRAWS: [(Draw, bool); 7] = [
        (|next| next(), true),
        (|next| next().abs() + 0.01, true),
        (|next| 1.0 + next() / 128.0, true),
        (|next| next() * (20.0 * next()).exp2(), true),
        (|next| next().abs() * (20.0 * next()).exp2(), true),
        // The second and third plane are as large as they can be.
        (|next| (1.0 + 2.0_f32.powi(-8) - 2.0_f32.powi(-17)).copysign(next() + 0.9), false),
        // Down to denormals.
        (|next| next() * (70.0 * next() - 70.0).exp2(), false),
    ];

    fn draw(len: usize, seed: u64, draw: Draw) -> Vec<f32> {
        let mut numbers = floats(2 * len, seed).into_iter();
        (0..len).map(|_| draw(&mut || numbers.next().expect("two a number"))).collect()
    }

    /// What README.md proves: the most that an element is off, by the sum of `|a|·|b|` over its chain of `k`, and that of `|a| + |b|`.
    fn bound(products: f64, operands: f64, k: usize) -> f64 {
        let (unit, least) = (2.0_f64.powi(-24), f64::from(f32::MIN_POSITIVE));
        let relative = (26.0 + 1.02 * k.div_ceil(KC) as f64) * unit;
        relative * products + 2.0 * least * operands + (7 * k + 24) as f64 * least
    }

    #[test]
    fn the_error_is_within_its_bound_and_that_of_a_chain_is_larger() {
        for (k, (each, beats_chain)) in
            [1, 5, 33, 64, KC + 3, 784].into_iter().flat_map(|k| DRAWS.map(|draw| (k, draw)))
        {
            let (m, n) = (17, 19);
            let (a, b) = (draw(m * k, 1, each), draw(k * n, 2, each));
            let exact = naive::matmul(m, n, k, &a, &b);
            let [of_a, of_b] = [&a, &b].map(|x| x.iter().map(|x| x.abs()).collect::<Vec<_>>());
            let products = naive::matmul(m, n, k, &of_a, &of_b);
            let (rows, cols) =
                (naive::matmul(m, 1, k, &of_a, &vec![1.0; k]), naive::matmul(1, n, k, &vec![1.0; k], &of_b));
            // Relative to what is added up: a sum that cancels is worth as much as one that does not.
            let mean_square = |c: &[f32]| {
                let squares = c.iter().zip(&exact).zip(&products).map(|((&c, exact), products)| {
                    ((f64::from(c) - exact) / products.max(f64::MIN_POSITIVE)).powi(2)
                });
                squares.sum::<f64>()
            };
            let of_chain = mean_square(&product(chain(), 1, [m, n, k], &a, &b));
            for kernels in tiled() {
                let c = product(kernels, 1, [m, n, k], &a, &b);
                for (at, (&c, &exact)) in c.iter().zip(&exact).enumerate() {
                    let (error, most) =
                        ((f64::from(c) - exact).abs(), bound(products[at], rows[at / n] + cols[at % n], k));
                    assert!(
                        error <= most,
                        "{c:e} for {exact:e} is off by {error:e}, more than {most:e}; k {k}"
                    );
                }
                let of_tiles = mean_square(&c);
                if beats_chain && k >= super::STEPS {
                    assert!(of_tiles <= of_chain, "{of_tiles:e}, a chain {of_chain:e}; k {k}");
                }
            }
        }
    }

    #[test]
    fn rows_and_columns_of_numbers_that_tiles_cannot_hold_are_chains_and_change_no_other() {
        let (m, n, k) = (20, 40, 70);
        let (row, col) = (3, 37);
        for kernels in tiled() {
            for large in [f32::NAN, f32::INFINITY, -f32::MAX, f32::from_bits(LARGEST + 1)] {
                let (mut a, mut b) = (floats(m * k, 1), floats(k * n, 2));
                let before = product(kernels, 1, [m, n, k], &a, &b);
                (a[row * k + 69], b[7 * n + col]) = (large, -large);
                let after = product(kernels, 1, [m, n, k], &a, &b);
                let expected: Vec<f32> = product(chain(), 1, [m, n, k], &a, &b)
                    .into_iter()
                    .zip(before)
                    .enumerate()
                    .map(|(at, (chain, tiles))| if at / n == row || at % n == col { chain } else { tiles })
                    .collect();
                let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                assert!(after.iter().zip(&expected).all(same), "{large:e}: {after:?}, not {expected:?}");
            }
            // The largest that tiles hold, in sums that cancel.
            let largest = f32::from_bits(LARGEST);
            let a: Vec<f32> = (0..k).map(|p| if p % 2 == 0 { largest } else { -largest }).collect();
            assert_eq!(product(kernels, 1, [1, 1, k], &a, &vec![largest; k]), [0.0]);
        }
    }

    #[test]
    fn an_element_is_made_of_its_row_and_its_column_alone() {
        let (m, n, k) = (40, 70, KC + 44);
        let (a, b) = (floats(m * k, 1), floats(k * n, 2));
        for kernels in tiled() {
            let c = product(kernels, 1, [m, n, k], &a, &b);
            for threads in [2, 3] {
                assert_eq!(
                    bits(&product(kernels, threads, [m, n, k], &a, &b)),
                    bits(&c),
                    "{threads} threads"
                );
            }
            let row = product(kernels, 1, [1, n, k], &a[7 * k..], &b);
            assert_eq!(bits(&row), bits(&c[7 * n..8 * n]));
        }
    }

    #[test]
    fn few_columns_and_short_chains_are_left_to_vectors() {
        let (a, b) = (floats(9 * 40, 1), floats(40 * 20, 2));
        for kernels in tiled() {
            let tiled = kernels.tiled.map(|tiled| Tiled { columns: 20, steps: 40, ..tiled });
            let choosing = Kernels { tiled, ..*kernels };
            for (n, k, takes_tiles) in [(20, 40, true), (19, 40, false), (20, 39, false)] {
                let [chosen, by_tiles, by_chain] = [&choosing, kernels, chain()]
                    .map(|kernels| bits(&product(kernels, 1, [9, n, k], &a, &b)));
                assert_ne!(by_tiles, by_chain);
                assert_eq!(chosen, if takes_tiles { by_tiles } else { by_chain }, "{n} columns, {k} steps");
            }
        }
    }

    #[test]
    fn nothing_beside_the_operands_is_touched() {
        let strided = |rows: usize, cols: usize, ld: usize| (rows - 1) * ld + cols;
        for (kernels, guard) in
            tiled().flat_map(|kernels| [Guard::Before, Guard::Behind].map(|g| (kernels, g)))
        {
            let at = Operands::new(guard);
            for (form, [m, n, k]) in [Form::NN, Form::TN, Form::NT].into_iter().flat_map(|form| {
                [[1, 1, 1], [15, 33, 31], [16, 32, 64], [35, 17, 33]].map(|size| (form, size))
            }) {
                let (a_rows, a_cols) = if form == Form::TN { (k, m) } else { (m, k) };
                let (b_rows, b_cols) = if form == Form::NT { (n, k) } else { (k, n) };
                let (lda, ldb, ldc) = (a_cols + 1, b_cols + 3, n + 5);
                let (a, b) = (strided(a_rows, a_cols, lda), strided(b_rows, b_cols, ldb));
                for beta in [0.0, -0.5] {
                    let (a, b, c) = (at.floats(a), at.floats(b), at.floats(strided(m, n, ldc)));
                    let workspace = &mut Workspace::new(1);
                    kernels.matmul(workspace, form, [m, n, k], a, lda, b, ldb, beta, c, ldc);
                }
            }
        }
    }
}
