//! Up to 32 classes: 16 rows at a time lie across lanes, so that nothing is summed over lanes.

use super::{FEW, Objective};
use crate::layout::panel_width;
use crate::math;
use crate::simd::{LANES, Simd};

/// The columns of at most 16 rows.
type Columns<S> = [<S as Simd>::V; FEW];

/// `rows` `[<= 16][width]` and `labels`, `loss`, `predicted` of them.
#[inline(always)]
pub(super) fn softmax_cross_entropy<S: Simd>(
    s: S,
    rows: &mut [f32],
    classes: usize,
    labels: &[u32],
    objective: &Objective<S>,
    loss: &mut [f32],
    predicted: &mut [u32],
) {
    let width = panel_width(classes);
    let mut label_logit = [0.0; LANES];
    for ((logit, row), &label) in label_logit.iter_mut().zip(rows.chunks_exact(width)).zip(labels) {
        *logit = row[label as usize];
    }
    let mut columns = load(s, rows, width);
    let (max, arg) = maximum(s, &columns[..classes]);
    let sum = exponentials(s, &mut columns[..classes], max);
    let of = objective.loss(s, s.load(&label_logit), max, sum);
    let inverse = s.div(s.splat(1.0), sum);
    for column in &mut columns[..classes] {
        *column = s.mul(s.mul(*column, inverse), of.scale);
    }
    store(s, &columns, classes, rows, width);
    let label_gradient = s.to_array(of.label_gradient);
    for ((row, &label), gradient) in rows.chunks_exact_mut(width).zip(labels).zip(label_gradient) {
        row[label as usize] = gradient;
    }
    loss.copy_from_slice(&s.to_array(of.loss)[..loss.len()]);
    write_indices(s, arg, predicted);
}

/// `rows` `[<= 16][width]`
#[inline(always)]
pub(super) fn softmax<S: Simd>(s: S, rows: &mut [f32], classes: usize) {
    let width = panel_width(classes);
    let mut columns = load(s, rows, width);
    let (max, _) = maximum(s, &columns[..classes]);
    let sum = exponentials(s, &mut columns[..classes], max);
    let inverse = s.div(s.splat(1.0), sum);
    for column in &mut columns[..classes] {
        *column = s.mul(*column, inverse);
    }
    store(s, &columns, classes, rows, width);
}

/// `rows` `[<= 16][width]`
#[inline(always)]
pub(super) fn argmax<S: Simd>(s: S, rows: &[f32], classes: usize, predicted: &mut [u32]) {
    let columns = load(s, rows, panel_width(classes));
    write_indices(s, maximum(s, &columns[..classes]).1, predicted);
}

/// The columns of `rows`; lanes without a row are zero.
#[inline(always)]
fn load<S: Simd>(s: S, rows: &[f32], width: usize) -> Columns<S> {
    let zero = s.splat(0.0);
    let mut columns = [zero; FEW];
    for (half, columns) in columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate().take(width / LANES) {
        let mut block = [zero; LANES];
        for (x, row) in block.iter_mut().zip(rows.chunks_exact(width)) {
            *x = s.load(&row.as_chunks().0[half]);
        }
        *columns = s.transpose(block);
    }
    columns
}

/// The reverse of [`load`], with zeros in the columns past `classes`.
#[inline(always)]
fn store<S: Simd>(s: S, columns: &Columns<S>, classes: usize, rows: &mut [f32], width: usize) {
    let zero = s.splat(0.0);
    for (half, columns) in columns.as_chunks::<LANES>().0.iter().enumerate().take(width / LANES) {
        let mut block = *columns;
        for x in block.iter_mut().skip(classes.saturating_sub(half * LANES)) {
            *x = zero;
        }
        let block = s.transpose(block);
        for (&x, row) in block.iter().zip(rows.chunks_exact_mut(width)) {
            row.as_chunks_mut().0[half] = s.to_array(x);
        }
    }
}

/// The largest of the columns and the first index that has it.
#[inline(always)]
fn maximum<S: Simd>(s: S, columns: &[S::V]) -> (S::V, S::V) {
    let (mut max, mut arg) = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
    for (j, &column) in columns.iter().enumerate() {
        arg = s.if_greater(column, max, s.splat(j as f32), arg);
        max = s.max(column, max);
    }
    (max, arg)
}

/// The columns become `exp(z - max)`; returns their sum, in order.
#[inline(always)]
fn exponentials<S: Simd>(s: S, columns: &mut [S::V], max: S::V) -> S::V {
    let mut sum = s.splat(0.0);
    for column in columns {
        *column = math::exp(s, s.sub(*column, max));
        sum = s.add(sum, *column);
    }
    sum
}

#[inline(always)]
fn write_indices<S: Simd>(s: S, arg: S::V, predicted: &mut [u32]) {
    for (predicted, arg) in predicted.iter_mut().zip(s.to_array(arg)) {
        *predicted = arg as u32;
    }
}
