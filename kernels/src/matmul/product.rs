//! A product as the loops see it: two operands that are alike, and C or its transpose.
#![allow(unsafe_code)] // Views are pointers, so that threads can write blocks of C whose rows alternate.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice::from_raw_parts;

use super::Form;
use crate::prefetch::prefetch;
use crate::simd::LANES;

/// An operand: element `(x, p)`, with `x` a row or column of C and `p` along the chain of additions.
#[derive(Clone, Copy)]
pub(crate) struct View {
    at: *const f32,
    /// Floats from one stored row to the next.
    pub(super) ld: usize,
    /// Whether a stored row goes along the chain: element `(x, p)` lies at `x * ld + p`, else at `p * ld + x`.
    pub(crate) along_k: bool,
}

impl View {
    pub(crate) fn new(at: *const f32, ld: usize, along_k: bool) -> View {
        View { at, ld, along_k }
    }

    /// Where element `(x, p)` is.
    #[inline(always)]
    pub(crate) fn element(self, x: usize, p: usize) -> *const f32 {
        let (row, col) = if self.along_k { (x, p) } else { (p, x) };
        self.at.wrapping_add(row.wrapping_mul(self.ld)).wrapping_add(col)
    }

    /// The same matrix from element `(x, p)` on.
    pub(crate) fn from(self, x: usize, p: usize) -> View {
        View { at: self.element(x, p), ..self }
    }

    /// The same numbers with `x` and `p` in each other's place.
    pub(crate) fn turned(self) -> View {
        View { along_k: !self.along_k, ..self }
    }

    /// `len` elements of a stored row, from `(x, p)` on.
    ///
    /// # Safety
    /// The view must hold them, for as long as the slice is used.
    #[inline(always)]
    pub(crate) unsafe fn row<'a>(self, x: usize, p: usize, len: usize) -> &'a [f32] {
        // SAFETY: the caller vouches for the elements, which are neighbours.
        unsafe { from_raw_parts(self.element(x, p), len) }
    }
}

/// C, or its transpose: element `(i, j)` lies at `i * ld + j`, or at `j * ld + i`.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) at: *mut f32,
    pub(super) ld: usize,
    pub(super) transposed: bool,
}

impl Output {
    /// The same matrix from element `(i, j)` on.
    #[inline(always)]
    pub(super) fn from(self, i: usize, j: usize) -> Output {
        let offset = if self.transposed { j * self.ld + i } else { i * self.ld + j };
        Output { at: self.at.wrapping_add(offset), ..self }
    }

    /// Asks for `[rows, cols]` of it before they are read or written.
    ///
    /// # Safety
    /// They must be there, and nobody else may write to them meanwhile.
    pub(super) unsafe fn prefetch(self, rows: usize, cols: usize) {
        let (rows, cols) = if self.transposed { (cols, rows) } else { (rows, cols) };
        for i in 0..rows {
            let row = self.at.cast_const().wrapping_add(i * self.ld).cast::<u8>();
            // SAFETY: the caller vouches for the elements.
            prefetch(unsafe { from_raw_parts(row, cols * size_of::<f32>()) });
        }
    }
}

/// `c = beta * c + left · right`, `[m, n]`, or a block of it; the columns of C lie across lanes.
pub(crate) struct Product<'a> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) left: View,
    pub(super) right: View,
    /// 0: C is not read.
    pub(super) beta: f32,
    pub(super) c: Output,
    operands: PhantomData<(&'a [f32], &'a mut [f32])>,
}

// SAFETY: it stands for two shared slices and one that is borrowed mutably; blocks of it that may be computed at the same time have no
// element of C in common, as `block` demands.
unsafe impl Sync for Product<'_> {}

/// What the product must take for one of its transpose, before that pays: its C is stored through registers.
const TURNED_GAIN: f64 = 1.2;
/// Columns of C that take as long as it takes to transpose a left operand whose rows go along the chain, so that they lie across lanes. On a Zen 4
/// 100×1×784 takes 0.65 of the time so, 100×4×784 0.75; 100×10×784 would take 1.07 and 20×1×784 1.08.
const TRANSPOSING: f64 = 9.0;

impl<'a> Product<'a> {
    /// Of row-major matrices: `op(a)` `[m, k]`, `op(b)` `[k, n]`, `c` `[m, n]`, with the distances of rows as they are stored.
    ///
    /// # Panics
    /// If an operand is too short.
    #[expect(clippy::too_many_arguments, reason = "the arguments of BLAS")]
    pub(super) fn new(
        form: Form,
        [m, n, k]: [usize; 3],
        a: &'a [f32],
        lda: usize,
        b: &'a [f32],
        ldb: usize,
        beta: f32,
        c: &'a mut [f32],
        ldc: usize,
    ) -> Product<'a> {
        let (a_rows, a_cols) = if form == Form::TN { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if form == Form::NT { (n, k) } else { (k, n) };
        check_strided("a", a.len(), a_rows, a_cols, lda);
        check_strided("b", b.len(), b_rows, b_cols, ldb);
        check_strided("c", c.len(), m, n, ldc);
        let left = View::new(a.as_ptr(), lda, form != Form::TN);
        let right = View::new(b.as_ptr(), ldb, form == Form::NT);
        let c = Output { at: c.as_mut_ptr(), ld: ldc, transposed: false };
        let product = Product { m, n, k, left, right, beta, c, operands: PhantomData };
        // In vectors for a step of the chain. With 10 columns, 6 of 16 lanes would idle.
        let transposing = if left.along_k { TRANSPOSING } else { 0.0 };
        let turned = (TURNED_GAIN * n as f64 + transposing) * m.div_ceil(LANES) as f64;
        let gains = (m * n.div_ceil(LANES)) as f64 > turned;
        if gains { product.turned() } else { product }
    }

    /// The same product as that of the transposes in reverse order.
    fn turned(self) -> Product<'a> {
        let c = Output { transposed: !self.c.transposed, ..self.c };
        Product { m: self.n, n: self.m, left: self.right, right: self.left, c, ..self }
    }

    /// Some rows and columns of it.
    ///
    /// # Safety
    /// Blocks that are computed at the same time must not overlap.
    pub(super) unsafe fn block(&self, rows: Range<usize>, cols: Range<usize>) -> Product<'_> {
        assert!(rows.end <= self.m && cols.end <= self.n, "a block of [{}, {}]", self.m, self.n);
        Product {
            m: rows.len(),
            n: cols.len(),
            left: self.left.from(rows.start, 0),
            right: self.right.from(cols.start, 0),
            c: self.c.from(rows.start, cols.start),
            ..*self
        }
    }

    /// Floating-point operations.
    pub(super) fn flops(&self) -> usize {
        2 * self.m * self.n * self.k
    }
}

fn check_strided(name: &str, len: usize, rows: usize, cols: usize, ld: usize) {
    assert!(ld >= cols, "rows of {name} [{rows}, {cols}] are {ld} apart");
    let needed = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * ld + cols };
    assert!(len >= needed, "length {len} of {name} [{rows}, {cols}], rows {ld} apart");
}
