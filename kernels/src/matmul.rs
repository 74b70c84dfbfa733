//! Row-major matrix product with strides: `C = beta·C + op(A)·op(B)`.
//!
//! The five loops of Goto and van de Geijn (2008): a block of `k` goes on from C, so that an output is one chain over all of `k`,
//! whatever the blocks and however many the threads.

mod blocks;
mod helpers;
mod micro;
mod pack;
mod product;
mod tiled;
mod workspace;

use crate::table::Kernels;
pub(crate) use blocks::Buffers;
pub(crate) use micro::{Panel, multiply_panel, tile_height, tile_width};
pub(crate) use pack::pack_panel;
pub(crate) use product::{Product, View};
pub(crate) use tiled::{COLUMNS, STEPS, multiply as multiply_by_tiles};
pub use workspace::Workspace;

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

impl Kernels {
    /// `c = beta * c + op(a) · op(b)`, row-major: `op(a)` `[m, k]`, `op(b)` `[k, n]`, `c` `[m, n]`.
    ///
    /// `lda`, `ldb` and `ldc` are the distances of rows as they are stored. With `beta` 0, `c` is not read.
    ///
    /// # Panics
    /// If an operand is too short.
    #[expect(clippy::too_many_arguments, reason = "the arguments of BLAS")]
    pub fn matmul(
        &self,
        workspace: &mut Workspace,
        form: Form,
        [m, n, k]: [usize; 3],
        a: &[f32],
        lda: usize,
        b: &[f32],
        ldb: usize,
        beta: f32,
        c: &mut [f32],
        ldc: usize,
    ) {
        let product = Product::new(form, [m, n, k], a, lda, b, ldb, beta, c, ldc);
        if k > 0 {
            let tiled = self.tiled.filter(|tiled| n >= tiled.columns && k >= tiled.steps);
            let multiply = |product: &Product<'_>, buffers: &mut Buffers| match tiled {
                Some(tiled) => tiled.multiply(&self.table, product, buffers),
                None => blocks::multiply(&self.table, product, buffers),
            };
            workspace.multiply(&multiply, &product);
        } else if beta != 1.0 && m > 0 && n > 0 {
            scale_rows(c, n, ldc, beta);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::blocks::{
        COPY_MUCH_ROWS, COPY_RIGHT_ROWS, CROWDED_LEFT_ACROSS, CROWDED_LEFT_ALONG, CROWDED_RIGHT, KC, MC,
        MUCH, NC,
    };
    use super::tiled as tiles;
    use super::*;
    use crate::naive;
    use crate::testing::{all, assert_close, bits, floats, on, on_each, tiled};

    /// Compares `matmul` of `kernels` with the specification; rows are `pad` floats further apart than they need be, and the
    /// floats between them must stay as they were.
    fn check<'a>(
        kernels: impl Iterator<Item = &'a Kernels>,
        form: Form,
        [m, n, k]: [usize; 3],
        pad: usize,
        beta: f32,
        seed: u64,
    ) {
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
        let results = on(kernels, |kernels| {
            let mut c = strided(m, n, &c);
            let mut workspace = Workspace::new(1);
            kernels.matmul(&mut workspace, form, [m, n, k], &a, lda, &b, ldb, beta, &mut c, n + pad);
            c
        });
        for (backend, c) in results {
            let rows = c.chunks((n + pad).max(1));
            assert!(rows.clone().all(|row| row[n..].iter().all(|&x| x == 7.0)), "between the rows");
            let c: Vec<f32> = rows.flat_map(|row| &row[..n]).copied().collect();
            // A chain's error grows with its length.
            assert_close(backend, &c, &expected, 1e-5 * (k as f64 / 512.0).max(1.0));
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
            check(all().chain(tiled()), form, [m, n, k], pad, beta, seed);
        }
    }

    #[test]
    fn products_of_more_than_one_block() {
        for form in [Form::NN, Form::TN, Form::NT] {
            check(all(), form, [MC + 3, 37, KC + 5], 1, 1.0, 1);
            check(all(), form, [5, NC + 33, KC + 1], 0, 0.0, 2);
            // The last panel has one column.
            check(all(), form, [COPY_RIGHT_ROWS, 257, 40], 0, -0.5, 3);
            check(all(), form, [COPY_MUCH_ROWS, MUCH / 300 + 1, 300], 0, 1.0, 3);
            // Of A stored transposed, and as it is.
            check(all(), form, [CROWDED_LEFT_ACROSS, 32, 40], 0, 0.0, 4);
            check(all(), form, [MC + 8, 33, CROWDED_LEFT_ALONG], 0, 1.0, 4);
            check(all(), form, [10, CROWDED_RIGHT, 40], 0, 0.0, 4);
            // C is so large that it is computed tile by tile along its rows.
            check(all(), form, [MUCH / 520 + 1, 520, 3], 1, 1.0, 5);
            check(all(), form, [MUCH / 1030 + 1, NC + 6, 2], 0, 0.0, 5);
            // Narrow panels whose last rows alone are copied, of the last block of the chain, or all.
            check(all(), form, [30, 10, 50], 0, 1.0, 5);
            check(all(), form, [3, 1, KC + 2], 0, 0.0, 5);
            check(all(), form, [3, 4, KC + 40], 0, 0.0, 5);
            check(all(), form, [30, 1, 12], 0, 0.0, 5);
            check(tiled(), form, [35, 40, 2 * tiles::KC + 3], 1, -0.5, 5);
            check(tiled(), form, [tiles::MC + 1, 3, 5], 0, 1.0, 6);
            check(tiled(), form, [2, tiles::NC + 33, 3], 1, 0.0, 7);
        }
    }

    #[test]
    fn neither_blocks_nor_threads_change_a_bit() {
        // Of one four threads have few rows each, and other blocks; of the last one thread has a large C, and several do not.
        let sizes = [
            [100, 128, 400],
            [784, 10, 100],
            [100, 784, 10],
            // A left operand that crowds in the cache, stored across the chain and along it.
            [512, 40, 30],
            [20, 40, 1024],
            [60, 40, KC + 8],
            [70, 70, 70],
            [230, 96, 700],
            [520, 515, 3],
        ];
        for (form, [m, n, k]) in
            [Form::NN, Form::TN, Form::NT].into_iter().flat_map(|form| sizes.map(|size| (form, size)))
        {
            let (a, b, before) = (floats(m * k, 1), floats(k * n, 2), floats(m * n, 3));
            let (lda, ldb) = (if form == Form::TN { m } else { k }, if form == Form::NT { k } else { n });
            on_each(|kernels| {
                let mut c = before.clone();
                kernels.matmul(&mut Workspace::new(1), form, [m, n, k], &a, lda, &b, ldb, 1.0, &mut c, n);
                for threads in [2, 4] {
                    let mut workspace = Workspace::new(threads);
                    for _ in 0..3 {
                        let mut shared = before.clone();
                        kernels.matmul(
                            &mut workspace,
                            form,
                            [m, n, k],
                            &a,
                            lda,
                            &b,
                            ldb,
                            1.0,
                            &mut shared,
                            n,
                        );
                        assert_eq!(bits(&shared), bits(&c), "{form:?} {m}×{n}×{k} on {threads} threads");
                    }
                }
                let mut parts = before.clone();
                let mut workspace = Workspace::new(1);
                for p in (0..k).step_by(7) {
                    let a = &a[if form == Form::TN { p * lda } else { p }..];
                    let b = &b[if form == Form::NT { p } else { p * ldb }..];
                    let size = [m, n, 7.min(k - p)];
                    kernels.matmul(&mut workspace, form, size, a, lda, b, ldb, 1.0, &mut parts, n);
                }
                assert_eq!(bits(&parts), bits(&c), "{form:?} {m}×{n}×{k} in parts");
                c
            });
        }
    }

    #[test]
    #[should_panic(expected = "length 5 of a [2, 3]")]
    fn short_operands_are_refused() {
        let kernels = Kernels::select().unwrap();
        let workspace = &mut Workspace::new(1);
        kernels.matmul(workspace, Form::NN, [2, 1, 3], &[0.0; 5], 3, &[0.0; 3], 1, 0.0, &mut [0.0; 2], 1);
    }
}
