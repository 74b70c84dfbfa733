//! The five loops of Goto and van de Geijn (2008) around the micro-kernel, on one thread.
#![allow(unsafe_code)] // Views are pointers; `Product` has checked what lies behind them.

use std::cell::RefCell;
use std::ops::Range;

use super::micro::{Panel, Scratch};
use super::pack::{self, Buffer};
use super::product::{Product, View};
use super::tiled::TileBuffers;
use crate::simd::LANES;
use crate::table::Table;

// Measured on one core of a Zen 5 server (48 KB and 1 MB of cache), medians of rounds in turns with the peak, in % of it, for NN 512³, 1024³
// and 2048³: KC 1024 and MC 112: 93, 94, 94; KC 512, MC 168: 93, 93, 90; KC 384, MC 224: 91, 92, 85; KC 256, MC 336: 90, 90, 84. With KC 384,
// NC 512 and 2048 differ from 1024 by less than 2. What counts is how rarely C is read again.
/// Most columns of a block of the right operand.
pub(super) const NC: usize = 1024;
/// Longest block of the chain.
pub(super) const KC: usize = 1024;
/// Most rows of a block of the left operand; with `KC` 450 KB, which the second-level cache holds beside a panel.
pub(super) const MC: usize = 112;
/// Rows from which on a panel is worth copying: each of them reads it once. With 100 rows 100×128×784 reaches 86 % with copies, 95 without.
pub(super) const COPY_RIGHT_ROWS: usize = 192;
/// Columns from which on the left operand is worth copying. With 128, 784×128×100 in the form TN reaches 89 % with copies, 95 without.
pub(super) const COPY_LEFT_COLS: usize = 256;
/// Rows that are a multiple of so many floats apart share few sets of the first-level cache.
pub(super) const CROWDED: usize = 512;

/// What a thread needs for products.
#[derive(Default)]
pub(crate) struct Buffers {
    left: Buffer,
    right: Buffer,
    scratch: RefCell<Scratch>,
    pub(super) tiles: TileBuffers,
}

/// `0..len` in as few blocks as there can be, of at most `max` and nearly equal lengths that are multiples of `unit`.
pub(super) fn spans(len: usize, max: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let step = len.div_ceil(len.div_ceil(max).max(1)).next_multiple_of(unit).max(1);
    (0..len).step_by(step).map(move |at| at..len.min(at + step))
}

/// Computes `product`, whose `k` is not 0.
pub(super) fn multiply(table: &Table, product: &Product<'_>, buffers: &mut Buffers) {
    let width = table.tile_width();
    // LOOP 5 cuts the columns, LOOP 4 the chain.
    for jc in spans(product.n, NC, width) {
        for pc in spans(product.k, KC, 1) {
            let beta = if pc.start == 0 { product.beta } else { 1.0 };
            block(table, product, buffers, jc.clone(), pc, beta);
        }
    }
}

/// All rows of the columns `jc`, over the part `pc` of the chain.
fn block(
    table: &Table,
    product: &Product<'_>,
    buffers: &mut Buffers,
    jc: Range<usize>,
    pc: Range<usize>,
    beta: f32,
) {
    let &Product { m, left, right, c, .. } = product;
    let (width, k) = (table.tile_width(), pc.len());
    let right = right.from(jc.start, pc.start);
    let Buffers { left: left_buffer, right: right_buffer, scratch, .. } = buffers;
    let panels = right_buffer.get(jc.len().next_multiple_of(width) * k);
    let copies_left = jc.len() >= COPY_LEFT_COLS || left.ld % CROWDED == 0;
    let copies_right = right.along_k || m >= COPY_RIGHT_ROWS || right.ld % CROWDED == 0;
    // LOOP 3 cuts the rows.
    for ic in spans(m, MC, 1) {
        let mut left = left.from(ic.start, pc.start);
        if copies_left {
            let copy = left_buffer.get(pack::copy_len(left.along_k, ic.len(), k));
            // SAFETY: the block lies within the product.
            left = unsafe { pack::copy(left, ic.len(), k, copy) };
        }
        // LOOP 2: one panel of the right operand at a time.
        for (col, copy) in (0..jc.len()).step_by(width).zip(panels.chunks_exact_mut(width * k)) {
            let cols = width.min(jc.len() - col);
            let (mut right, mut right_ld) = (right.from(col, 0), right.ld);
            if copies_right || cols < width {
                right_ld = if cols <= LANES { LANES } else { width };
                // Just before its first use: then it is in the cache.
                if ic.start == 0 {
                    table.pack_panel(right, cols, k, right_ld, copy);
                }
                right = View::new(copy.as_ptr(), right_ld, false);
            }
            let (right, c) = (right.element(0, 0), c.from(ic.start, jc.start + col));
            let panel = Panel { left, right, right_ld, k, beta, c, cols, scratch };
            table.multiply_panel(&panel, ic.len());
        }
    }
}
