//! Softmax, cross-entropy and its gradient on one thread: ours beside the loop that a programmer writes first.

use std::time::Duration;

use muster_kernels::{Kernels, panels_len};

use muster_benches::measure::{Contender, Timing, compare};

/// Rows and classes: a digit classifier, ImageNet, and a vocabulary.
pub const SHAPES: [[usize; 2]; 3] = [[100, 10], [100, 1000], [100, 32_000]];

/// Measures logits `[m, classes]`; ours comes first.
pub fn measure(kernels: &Kernels, [m, classes]: [usize; 2], rounds: usize) -> Vec<Timing> {
    let logit = |i: usize| ((i * 7919) % 251) as f32 / 25.0 - 5.0;
    let labels: Vec<u32> = (0..m).map(|i| (i * 7 % classes) as u32).collect();
    let mut panels: Vec<f32> = (0..panels_len(m, classes)).map(logit).collect();
    let mut rows: Vec<f32> = (0..m * classes).map(logit).collect();
    let (mut loss, mut predicted, scale) = (vec![0.0; m], vec![0; m], 1.0 / m as f32);
    let ours = Contender::new("muster", || {
        kernels.softmax_cross_entropy(
            &mut panels,
            m,
            classes,
            &labels,
            scale,
            0.0,
            &mut loss,
            &mut predicted,
        );
    });
    let mut their_loss = vec![0.0; m];
    let plain = Contender::new("plain loop", || {
        for ((row, &label), loss) in rows.chunks_exact_mut(classes).zip(&labels).zip(&mut their_loss) {
            *loss = softmax_cross_entropy(row, label as usize, scale);
        }
    });
    compare(rounds, Duration::ZERO, vec![ours, plain])
}

/// `row` becomes the gradient; returns the loss.
fn softmax_cross_entropy(row: &mut [f32], label: usize, scale: f32) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let distance = row[label] - max;
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    for x in row.iter_mut() {
        *x *= scale / sum;
    }
    row[label] -= scale;
    sum.ln() - distance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_compute_the_same_loss_and_gradient() {
        let mut row = [1.0, 2.0, -1.0];
        let mut panel = vec![0.0; 16];
        panel[..3].copy_from_slice(&row);
        let (mut loss, kernels) = ([0.0], Kernels::select().unwrap());
        kernels.softmax_cross_entropy(&mut panel, 1, 3, &[1], 0.5, 0.0, &mut loss, &mut [0]);
        assert!((softmax_cross_entropy(&mut row, 1, 0.5) - loss[0]).abs() < 1e-6);
        assert!(row.iter().zip(&panel).all(|(x, y)| (x - y).abs() < 1e-6), "{row:?} {panel:?}");
    }
}
