//! Products whose left operand is the list of a matrix's non-zeros.
//!
//! A zero adds `0 · b` to a chain of multiply-adds, which changes nothing while `b` is finite; so it is left out, and the bits are those of
//! the dense product. What decides the speed is not the multiply-adds but where the right operand is read from, and branches that
//! cannot be predicted: how many entries come next. So the product goes over blocks of columns whose part of B stays in the nearest
//! cache, takes as many vectors of a row at once as the registers hold, and of narrow rows several in step.
#![allow(unsafe_code)] // The micro-kernels walk their operands by pointers; the methods of `Kernels` check the lengths first.

use crate::nonzeros::{Nonzeros, SEGMENT};
use crate::panel::{Finish, check_width};
use crate::simd::{LANES, Simd};
use crate::table::Kernels;
use crate::tile::{Block, load};
use std::ops::Range;

/// Bytes of B that a block of columns reads: what the nearest cache holds, for the columns at the edges are rarely read.
const BLOCK_BYTES: usize = 64 * 1024;

/// The operands of `c = finish(a · b)`.
pub(crate) struct Product<'a> {
    a: &'a Nonzeros,
    /// Segments of A that take part.
    segments: Range<usize>,
    b: &'a [f32],
    /// Rows of a panel of B.
    b_rows: usize,
    width: usize,
    panels: usize,
    finish: Finish<'a>,
}

impl Kernels {
    /// `c = finish(a[:, columns] · b)` for some panels at once: `a` `[m, k]`, `b` `[panels][b_rows][width]`, of which the first
    /// `columns.len()` rows take part, `c` `[panels][m][width]`. `columns` begins at a multiple of 32 and ends at one or at `k`. A bias is one row of
    /// `width` a panel, `b_rows` rows apart, such as the row after those that take part; a mask is `[panels][m][width]`.
    /// The bits are those of [`Kernels::matmul_panel`].
    #[expect(clippy::too_many_arguments, reason = "two operands with their shapes")]
    pub fn matmul_sparse(
        &self,
        a: &Nonzeros,
        columns: Range<usize>,
        b: &[f32],
        b_rows: usize,
        width: usize,
        finish: Finish<'_>,
        c: &mut [f32],
    ) {
        check_width(width);
        let segments = check_segments(a, &columns);
        assert!(columns.len() <= b_rows, "{b_rows} rows of b for {} columns of a", columns.len());
        let panels = check_panels(b.len(), b_rows * width, c.len(), a.rows() * width);
        finish.check(panels, b_rows, width, c.len());
        self.table.matmul_sparse(&Product { a, segments, b, b_rows, width, panels, finish }, c);
    }
}

/// The segments of some columns, which must be whole ones.
pub(crate) fn check_segments(a: &Nonzeros, columns: &Range<usize>) -> Range<usize> {
    let is_cut = |column: usize| column.is_multiple_of(SEGMENT) || column == a.cols();
    let are_within = columns.start <= columns.end && columns.end <= a.cols();
    assert!(
        are_within && is_cut(columns.start) && is_cut(columns.end),
        "columns {columns:?} of {}",
        a.cols()
    );
    assert_eq!(a.segments(), a.cols().div_ceil(SEGMENT), "segments of a matrix that is not transposed");
    columns.start.div_ceil(SEGMENT)..columns.end.div_ceil(SEGMENT)
}

/// The number of panels, which must be that of both operands.
pub(crate) fn check_panels(b: usize, b_panel: usize, c: usize, c_panel: usize) -> usize {
    let panels = b.checked_div(b_panel).unwrap_or(0);
    assert_eq!(
        (b, c),
        (panels * b_panel, panels * c_panel),
        "lengths of the right operand and of c, panel by panel"
    );
    panels
}

/// Runs `$run::<R, N>(vector)` over all vectors of a row: as many at once as the registers hold, and of few of them several rows in
/// step, whose chains hide each other's latency.
macro_rules! for_each_vectors {
    ($S:ty, $width:expr, $panels:expr, |$vector:ident| $run:ident($($arg:expr),*)) => {{
        let vectors = $panels * $width / LANES;
        let mut $vector = 0;
        while $vector < vectors {
            // A panel of 16 columns has one vector, of 32 two.
            $vector += match ($width / LANES, vectors - $vector) {
                (1, _) => { $run::<$S, 4, 1>($($arg),*); 1 }
                (_, 8..) if const { <$S>::CHAINS >= 8 } => { $run::<$S, 1, 8>($($arg),*); 8 }
                (_, 4..) => { $run::<$S, 1, 4>($($arg),*); 4 }
                _ => { $run::<$S, 2, 2>($($arg),*); 2 }
            };
        }
    }};
}

pub(crate) use for_each_vectors;

#[inline(always)]
pub(crate) fn matmul_sparse<S: Simd>(s: S, product: &Product<'_>, c: &mut [f32]) {
    let c = c.as_mut_ptr();
    // SAFETY: `Kernels::matmul_sparse` has checked that the operands have these rows and panels.
    unsafe { for_each_vectors!(S, product.width, product.panels, |vector| forward(s, product, vector, c)) };
}

/// Floats from the start of a matrix in panels of `rows` rows to vector `vector` of row `row`, where `N` vectors are taken at once.
#[inline(always)]
pub(crate) const fn at<const N: usize>(rows: usize, row: usize, vector: usize) -> usize {
    let of_panel = vectors_of_panel::<N>();
    ((vector / of_panel * rows + row) * of_panel + vector % of_panel) * LANES
}

/// The addresses of `N` vectors of the first row of such a matrix.
#[inline(always)]
pub(crate) fn vectors_of<const N: usize>(matrix: *const f32, rows: usize, vector: usize) -> [*const f32; N] {
    let mut addresses = [matrix; N];
    for (v, address) in addresses.iter_mut().enumerate() {
        *address = matrix.wrapping_add(at::<N>(rows, 0, vector + v));
    }
    addresses
}

/// The entries of some segments of `R` rows.
#[inline(always)]
pub(crate) fn runs<const R: usize>(a: &Nonzeros, row: usize, segments: &Range<usize>) -> [Range<usize>; R] {
    let mut runs = [const { 0..0 }; R];
    for (r, run) in runs.iter_mut().enumerate() {
        *run = a.entries(row + r, segments.clone());
    }
    runs
}

/// Vectors of a row of a panel: only a panel of 16 columns is taken a vector at once.
pub(crate) const fn vectors_of_panel<const N: usize>() -> usize {
    if N == 1 { 1 } else { 2 }
}

/// The `N` vectors from `vector` on of all rows, `R` rows in step.
///
/// # Safety
/// The operands must have these vectors.
#[inline(always)]
unsafe fn forward<S: Simd, const R: usize, const N: usize>(
    s: S,
    p: &Product<'_>,
    vector: usize,
    c: *mut f32,
) {
    let rows = p.a.rows();
    let segments_at_once = BLOCK_BYTES / (N * LANES * size_of::<f32>() * SEGMENT);
    let mut segment = p.segments.start;
    loop {
        let block = segment..(segment + segments_at_once).min(p.segments.end);
        // SAFETY: the caller vouches for all rows and vectors.
        unsafe {
            for row in (0..rows / R * R).step_by(R) {
                forward_rows::<S, R, N>(s, p, row, &block, vector, c);
            }
            for row in rows / R * R..rows {
                forward_rows::<S, 1, N>(s, p, row, &block, vector, c);
            }
        }
        segment = block.end;
        if segment == p.segments.end {
            return;
        }
    }
}

/// A block of columns of `R` rows of `N` vectors.
///
/// # Safety
/// The operands must have these rows, segments and vectors.
#[inline(always)]
unsafe fn forward_rows<S: Simd, const R: usize, const N: usize>(
    s: S,
    p: &Product<'_>,
    row: usize,
    block: &Range<usize>,
    vector: usize,
    c: *mut f32,
) {
    let mut sum = [[s.splat(0.0); N]; R];
    let place = |r: usize, v: usize| at::<N>(p.a.rows(), row + r, vector + v);
    let first = p.segments.start * SEGMENT * vectors_of_panel::<N>() * LANES;
    let b = vectors_of::<N>(p.b.as_ptr().wrapping_sub(first), p.b_rows, vector);
    // SAFETY: the caller vouches for these rows and vectors; the entries lie in the columns that take part.
    unsafe {
        if block.start > p.segments.start {
            for (r, sum) in sum.iter_mut().enumerate() {
                for (v, x) in sum.iter_mut().enumerate() {
                    *x = load(s, c.add(place(r, v)));
                }
            }
        }
        chains(s, p.a, runs(p.a, row, block), &b, &mut sum);
        if block.end == p.segments.end {
            finish(s, p, row, vector, &mut sum);
        }
        for (r, sum) in sum.iter().enumerate() {
            for (v, &x) in sum.iter().enumerate() {
                *c.add(place(r, v)).cast() = s.to_array(x);
            }
        }
    }
}

/// `sum[r] += value · b[column]` over `entries[r]`, one after another. `b` are the addresses of each vector in row 0.
///
/// # Safety
/// The entries must exist, and B must have the rows that they name.
#[inline(always)]
pub(crate) unsafe fn chains<S: Simd, const R: usize, const N: usize>(
    s: S,
    a: &Nonzeros,
    entries: [Range<usize>; R],
    b: &[*const f32; N],
    sum: &mut Block<S, R, N>,
) {
    let together = entries.iter().map(Range::len).min().unwrap_or(0);
    for i in 0..together {
        for r in 0..R {
            // SAFETY: the caller vouches for the entries of each row.
            unsafe { add_entry(s, a, entries[r].start + i, b, &mut sum[r]) };
        }
    }
    if R > 1 {
        for r in 0..R {
            for entry in entries[r].start + together..entries[r].end {
                // SAFETY: as above.
                unsafe { add_entry(s, a, entry, b, &mut sum[r]) };
            }
        }
    }
}

/// `sum += value · b[column]` of one entry.
///
/// # Safety
/// It must exist, and B must have the row that it names.
#[inline(always)]
unsafe fn add_entry<S: Simd, const N: usize>(
    s: S,
    a: &Nonzeros,
    entry: usize,
    b: &[*const f32; N],
    sum: &mut [S::V; N],
) {
    // SAFETY: the caller vouches for the entry and its row of B.
    unsafe {
        let (column, value) = a.entry(entry);
        let (row, x) = (column * (vectors_of_panel::<N>() * LANES), s.splat(value));
        for (v, sum) in sum.iter_mut().enumerate() {
            // The vectors of a panel lie side by side: one address for each panel.
            let near = v % vectors_of_panel::<N>();
            let y = load(s, b[v - near].wrapping_add(row).wrapping_add(near * LANES));
            *sum = s.mul_add(x, y, *sum);
        }
    }
}

/// Applies [`Finish`] to rows of a product.
///
/// # Safety
/// Bias or mask must have these rows and vectors.
#[inline(always)]
unsafe fn finish<S: Simd, const R: usize, const N: usize>(
    s: S,
    p: &Product<'_>,
    row: usize,
    vector: usize,
    sum: &mut Block<S, R, N>,
) {
    for (r, sum) in sum.iter_mut().enumerate() {
        for (v, x) in sum.iter_mut().enumerate() {
            let (bias, mask) = (at::<N>(p.b_rows, 0, vector + v), at::<N>(p.a.rows(), row + r, vector + v));
            // SAFETY: the caller vouches for these rows and vectors.
            *x = unsafe { p.finish.apply(s, *x, bias, mask) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{all, bits, bytes, floats, pixels, run_of_columns};
    use crate::{Start, panel_width};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_bits_are_those_of_the_dense_product(
            m in 1_usize..40, (k, columns) in run_of_columns(200), n in 1_usize..330, density in 0_u64..101, kind in 0_usize..4, seed: u64,
        ) {
            let a = bytes(m * k, density, seed);
            let (width, panels, taken) = (panel_width(n), n.div_ceil(panel_width(n)), columns.len());
            // The bias is the last row of each panel.
            let rows = taken + 1;
            let (b, mask) = (floats(panels * rows * width, seed), floats(panels * m * width, seed ^ 1));
            let finish = |panel: usize| {
                let (bias, mask) = (&b[(panel * rows + taken) * width..], &mask[panel * m * width..]);
                [Finish::None, Finish::Bias(bias), Finish::BiasRelu(bias), Finish::Mask(mask)][kind]
            };
            for kernels in all() {
                let (matrix, dense) = pixels(kernels, &a, k, &columns);
                let mut c = vec![f32::NAN; panels * m * width];
                kernels.matmul_sparse(&matrix, columns.clone(), &b, rows, width, finish(0), &mut c);
                for panel in 0..panels {
                    let mut expected = vec![f32::NAN; m * width];
                    let w = &b[panel * rows * width..][..taken * width];
                    let finish = match finish(panel) {
                        Finish::Bias(bias) => Finish::Bias(&bias[..width]),
                        Finish::BiasRelu(bias) => Finish::BiasRelu(&bias[..width]),
                        Finish::Mask(mask) => Finish::Mask(&mask[..m * width]),
                        Finish::None => Finish::None,
                    };
                    kernels.matmul_panel(dense.panels(m, taken), w, width, Start::Zero, finish, &mut expected);
                    prop_assert_eq!(bits(&c[panel * m * width..][..m * width]), bits(&expected));
                }
            }
        }
    }
}
