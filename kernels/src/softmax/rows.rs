//! More than 32 classes: columns lie across lanes, some rows at a time.

use super::Objective;
use crate::layout::panel_width;
use crate::math;
use crate::simd::{LANES, Simd};

/// Rows that are gone over together: in a panel they are neighbours, and the next panel may be far away. More of them do not fit the registers.
const TOGETHER: usize = 4;

/// Rows `first..first + R` of the panels `[m, classes]`.
#[derive(Clone, Copy)]
struct Rows<const R: usize> {
    m: usize,
    first: usize,
    classes: usize,
}

/// What a row's softmax needs, one a row.
type Each<const R: usize, T> = [T; R];

impl<const R: usize> Rows<R> {
    /// Where column `col` of the first of them lies; that of the next is a panel's width further.
    #[inline(always)]
    fn at(self, col: usize) -> usize {
        let width = panel_width(self.classes);
        (col / width * self.m + self.first) * width + col % width
    }

    /// The first of 16 columns at a time, and how many of them there are.
    #[inline(always)]
    fn vectors(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.classes).step_by(LANES).map(move |col| (self.at(col), LANES.min(self.classes - col)))
    }

    /// The largest logit and its first index.
    #[inline(always)]
    fn maximum<S: Simd>(self, s: S, logits: &[f32]) -> Each<R, (f32, u32)> {
        let width = panel_width(self.classes);
        let (mut max, mut arg) = ([s.splat(f32::NEG_INFINITY); R], [s.splat(0.0); R]);
        let mut j = s.splat(0.0);
        for (at, cols) in self.vectors() {
            for r in 0..R {
                let x = load(s, &logits[at + r * width..][..cols]);
                arg[r] = s.if_greater(x, max[r], j, arg[r]);
                max[r] = s.max(x, max[r]);
            }
            j = s.add(j, s.splat(1.0));
        }
        std::array::from_fn(|r| {
            let lanes = s.to_array(max[r]).into_iter().zip(s.to_array(arg[r])).enumerate();
            let lanes = lanes.map(|(lane, (max, j))| (max, j as u32 * LANES as u32 + lane as u32));
            lanes.fold((f32::NEG_INFINITY, u32::MAX), |best, lane| {
                if lane.0 > best.0 || (lane.0 == best.0 && lane.1 < best.1) { lane } else { best }
            })
        })
    }

    /// Each row becomes `exp(z - max)`; returns the sums.
    #[inline(always)]
    fn exponentials<S: Simd>(self, s: S, logits: &mut [f32], max: Each<R, (f32, u32)>) -> Each<R, f32> {
        let width = panel_width(self.classes);
        let mut sum = [s.splat(0.0); R];
        for (at, cols) in self.vectors() {
            for r in 0..R {
                let to = &mut logits[at + r * width..][..cols];
                let x = math::exp(s, s.sub(load(s, to), s.splat(max[r].0)));
                sum[r] = s.add(sum[r], x);
                store(s, x, to);
            }
        }
        std::array::from_fn(|r| {
            let mut sums = s.to_array(sum[r]);
            for half in [8, 4, 2, 1] {
                for lane in 0..half {
                    sums[lane] += sums[lane + half];
                }
            }
            sums[0]
        })
    }

    /// Each row becomes `x * inverse * scale`.
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, logits: &mut [f32], inverse: Each<R, S::V>, scale: Each<R, S::V>) {
        let width = panel_width(self.classes);
        for (at, cols) in self.vectors() {
            for r in 0..R {
                let to = &mut logits[at + r * width..][..cols];
                store(s, s.mul(s.mul(load(s, to), inverse[r]), scale[r]), to);
            }
        }
    }
}

/// Does something with all rows, [`TOGETHER`] at a time, and the rest one by one. A macro, for a closure would not be compiled for the back end.
macro_rules! for_rows {
    ($m:ident, $classes:ident, |$rows:ident| $work:expr) => {{
        let mut first = 0;
        while first + TOGETHER <= $m {
            let $rows = Rows::<TOGETHER> { m: $m, first, classes: $classes };
            $work;
            first += TOGETHER;
        }
        for first in first..$m {
            let $rows = Rows::<1> { m: $m, first, classes: $classes };
            $work;
        }
    }};
}

/// The vector at `x`; lanes past the last class count as the logit of an impossible one.
#[inline(always)]
fn load<S: Simd>(s: S, x: &[f32]) -> S::V {
    match x.first_chunk() {
        Some(x) => s.load(x),
        None => s.load_part(x, f32::NEG_INFINITY),
    }
}

#[inline(always)]
fn store<S: Simd>(s: S, x: S::V, to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(to) => *to = s.to_array(x),
        None => s.store_part(x, to),
    }
}

#[expect(clippy::too_many_arguments, reason = "one pass has all the inputs and outputs of the loss")]
#[inline(always)]
pub(super) fn softmax_cross_entropy<S: Simd>(
    s: S,
    logits: &mut [f32],
    m: usize,
    classes: usize,
    labels: &[u32],
    objective: &Objective<S>,
    loss: &mut [f32],
    predicted: &mut [u32],
) {
    for_rows!(m, classes, |rows| cross_entropy(s, logits, rows, labels, objective, loss, predicted));
}

/// Softmax, loss and gradient of some rows.
#[inline(always)]
fn cross_entropy<S: Simd, const R: usize>(
    s: S,
    logits: &mut [f32],
    rows: Rows<R>,
    labels: &[u32],
    objective: &Objective<S>,
    loss: &mut [f32],
    predicted: &mut [u32],
) {
    let width = panel_width(rows.classes);
    let mut label = [0; R];
    let mut label_logit = [0.0; R];
    for r in 0..R {
        label[r] = rows.at(labels[rows.first + r] as usize) + r * width;
        label_logit[r] = logits[label[r]];
    }
    let best = rows.maximum(s, logits);
    let sum = rows.exponentials(s, logits, best);
    let (mut inverse, mut scale, mut label_gradient) = ([s.splat(0.0); R], [s.splat(0.0); R], [0.0; R]);
    for r in 0..R {
        let (max, arg) = best[r];
        let of = objective.loss(s, s.splat(label_logit[r]), s.splat(max), s.splat(sum[r]));
        inverse[r] = s.splat(1.0 / sum[r]);
        scale[r] = of.scale;
        label_gradient[r] = s.to_array(of.label_gradient)[0];
        loss[rows.first + r] = s.to_array(of.loss)[0];
        predicted[rows.first + r] = arg;
    }
    rows.scale(s, logits, inverse, scale);
    for r in 0..R {
        logits[label[r]] = label_gradient[r];
    }
}

#[inline(always)]
pub(super) fn softmax<S: Simd>(s: S, logits: &mut [f32], m: usize, classes: usize) {
    for_rows!(m, classes, |rows| probabilities(s, logits, rows));
}

/// Softmax of some rows.
#[inline(always)]
fn probabilities<S: Simd, const R: usize>(s: S, logits: &mut [f32], rows: Rows<R>) {
    let best = rows.maximum(s, logits);
    let sum = rows.exponentials(s, logits, best);
    rows.scale(s, logits, std::array::from_fn(|r| s.splat(1.0 / sum[r])), [s.splat(1.0); R]);
}

#[inline(always)]
pub(super) fn argmax<S: Simd>(s: S, logits: &[f32], m: usize, classes: usize, predicted: &mut [u32]) {
    for_rows!(m, classes, |rows| largest(s, logits, rows, predicted));
}

/// The class of some rows.
#[inline(always)]
fn largest<S: Simd, const R: usize>(s: S, logits: &[f32], rows: Rows<R>, predicted: &mut [u32]) {
    for (predicted, (_, arg)) in predicted[rows.first..].iter_mut().zip(rows.maximum(s, logits)) {
        *predicted = arg;
    }
}
