//! Row-major matrix product with strides: `C = beta·C + op(A)·op(B)`.
//!
//! The five loops of Goto and van de Geijn (2008) around the micro-kernels of the panels: blocks of A and B are packed
//! into panels, and a block of `k` goes on from C, so that an output is one chain over all of `k`.

use crate::layout::{Panels, panel_count, panel_width, panels_len};
use crate::panel::{Finish, Start};
use crate::simd::{LANES, Simd};
use crate::table::{Kernels, Table};

/// Which operand is stored transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `A·B`: A `[m, k]`, B `[k, n]`.
    NN,
    /// `Aᵀ·B`: A stored as `[k, m]`, B `[k, n]`.
    TN,
    /// `A·Bᵀ`: A `[m, k]`, B stored as `[n, k]`.
    NT,
}

/// Columns of B that are packed at a time; with `KC` 1.5 MB.
const NC: usize = 1024;
/// Depth of a packed block. A panel of B is then 48 KB: each tile reads it once, from the second-level cache if it must.
const KC: usize = 384;
/// Rows of A that are packed at a time; with `KC` 336 KB of second-level cache.
const MC: usize = 224;

impl Kernels {
    /// `c = beta * c + op(a) · op(b)`, row-major: `op(a)` `[m, k]`, `op(b)` `[k, n]`, `c` `[m, n]`.
    ///
    /// `lda`, `ldb` and `ldc` are the distances of rows as they are stored. With `beta` 0, `c` is not read.
    #[expect(clippy::too_many_arguments, reason = "the arguments of BLAS")]
    pub fn matmul(
        &self,
        form: Form,
        m: usize,
        n: usize,
        k: usize,
        a: &[f32],
        lda: usize,
        b: &[f32],
        ldb: usize,
        beta: f32,
        c: &mut [f32],
        ldc: usize,
    ) {
        let (a_rows, a_cols) = if form == Form::TN { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if form == Form::NT { (n, k) } else { (k, n) };
        check_strided("a", a.len(), a_rows, a_cols, lda);
        check_strided("b", b.len(), b_rows, b_cols, ldb);
        check_strided("c", c.len(), m, n, ldc);
        if m == 0 || n == 0 {
            return;
        }
        if beta != 1.0 && (beta != 0.0 || k == 0) {
            scale_rows(c, n, ldc, beta);
        }
        let mut packed_b = vec![0.0; panels_len(KC.min(k), NC.min(n))];
        let mut packed_a = vec![0.0; panels_len(MC.min(m), KC.min(k)).max(panels_len(KC.min(k), MC.min(m)))];
        let mut edge = vec![0.0; MC.min(m) * panel_width(NC.min(n))];
        // LOOP 5 cuts the columns, LOOP 4 the depth, LOOP 3 the rows.
        for jc in spans(n, NC) {
            for pc in spans(k, KC) {
                let packed_b = &mut packed_b[..panels_len(pc.len, jc.len)];
                if form == Form::NT {
                    self.table.pack_transposed(&b[jc.at * ldb + pc.at..], ldb, jc.len, pc.len, packed_b);
                } else {
                    pack(&b[pc.at * ldb + jc.at..], ldb, pc.len, jc.len, packed_b);
                }
                let start = if pc.at == 0 && beta == 0.0 { Start::Zero } else { Start::Continue };
                for ic in spans(m, MC) {
                    let (at, rows, cols) = match form {
                        Form::TN => (pc.at * lda + ic.at, pc.len, ic.len),
                        Form::NN | Form::NT => (ic.at * lda + pc.at, ic.len, pc.len),
                    };
                    let packed_a = &mut packed_a[..panels_len(rows, cols)];
                    pack(&a[at..], lda, rows, cols, packed_a);
                    let block = Block {
                        form,
                        a: Panels::new(packed_a, rows, cols, panel_width(cols)),
                        m: ic.len,
                        k: pc.len,
                        start,
                    };
                    block.times(&self.table, packed_b, jc.len, &mut c[ic.at * ldc + jc.at..], ldc, &mut edge);
                }
            }
        }
    }
}

fn check_strided(name: &str, len: usize, rows: usize, cols: usize, ld: usize) {
    assert!(ld >= cols, "rows of {name} [{rows}, {cols}] are {ld} apart");
    let needed = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * ld + cols };
    assert!(len >= needed, "length {len} of {name} [{rows}, {cols}], rows {ld} apart");
}

/// Sizes of a block and where it starts.
#[derive(Clone, Copy)]
struct Span {
    at: usize,
    len: usize,
}

/// `0..len` in blocks of at most `step`.
fn spans(len: usize, step: usize) -> impl Iterator<Item = Span> {
    (0..len).step_by(step).map(move |at| Span { at, len: step.min(len - at) })
}

/// A packed block of A and where the chains of its outputs start.
struct Block<'a> {
    form: Form,
    a: Panels<'a>,
    m: usize,
    k: usize,
    start: Start,
}

impl Block<'_> {
    /// LOOP 2: one panel of `b` `[k][n]` at a time. A last panel that is wider than C goes through `edge`.
    fn times(&self, table: &Table, b: &[f32], n: usize, c: &mut [f32], ldc: usize, edge: &mut [f32]) {
        let width = panel_width(n);
        for (b, col) in b.chunks_exact(self.k * width).zip((0..n).step_by(width)) {
            let c = &mut c[col..];
            let cols = width.min(n - col);
            if cols == width {
                self.times_panel(table, b, width, c, ldc);
                continue;
            }
            let edge = &mut edge[..self.m * width];
            if self.start == Start::Continue {
                for (edge, c) in edge.chunks_exact_mut(width).zip(c.chunks(ldc)) {
                    edge[..cols].copy_from_slice(&c[..cols]);
                }
            }
            self.times_panel(table, b, width, edge, width);
            for (edge, c) in edge.chunks_exact(width).zip(c.chunks_mut(ldc)) {
                c[..cols].copy_from_slice(&edge[..cols]);
            }
        }
    }

    /// LOOP 1, over tiles, is that of the panels.
    fn times_panel(&self, table: &Table, b: &[f32], width: usize, c: &mut [f32], ldc: usize) {
        match self.form {
            Form::TN => table.matmul_tn_panel(self.a, &[self.k], b, width, self.start, c, ldc),
            Form::NN | Form::NT => {
                table.matmul_panel(self.a, b, width, self.start, Finish::None, c, ldc);
            }
        }
    }
}

/// `c[i][..n] *= beta`; with `beta` 0 whatever was there goes.
fn scale_rows(c: &mut [f32], n: usize, ldc: usize, beta: f32) {
    for row in c.chunks_mut(ldc) {
        for x in &mut row[..n] {
            *x = if beta == 0.0 { 0.0 } else { *x * beta };
        }
    }
}

/// The row-major block `x` `[rows, cols]` in panels.
fn pack(x: &[f32], ld: usize, rows: usize, cols: usize, packed: &mut [f32]) {
    let width = panel_width(cols);
    for (panel, col) in packed.chunks_exact_mut(rows * width).zip((0..cols).step_by(width)) {
        let n = width.min(cols - col);
        for (i, to) in panel.chunks_exact_mut(width).enumerate() {
            to[..n].copy_from_slice(&x[i * ld + col..][..n]);
            to[n..].fill(0.0);
        }
    }
}

/// The transpose `[cols, rows]` of the row-major block `x` `[rows, cols]` in panels.
#[inline(always)]
pub(crate) fn pack_transposed<S: Simd>(
    s: S,
    x: &[f32],
    ld: usize,
    rows: usize,
    cols: usize,
    packed: &mut [f32],
) {
    let width = panel_width(rows);
    for q in 0..panel_count(rows) {
        let panel = &mut packed[q * cols * width..][..cols * width];
        for lane in (0..width).step_by(LANES) {
            let first = q * width + lane;
            for col in (0..cols).step_by(LANES) {
                let n = LANES.min(cols - col);
                let mut block = [s.splat(0.0); LANES];
                for (j, row) in block.iter_mut().enumerate().take(rows.saturating_sub(first)) {
                    let from = &x[(first + j) * ld + col..][..n];
                    *row = from.first_chunk().map_or_else(|| s.load_part(from, 0.0), |from| s.load(from));
                }
                let block = s.transpose(block);
                for (j, &row) in block.iter().enumerate().take(n) {
                    panel[(col + j) * width + lane..][..LANES].copy_from_slice(&s.to_array(row));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::naive;
    use crate::testing::{assert_close, floats, on_each};

    /// Compares `matmul` with the specification; rows are `pad` floats further apart than they need be, and the
    /// floats between them must stay as they were.
    fn check(form: Form, [m, n, k]: [usize; 3], pad: usize, beta: f32, seed: u64) {
        let (a, b, c) = (floats(m * k, seed), floats(k * n, seed ^ 1), floats(m * n, seed ^ 2));
        let expected: Vec<f64> = naive::matmul(m, n, k, &a, &b)
            .iter()
            .zip(&c)
            .map(|(product, &c)| product + f64::from(beta) * f64::from(c))
            .collect();
        let strided = |rows: usize, cols: usize, x: &[f32]| -> Vec<f32> {
            let filler = vec![7.0; pad];
            (0..rows).flat_map(|i| [&x[i * cols..(i + 1) * cols], &filler].concat()).collect()
        };
        let (a, lda) = match form {
            Form::TN => (strided(k, m, &naive::transpose(m, k, &a)), m + pad),
            _ => (strided(m, k, &a), k + pad),
        };
        let (b, ldb) = match form {
            Form::NT => (strided(n, k, &naive::transpose(k, n, &b)), k + pad),
            _ => (strided(k, n, &b), n + pad),
        };
        let c = if beta == 0.0 { vec![f32::NAN; m * n] } else { c };
        let results = on_each(|kernels| {
            let mut c = strided(m, n, &c);
            kernels.matmul(form, m, n, k, &a, lda, &b, ldb, beta, &mut c, n + pad);
            c
        });
        for (backend, c) in results {
            let rows = c.chunks((n + pad).max(1));
            assert!(rows.clone().all(|row| row[n..].iter().all(|&x| x == 7.0)), "between the rows");
            let c: Vec<f32> = rows.flat_map(|row| &row[..n]).copied().collect();
            assert_close(backend, &c, &expected, 1e-5);
        }
    }

    fn form() -> impl Strategy<Value = Form> {
        prop::sample::select(vec![Form::NN, Form::TN, Form::NT])
    }

    proptest! {
        #[test]
        fn small_products(
            form in form(), m in 0_usize..=70, n in 0_usize..=70, k in 0_usize..=70, pad in 0_usize..4,
            beta in prop::sample::select(vec![0.0_f32, 1.0, -0.5]), seed: u64,
        ) {
            check(form, [m, n, k], pad, beta, seed);
        }
    }

    #[test]
    fn products_of_more_than_one_block() {
        for form in [Form::NN, Form::TN, Form::NT] {
            check(form, [MC + 3, 37, KC + 5], 1, 1.0, 1);
            check(form, [5, NC + 33, 2 * KC + 1], 0, 0.0, 2);
        }
    }

    #[test]
    fn the_order_of_additions_does_not_see_the_blocks() {
        let (m, n, k) = (3, 40, KC + 100);
        let (a, b) = (floats(m * k, 1), floats(k * n, 2));
        on_each(|kernels| {
            let (mut whole, mut parts) = (vec![0.0; m * n], vec![0.0; m * n]);
            kernels.matmul(Form::NN, m, n, k, &a, k, &b, n, 0.0, &mut whole, n);
            for p in (0..k).step_by(7) {
                let depth = 7.min(k - p);
                let beta = if p == 0 { 0.0 } else { 1.0 };
                kernels.matmul(Form::NN, m, n, depth, &a[p..], k, &b[p * n..], n, beta, &mut parts, n);
            }
            assert_eq!(whole, parts);
            whole
        });
    }

    #[test]
    #[should_panic(expected = "length 5 of a [2, 3]")]
    fn short_operands_are_refused() {
        let kernels = Kernels::select().unwrap();
        kernels.matmul(Form::NN, 2, 1, 3, &[0.0; 5], 3, &[0.0; 3], 1, 0.0, &mut [0.0; 2], 1);
    }
}
