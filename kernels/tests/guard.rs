//! No kernel touches what lies before or behind its operands: each of them ends, or begins, at a page that may not be touched.
//! A kernel that does not keep to its slices ends this test with a signal.
#![allow(unsafe_code)] // One test reads what it must not be able to.

use muster_kernels::{Backend, Finish, Form, Kernels, Nonzeros, Panels, Start, Workspace, partial_sums};
use muster_kernels::{panel_count, panel_width, panels_len, prefetch};
use std::process::Command;

mod fences;
use fences::{Guard, Operands};

/// Runs `kernel` on every back end with operands beside guards, before them and behind; returns the number of back ends.
fn on_each(kernel: impl Fn(&Kernels, &Operands)) -> usize {
    let backends: Vec<&Kernels> = Backend::ALL.into_iter().filter_map(Kernels::of).collect();
    for kernels in &backends {
        for guard in [Guard::Before, Guard::Behind] {
            kernel(kernels, &Operands::new(guard));
        }
    }
    backends.len()
}

/// `len` bytes beside a guard, most of them zero.
fn bytes(at: &Operands, len: usize) -> &mut [u8] {
    at.put(&(0..len).map(|i| if i % 5 == 0 { (i * 37 % 256) as u8 } else { 0 }).collect::<Vec<_>>())
}

/// Numbers of rows and columns: ends of panels and tiles, and what lies beside them.
const SIZES: [usize; 12] = [0, 1, 2, 7, 13, 15, 16, 17, 31, 32, 33, 67];

/// Every pair of [`SIZES`].
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    SIZES.into_iter().flat_map(|m| SIZES.into_iter().map(move |n| (m, n)))
}

#[test]
fn products_of_panels() {
    on_each(|kernels, at| {
        for ((m, k), n) in pairs().flat_map(|pair| [(pair, 10), (pair, 16), (pair, 32)]) {
            let width = panel_width(n);
            let a = Panels::new(at.floats(panels_len(m, k)), m, k, panel_width(k));
            let (b, bias, mask) = (at.floats(k * width), at.floats(width), at.floats(m * width));
            let finishes = [Finish::None, Finish::Bias(bias), Finish::BiasRelu(bias), Finish::Mask(mask)];
            for (start, finish) in [Start::Zero, Start::Continue].into_iter().zip(finishes) {
                kernels.matmul_panel(a, b, width, start, finish, at.floats(m * width));
            }
            kernels.matmul_panel(a, b, width, Start::Zero, finishes[2], at.floats(m * width));
            kernels.matmul_panel(a, b, width, Start::Zero, finishes[3], at.floats(m * width));
            let leaves = at.put(&[m / 3, m / 2, m]);
            kernels.matmul_tn_panel(a, leaves, at.floats(m * width), width, at.floats(k * width));
            kernels.bias_gradient(at.floats(m * width), leaves, width, at.floats(width));
        }
    });
}

/// The list of what is not zero is the crate's own memory; its operands are not.
#[test]
fn products_with_what_is_not_zero() {
    on_each(|kernels, at| {
        for (m, k) in pairs().chain([(5, 64), (3, 127), (9, 784)]).filter(|&(m, k)| m > 0 && k > 0) {
            let (mut matrix, mut turned) = (Nonzeros::with_room(m, k, 0.5), Nonzeros::with_room(k, m, 0.5));
            (0..m).for_each(|_| kernels.push_bytes(bytes(at, k), &mut matrix));
            let leaves = at.put(&[m / 3, m]);
            turned.transpose(&matrix, leaves);
            for n in [10, 32, 40] {
                let (width, panels) = (panel_width(n), panel_count(n));
                let b = at.floats(panels * (k + 1) * width);
                let finish = Finish::BiasRelu(&b[k * width..]);
                kernels.matmul_sparse(&matrix, 0..k, b, k + 1, width, finish, at.floats(panels * m * width));
                let (d, c) = (at.floats(panels * m * width), at.floats(panels * (k + 1) * width));
                kernels.matmul_tn_by_columns(&turned, 0..k, 0..2, d, width, c, k + 1);
                let (d, partial) = (at.floats(m * width), at.floats(partial_sums(2) * k * width));
                kernels.matmul_tn_by_rows(&matrix, 0..k, (0, leaves), d, width, partial);
            }
        }
    });
}

/// Rows end where their last number ends, however far apart they are.
#[test]
fn products_with_strides() {
    let strided = |rows: usize, cols: usize, ld: usize| {
        if rows * cols == 0 { 0 } else { (rows - 1) * ld + cols }
    };
    on_each(|kernels, at| {
        let mut workspace = Workspace::new(1);
        for form in [Form::NN, Form::TN, Form::NT] {
            for ((m, n), k) in pairs().flat_map(|pair| [(pair, 0), (pair, 1), (pair, 33)]).chain([
                ((3, 5), 400),
                // Several blocks of the chain, read where they lie.
                ((3, 1), 1030),
                ((200, 257), 33),
                ((8, 600), 30),
                ((35, 300), 70),
                // Rows of A that are copied, because they are 1024 floats apart, or 512.
                ((20, 40), 1023),
                ((511, 32), 5),
            ]) {
                let (a_rows, a_cols) = if form == Form::TN { (k, m) } else { (m, k) };
                let (b_rows, b_cols) = if form == Form::NT { (n, k) } else { (k, n) };
                let (lda, ldb, ldc) = (a_cols + 1, b_cols + 3, n + 5);
                let (a, b) = (strided(a_rows, a_cols, lda), strided(b_rows, b_cols, ldb));
                for beta in [0.0, -0.5] {
                    let c = at.floats(strided(m, n, ldc));
                    let (a, b) = (at.floats(a), at.floats(b));
                    kernels.matmul(&mut workspace, form, [m, n, k], a, lda, b, ldb, beta, c, ldc);
                }
            }
        }
    });
}

#[test]
fn layouts() {
    on_each(|kernels, at| {
        for (m, n) in pairs().filter(|&(m, _)| m > 0) {
            let x = at.floats(panels_len(m, n));
            for i in [0, m - 1] {
                kernels.pixels_to_panels(bytes(at, n), 0.5, x, m, i);
                kernels.row_to_panels(at.floats(n), x, m, i);
                kernels.panels_to_row(x, m, n, i, at.floats(n));
            }
            let width = panel_width(m);
            for q in 0..panel_count(m) {
                kernels.transpose_block(x, m, n, panel_width(n), q, at.floats(n * width), width);
            }
        }
        for len in SIZES {
            prefetch(bytes(at, len));
        }
    });
}

#[test]
fn losses() {
    on_each(|kernels, at| {
        for (m, classes) in pairs().filter(|&(_, classes)| classes > 0) {
            let (logits, predicted) = (at.floats(panels_len(m, classes)), at.put(&vec![0; m]));
            let labels = at.put(&(0..m).map(|i| (i % classes) as u32).collect::<Vec<_>>());
            kernels.argmax(logits, m, classes, predicted);
            kernels.softmax(logits, m, classes);
            kernels.softmax_cross_entropy(logits, m, classes, labels, 0.1, 1e-10, at.floats(m), predicted);
        }
    });
}

#[test]
fn sums_and_updates() {
    let ran = on_each(|kernels, at| {
        for len in 0..70 {
            let (g, v, w) = (at.floats(len), at.floats(len), at.floats(len));
            kernels.sgd(0.1, g, w);
            kernels.momentum(0.1, 0.9, g, v, w);
            v.iter_mut().for_each(|v| *v = v.abs());
            kernels.adagrad(0.1, g, v, w);
            kernels.adam(0.1, 0.9, 0.999, 1e-8, g, at.floats(len), v, w);
            kernels.add_assign(w, g);
            kernels.add(w, g, v);
            assert!(kernels.sum_of_squares(w) >= 0.0);
        }
        for vectors in 0..5 {
            kernels.sum_slices(at.floats(3 * vectors * 16), at.floats(vectors * 16));
        }
    });
    assert!(ran > 0);
}

/// Whoever reads a byte too many, before or behind, is killed: in a process of its own, which this test starts with a variable.
#[test]
fn a_guard_guards() {
    const WHICH: &str = "MUSTER_TEST_GUARD";
    let read = |guard| {
        let at = Operands::new(guard);
        let x = at.floats(5).as_ptr();
        let beside = if guard == Guard::Before { x.wrapping_sub(1) } else { x.wrapping_add(5) };
        // SAFETY: none; this is what must not be possible, and the process ends here.
        let value = unsafe { beside.read_volatile() };
        panic!("{guard:?} is no guard: there is {value}");
    };
    match std::env::var(WHICH).as_deref() {
        Ok("before") => read(Guard::Before),
        Ok(_) => read(Guard::Behind),
        Err(_) => {}
    }
    for guard in ["before", "behind"] {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let ended = again.args(["--exact", "a_guard_guards"]).env(WHICH, guard).output().unwrap();
        // A signal is no exit code; a panic is one.
        assert_eq!(ended.status.code(), None, "{guard}: {ended:?}");
    }
}
