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
pub(crate) fn add_assign<S: Simd>(s: S, dst: &mut [f32], src: &[f32]) {
    each(s, src, [dst], |src, [dst]| [s.add(dst, src)]);
}

/// `w - lr * g`
#[inline(always)]
fn descend<S: Simd>(s: S, lr: f32, g: S::V, w: S::V) -> S::V {
    s.mul_add(s.splat(-lr), g, w)
}

/// `states = f(g, states)` element by element; the last few go through a padded vector.
#[inline(always)]
fn each<S: Simd, const N: usize>(
    s: S,
    g: &[f32],
    mut states: [&mut [f32]; N],
    f: impl Fn(S::V, [S::V; N]) -> [S::V; N],
) {
    let (vectors, rest) = g.as_chunks::<LANES>();
    for (i, g) in vectors.iter().enumerate() {
        let mut x = [s.splat(0.0); N];
        for (x, state) in x.iter_mut().zip(&states) {
            *x = s.load(&state.as_chunks().0[i]);
        }
        let x = f(s.load(g), x);
        for (&x, state) in x.iter().zip(&mut states) {
            state.as_chunks_mut().0[i] = s.to_array(x);
        }
    }
    if rest.is_empty() {
        return;
    }
    let from = vectors.len() * LANES;
    let mut x = [s.splat(0.0); N];
    for (x, state) in x.iter_mut().zip(&states) {
        *x = s.load_part(&state[from..], 0.0);
    }
    let x = f(s.load_part(rest, 0.0), x);
    for (&x, state) in x.iter().zip(&mut states) {
        state[from..].copy_from_slice(&s.to_array(x)[..rest.len()]);
    }
}
