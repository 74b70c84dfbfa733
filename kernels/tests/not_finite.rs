//! NaN and infinities go through dense products as IEEE 754 has them: an output is finite only if all that it is made of is.

use muster_kernels::{Backend, Finish, Form, Kernels, Panels, Start, Workspace, panel_width, panels_len};

const NOT_FINITE: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

fn backends() -> impl Iterator<Item = &'static Kernels> {
    Backend::ALL.into_iter().filter_map(Kernels::of)
}

/// What is NaN in both, or the same in both: sums of ones, so that every order of additions is exact.
fn same(x: f32, y: f32) -> bool {
    x == y || (x.is_nan() && y.is_nan())
}

/// `C = beta·C + A·B` by definition, where all operands are ones but for `a[i][p]` or `b[p][j]`.
#[test]
fn one_of_them_reaches_its_row_or_column_in_every_form_and_nothing_else() {
    for (m, n, k) in [(1, 1, 1), (5, 10, 33), (17, 33, 70), (70, 67, 16), (3, 40, 400), (9, 300, 70)] {
        for (kernels, value, form) in backends()
            .flat_map(|kernels| NOT_FINITE.map(|value| (kernels, value)))
            .flat_map(|(kernels, value)| [Form::NN, Form::TN, Form::NT].map(|form| (kernels, value, form)))
        {
            let (i, j, p) = (m / 2, n / 3, k - 1);
            let workspace = &mut Workspace::new(1);
            let lda = if form == Form::TN { m } else { k } + 1;
            let ldb = if form == Form::NT { k } else { n } + 3;
            let a_at = if form == Form::TN { p * lda + i } else { i * lda + p };
            let b_at = if form == Form::NT { j * ldb + p } else { p * ldb + j };
            for of_a in [true, false] {
                let (mut a, mut b) = (vec![1.0; m.max(k) * lda], vec![1.0; n.max(k) * ldb]);
                if of_a {
                    a[a_at] = value
                } else {
                    b[b_at] = value
                }
                for (beta, before) in [(0.0, f32::NAN), (0.0, f32::INFINITY), (1.0, 2.0)] {
                    let mut c = vec![before; m * n];
                    kernels.matmul(workspace, form, [m, n, k], &a, lda, &b, ldb, beta, &mut c, n);
                    for (at, &x) in c.iter().enumerate() {
                        let reached = if of_a { at / n == i } else { at % n == j };
                        let finite = k as f32 + if beta == 0.0 { 0.0 } else { before };
                        let expected = if reached { value } else { finite };
                        let backend = kernels.backend();
                        assert!(
                            same(x, expected),
                            "{backend} {form:?} [{m}, {n}, {k}] {at}: {x}, not {expected}"
                        );
                    }
                }
            }
        }
    }
}

/// Zero times infinity is NaN: nothing is left out because of a zero.
#[test]
fn a_zero_meets_an_infinity() {
    for kernels in backends() {
        for (m, n, k) in [(1, 1, 1), (9, 10, 20), (33, 70, 17)] {
            let (a, mut b, mut c) = (vec![0.0; m * k], vec![1.0; k * n], vec![0.0; m * n]);
            b[n / 2] = f32::INFINITY;
            kernels.matmul(&mut Workspace::new(1), Form::NN, [m, n, k], &a, k, &b, n, 0.0, &mut c, n);
            let nan: Vec<bool> = c.iter().map(|x| x.is_nan()).collect();
            let expected: Vec<bool> = (0..m * n).map(|at| at % n == n / 2).collect();
            assert_eq!(nan, expected, "{} [{m}, {n}, {k}]", kernels.backend());
        }
    }
}

/// What C held before comes in where a product goes on from it, and stays out where it begins.
#[test]
fn what_c_held_counts_only_where_it_is_asked_for() {
    for kernels in backends() {
        for (m, k, n) in [(1, 1, 10), (13, 40, 32), (67, 784, 10)] {
            let width = panel_width(n);
            let (a, b) = (vec![1.0; panels_len(m, k)], vec![1.0; k * width]);
            let a = Panels::new(&a, m, k, panel_width(k));
            for before in NOT_FINITE {
                let (mut fresh, mut on) = (vec![before; m * width], vec![before; m * width]);
                kernels.matmul_panel(a, &b, width, Start::Zero, Finish::None, &mut fresh);
                kernels.matmul_panel(a, &b, width, Start::Continue, Finish::None, &mut on);
                assert!(fresh.iter().all(|&x| x == k as f32), "{} begins anew", kernels.backend());
                assert!(on.iter().all(|&x| same(x, before)), "{} goes on", kernels.backend());
                let mut gradient = vec![before; k * width];
                let d = vec![1.0; m * width];
                kernels.matmul_tn_panel(a, &[m / 2, m], &d, width, &mut gradient);
                assert!(gradient.iter().all(|&x| x == m as f32), "{} begins anew", kernels.backend());
            }
            let mut c = vec![2.0; m * n];
            kernels.matmul(&mut Workspace::new(1), Form::NN, [m, n, 0], &[], 0, &[], n, f32::NAN, &mut c, n);
            assert!(c.iter().all(|x| x.is_nan()), "beta is NaN");
        }
    }
}
