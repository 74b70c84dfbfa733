//! More than 32 classes: one row at a time, its columns across lanes.

use super::Objective;
use crate::layout::panel_width;
use crate::math;
use crate::simd::{LANES, Simd};

/// Where row `i` of the panels `[m, classes]` lies.
#[derive(Clone, Copy)]
struct Row {
    m: usize,
    i: usize,
    classes: usize,
}

impl Row {
    /// The places of the row's vectors, of 16 columns but for the last.
    #[inline(always)]
    fn vectors(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        (0..self.classes).step_by(LANES).map(move |col| {
            let from = self.at(col);
            from..from + LANES.min(self.classes - col)
        })
    }

    #[inline(always)]
    fn at(self, col: usize) -> usize {
        let width = panel_width(self.classes);
        (col / width * self.m + self.i) * width + col % width
    }

    /// The largest logit and its first index.
    #[inline(always)]
    fn maximum<S: Simd>(self, s: S, logits: &[f32]) -> (f32, u32) {
        let (mut max, mut arg) = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
        for (j, place) in self.vectors().enumerate() {
            let x = load(s, &logits[place]);
            arg = s.if_greater(x, max, s.splat(j as f32), arg);
            max = s.max(x, max);
        }
        let lanes = s.to_array(max).into_iter().zip(s.to_array(arg)).enumerate();
        let lanes = lanes.map(|(lane, (max, j))| (max, j as u32 * LANES as u32 + lane as u32));
        lanes.fold((f32::NEG_INFINITY, u32::MAX), |best, lane| {
            if lane.0 > best.0 || (lane.0 == best.0 && lane.1 < best.1) { lane } else { best }
        })
    }

    /// The row becomes `exp(z - max)`; returns the sum.
    #[inline(always)]
    fn exponentials<S: Simd>(self, s: S, logits: &mut [f32], max: f32) -> f32 {
        let max = s.splat(max);
        let mut sum = s.splat(0.0);
        for place in self.vectors() {
            let x = math::exp(s, s.sub(load(s, &logits[place.clone()]), max));
            sum = s.add(sum, x);
            store(s, x, &mut logits[place]);
        }
        let mut sums = s.to_array(sum);
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
        }
        sums[0]
    }

    /// The row becomes `x * inverse * scale`.
    #[inline(always)]
    fn scale<S: Simd>(self, s: S, logits: &mut [f32], inverse: S::V, scale: S::V) {
        for place in self.vectors() {
            let x = s.mul(s.mul(load(s, &logits[place.clone()]), inverse), scale);
            store(s, x, &mut logits[place]);
        }
    }
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
        None => to.copy_from_slice(&s.to_array(x)[..to.len()]),
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
    for i in 0..m {
        let row = Row { m, i, classes };
        let label = row.at(labels[i] as usize);
        let label_logit = logits[label];
        let (max, arg) = row.maximum(s, logits);
        let sum = row.exponentials(s, logits, max);
        let of = objective.loss(s, s.splat(label_logit), s.splat(max), s.splat(sum));
        row.scale(s, logits, s.splat(1.0 / sum), of.scale);
        logits[label] = s.to_array(of.label_gradient)[0];
        loss[i] = s.to_array(of.loss)[0];
        predicted[i] = if arg == u32::MAX { 0 } else { arg };
    }
}

#[inline(always)]
pub(super) fn softmax<S: Simd>(s: S, logits: &mut [f32], m: usize, classes: usize) {
    for i in 0..m {
        let row = Row { m, i, classes };
        let (max, _) = row.maximum(s, logits);
        let sum = row.exponentials(s, logits, max);
        row.scale(s, logits, s.splat(1.0 / sum), s.splat(1.0));
    }
}

#[inline(always)]
pub(super) fn argmax<S: Simd>(s: S, logits: &[f32], m: usize, classes: usize, predicted: &mut [u32]) {
    for (i, predicted) in predicted.iter_mut().enumerate() {
        *predicted = Row { m, i, classes }.maximum(s, logits).1;
    }
}
