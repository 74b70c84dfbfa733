//! Matrix products on the shapes of training and on squares, ours beside the peers'.
#![allow(unsafe_code)] // The peers take pointers.

use std::time::Duration;

use muster_kernels::{Backend, Form, Kernels, Workspace};

use muster_benches::measure::{Contender, Timing, compare};
use muster_benches::peak::Peak;
use muster_benches::products;

use crate::blas::Blas;

/// By then the threads of every contender sleep: those of MKL look for work for 0.2 s, and would take a core from the next.
pub const THREADS_REST: Duration = Duration::from_millis(250);

/// What was measured of one shape.
pub struct Product {
    /// Which operand is stored transposed.
    pub form: Form,
    /// `[m, n, k]`
    pub size: [usize; 3],
    /// Threads of each contender.
    pub threads: usize,
    /// Muster's product of row-major matrices, its product of panels, then the peers; ratios are to a run at the peak.
    pub timings: Vec<Timing>,
    /// FMA peak of so many cores of this machine in the same rounds, in floating-point operations a second.
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

/// Measures one shape on `threads` threads with everything that is there and can use them.
pub fn measure(
    kernels: &Kernels,
    blas: &[Blas],
    form: Form,
    size: [usize; 3],
    threads: usize,
    rounds: usize,
) -> Product {
    let [m, n, k] = size;
    let (a, b) = (operand(m * k), operand(k * n));
    let mut outputs = vec![vec![0.0_f32; m * n]; 4 + blas.len()];
    let mut outputs = outputs.iter_mut();
    let mut output = || outputs.next().expect("an output a contender");
    let (lda, ldb) = strides(form, size);
    let mut workspace = Workspace::new(threads);
    let (peak, peak_run) = peak(threads);
    let mut contenders = vec![peak];
    let c = output();
    contenders.push(Contender::new("muster", || {
        kernels.matmul(&mut workspace, form, size, &a, lda, &b, ldb, 0.0, c, n);
    }));
    if threads == 1 {
        contenders.push(Contender::new("panels", products::panels(kernels, form, size)));
        let c = output();
        contenders.push(Contender::new("matrixmultiply", || matrixmultiply(form, size, &a, &b, c)));
    }
    let c = output();
    contenders.push(Contender::new("gemm", || gemm(form, size, threads, &a, &b, c)));
    let c = output();
    contenders.push(Contender::new("faer", || faer(form, size, threads, &a, &b, c)));
    for blas in blas {
        blas.set_threads(threads);
        let c = output();
        contenders.push(Contender::new(blas.name, || blas.matmul(form, size, &a, &b, 0.0, c)));
    }
    let pause = if threads == 1 { Duration::ZERO } else { THREADS_REST };
    let mut timings = compare(rounds, pause, contenders);
    let peak = peak_run / timings.remove(0).seconds;
    Product { form, size, threads, timings, peak, peak_run }
}

/// Multiply-adds on all threads at once, and the floating-point operations of a run: long enough for a thread's start to be lost in it.
fn peak(threads: usize) -> (Contender<'static>, f64) {
    let Peak { run, flops } =
        Backend::ALL.into_iter().rev().find_map(Peak::of).expect("wide runs everywhere");
    let repeats = if threads == 1 { 1 } else { 2000 };
    let repeated = move || (0..repeats).for_each(|_| _ = std::hint::black_box(run()));
    let contender = Contender::new("peak", move || {
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| _ = scope.spawn(repeated));
            repeated();
        });
    });
    (contender, flops * (threads * repeats) as f64)
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

fn gemm(form: Form, size: [usize; 3], threads: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let [m, n, k] = size;
    let ([a_row, a_col], [b_row, b_col]) = views(form, size);
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let threads = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    // SAFETY: the operands are `[m, k]`, `[k, n]` and `[m, n]` with these strides.
    unsafe {
        gemm::gemm(
            m, n, k, c, 1, n as isize, false, a, a_col, a_row, b, b_col, b_row, 0.0, 1.0, false, false,
            false, threads,
        );
    }
}

fn faer(form: Form, [m, n, k]: [usize; 3], threads: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    use faer::{Accum, MatMut, MatRef, Par};
    let view = |x, rows, cols, is_transposed| match is_transposed {
        true => MatRef::from_row_major_slice(x, cols, rows).transpose(),
        false => MatRef::from_row_major_slice(x, rows, cols),
    };
    let (a, b) = (view(a, m, k, form == Form::TN), view(b, k, n, form == Form::NT));
    let c = MatMut::from_row_major_slice_mut(c, m, n);
    let threads = if threads == 1 { Par::Seq } else { Par::rayon(threads) };
    faer::linalg::matmul::matmul(c, Accum::Replace, a, b, 1.0, threads);
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
            let (kernels, mut workspace) = (Kernels::select().unwrap(), Workspace::new(1));
            kernels.matmul(&mut workspace, form, size, &a, lda, &b, ldb, 0.0, &mut ours, n);
            let near = |theirs: Vec<f32>| ours.iter().zip(theirs).all(|(x, y)| (x - y).abs() < 1e-5);
            let mut c = vec![0.0; m * n];
            for threads in [1, 2] {
                gemm(form, size, threads, &a, &b, &mut c);
                assert!(near(c.clone()), "gemm {form:?}");
                faer(form, size, threads, &a, &b, &mut c);
                assert!(near(c.clone()), "faer {form:?}");
            }
            matrixmultiply(form, size, &a, &b, &mut c);
            assert!(near(c.clone()), "matrixmultiply {form:?}");
            for blas in &blas {
                blas.matmul(form, size, &a, &b, 0.0, &mut c);
                assert!(near(c.clone()), "{} {form:?}", blas.name);
            }
        }
    }
}
