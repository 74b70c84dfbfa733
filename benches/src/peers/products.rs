//! Matrix products on the shapes of training and on squares, ours beside the peers', on one thread.
#![allow(unsafe_code)] // The peers take pointers.

use muster_kernels::{Backend, Form, Kernels};

use crate::measure::{Contender, Timing, compare};
use crate::peak::Peak;
use crate::peers::blas::Blas;
use crate::products;

/// What was measured of one shape.
pub struct Product {
    /// Which operand is stored transposed.
    pub form: Form,
    /// `[m, n, k]`
    pub size: [usize; 3],
    /// Muster's product of row-major matrices, its product of panels, then the peers; ratios are to a run at the peak.
    pub timings: Vec<Timing>,
    /// FMA peak of this machine in the same rounds, in floating-point operations a second.
    pub peak: f64,
    /// Floating-point operations of a run at the peak.
    peak_run: f64,
}

impl Product {
    /// Share of the peak that a timing reached: the median of what it was in each round.
    pub fn share(&self, timing: &Timing) -> f64 {
        2.0 * self.size.iter().map(|&x| x as f64).product::<f64>() / self.peak_run * timing.ratio
    }
}

/// Measures one shape with everything that is there.
pub fn measure(kernels: &Kernels, blas: &[Blas], form: Form, size: [usize; 3], rounds: usize) -> Product {
    let [m, n, k] = size;
    let (a, b) = (operand(m * k), operand(k * n));
    let mut outputs = vec![vec![0.0_f32; m * n]; 3 + blas.len()];
    let mut outputs = outputs.iter_mut();
    let mut output = || outputs.next().expect("an output a contender");
    let (lda, ldb) = strides(form, size);
    let c = output();
    let ours = Contender::new("muster", || kernels.matmul(form, m, n, k, &a, lda, &b, ldb, 0.0, c, n));
    let panels = Contender::new("panels", products::panels(kernels, form, size));
    let c = output();
    let gemm = Contender::new("gemm", || gemm(form, size, &a, &b, c));
    let c = output();
    let matrixmultiply = Contender::new("matrixmultiply", || matrixmultiply(form, size, &a, &b, c));
    let Peak { run, flops: peak_run } =
        Backend::ALL.into_iter().rev().find_map(Peak::of).expect("wide runs everywhere");
    let peak = Contender::new("peak", move || _ = std::hint::black_box(run()));
    let mut contenders = vec![peak, ours, panels, gemm, matrixmultiply];
    for blas in blas {
        blas.set_threads(1);
        let c = output();
        contenders.push(Contender::new(blas.name, || blas.matmul(form, size, &a, &b, 0.0, c)));
    }
    let mut timings = compare(rounds, contenders);
    let peak = peak_run / timings.remove(0).seconds;
    Product { form, size, timings, peak, peak_run }
}

/// Values of many signs and sizes.
fn operand(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 251) as f32 / 125.0 - 1.0).collect()
}

/// Distances of the rows of A and B as they are stored.
fn strides(form: Form, [m, n, k]: [usize; 3]) -> (usize, usize) {
    (if form == Form::TN { m } else { k }, if form == Form::NT { k } else { n })
}

/// `(row, column)` strides of `op(a)` and `op(b)`.
fn views(form: Form, size: [usize; 3]) -> ([isize; 2], [isize; 2]) {
    let (lda, ldb) = strides(form, size);
    let view = |ld: usize, transposed| if transposed { [1, ld as isize] } else { [ld as isize, 1] };
    (view(lda, form == Form::TN), view(ldb, form == Form::NT))
}

fn gemm(form: Form, size: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32]) {
    let [m, n, k] = size;
    let ([a_row, a_col], [b_row, b_col]) = views(form, size);
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let serial = gemm::Parallelism::None;
    // SAFETY: the operands are `[m, k]`, `[k, n]` and `[m, n]` with these strides.
    unsafe {
        gemm::gemm(
            m, n, k, c, 1, n as isize, false, a, a_col, a_row, b, b_col, b_row, 0.0, 1.0, false, false,
            false, serial,
        );
    }
}

fn matrixmultiply(form: Form, size: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32]) {
    let [m, n, k] = size;
    let ([a_row, a_col], [b_row, b_col]) = views(form, size);
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    // SAFETY: the operands are `[m, k]`, `[k, n]` and `[m, n]` with these strides.
    unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, a_row, a_col, b, b_row, b_col, 0.0, c, n as isize, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_compute_the_same_product() {
        let size = [7, 9, 11];
        let [m, n, k] = size;
        let blas: Vec<Blas> = [Blas::mkl(), Blas::openblas()].into_iter().flatten().collect();
        for form in [Form::NN, Form::TN, Form::NT] {
            let (a, b) = (operand(m * k), operand(k * n));
            let (lda, ldb) = strides(form, size);
            let mut ours = vec![0.0; m * n];
            Kernels::select().unwrap().matmul(form, m, n, k, &a, lda, &b, ldb, 0.0, &mut ours, n);
            let near = |theirs: Vec<f32>| ours.iter().zip(theirs).all(|(x, y)| (x - y).abs() < 1e-5);
            let mut c = vec![0.0; m * n];
            gemm(form, size, &a, &b, &mut c);
            assert!(near(c.clone()), "gemm {form:?}");
            matrixmultiply(form, size, &a, &b, &mut c);
            assert!(near(c.clone()), "matrixmultiply {form:?}");
            for blas in &blas {
                blas.matmul(form, size, &a, &b, 0.0, &mut c);
                assert!(near(c.clone()), "{} {form:?}", blas.name);
            }
        }
    }
}
