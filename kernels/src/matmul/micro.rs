//! The micro-kernel: a tile of C in registers, over a block of the chain.
#![allow(unsafe_code)] // It walks its operands by pointers; `Product` has checked what lies behind them.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::product::{Output, View};
use crate::prefetch::Ahead;
use crate::simd::{LANES, Simd};
use crate::tile::{Tile, heights, load, load_block, run_tile, store_block};

/// Columns of the widest panel.
const WIDTH_MAX: usize = 2 * LANES;

/// Tiles that cannot be stored as they are go through this.
pub(super) type Scratch = [[f32; WIDTH_MAX]; LANES];

/// A block of C as wide as one panel of the right operand.
pub(crate) struct Panel<'a> {
    pub(super) left: Left,
    /// The right operand, its parts one after another along the chain.
    pub(super) right: [Part; 2],
    /// Factor of what C holds; with 0 it is not read.
    pub(super) beta: f32,
    pub(super) c: Output,
    /// At most the panel's width.
    pub(super) cols: usize,
    /// What is needed after this panel.
    pub(super) ahead: &'a Ahead,
    pub(super) scratch: &'a std::cell::RefCell<Scratch>,
}

/// The left operand.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) view: View,
    /// Tiles that have been copied side by side, and floats from there to the next ones.
    pub(super) copied: Option<(usize, usize)>,
}

/// Rows of a panel of the right operand: `[k][ld]`, of which whole vectors are read.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) at: *const f32,
    pub(super) ld: usize,
    pub(super) k: usize,
}

/// Columns of a tile, and of a panel of the right operand.
#[inline(always)]
pub(crate) fn tile_width<S: Simd>(_: S) -> usize {
    S::TILE_VECTORS * LANES
}

/// Most rows of a tile.
#[inline(always)]
pub(crate) fn tile_height<S: Simd>(_: S) -> usize {
    S::TILE_ROWS
}

/// LOOP 1: over the tiles of the first `rows` rows of `panel`, of nearly equal heights.
#[inline(always)]
pub(crate) fn multiply_panel<S: Simd>(s: S, panel: &Panel<'_>, rows: usize) {
    let width = if panel.cols > LANES { WIDTH_MAX } else { LANES };
    let is_direct = !panel.c.transposed && panel.cols == width;
    let scratch = &mut panel.scratch.borrow_mut();
    let mut beside = 0;
    for (number, tile) in heights(rows, S::TILE_ROWS).enumerate() {
        let left = match panel.left.copied {
            Some((tiles, next)) => {
                if number % tiles == 0 {
                    beside = tile.start;
                }
                // Copies lie across the chain: neighbours in memory are rows.
                panel.left.view.from(next * (number / tiles) + tile.start - beside, 0)
            }
            None => panel.left.view.from(tile.start, 0),
        };
        let (first, height) = (tile.start, tile.len());
        let c = panel.c.from(first, 0);
        // SAFETY: a panel has the rows that it is asked for, and the scratch has room for a tile.
        unsafe {
            if panel.beta != 0.0 {
                if !is_direct {
                    gather(s, c, height, panel.cols, scratch);
                } else {
                    // The next tile's: they come while this one is computed.
                    c.from(height, 0).prefetch(height.min(rows - tile.end), panel.cols);
                }
            }
            let (to, ld) =
                if is_direct { (c.at, c.ld) } else { (scratch.as_flattened_mut().as_mut_ptr(), WIDTH_MAX) };
            // At one place: it is compiled there for all heights.
            panel.tile(s, left, height, to, ld);
            if !is_direct {
                scatter(s, scratch, height, panel.cols, c);
            }
        }
    }
}

impl Panel<'_> {
    /// The tile of the first `height` rows of `left`, to `c`.
    ///
    /// # Safety
    /// The operands must have these rows, and nobody else may touch them in C.
    #[inline(always)]
    unsafe fn tile<S: Simd>(&self, s: S, left: View, height: usize, c: *mut f32, ldc: usize) {
        // SAFETY: the caller vouches for the rows.
        unsafe {
            if const { S::TILE_VECTORS == 2 } && self.cols > LANES {
                if left.along_k {
                    run_tile(0, height, &Rows::<S, 2, true> { s, panel: self, left, c, ldc });
                } else {
                    run_tile(0, height, &Rows::<S, 2, false> { s, panel: self, left, c, ldc });
                }
            } else if left.along_k {
                run_tile(0, height, &Rows::<S, 1, true> { s, panel: self, left, c, ldc });
            } else {
                run_tile(0, height, &Rows::<S, 1, false> { s, panel: self, left, c, ldc });
            }
        }
    }
}

/// The rows of a tile of `N` vectors, whose left operand is stored along the chain or across it.
struct Rows<'a, S, const N: usize, const ALONG_K: bool> {
    s: S,
    panel: &'a Panel<'a>,
    left: View,
    c: *mut f32,
    ldc: usize,
}

impl<S: Simd, const N: usize, const ALONG_K: bool> Tile for Rows<'_, S, N, ALONG_K> {
    const ROWS: usize = S::TILE_ROWS;

    #[inline(always)]
    unsafe fn run<const MR: usize>(&self, first: usize) {
        let s = self.s;
        let &Panel { ref right, beta, ahead, .. } = self.panel;
        // SAFETY: the caller vouches for the rows of C and of the left operand, and the parts of the panel are `N` vectors wide.
        unsafe {
            let c = self.c.add(first * self.ldc);
            let mut sum = [[s.splat(0.0); N]; MR];
            if beta != 0.0 {
                sum = load_block(s, c, self.ldc);
                for x in sum.as_flattened_mut() {
                    *x = s.mul(*x, s.splat(beta));
                }
            }
            let mut row = self.left.element(first, 0);
            let mut rows = [row; MR];
            for r in 1..MR {
                rows[r] = rows[r - 1].wrapping_add(self.left.ld);
            }
            let mut done = 0;
            for part in right {
                let (mut right, last) = (part.at, done + part.k);
                while done < last {
                    ahead.ask();
                    let end = last.min(done.saturating_add(ahead.every));
                    for p in done..end {
                        let mut y = [s.splat(0.0); N];
                        for (v, y) in y.iter_mut().enumerate() {
                            *y = load(s, right.add(v * LANES));
                        }
                        for (r, sum) in sum.iter_mut().enumerate() {
                            let x = s.splat(if ALONG_K { *rows[r].add(p) } else { *row.add(r) });
                            for (sum, &y) in sum.iter_mut().zip(&y) {
                                *sum = s.mul_add(x, y, *sum);
                            }
                        }
                        right = right.wrapping_add(part.ld);
                        row = row.wrapping_add(self.left.ld);
                    }
                    done = end;
                }
            }
            store_block(s, sum, c, self.ldc);
        }
    }
}

/// `c = beta * c + sum`, `[rows, cols]`, at most a scratch.
///
/// # Safety
/// C must hold them, and nobody else may touch them.
#[inline(always)]
pub(super) unsafe fn update<S: Simd>(
    s: S,
    sum: &mut Scratch,
    beta: f32,
    rows: usize,
    cols: usize,
    c: Output,
) {
    // SAFETY: the caller vouches for the elements.
    unsafe {
        if beta != 0.0 {
            let mut before = [[0.0; WIDTH_MAX]; LANES];
            gather(s, c, rows, cols, &mut before);
            let (sum, _) = sum.as_flattened_mut().as_chunks_mut();
            for (sum, before) in sum.iter_mut().zip(before.as_flattened().as_chunks().0) {
                *sum = s.to_array(s.mul_add(s.splat(beta), s.load(before), s.load(sum)));
            }
        }
        scatter(s, sum, rows, cols, c);
    }
}

/// `[rows, cols]` of C into the scratch.
///
/// # Safety
/// C must hold them.
#[inline(always)]
unsafe fn gather<S: Simd>(s: S, c: Output, rows: usize, cols: usize, scratch: &mut Scratch) {
    for (v, col) in (0..cols).step_by(LANES).enumerate() {
        let lanes = LANES.min(cols - col);
        let mut block = [s.splat(0.0); LANES];
        let (count, len) = if c.transposed { (lanes, rows) } else { (rows, lanes) };
        for (x, i) in block.iter_mut().zip(0..count) {
            let from = if c.transposed { c.from(0, col + i) } else { c.from(i, col) };
            // SAFETY: the caller vouches for the elements.
            *x = s.load_part(unsafe { from_raw_parts(from.at, len) }, 0.0);
        }
        let block = if c.transposed { s.transpose(block) } else { block };
        for (row, &x) in scratch.iter_mut().zip(&block) {
            row.as_chunks_mut().0[v] = s.to_array(x);
        }
    }
}

/// `[rows, cols]` of the scratch into C.
///
/// # Safety
/// C must have room for them.
#[inline(always)]
unsafe fn scatter<S: Simd>(s: S, scratch: &Scratch, rows: usize, cols: usize, c: Output) {
    for (v, col) in (0..cols).step_by(LANES).enumerate() {
        let lanes = LANES.min(cols - col);
        let mut block = [s.splat(0.0); LANES];
        for (x, row) in block.iter_mut().zip(scratch) {
            *x = s.load(&row.as_chunks().0[v]);
        }
        let block = if c.transposed { s.transpose(block) } else { block };
        let (count, len) = if c.transposed { (lanes, rows) } else { (rows, lanes) };
        for (&x, i) in block.iter().zip(0..count) {
            let to = if c.transposed { c.from(0, col + i) } else { c.from(i, col) };
            // SAFETY: the caller vouches for the room.
            s.store_part(x, unsafe { from_raw_parts_mut(to.at, len) });
        }
    }
}
