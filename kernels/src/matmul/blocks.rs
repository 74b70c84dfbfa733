//! The five loops of Goto and van de Geijn (2008) around the micro-kernel, on one thread.
#![allow(unsafe_code)] // Views are pointers; `Product` has checked what lies behind them.

use std::cell::RefCell;
use std::ops::Range;

use super::micro::{Left, Panel, Part, Scratch};
use super::pack::Buffer;
use super::product::{Product, View};
use super::tiled::TileBuffers;
use crate::prefetch::Ahead;
use crate::simd::LANES;
use crate::table::Table;
use crate::tile::heights;

// Measured on one core of a Zen 5 server (48 KB and 1 MB of cache), medians of rounds in turns with the peak, in % of it, for NN 512³, 1024³
// and 2048³: KC 1024 and MC 112: 93, 94, 94; KC 512, MC 168: 93, 93, 90; KC 384, MC 224: 91, 92, 85; KC 256, MC 336: 90, 90, 84. With KC 384,
// NC 512 and 2048 differ from 1024 by less than 2. What counts is how rarely C is read again. One of a Zen 4 (32 KB and 1 MB) agrees: 82, 86,
// 83; 83, 85, 82; 79, 82, 77; 77, 79, 75.
/// Most columns of a block of the right operand.
pub(super) const NC: usize = 1024;
/// Longest block of the chain.
pub(super) const KC: usize = 1024;
/// Most rows of a block of the left operand; with `KC` 450 KB, as a copy 512 to 640, which the second-level cache holds beside a panel. Where C has `MUCH` floats it
/// is `TALLEST`, which go over all panels: they come from further away, but C is written along its rows and asked for ahead. One core of
/// a Zen 4, times as fast: 3000×3000×100 1.17, 3000×1000×10 1.9, 2000×2000×64 1.3, 1000×784×128 1.09, 512³ to 2048³ 1.01 to 1.02,
/// TN 1500³ 1.02. Two tiles gain a third to half of that; with less of C, 300×784×10 loses a fifth.
pub(super) const MC: usize = 112;
/// Longest block of the chain where there are at most `MC` rows, and more columns than one vector: a block of the right operand is used once, and sooner
/// after it was copied. 100×3000×3000 reaches 67 % with it, 63 without; 100×1000×784 83 and 82, and 100×128×784, which is not copied, loses
/// nothing. 100×10×784, of which C is written and read again through masks, loses 4 %.
const KC_OF_FEW: usize = 512;
/// Rows from which on a panel is worth copying: each of them reads it once. With 100 rows 100×128×784 reaches 88 % with copies, 91 without.
pub(super) const COPY_RIGHT_ROWS: usize = 192;
/// The same where a block has so many floats that they come from further away than the second-level cache: 100×1000×784 reaches 82 %
/// with copies, 62 without; with 30 rows 73 and 87.
pub(super) const COPY_MUCH_ROWS: usize = 64;
pub(super) const MUCH: usize = 256 << 10;
/// Rows of the right operand that are copied at a time.
const BAND: usize = 8;
/// Rows that are a multiple of so many floats apart all lie in one of the 64 sets of the first-level cache, which holds 8 or 12 lines, but a tile
/// reads 14 rows of a left operand that is stored along the chain by turns: without a copy NN 1024³ reaches 76 % instead of 88. With 512 they
/// lie in two sets, and a copy costs 2 % of the time. What a copy is used for besides, fewer pages, does not pay: 3000³ in the form NN reaches 82 % with
/// copies, 90 without.
pub(super) const CROWDED_LEFT_ALONG: usize = 1024;
/// The same where it is stored across the chain, and the next tile needs what is left of each line: a copy makes TN 512³ 1.05 times as fast,
/// 512×64×512 1.2; TN 1000³ loses 7 % by one.
pub(super) const CROWDED_LEFT_ACROSS: usize = 512;
/// The same of the right operand, of which a panel lies in the second-level cache.
pub(super) const CROWDED_RIGHT: usize = 512;
/// Rows of the tallest tile of all back ends.
const TALLEST: usize = 14;

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
        let kc = if product.m <= MC && product.n > LANES { KC_OF_FEW } else { KC };
        for pc in spans(product.k, kc, 1) {
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
    let (width, n, k) = (table.tile_width(), jc.len(), pc.len());
    let right = right.from(jc.start, pc.start);
    let Buffers { left: left_buffer, right: right_buffer, scratch, .. } = buffers;
    let panels = right_buffer.get(n.next_multiple_of(width) * k);
    let copies_left =
        left.ld.is_multiple_of(if left.along_k { CROWDED_LEFT_ALONG } else { CROWDED_LEFT_ACROSS });
    let copies_right = right.along_k
        || m >= COPY_RIGHT_ROWS
        || m >= COPY_MUCH_ROWS && n * k >= MUCH
        || right.ld.is_multiple_of(CROWDED_RIGHT);
    // Columns and distance of the rows of the panel from `col` on, as it is copied.
    let shape = |col: usize| {
        let cols = width.min(n - col);
        (cols, if cols <= LANES { LANES } else { width })
    };
    if copies_right && !right.along_k {
        // Some rows over all panels at a time: a stored row is read from one end to the other, and not each panel's part in a page of its own.
        for p in (0..k).step_by(BAND) {
            for col in (0..n).step_by(width) {
                let ((cols, ld), rows) = (shape(col), BAND.min(k - p));
                table.pack_panel(right.from(col, p), cols, rows, ld, &mut panels[col * k + p * ld..]);
            }
        }
    }
    let is_large = m * product.n >= MUCH;
    // LOOP 3 cuts the rows.
    for ic in heights(m, if is_large { TALLEST } else { MC }) {
        let mut left = Left { view: left.from(ic.start, pc.start), copied: None };
        if copies_left {
            // As many tiles side by side as there are lanes for.
            let (height, tiles) = (table.tile_height(), LANES / table.tile_height());
            let copy = left_buffer.get(ic.len().div_ceil(height).div_ceil(tiles) * k * LANES);
            let mut rest = heights(ic.len(), height);
            for to in copy.chunks_exact_mut(k * LANES) {
                let first = rest.next().expect("as many as there are rows for");
                let end = rest.by_ref().take(tiles - 1).last().map_or(first.end, |last| last.end);
                table.pack_panel(left.view.from(first.start, 0), end - first.start, k, LANES, to);
            }
            left = Left { view: View::new(copy.as_ptr(), LANES, false), copied: Some((tiles, k * LANES)) };
        }
        // LOOP 2: one panel of the right operand at a time.
        for col in (0..n).step_by(width) {
            let (cols, ld) = shape(col);
            // Later rows find the panels where the first ones have left them: beyond the second-level cache.
            let next = col + width;
            let ahead = if copies_right && ic.start > 0 && next < n {
                Ahead::of(&panels[next * k..][..shape(next).1 * k], ic.len().div_ceil(TALLEST) * k)
            } else {
                Ahead::nothing()
            };
            let c = c.from(ic.start, jc.start + col);
            if is_large && next < n {
                // SAFETY: these rows of the next panel lie within the product.
                unsafe { c.from(0, width).prefetch(ic.len(), shape(next).0) };
            }
            // Of a narrow panel whole vectors are read, too: only those of the last rows would go past the operand. With 14 rows 10 columns take
            // two thirds of the time that they take with a copy of all, with 30 rows a tenth less.
            let past_the_end = (pc.end + (ld - cols).div_ceil(right.ld)).saturating_sub(product.k);
            let in_place = if copies_right { 0 } else { k.saturating_sub(past_the_end) };
            let copy = &mut panels[col * k..];
            // Just before its first use: then it is in the cache.
            if ic.start == 0 && (right.along_k || !copies_right) && in_place < k {
                table.pack_panel(right.from(col, in_place), cols, k - in_place, ld, copy);
            }
            let right = [
                Part { at: right.element(col, 0), ld: right.ld, k: in_place },
                Part { at: copy.as_ptr(), ld, k: k - in_place },
            ];
            let panel = Panel { left, right, beta, c, cols, ahead: &ahead, scratch };
            table.multiply_panel(&panel, ic.len());
        }
    }
}
