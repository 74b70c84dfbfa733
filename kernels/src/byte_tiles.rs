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
    /// Room for `[rows, cols]`, all of it zero. A byte stands for `byte as f32 * scale`.
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

    /// Row `i` becomes `row`. Takes effect with [`Kernels::tile_rows`].
    pub fn set_row(&mut self, i: usize, row: &[u8]) {
        assert_eq!(row.len(), self.cols, "length of a row of bytes");
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fences::{Guard, Operands};
    use crate::testing::{all, bits, bytes, floats, leaves, on, run_of_columns, tiled};
    use crate::{naive, panel_width};

    const SCALE: f32 = 1.0 / 255.0;

    fn matrix(a: &[u8], k: usize) -> ByteTiles {
        let mut matrix = ByteTiles::with_room(a.len() / k, k, SCALE);
        a.chunks_exact(k).enumerate().for_each(|(i, row)| matrix.set_row(i, row));
        matrix
    }

    /// `a · b` of bytes `[m, k]` and panels of `b_rows` rows.
    fn forward_of(
        kernels: &Kernels,
        (a, k): (&[u8], usize),
        b: &[f32],
        b_rows: usize,
        width: usize,
        finish: Finish<'_>,
    ) -> Vec<f32> {
        let mut a = matrix(a, k);
        let mut c = vec![f32::NAN; b.len() / (b_rows * width) * a.rows() * width];
        kernels.tile_rows(&mut a);
        kernels.matmul_bytes(&a, b, b_rows, width, finish, &mut c);
        c
    }

    /// What the bytes stand for, in f64 and without a rounding of the scale.
    fn values(a: &[u8]) -> Vec<f32> {
        a.iter().map(|&byte| f32::from(byte)).collect()
    }

    /// What README.md proves: the most that a sum of `steps` tiles is off, by the sum of `|a|·|b|`, before it is scaled.
    fn bound(products: f64, operands: f64, steps: usize) -> f64 {
        let (unit, least, steps) = (2.0_f64.powi(-24), f64::from(f32::MIN_POSITIVE), steps as f64);
        let relative = 1.01 * (16.0 + steps) + (16.0 + 3.0 * steps) / 250.0;
        relative * unit * products + 2.0 * least * operands + 99.0 * steps * least
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_forward_product_is_within_its_bound(
            m in 1_usize..70, k in 1_usize..150, n in 1_usize..70, density in 0_u64..101, large: bool, seed: u64,
        ) {
            let (a, b) = (bytes(m * k, density, seed), floats(k * n, seed));
            let b: Vec<f32> = b.iter().zip(floats(k * n, seed ^ 1)).map(|(b, x)| if large { b * (20.0 * x).exp2() } else { *b }).collect();
            let width = panel_width(n);
            let of_b: Vec<f32> = b.iter().map(|b| b.abs()).collect();
            let (exact, products) = (naive::matmul(m, n, k, &values(&a), &b), naive::matmul(m, n, k, &values(&a), &of_b));
            on(tiled(), |kernels| {
                let panels = crate::testing::to_panels(kernels, &b, k, n);
                let c = forward_of(kernels, (&a, k), &panels, k, width, Finish::None);
                for i in 0..m {
                    let operands: f64 = a[i * k..(i + 1) * k].iter().map(|&a| f64::from(a)).sum();
                    for j in 0..n {
                        let (scale, at) = (f64::from(SCALE), i * n + j);
                        let sum = f64::from(c[(j / width * m + i) * width + j % width]);
                        let most = scale * bound(products[at], operands, k.div_ceil(DEPTH));
                        // The scaling rounds once more.
                        let most = most + 2.0_f64.powi(-24) * sum.abs();
                        let error = (sum - scale * exact[at]).abs();
                        assert!(error <= most, "({i}, {j}): {sum:e} is off by {error:e}, more than {most:e}");
                    }
                }
                c
            });
        }

        #[test]
        fn a_gradient_is_within_its_bound(
            (m, leaves) in (1_usize..90).prop_flat_map(|m| (Just(m), leaves(m))), k in 1_usize..70, n in 1_usize..33, density in 0_u64..101, seed: u64,
        ) {
            let (a, d, width) = (bytes(m * k, density, seed), floats(m * n, seed), panel_width(n));
            let transposed = naive::transpose(m, k, &values(&a));
            let of_d: Vec<f32> = d.iter().map(|d| d.abs()).collect();
            let (exact, products) = (naive::matmul(k, n, m, &transposed, &d), naive::matmul(k, n, m, &transposed, &of_d));
            on(tiled(), |kernels| {
                let d = crate::testing::to_panels(kernels, &d, m, n);
                let (mut a, mut c) = (matrix(&a, k), vec![f32::NAN; k * width]);
                kernels.tile_columns(&mut a, &leaves);
                kernels.matmul_tn_bytes(&a, 0..k, 0..leaves.len(), &d, width, &mut c);
                // A term is in one micro-batch, which is scaled, and in as many additions as the tree has levels.
                let (steps, levels) = (m.div_ceil(DEPTH), 5.0);
                for p in 0..k {
                    let operands: f64 = transposed[p * m..(p + 1) * m].iter().map(|&a| f64::from(a)).sum();
                    for j in 0..n {
                        let (scale, at) = (f64::from(SCALE), p * n + j);
                        let sum = f64::from(c[p * width + j]);
                        let most = scale * (bound(products[at], operands, steps) + levels * 2.0_f64.powi(-24) * products[at]);
                        let error = (sum - scale * exact[at]).abs();
                        assert!(error <= most, "({p}, {j}): {sum:e} is off by {error:e}, more than {most:e}");
                    }
                }
                c
            });
        }

        #[test]
        fn an_output_is_made_of_its_row_and_its_column_alone(
            m in 1_usize..70, k in 1_usize..150, panels in 1_usize..4, at in any::<prop::sample::Index>(), density in 0_u64..101, seed: u64,
        ) {
            let (a, b, row) = (bytes(m * k, density, seed), floats(panels * k * 32, seed), at.index(m));
            for kernels in tiled() {
                let all = forward_of(kernels, (&a, k), &b, k, 32, Finish::None);
                let one = forward_of(kernels, (&a[row * k..(row + 1) * k], k), &b, k, 32, Finish::None);
                for (panel, one) in one.chunks_exact(32).enumerate() {
                    prop_assert_eq!(bits(&all[(panel * m + row) * 32..][..32]), bits(one));
                }
            }
        }

        #[test]
        fn a_gradient_is_the_tree_of_its_micro_batches(
            (m, ends) in (1_usize..90).prop_flat_map(|m| (Just(m), leaves(m))), (k, columns) in run_of_columns(100), density in 0_u64..101, seed: u64,
        ) {
            let (bytes, d) = (bytes(m * k, density, seed), floats(m * 32, seed));
            for kernels in tiled() {
                let mut a = matrix(&bytes, k);
                kernels.tile_columns(&mut a, &ends);
                let gradient = |leaves: Range<usize>, columns: Range<usize>| {
                    let mut c = vec![f32::NAN; columns.len() * 32];
                    kernels.matmul_tn_bytes(&a, columns, leaves, &d, 32, &mut c);
                    c
                };
                // Level by level.
                let mut level: Vec<Vec<f32>> = (0..ends.len()).map(|leaf| gradient(leaf..leaf + 1, 0..k)).collect();
                while level.len() > 1 {
                    level = level.chunks(2).map(|pair| match pair {
                        [a, b] => a.iter().zip(b).map(|(a, b)| a + b).collect(),
                        odd => odd[0].clone(),
                    }).collect();
                }
                prop_assert_eq!(bits(&gradient(0..ends.len(), 0..k)), bits(&level[0]));
                let part = gradient(0..ends.len(), columns.clone());
                prop_assert_eq!(bits(&part), bits(&level[0][columns.start * 32..columns.end * 32]));
                // A micro-batch alone, among others of other rows.
                let last = ends.len() - 1;
                let first = last.checked_sub(1).map_or(0, |before| ends[before]);
                let mut alone = matrix(&bytes[first * k..], k);
                if first < m {
                    kernels.tile_columns(&mut alone, &[m - first]);
                    let mut c = vec![f32::NAN; k * 32];
                    kernels.matmul_tn_bytes(&alone, 0..k, 0..1, &d[first * 32..], 32, &mut c);
                    prop_assert_eq!(bits(&gradient(last..last + 1, 0..k)), bits(&c));
                }
            }
        }

        #[test]
        fn what_finishes_an_output_is_what_finishes_one_of_a_chain(
            m in 1_usize..40, k in 1_usize..40, n in 1_usize..70, kind in 0_usize..4, seed: u64,
        ) {
            let (width, panels, rows) = (panel_width(n), n.div_ceil(panel_width(n)), k + 1);
            let (a, b) = (bytes(m * k, 50, seed), floats(panels * rows * width, seed));
            let mask = floats(panels * m * width, seed ^ 1);
            // The bias is the last row of each panel.
            let bias = &b[k * width..];
            let finish = [Finish::None, Finish::Bias(bias), Finish::BiasRelu(bias), Finish::Mask(&mask)][kind];
            for kernels in tiled() {
                let finished = forward_of(kernels, (&a, k), &b, rows, width, finish);
                let expected: Vec<f32> = forward_of(kernels, (&a, k), &b, rows, width, Finish::None).into_iter().enumerate().map(|(at, x)| {
                    let bias = b[(at / (m * width) * rows + k) * width + at % width];
                    match kind {
                        0 => x,
                        1 => x + bias,
                        2 => (x + bias).max(0.0),
                        _ => if mask[at] > 0.0 { x } else { 0.0 },
                    }
                }).collect();
                prop_assert_eq!(finished, expected);
            }
        }
    }

    /// Relative to what is added up, root mean square.
    #[test]
    fn the_error_is_smaller_than_that_of_a_chain() {
        let (m, n, k) = (16, 32, 784);
        let (a, b) = (bytes(m * k, 60, 1), floats(k * n, 2));
        let of_b: Vec<f32> = b.iter().map(|b| b.abs()).collect();
        let (exact, products) =
            (naive::matmul(m, n, k, &values(&a), &b), naive::matmul(m, n, k, &values(&a), &of_b));
        let error = |c: Vec<f32>| {
            let error = |((c, exact), products): ((&f32, &f64), &f64)| {
                ((f64::from(*c) / f64::from(SCALE) - exact) / products).powi(2)
            };
            c.iter().zip(&exact).zip(&products).map(error).sum::<f64>().sqrt()
        };
        let chain = {
            let kernels = all().find(|kernels| kernels.tiled.is_none()).expect("wide runs everywhere");
            let (_, dense) = crate::testing::pixels(kernels, &a, k, &(0..k));
            let mut c = vec![0.0; m * n];
            kernels.matmul_panel(dense.panels(m, k), &b, n, crate::Start::Zero, Finish::None, &mut c);
            error(c)
        };
        for kernels in tiled() {
            let tiles = error(forward_of(kernels, (&a, k), &b, k, n, Finish::None));
            assert!(tiles < chain / 2.0, "{tiles:e}, a chain {chain:e}");
        }
    }

    #[test]
    fn a_weight_that_is_not_finite_leaves_no_number_where_its_byte_is_not_zero() {
        for kernels in tiled() {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut b = vec![1.0; 40 * 16];
                b[5 * 16 + 3] = value;
                let mut a = [0_u8; 2 * 40];
                (a[5], a[6], a[46]) = (7, 1, 1);
                let c = forward_of(kernels, (&a, 40), &b, 40, 16, Finish::BiasRelu(&[0.0; 16]));
                assert!(c[3].is_nan(), "{value}: {}", c[3]);
                assert_eq!(c[4], 8.0 * SCALE);
            }
        }
    }

    #[test]
    fn nothing_beside_the_operands_is_touched() {
        for (kernels, guard) in
            tiled().flat_map(|kernels| [Guard::Before, Guard::Behind].map(|g| (kernels, g)))
        {
            let at = Operands::new(guard);
            for (m, k, width) in [(1, 1, 16), (15, 31, 32), (33, 32, 16), (40, 67, 32)] {
                let mut a = ByteTiles::with_room(m, k, SCALE);
                for i in 0..m {
                    a.set_row(i, at.put(&bytes(k, 60, i as u64)));
                }
                kernels.tile_rows(&mut a);
                kernels.tile_columns(&mut a, &[m / 2, m]);
                let (b, c) = (at.floats((k + 1) * width), at.floats(m * width));
                kernels.matmul_bytes(&a, b, k + 1, width, Finish::BiasRelu(at.floats(width)), c);
                kernels.matmul_bytes(&a, b, k + 1, width, Finish::Mask(at.floats(m * width)), c);
                kernels.matmul_tn_bytes(&a, 0..k, 0..2, at.floats(m * width), width, at.floats(k * width));
            }
        }
    }

    #[test]
    #[should_panic(expected = "kernels with tiles")]
    fn kernels_without_tiles_are_refused() {
        let kernels =
            all().find(|kernels| !kernels.multiplies_bytes_by_tiles()).expect("wide runs everywhere");
        forward_of(kernels, (&[1], 1), &[0.0; 16], 1, 16, Finish::None);
    }
}
