//! Softmax, cross-entropy with its gradient, and argmax over the columns of a matrix in panels.
//!
//! Up to 32 classes, rows lie across lanes and columns are summed in order (`columns`); more classes are summed in 16
//! partial sums over `j mod 16`, then a tree of halves (`rows`). Exponentials are taken of `z - max z`.

mod columns;
mod rows;

use crate::layout::{panel_width, panels_len};
use crate::math;
use crate::simd::{LANES, Simd};
use crate::table::Kernels;

/// Class indices are compared as floats, in which larger ones would not be exact.
const MAX_CLASSES: usize = 1 << 24;

/// Classes of a matrix of one panel, which rows lie across lanes for.
const FEW: usize = 2 * LANES;

impl Kernels {
    /// Softmax, cross-entropy and its gradient in one pass over `logits`, the panels `[m, classes]`.
    ///
    /// `logits[i][j]` becomes `(softmax(logits[i])[j] - (j == labels[i])) * scale`, padding becomes zero. `loss[i]` is
    /// `-ln max(p, floor)` with `p` the label's probability; where it is below `floor` the row's gradient is zero, as
    /// TensorFlow's `clip_by_value` has it. With `floor` 0 no loss is infinite. `predicted[i]` is the first of the
    /// largest logits. A NaN among the logits makes its row's gradient and loss NaN.
    #[expect(clippy::too_many_arguments, reason = "one pass has all the inputs and outputs of the loss")]
    pub fn softmax_cross_entropy(
        &self,
        logits: &mut [f32],
        m: usize,
        classes: usize,
        labels: &[u32],
        scale: f32,
        floor: f32,
        loss: &mut [f32],
        predicted: &mut [u32],
    ) {
        check_logits(logits, m, classes);
        assert_eq!(labels.len(), m, "number of labels");
        assert_eq!(loss.len(), m, "length of the loss");
        assert_eq!(predicted.len(), m, "number of predictions");
        assert!(floor == 0.0 || (f32::MIN_POSITIVE..1.0).contains(&floor), "floor {floor} of a probability");
        if let Some(i) = labels.iter().position(|&label| label as usize >= classes) {
            panic!("label {} of row {i} with {classes} classes", labels[i]);
        }
        self.table.softmax_cross_entropy(logits, m, classes, labels, scale, floor, loss, predicted);
    }

    /// The rows of `logits`, the panels `[m, classes]`, become probabilities; padding becomes zero.
    pub fn softmax(&self, logits: &mut [f32], m: usize, classes: usize) {
        check_logits(logits, m, classes);
        self.table.softmax(logits, m, classes);
    }

    /// `predicted[i]` becomes the first of the largest logits of row `i` of the panels `[m, classes]`; NaN are passed over.
    pub fn argmax(&self, logits: &[f32], m: usize, classes: usize, predicted: &mut [u32]) {
        check_logits(logits, m, classes);
        assert_eq!(predicted.len(), m, "number of predictions");
        self.table.argmax(logits, m, classes, predicted);
    }
}

fn check_logits(logits: &[f32], m: usize, classes: usize) {
    assert!((1..=MAX_CLASSES).contains(&classes), "{classes} classes");
    assert_eq!(logits.len(), panels_len(m, classes), "length of logits [{m}, {classes}] in panels");
}

#[expect(clippy::too_many_arguments, reason = "one pass has all the inputs and outputs of the loss")]
#[inline(always)]
pub(crate) fn softmax_cross_entropy<S: Simd>(
    s: S,
    logits: &mut [f32],
    m: usize,
    classes: usize,
    labels: &[u32],
    scale: f32,
    floor: f32,
    loss: &mut [f32],
    predicted: &mut [u32],
) {
    let objective = Objective::new(s, scale, floor);
    if classes > FEW {
        return rows::softmax_cross_entropy(s, logits, m, classes, labels, &objective, loss, predicted);
    }
    let width = panel_width(classes);
    let rows = logits.chunks_mut(LANES * width).zip(labels.chunks(LANES));
    for ((logits, labels), (loss, predicted)) in
        rows.zip(loss.chunks_mut(LANES).zip(predicted.chunks_mut(LANES)))
    {
        columns::softmax_cross_entropy(s, logits, classes, labels, &objective, loss, predicted);
    }
}

#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, logits: &mut [f32], m: usize, classes: usize) {
    if classes > FEW {
        return rows::softmax(s, logits, m, classes);
    }
    for rows in logits.chunks_mut(LANES * panel_width(classes)) {
        columns::softmax(s, rows, classes);
    }
}

#[inline(always)]
pub(crate) fn argmax<S: Simd>(s: S, logits: &[f32], m: usize, classes: usize, predicted: &mut [u32]) {
    if classes > FEW {
        return rows::argmax(s, logits, m, classes, predicted);
    }
    let blocks = logits.chunks(LANES * panel_width(classes));
    for (rows, predicted) in blocks.zip(predicted.chunks_mut(LANES)) {
        columns::argmax(s, rows, classes, predicted);
    }
}

/// What the loss of a row is, given what its softmax has found.
struct Objective<S: Simd> {
    scale: S::V,
    floor: S::V,
    /// `-ln floor`
    clipped_loss: S::V,
}

/// The loss of 16 rows, one a lane.
struct Loss<S: Simd> {
    loss: S::V,
    /// Factor of the row's gradient: `scale`, or zero for a clipped row.
    scale: S::V,
    /// The gradient of the label's logit.
    label_gradient: S::V,
}

impl<S: Simd> Objective<S> {
    #[inline(always)]
    fn new(s: S, scale: f32, floor: f32) -> Self {
        let floor = s.splat(floor);
        let clipped_loss = s.sub(s.splat(0.0), math::ln(s, floor));
        Objective { scale: s.splat(scale), floor, clipped_loss }
    }

    /// Of rows whose label's logit is `label_logit` and whose exponentials of `z - max` sum to `sum`.
    #[inline(always)]
    fn loss(&self, s: S, label_logit: S::V, max: S::V, sum: S::V) -> Loss<S> {
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        let distance = s.sub(label_logit, max);
        let p = s.mul(math::exp(s, distance), s.div(one, sum));
        let scale = s.if_greater(self.floor, p, zero, self.scale);
        let loss = s.sub(math::ln(s, sum), distance);
        let loss = s.if_greater(self.floor, p, self.clipped_loss, loss);
        Loss { loss, scale, label_gradient: s.mul(s.sub(p, one), scale) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::naive;
    use crate::testing::{assert_close, floats, on_each, to_panels};

    proptest! {
        #[test]
        fn loss_and_gradient_are_those_of_the_definition(
            m in 0_usize..40, classes in 1_usize..100, size in 0.0_f32..90.0, clip: bool, seed: u64,
        ) {
            let logits: Vec<f32> = floats(m * classes, seed).into_iter().map(|x| x * size).collect();
            let labels: Vec<u32> =
                floats(m, seed ^ 1).into_iter().map(|x| (x.abs() * classes as f32) as u32 % classes as u32).collect();
            let floor = if clip { 1e-10 } else { 0.0 };
            let results = on_each(|kernels| {
                let mut x = to_panels(kernels, &logits, m, classes);
                let (mut loss, mut predicted) = (vec![f32::NAN; m], vec![u32::MAX; m]);
                kernels.softmax_cross_entropy(&mut x, m, classes, &labels, 0.25, floor, &mut loss, &mut predicted);
                let predicted = predicted.into_iter().map(|j| j as f32).collect();
                [naive::from_panels(&x, m, classes), loss, predicted].concat()
            });
            let mut expected = vec![0.0; m * (classes + 2)];
            for i in 0..m {
                let (row, label) = (&logits[i * classes..(i + 1) * classes], labels[i] as usize);
                let p = naive::softmax(row);
                // Next to the floor, rounding may decide either way.
                prop_assume!(!clip || (p[label] / 1e-10 - 1.0).abs() > 1e-3);
                let clipped = p[label] < f64::from(floor);
                for (j, p) in p.iter().enumerate() {
                    let hot = if j == label { 1.0 } else { 0.0 };
                    expected[i * classes + j] = if clipped { 0.0 } else { (p - hot) * 0.25 };
                }
                expected[m * classes + i] = -p[label].max(f64::from(floor)).ln();
                expected[m * (classes + 1) + i] = f64::from(naive::argmax(row));
            }
            for (backend, result) in results {
                assert_close(backend, &result, &expected, 2e-6);
            }
        }

        #[test]
        fn probabilities_and_argmax(m in 0_usize..40, classes in 1_usize..100, seed: u64) {
            // Few distinct values, so that the largest is often there twice.
            let logits: Vec<f32> = floats(m * classes, seed).into_iter().map(|x| (x * 8.0).round()).collect();
            let results = on_each(|kernels| {
                let mut x = to_panels(kernels, &logits, m, classes);
                let mut predicted = vec![u32::MAX; m];
                kernels.argmax(&x, m, classes, &mut predicted);
                kernels.softmax(&mut x, m, classes);
                let predicted: Vec<f32> = predicted.into_iter().map(|j| j as f32).collect();
                [naive::from_panels(&x, m, classes), predicted].concat()
            });
            let rows = logits.chunks(classes);
            let mut expected: Vec<f64> = rows.clone().flat_map(naive::softmax).collect();
            expected.extend(rows.map(|row| f64::from(naive::argmax(row))));
            for (backend, result) in results {
                assert_close(backend, &result, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn a_nan_makes_its_row_nan_and_no_other() {
        for classes in [10, 20, 50] {
            on_each(|kernels| {
                let mut logits = vec![0.5; 6 * classes];
                logits[classes + 3] = f32::NAN;
                let mut x = to_panels(kernels, &logits, 6, classes);
                let (mut loss, mut predicted) = ([0.0; 6], [0; 6]);
                kernels.softmax_cross_entropy(
                    &mut x,
                    6,
                    classes,
                    &[1; 6],
                    1.0,
                    1e-10,
                    &mut loss,
                    &mut predicted,
                );
                let x = naive::from_panels(&x, 6, classes);
                for (i, (row, loss)) in x.chunks(classes).zip(loss).enumerate() {
                    assert!(
                        row.iter().all(|x| x.is_nan() == (i == 1)) && loss.is_nan() == (i == 1),
                        "row {i}"
                    );
                }
                x
            });
        }
    }

    #[test]
    fn without_a_floor_no_loss_is_infinite() {
        on_each(|kernels| {
            let mut x = to_panels(kernels, &[1000.0, -1000.0], 1, 2);
            let mut loss = vec![0.0];
            kernels.softmax_cross_entropy(&mut x, 1, 2, &[1], 1.0, 0.0, &mut loss, &mut [0]);
            assert_eq!((loss[0], x[0], x[1]), (2000.0, 1.0, -1.0));
            loss
        });
    }
}
