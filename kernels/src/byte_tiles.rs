//! Products whose left operand is bytes, by AMX's tiles: forward and weight gradient of a first layer.
//!
//! A byte is exact in bf16, so that the other operand alone has planes: three products where two floats take six, and none is left out.
//! Tiles of zeros are skipped, which changes no bit while the other operand is finite. See README.md, "Tiles of bf16", for the error.
#![allow(unsafe_code)] // Bias and mask are read where the methods of `Kernels` have checked their lengths.

use std::cell::RefCell;
use std::ops::Range;

use crate::amx::planes::{self, PLANES, Pair, STRIP, Side, Sums, planes};
use crate::amx::planes::{load_left, load_right, multiply_pairs, store_sums, zero_sums};
use crate::amx::{DEPTH, SIDE, Tile, Tiles};
use crate::matmul::View;
use crate::panel::{Finish, check_width};
use crate::simd::{LANES, Simd};
use crate::table::{Kernels, Table};
use crate::tile::Block;
use crate::tree::{Tree, check_leaves};

/// A matrix of bytes as tiles, by its rows for the forward pass and by its columns for the weight gradient.
pub struct ByteTiles {
    rows: usize,
    cols: usize,
    /// What a byte is multiplied with; products are, after they are summed.
    scale: f32,
    /// `[rows][cols]`, padded with zeros to whole tiles.
    bytes: Vec<u8>,
    /// A strip for each 32 rows.
    by_rows: Strips,
    /// A strip for each 32 columns and micro-batch.
    by_columns: Strips,
    /// Ends of the micro-batches.
    leaves: Vec<usize>,
    /// Planes of the right operand.
    right: RefCell<Vec<Pair>>,
}

/// Strips of a left operand: of each the steps of the chain at which it is not all zero.
#[derive(Default)]
struct Strips {
    tiles: Vec<Pair>,
    /// The step of each pair of tiles.
    steps: Vec<u32>,
    /// Where each strip ends.
    ends: Vec<usize>,
}

impl Strips {
    /// None, and room for so many of so many steps.
    fn clear(&mut self, strips: usize, steps: usize) {
        self.tiles.clear();
        self.tiles.reserve(steps);
        self.steps.clear();
        self.steps.reserve(steps);
        self.ends.clear();
        self.ends.reserve(strips);
    }

    fn of(&self, strip: usize) -> impl Iterator<Item = (&Pair, usize)> + Clone {
        let first = strip.checked_sub(1).map_or(0, |before| self.ends[before]);
        let range = first..self.ends[strip];
        self.tiles[range.clone()].iter().zip(self.steps[range].iter().map(|&step| step as usize))
    }
}

impl ByteTiles {
    /// Room for `[rows, cols]`, all of it zero. A byte stands for `byte as f32 * scale`. The first tiles that are made take what other memory they need.
    pub fn with_room(rows: usize, cols: usize, scale: f32) -> ByteTiles {
        ByteTiles {
            rows,
            cols,
            scale,
            bytes: vec![0; rows * cols.next_multiple_of(DEPTH)],
            by_rows: Strips::default(),
            by_columns: Strips::default(),
            leaves: Vec::new(),
            right: RefCell::default(),
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

    /// Row `i` becomes `row`; the tiles of the rows before are gone, see [`Kernels::tile_rows`] and [`Kernels::tile_columns`].
    pub fn set_row(&mut self, i: usize, row: &[u8]) {
        assert_eq!(row.len(), self.cols, "length of a row of bytes");
        self.by_rows.ends.clear();
        self.leaves.clear();
        let stride = self.stride();
        self.bytes[i * stride..(i + 1) * stride][..row.len()].copy_from_slice(row);
    }

    /// Bytes from one row to the next.
    fn stride(&self) -> usize {
        self.cols.next_multiple_of(DEPTH)
    }

    /// The rows of a micro-batch.
    #[inline(always)]
    fn leaf(&self, leaf: usize) -> Range<usize> {
        leaf.checked_sub(1).map_or(0, |before| self.leaves[before])..self.leaves[leaf]
    }

    /// The bytes of row `i` from column `col` on.
    #[inline(always)]
    fn at<const N: usize>(&self, i: usize, col: usize) -> &[u8; N] {
        self.bytes[i * self.stride() + col..].first_chunk().expect("rows are padded to whole tiles")
    }
}

/// The operands of `c = finish(scale · a · b)`.
pub(crate) struct Forward<'a> {
    a: &'a ByteTiles,
    b: &'a [f32],
    /// Rows of a panel of B.
    b_rows: usize,
    width: usize,
    finish: Finish<'a>,
}

/// The operands of `c = scale · aᵀ · d` for one panel.
pub(crate) struct Gradient<'a> {
    a: &'a ByteTiles,
    columns: Range<usize>,
    leaves: Range<usize>,
    d: &'a [f32],
    width: usize,
}

impl Kernels {
    /// Whether products of bytes go by tiles here: then they have an arithmetic of their own.
    pub fn multiplies_bytes_by_tiles(&self) -> bool {
        self.tiled.is_some()
    }

    /// Makes `a` ready for [`Kernels::matmul_bytes`], once all its rows are set.
    pub fn tile_rows(&self, a: &mut ByteTiles) {
        self.table.tile_rows(a);
    }

    /// Makes `a` ready for [`Kernels::matmul_tn_bytes`], once all its rows are set; `leaves` are the ends of the micro-batches, the last one the
    /// number of rows.
    pub fn tile_columns(&self, a: &mut ByteTiles, leaves: &[usize]) {
        check_leaves(leaves, a.rows);
        self.table.tile_columns(a, leaves);
    }

    /// `c = finish(a · b)` for some panels at once: `a` `[m, k]`, `b` `[panels][b_rows][width]`, of which the first `k` rows take part, `c`
    /// `[panels][m][width]`. A bias is one row of `width` a panel, `b_rows` rows apart, such as the row after those that take part; a
    /// mask is `[panels][m][width]`.
    ///
    /// # Panics
    /// Where kernels do not [multiply bytes by tiles](Kernels::multiplies_bytes_by_tiles).
    pub fn matmul_bytes(
        &self,
        a: &ByteTiles,
        b: &[f32],
        b_rows: usize,
        width: usize,
        finish: Finish<'_>,
        c: &mut [f32],
    ) {
        check_width(width);
        assert!(a.cols <= b_rows, "{b_rows} rows of b for {} columns of a", a.cols);
        assert_eq!(a.by_rows.ends.len(), a.rows.div_ceil(STRIP), "rows that were not made tiles");
        if c.is_empty() {
            return;
        }
        let panels = b.len() / (b_rows * width).max(1);
        assert_eq!(
            (b.len(), c.len()),
            (panels * b_rows * width, panels * a.rows * width),
            "lengths of b and c"
        );
        finish.check(panels, b_rows, width, c.len());
        let tiled = self.tiled.as_ref().expect("kernels with tiles");
        tiled.forward(&self.table, &Forward { a, b, b_rows, width, finish }, c);
    }

    /// `c = a[:, columns]ᵀ · d` for one panel: `d` `[m][width]`, `c` `[columns.len()][width]`. `columns` begins at a multiple of 32 and ends at one or
    /// at `k`. It is the tree of some of the micro-batches that [`Kernels::tile_columns`] was given.
    ///
    /// # Panics
    /// Where kernels do not [multiply bytes by tiles](Kernels::multiplies_bytes_by_tiles).
    pub fn matmul_tn_bytes(
        &self,
        a: &ByteTiles,
        columns: Range<usize>,
        leaves: Range<usize>,
        d: &[f32],
        width: usize,
        c: &mut [f32],
    ) {
        check_width(width);
        let is_cut = |column: usize| column.is_multiple_of(STRIP) || column == a.cols;
        let are_within = columns.start <= columns.end && columns.end <= a.cols;
        assert!(
            are_within && is_cut(columns.start) && is_cut(columns.end),
            "columns {columns:?} of {}",
            a.cols
        );
        assert!(leaves.start < leaves.end && leaves.end <= a.leaves.len(), "micro-batches {leaves:?}");
        assert_eq!(d.len(), a.rows * width, "length of d");
        assert_eq!(c.len(), columns.len() * width, "length of c");
        let tiled = self.tiled.as_ref().expect("kernels with tiles");
        tiled.gradient(&self.table, &Gradient { a, columns, leaves, d, width }, c);
    }
}

/// 16 pairs of bytes as words of a tile, the first bytes in the lower halves.
#[inline(always)]
fn words(first: [u8; SIDE], second: [u8; SIDE]) -> [u32; SIDE] {
    let bf16 = |byte: u8| f32::from(byte).to_bits();
    std::array::from_fn(|j| bf16(first[j]) >> 16 | bf16(second[j]))
}

#[inline(always)]
pub(crate) fn tile_rows<S: Simd>(_: S, a: &mut ByteTiles) {
    let mut strips = std::mem::take(&mut a.by_rows);
    let count = a.rows.div_ceil(STRIP);
    strips.clear(count, count * a.cols.div_ceil(DEPTH));
    for first in (0..a.rows).step_by(STRIP) {
        let rows = first..(first + STRIP).min(a.rows);
        for (step, col) in (0..a.cols).step_by(DEPTH).enumerate() {
            if rows.clone().all(|i| *a.at::<DEPTH>(i, col) == [0; DEPTH]) {
                continue;
            }
            let mut pair = [Tile::ZERO; 2];
            let places = pair.iter_mut().flat_map(|tile| &mut tile.0);
            for (to, i) in places.zip(rows.clone()) {
                let row = a.at::<DEPTH>(i, col);
                *to = words(std::array::from_fn(|j| row[2 * j]), std::array::from_fn(|j| row[2 * j + 1]));
            }
            strips.tiles.push(pair);
            strips.steps.push(step as u32);
        }
        strips.ends.push(strips.tiles.len());
    }
    a.by_rows = strips;
}

#[inline(always)]
pub(crate) fn tile_columns<S: Simd>(s: S, a: &mut ByteTiles, leaves: &[usize]) {
    let mut strips = std::mem::take(&mut a.by_columns);
    a.leaves.clear();
    a.leaves.extend(leaves);
    let steps: usize = (0..leaves.len()).map(|leaf| a.leaf(leaf).len().div_ceil(DEPTH)).sum();
    let count = a.cols.div_ceil(STRIP);
    strips.clear(count * leaves.len(), count * steps);
    for col in (0..a.cols).step_by(STRIP) {
        for leaf in 0..leaves.len() {
            let of_leaf = a.leaf(leaf);
            for (step, row) in of_leaf.clone().step_by(DEPTH).enumerate() {
                let rows = row..(row + DEPTH).min(of_leaf.end);
                if rows.clone().all(|i| *a.at::<STRIP>(i, col) == [0; STRIP]) {
                    continue;
                }
                let bytes = |i: usize, col: usize| if i < rows.end { *a.at(i, col) } else { [0; SIDE] };
                let mut pair = [Tile::ZERO; 2];
                for (tile, col) in pair.iter_mut().zip([col, col + SIDE]) {
                    let mut block = [s.splat(0.0); LANES];
                    for (j, x) in block.iter_mut().enumerate().take(rows.len().div_ceil(2)) {
                        let words = words(bytes(row + 2 * j, col), bytes(row + 2 * j + 1, col));
                        *x = s.load(&words.map(f32::from_bits));
                    }
                    for (to, x) in tile.0.iter_mut().zip(s.transpose(block)) {
                        *to = s.to_array(x).map(f32::to_bits);
                    }
                }
                strips.tiles.push(pair);
                strips.steps.push(step as u32);
            }
            strips.ends.push(strips.tiles.len());
        }
    }
    a.by_columns = strips;
}

/// `left · right`: the small products of planes over the whole chain first, then the large one. `right` holds planes, in each step after step.
#[inline(always)]
fn multiply<'a, T: Tiles>(
    tiles: &mut T,
    left: impl Iterator<Item = (&'a Pair, usize)> + Clone,
    right: &[Pair],
) -> Sums {
    let [first, second, third] = planes(right);
    zero_sums(tiles);
    for (left, step) in left.clone() {
        load_left(tiles, left);
        load_right(tiles, &third[step]);
        multiply_pairs(tiles);
        load_right(tiles, &second[step]);
        multiply_pairs(tiles);
    }
    for (left, step) in left {
        load_left(tiles, left);
        load_right(tiles, &first[step]);
        multiply_pairs(tiles);
    }
    store_sums(tiles)
}

/// See [`Kernels::matmul_bytes`].
#[inline(always)]
pub(crate) fn forward<S: Simd, T: Tiles>(
    s: S,
    tiles: &mut T,
    table: &Table,
    product: &Forward<'_>,
    c: &mut [f32],
) {
    let &Forward { a, b, b_rows, width, finish } = product;
    let (k, scale) = (a.cols, s.splat(a.scale));
    let right = &mut a.right.borrow_mut();
    let panels = b.chunks_exact(b_rows * width).zip(c.chunks_exact_mut(a.rows * width));
    for (panel, (b, c)) in panels.enumerate() {
        right.clear();
        planes::pack(table, Side::Right, View::new(b.as_ptr(), width, false), width, k, right);
        for (strip, c) in c.chunks_mut(STRIP * width).enumerate() {
            let sums = multiply(tiles, a.by_rows.of(strip), right);
            for (i, (c, sums)) in c.chunks_exact_mut(width).zip(sums.as_flattened()).enumerate() {
                let row = (panel * a.rows + strip * STRIP + i) * width;
                let vectors = c.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.as_chunks::<LANES>().0);
                for (v, (c, sum)) in vectors.enumerate() {
                    let x = s.mul(s.load(sum), scale);
                    let (bias, mask) = (panel * b_rows * width + v * LANES, row + v * LANES);
                    // SAFETY: `Kernels::matmul_bytes` has checked the lengths of bias and mask.
                    *c = s.to_array(unsafe { finish.apply(s, x, bias, mask) });
                }
            }
        }
    }
}

/// See [`Kernels::matmul_tn_bytes`].
#[inline(always)]
pub(crate) fn gradient<S: Simd, T: Tiles>(
    s: S,
    tiles: &mut T,
    table: &Table,
    product: &Gradient<'_>,
    c: &mut [f32],
) {
    let Gradient { a, columns, leaves, d, width } = product;
    let (width, scale) = (*width, s.splat(a.scale));
    let right = &mut a.right.borrow_mut();
    right.clear();
    for leaf in leaves.clone() {
        let rows = a.leaf(leaf);
        let view = View::new(d[rows.start * width..].as_ptr(), width, false);
        planes::pack(table, Side::Right, view, width, rows.len(), right);
    }
    for (c, strip) in c.chunks_mut(STRIP * width).zip(columns.start / STRIP..) {
        let mut trees = [Tree::new(s), Tree::new(s)];
        let mut right = &right[..];
        for leaf in leaves.clone() {
            let (of_leaf, others) = right.split_at(PLANES * a.leaf(leaf).len().div_ceil(DEPTH));
            right = others;
            let sums = multiply(tiles, a.by_columns.of(strip * a.leaves.len() + leaf), of_leaf);
            for (half, (tree, sums)) in trees.iter_mut().zip(&sums).enumerate() {
                let mut block: Block<S, SIDE, 2> = [[s.splat(0.0); 2]; SIDE];
                for (x, sum) in block.as_flattened_mut().iter_mut().zip(sums.as_flattened().as_chunks().0) {
                    *x = s.mul(s.load(sum), scale);
                }
                if leaf + 1 < leaves.end {
                    tree.push(block);
                    continue;
                }
                let rows = c.chunks_exact_mut(width).skip(half * SIDE);
                for (c, row) in rows.zip(tree.finish(block)) {
                    for (c, x) in c.as_chunks_mut().0.iter_mut().zip(row) {
                        *c = s.to_array(x);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
