//! Optimizer updates over slices of equal length, each one pass over memory.

use crate::simd::{LANES, Simd};
use crate::table::Kernels;

impl Kernels {
    /// `w -= lr * g`
    pub fn sgd(&self, lr: f32, g: &[f32], w: &mut [f32]) {
        assert_eq!(g.len(), w.len(), "lengths of the gradient and the weights");
        self.table.sgd(lr, g, w);
    }

    /// `v = mu * v + g`, `w -= lr * v` (Polyak 1964)
    pub fn momentum(&self, lr: f32, mu: f32, g: &[f32], v: &mut [f32], w: &mut [f32]) {
        assert_eq!(g.len(), w.len(), "lengths of the gradient and the weights");
        assert_eq!(v.len(), w.len(), "lengths of the velocity and the weights");
        self.table.momentum(lr, mu, g, v, w);
    }

    /// `acc += g²`, `w -= lr * g / √acc` (Duchi, Hazan, Singer 2011)
    ///
    /// An accumulator below the normal range counts as its lower end, so that zero over zero leaves `w` as it is.
    pub fn adagrad(&self, lr: f32, g: &[f32], acc: &mut [f32], w: &mut [f32]) {
        assert_eq!(g.len(), w.len(), "lengths of the gradient and the weights");
        assert_eq!(acc.len(), w.len(), "lengths of the accumulator and the weights");
        self.table.adagrad(lr, g, acc, w);
    }

    /// `m += (1 - beta1) (g - m)`, `v += (1 - beta2) (g² - v)`, `w -= lr_t * m / (√v + eps)` (Kingma, Ba 2015)
    ///
    /// `lr_t` is the step's rate with the bias correction `lr * √(1 - beta2^t) / (1 - beta1^t)`.
    #[expect(clippy::too_many_arguments, reason = "four coefficients and four vectors, as in the paper")]
    pub fn adam(
        &self,
        lr_t: f32,
        beta1: f32,
        beta2: f32,
        eps: f32,
        g: &[f32],
        m: &mut [f32],
        v: &mut [f32],
        w: &mut [f32],
    ) {
        assert_eq!(g.len(), w.len(), "lengths of the gradient and the weights");
        assert_eq!(m.len(), w.len(), "lengths of the first moment and the weights");
        assert_eq!(v.len(), w.len(), "lengths of the second moment and the weights");
        self.table.adam(lr_t, beta1, beta2, eps, g, m, v, w);
    }

    /// `dst = a + b`
    pub fn add(&self, dst: &mut [f32], a: &[f32], b: &[f32]) {
        assert_eq!((a.len(), b.len()), (dst.len(), dst.len()), "lengths of the summands and of their sum");
        self.table.add(dst, a, b);
    }

    /// `dst += src`
    pub fn add_assign(&self, dst: &mut [f32], src: &[f32]) {
        assert_eq!(dst.len(), src.len(), "lengths of the two sides");
        self.table.add_assign(dst, src);
    }
}

#[inline(always)]
pub(crate) fn sgd<S: Simd>(s: S, lr: f32, g: &[f32], w: &mut [f32]) {
    each(s, g, [w], |g, [w]| [descend(s, lr, g, w)]);
}

#[inline(always)]
pub(crate) fn momentum<S: Simd>(s: S, lr: f32, mu: f32, g: &[f32], v: &mut [f32], w: &mut [f32]) {
    each(s, g, [v, w], |g, [v, w]| {
        let v = s.mul_add(s.splat(mu), v, g);
        [v, descend(s, lr, v, w)]
    });
}

#[inline(always)]
pub(crate) fn adagrad<S: Simd>(s: S, lr: f32, g: &[f32], acc: &mut [f32], w: &mut [f32]) {
    each(s, g, [acc, w], |g, [acc, w]| {
        let acc = s.mul_add(g, g, acc);
        let root = s.sqrt(s.max(s.splat(f32::MIN_POSITIVE), acc));
        [acc, s.sub(w, s.div(s.mul(s.splat(lr), g), root))]
    });
}

#[expect(clippy::too_many_arguments, reason = "four coefficients and four vectors, as in the paper")]
#[inline(always)]
pub(crate) fn adam<S: Simd>(
    s: S,
    lr_t: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    w: &mut [f32],
) {
    each(s, g, [m, v, w], |g, [m, v, w]| {
        let m = s.mul_add(s.splat(1.0 - beta1), s.sub(g, m), m);
        let v = s.mul_add(s.splat(1.0 - beta2), s.sub(s.mul(g, g), v), v);
        let step = s.div(s.mul(s.splat(lr_t), m), s.add(s.sqrt(v), s.splat(eps)));
        [m, v, s.sub(w, step)]
    });
}

#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, dst: &mut [f32], a: &[f32], b: &[f32]) {
    let (dst, dst_rest) = dst.as_chunks_mut::<LANES>();
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    for (dst, (a, b)) in dst.iter_mut().zip(a.iter().zip(b)) {
        *dst = s.to_array(s.add(s.load(a), s.load(b)));
    }
    for (dst, (a, b)) in dst_rest.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *dst = a + b;
    }
}

#[inline(always)]
pub(crate) fn add_assign<S: Simd>(s: S, dst: &mut [f32], src: &[f32]) {
    each(s, src, [dst], |src, [dst]| [s.add(dst, src)]);
}

/// `w - lr * g`
#[inline(always)]
fn descend<S: Simd>(s: S, lr: f32, g: S::V, w: S::V) -> S::V {
    s.mul_add(s.splat(-lr), g, w)
}

/// `states = f(g, states)` element by element; the last few go through a padded vector. `f` is called at one place only: a rule as long as
/// Adam's would otherwise become a function of its own, compiled without the instructions of the back end.
#[inline(always)]
fn each<S: Simd, const N: usize>(
    s: S,
    g: &[f32],
    mut states: [&mut [f32]; N],
    f: impl Fn(S::V, [S::V; N]) -> [S::V; N],
) {
    let whole = g.len() / LANES;
    for i in 0..g.len().div_ceil(LANES) {
        let load = |part: &[f32]| {
            if i < whole { s.load(&part.as_chunks().0[i]) } else { s.load_part(&part[whole * LANES..], 0.0) }
        };
        let mut x = [s.splat(0.0); N];
        for (x, state) in x.iter_mut().zip(&states) {
            *x = load(state);
        }
        let x = f(load(g), x);
        for (&x, state) in x.iter().zip(&mut states) {
            if i < whole {
                state.as_chunks_mut().0[i] = s.to_array(x);
            } else {
                let rest = &mut state[whole * LANES..];
                rest.copy_from_slice(&s.to_array(x)[..rest.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, floats, on_each};

    /// Runs `update` on `(g, [x, y, w])` and compares all three with `expected` of each element.
    fn check(
        len: usize,
        seed: u64,
        update: impl Fn(&Kernels, &[f32], [&mut [f32]; 3]),
        expected: impl Fn(f64, [f64; 3]) -> [f64; 3],
    ) {
        let g = floats(len, seed);
        let squares = |seed| floats(len, seed).into_iter().map(|x| x * x).collect::<Vec<_>>();
        let (x, y, w) = (squares(seed ^ 1), squares(seed ^ 2), floats(len, seed ^ 3));
        let results = on_each(|kernels| {
            let (mut x, mut y, mut w) = (x.clone(), y.clone(), w.clone());
            update(kernels, &g, [&mut x, &mut y, &mut w]);
            [x, y, w].concat()
        });
        let mut want = vec![0.0; 3 * len];
        for i in 0..len {
            let state = [x[i], y[i], w[i]].map(f64::from);
            for (part, value) in expected(f64::from(g[i]), state).into_iter().enumerate() {
                want[part * len + i] = value;
            }
        }
        for (backend, result) in results {
            assert_close(backend, &result, &want, 1e-5);
        }
    }

    proptest! {
        #[test]
        fn sgd_descends(len in 0_usize..70, seed: u64) {
            check(len, seed, |kernels, g, [_, _, w]| kernels.sgd(0.1, g, w), |g, [x, y, w]| [x, y, w - 0.1 * g]);
        }

        #[test]
        fn momentum_keeps_a_velocity(len in 0_usize..70, seed: u64) {
            check(len, seed, |kernels, g, [v, _, w]| kernels.momentum(0.1, 0.9, g, v, w), |g, [v, y, w]| {
                let v = 0.9 * v + g;
                [v, y, w - 0.1 * v]
            });
        }

        #[test]
        fn adagrad_divides_by_the_root_of_the_sum_of_squares(len in 0_usize..70, seed: u64) {
            check(len, seed, |kernels, g, [acc, _, w]| kernels.adagrad(0.1, g, acc, w), |g, [acc, y, w]| {
                let acc = acc + g * g;
                [acc, y, if g == 0.0 { w } else { w - 0.1 * g / acc.sqrt() }]
            });
        }

        #[test]
        fn adam_divides_the_first_moment_by_the_root_of_the_second(len in 0_usize..70, seed: u64) {
            let update = |kernels: &Kernels, g: &[f32], [m, v, w]: [&mut [f32]; 3]| {
                kernels.adam(0.1, 0.9, 0.999, 1e-3, g, m, v, w);
            };
            check(len, seed, update, |g, [m, v, w]| {
                // The coefficients are rounded to floats before they are taken from one.
                let (rate1, rate2) = (f64::from(1.0 - 0.9_f32), f64::from(1.0 - 0.999_f32));
                let (m, v) = (m + rate1 * (g - m), v + rate2 * (g * g - v));
                [m, v, w - 0.1 * m / (v.sqrt() + 1e-3)]
            });
        }

        #[test]
        fn gradients_are_added(len in 0_usize..70, seed: u64) {
            check(len, seed, |kernels, g, [_, _, w]| kernels.add_assign(w, g), |g, [x, y, w]| [x, y, w + g]);
            check(len, seed, |kernels, g, [x, _, w]| kernels.add(w, g, x), |g, [x, y, _]| [x, y, g + x]);
        }
    }

    #[test]
    fn adagrad_leaves_padding_of_zeros_alone() {
        on_each(|kernels| {
            let (mut acc, mut w) = (vec![0.0; 20], vec![0.0; 20]);
            kernels.adagrad(0.1, &[0.0; 20], &mut acc, &mut w);
            assert_eq!(w, [0.0; 20]);
            w
        });
    }
}
