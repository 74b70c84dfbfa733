//! Matrix products as a model runs them: all operands lie in panels already.

use muster_kernels::{Finish, Form, Kernels, Panels, Start, panel_count, panel_width, panels_len};

/// `[m, n, k]` and form: the three products of a layer of 10 and of 128 units at batch 100, and squares.
pub const SHAPES: [(Form, [usize; 3]); 12] = [
    (Form::NN, [100, 10, 784]),
    (Form::TN, [784, 10, 100]),
    (Form::NT, [100, 784, 10]),
    (Form::NN, [100, 128, 784]),
    (Form::TN, [784, 128, 100]),
    (Form::NT, [100, 784, 128]),
    (Form::NN, [512, 512, 512]),
    (Form::TN, [512, 512, 512]),
    (Form::NT, [512, 512, 512]),
    (Form::NN, [1024, 1024, 1024]),
    (Form::NN, [2048, 2048, 2048]),
    (Form::NN, [4096, 4096, 4096]),
];

/// What is measured on two threads.
pub const SHARED: [(Form, [usize; 3]); 7] = [
    (Form::NN, [100, 128, 784]),
    (Form::TN, [784, 128, 100]),
    (Form::NT, [100, 784, 128]),
    (Form::NN, [256, 256, 256]),
    (Form::NN, [512, 512, 512]),
    (Form::NN, [1024, 1024, 1024]),
    (Form::NN, [2048, 2048, 2048]),
];

/// Computes the product of `[m, n, k]` once each time it is called.
pub fn panels<'a>(kernels: &'a Kernels, form: Form, [m, n, k]: [usize; 3]) -> Box<dyn FnMut() + 'a> {
    let width = panel_width(n);
    let mut c = vec![0.0; panels_len(m, n)];
    let b = vec![0.5; panels_len(k, n)];
    match form {
        Form::NN => {
            let a = vec![0.5; panels_len(m, k)];
            Box::new(move || {
                let a = Panels::new(&a, m, k, panel_width(k));
                for (b, c) in b.chunks_exact(k * width).zip(c.chunks_exact_mut(m * width)) {
                    kernels.matmul_panel(a, b, width, Start::Zero, Finish::None, c);
                }
            })
        }
        Form::TN => {
            let a = vec![0.5; panels_len(k, m)];
            Box::new(move || {
                let a = Panels::new(&a, k, m, panel_width(m));
                for (b, c) in b.chunks_exact(k * width).zip(c.chunks_exact_mut(m * width)) {
                    kernels.matmul_tn_panel(a, &[k], b, width, c);
                }
            })
        }
        // The transposed blocks of the weights are made anew in every run, as in every step.
        Form::NT => {
            let (a, w) = (vec![0.5; panels_len(m, k)], vec![0.5; panels_len(n, k)]);
            let mut block = vec![0.0; k * width];
            Box::new(move || {
                let a = Panels::new(&a, m, k, panel_width(k));
                for (q, c) in (0..panel_count(n)).zip(c.chunks_exact_mut(m * width)) {
                    kernels.transpose_block(&w, n, k, panel_width(k), q, &mut block, width);
                    kernels.matmul_panel(a, &block, width, Start::Zero, Finish::None, c);
                }
            })
        }
    }
}
