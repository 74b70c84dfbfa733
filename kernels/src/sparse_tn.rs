//! The weight gradient of input that is mostly zero, in two ways with the same bits: by the columns of the input, each of whose gradients is a
//! tree of chains in registers, or by its rows, whose entries are added to where their column's gradient lies. The second needs no
//! transposed input and has no short chains whose ends cannot be predicted, but writes each sum as often as it grows: it pays where
//! the gradient is no wider than a panel.
#![allow(unsafe_code)] // The micro-kernels walk their operands by pointers; the methods of `Kernels` check the lengths first.

use crate::nonzeros::{Nonzeros, SEGMENT};
use crate::panel::check_width;
use crate::simd::{LANES, Simd};
use crate::sparse::{at, chains, check_segments, for_each_vectors, runs, vectors_of};
use crate::table::Kernels;
use crate::tile::{Block, load};
use crate::tree::{Tree, check_leaves};
use std::ops::Range;

/// Micro-batches whose sums stay in registers.
const LEAVES_AT_ONCE: usize = 4;

/// The operands of `c = aᵀ · d`, where `a` lies by columns.
pub(crate) struct ByColumns<'a> {
    /// A, transposed.
    at: &'a Nonzeros,
    /// Rows of it that take part.
    rows: Range<usize>,
    /// Micro-batches that take part.
    leaves: Range<usize>,
    d: &'a [f32],
    /// Rows of a panel of C.
    c_rows: usize,
    width: usize,
    panels: usize,
}

/// The operands of `c = aᵀ · d`, where `a` lies by rows.
pub(crate) struct ByRows<'a> {
    a: &'a Nonzeros,
    /// Segments of it that take part.
    segments: Range<usize>,
    /// Its first row that takes part.
    first: usize,
    /// Ends of the micro-batches, counted from that row.
    leaves: &'a [usize],
    d: &'a [f32],
    /// Floats of the gradient.
    length: usize,
}

impl Kernels {
    /// `c = a[:, columns]ᵀ · d` for some panels at once, from the transposed `at` `[k, m]`: `d` `[panels][m][width]`, `c` `[panels][c_rows][width]`, of
    /// which the first `columns.len()` rows are written; what lies behind those of the last panel may be left out. It is the tree of some
    /// of the micro-batches that [`Nonzeros::transpose`] was given. The bits are those of [`Kernels::matmul_tn_panel`].
    #[expect(clippy::too_many_arguments, reason = "two operands with their shapes")]
    pub fn matmul_tn_by_columns(
        &self,
        at: &Nonzeros,
        columns: Range<usize>,
        leaves: Range<usize>,
        d: &[f32],
        width: usize,
        c: &mut [f32],
        c_rows: usize,
    ) {
        check_width(width);
        let rows = columns;
        assert!(rows.start <= rows.end && rows.end <= at.rows(), "columns {rows:?} of {}", at.rows());
        assert!(leaves.start < leaves.end && leaves.end <= at.segments(), "micro-batches {leaves:?}");
        assert!(rows.len() <= c_rows, "{c_rows} rows of c for {} columns of a", rows.len());
        let panels = d.len().checked_div(at.cols() * width).unwrap_or(0);
        assert_eq!(d.len(), panels * at.cols() * width, "length of d, panel by panel");
        let least = if panels == 0 { 0 } else { ((panels - 1) * c_rows + rows.len()) * width };
        assert!(c.len() >= least, "{} floats of c, not {least}", c.len());
        let product = ByColumns { at, rows, leaves, d, c_rows, width, panels };
        self.table.matmul_tn_by_columns(&product, c);
    }

    /// `a[rows, columns]ᵀ · d[rows]` for one panel: `a` `[m, k]`, `d` `[m][width]`, the result `[columns.len()][width]`. `columns` begins at a
    /// multiple of 32 and ends at one or at `k`; `leaves` are the ends of the micro-batches, counted from `first`, the first of the rows.
    /// `partial` holds [`partial_sums`] of that length, and afterwards the result. The bits are those of [`Kernels::matmul_tn_panel`].
    pub fn matmul_tn_by_rows<'p>(
        &self,
        a: &Nonzeros,
        columns: Range<usize>,
        (first, leaves): (usize, &[usize]),
        d: &[f32],
        width: usize,
        partial: &'p mut [f32],
    ) -> &'p [f32] {
        check_width(width);
        let segments = check_segments(a, &columns);
        let rows = leaves.last().copied().unwrap_or(0);
        check_leaves(leaves, rows);
        assert!(first + rows <= a.rows(), "rows {first} and {rows} more of {}", a.rows());
        assert_eq!(d.len(), a.rows() * width, "length of d");
        let length = columns.len() * width;
        assert!(!leaves.is_empty() && partial.len() >= partial_sums(leaves.len()) * length, "partial sums");
        let product = ByRows { a, segments, first, leaves, d, length };
        self.table.matmul_tn_by_rows(&product, width, partial);
        &partial[..length]
    }
}

/// Sums that the tree over so many micro-batches holds at once: of complete subtrees of as many sizes as there are levels, and of a leaf.
pub const fn partial_sums(leaves: usize) -> usize {
    (usize::BITS - leaves.leading_zeros()) as usize + 1
}

#[inline(always)]
pub(crate) fn matmul_tn_by_columns<S: Simd>(s: S, product: &ByColumns<'_>, c: &mut [f32]) {
    let c = c.as_mut_ptr();
    // SAFETY: `Kernels::matmul_tn_by_columns` has checked that the operands have these rows and panels.
    unsafe { for_each_vectors!(S, product.width, product.panels, |vector| gradient(s, product, vector, c)) };
}

#[inline(always)]
pub(crate) fn matmul_tn_by_rows<S: Simd>(s: S, product: &ByRows<'_>, width: usize, partial: &mut [f32]) {
    // SAFETY: `Kernels::matmul_tn_by_rows` has checked that the operands have these rows.
    unsafe {
        match width {
            LANES => by_rows::<S, 1>(s, product, partial),
            _ => by_rows::<S, 2>(s, product, partial),
        }
    }
}

/// The tree over the micro-batches, as a stack of sums: complete subtrees of falling size, and on top the next leaf.
///
/// # Safety
/// The operands must have their rows of `N` vectors.
#[inline(always)]
unsafe fn by_rows<S: Simd, const N: usize>(s: S, p: &ByRows<'_>, partial: &mut [f32]) {
    let length = p.length;
    let (mut height, mut row) = (0, p.first);
    for (index, &end) in p.leaves.iter().enumerate() {
        let leaf = &mut partial[height * length..][..length];
        leaf.fill(0.0);
        let base = leaf.as_mut_ptr().wrapping_sub(p.segments.start * SEGMENT * N * LANES);
        while row < p.first + end {
            // SAFETY: the caller vouches for the row; its entries lie in the columns that take part.
            unsafe { add_row::<S, N>(s, p, row, base) };
            row += 1;
        }
        height += 1;
        // Two subtrees of one size become one; at the end all do.
        let is_last = index + 1 == p.leaves.len();
        for _ in 0..if is_last { height - 1 } else { (index + 1).trailing_zeros() as usize } {
            let (left, right) = partial[(height - 2) * length..].split_at_mut(length);
            let (left, _) = left.as_chunks_mut();
            for (left, right) in left.iter_mut().zip(right.as_chunks().0) {
                *left = s.to_array(s.add(s.load(left), s.load(right)));
            }
            height -= 1;
        }
    }
}

/// Adds the entries of a row, times its row of D, to the gradients of their columns, which `base` is the first of.
///
/// # Safety
/// The row and the gradients of its entries' columns must exist.
#[inline(always)]
unsafe fn add_row<S: Simd, const N: usize>(s: S, p: &ByRows<'_>, row: usize, base: *mut f32) {
    let mut d = [s.splat(0.0); N];
    for (v, d) in d.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the row.
        *d = unsafe { load(s, p.d.as_ptr().add((row * N + v) * LANES)) };
    }
    for entry in p.a.entries(row, p.segments.clone()) {
        // SAFETY: the caller vouches for the entry's column.
        unsafe {
            let (column, value) = p.a.entry(entry);
            let (x, gradient) = (s.splat(value), base.wrapping_add(column * (N * LANES)));
            for (v, &d) in d.iter().enumerate() {
                let sum = gradient.wrapping_add(v * LANES);
                *sum.cast() = s.to_array(s.mul_add(x, d, load(s, sum)));
            }
        }
    }
}

/// The `N` vectors from `vector` on of all features' gradients, `R` features in step.
///
/// # Safety
/// The operands must have these vectors.
#[inline(always)]
unsafe fn gradient<S: Simd, const R: usize, const N: usize>(
    s: S,
    p: &ByColumns<'_>,
    vector: usize,
    c: *mut f32,
) {
    let rows = p.rows.len();
    // SAFETY: the caller vouches for all rows and vectors.
    unsafe {
        for row in (0..rows / R * R).step_by(R) {
            gradient_rows::<S, R, N>(s, p, row, vector, c);
        }
        for row in rows / R * R..rows {
            gradient_rows::<S, 1, N>(s, p, row, vector, c);
        }
    }
}

/// The gradients of `R` features.
///
/// # Safety
/// The operands must have these rows and vectors.
#[inline(always)]
unsafe fn gradient_rows<S: Simd, const R: usize, const N: usize>(
    s: S,
    p: &ByColumns<'_>,
    row: usize,
    vector: usize,
    c: *mut f32,
) {
    let d = vectors_of::<N>(p.d.as_ptr(), p.at.cols(), vector);
    let mut tree = Tree::new(s);
    let mut first = p.leaves.start;
    // SAFETY: the caller vouches for the rows and vectors.
    let sum: Block<S, R, N> = unsafe {
        while first + LEAVES_AT_ONCE < p.leaves.end {
            tree.push(subtree(s, p, row, first..first + LEAVES_AT_ONCE, &d));
            first += LEAVES_AT_ONCE;
        }
        tree.finish(subtree(s, p, row, first..p.leaves.end, &d))
    };
    for (r, sum) in sum.iter().enumerate() {
        for (v, &x) in sum.iter().enumerate() {
            // SAFETY: the caller vouches for this row and vector.
            unsafe { *c.add(at::<N>(p.c_rows, row + r, vector + v)).cast() = s.to_array(x) };
        }
    }
}

/// The tree over one to four micro-batches, in registers.
///
/// # Safety
/// As for [`leaf`].
#[inline(always)]
unsafe fn subtree<S: Simd, const R: usize, const N: usize>(
    s: S,
    p: &ByColumns<'_>,
    row: usize,
    leaves: Range<usize>,
    d: &[*const f32; N],
) -> Block<S, R, N> {
    let first = leaves.start;
    // SAFETY: the caller vouches for them.
    unsafe {
        let mut sum = leaf(s, p, row, first, d);
        if leaves.len() > 1 {
            sum = add(s, sum, leaf(s, p, row, first + 1, d));
        }
        if leaves.len() > 2 {
            let mut right = leaf(s, p, row, first + 2, d);
            if leaves.len() > 3 {
                right = add(s, right, leaf(s, p, row, first + 3, d));
            }
            sum = add(s, sum, right);
        }
        sum
    }
}

/// The chains of `R` features over one micro-batch.
///
/// # Safety
/// The rows, the micro-batch and the vectors must exist.
#[inline(always)]
unsafe fn leaf<S: Simd, const R: usize, const N: usize>(
    s: S,
    p: &ByColumns<'_>,
    row: usize,
    leaf: usize,
    d: &[*const f32; N],
) -> Block<S, R, N> {
    let mut sum = [[s.splat(0.0); N]; R];
    let entries = runs(p.at, p.rows.start + row, &(leaf..leaf + 1));
    // SAFETY: the caller vouches for the vectors; entries are rows of `d`.
    unsafe { chains(s, p.at, entries, d, &mut sum) };
    sum
}

#[inline(always)]
fn add<S: Simd, const R: usize, const N: usize>(
    s: S,
    mut left: Block<S, R, N>,
    right: Block<S, R, N>,
) -> Block<S, R, N> {
    for (left, right) in left.iter_mut().zip(right) {
        for (left, right) in left.iter_mut().zip(right) {
            *left = s.add(*left, right);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel_width;
    use crate::testing::{all, bits, bytes, floats, leaves, pixels, run_of_columns};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ways_have_the_bits_of_the_dense_product(
            (m, ends) in (1_usize..40).prop_flat_map(|m| (Just(m), leaves(m))), (k, columns) in run_of_columns(200), n in 1_usize..330,
            density in 0_u64..101, cuts in (0_usize..10, 0_usize..10), seed: u64,
        ) {
            let a = bytes(m * k, density, seed);
            let (width, panels, taken) = (panel_width(n), n.div_ceil(panel_width(n)), columns.len());
            let d = floats(panels * m * width, seed);
            // Some of the micro-batches, and their rows.
            let (from, to) = (cuts.0.min(cuts.1).min(ends.len() - 1), cuts.0.max(cuts.1).min(ends.len() - 1));
            let first = if from == 0 { 0 } else { ends[from - 1] };
            let part: Vec<usize> = ends[from..=to].iter().map(|&end| end - first).collect();
            for kernels in all() {
                let (matrix, dense) = pixels(kernels, &a, k, &columns);
                let mut transposed = Nonzeros::with_room(k, m, 1.0 / 255.0);
                transposed.transpose(&matrix, &ends);
                let (rows, mut partial) = (taken + 1, vec![f32::NAN; partial_sums(part.len()) * taken * width]);
                let mut by_columns = vec![f32::NAN; panels * rows * width];
                kernels.matmul_tn_by_columns(&transposed, columns.clone(), from..to + 1, &d, width, &mut by_columns, rows);
                for panel in 0..panels {
                    let d = &d[panel * m * width..][..m * width];
                    let mut expected = vec![f32::NAN; taken * width];
                    let (window, of_window) = (dense.panels(m, taken).window(first..ends[to]), &d[first * width..ends[to] * width]);
                    kernels.matmul_tn_panel(window, &part, of_window, width, &mut expected);
                    prop_assert_eq!(bits(&by_columns[panel * rows * width..][..taken * width]), bits(&expected));
                    let by_rows = kernels.matmul_tn_by_rows(&matrix, columns.clone(), (first, &part), d, width, &mut partial);
                    prop_assert_eq!(bits(by_rows), bits(&expected));
                }
            }
        }
    }
}
