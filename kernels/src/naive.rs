//! The specification: what every kernel computes, in double precision and the plainest loops. Matrices are row-major.

/// `A·B`: `[m, k]` times `[k, n]`.
pub(crate) fn matmul(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for (i, j, p) in (0..m * n * k).map(|x| (x / (n * k), x / k % n, x % k)) {
        c[i * n + j] += f64::from(a[i * k + p]) * f64::from(b[p * n + j]);
    }
    c
}

/// `[rows, cols]` becomes `[cols, rows]`.
pub(crate) fn transpose(rows: usize, cols: usize, x: &[f32]) -> Vec<f32> {
    (0..rows * cols).map(|at| x[at % rows * cols + at / rows]).collect()
}

/// The matrix `[m, n]` that the panels `x` hold; checks that their padding is zero.
pub(crate) fn from_panels(x: &[f32], m: usize, n: usize) -> Vec<f32> {
    let width = if n <= 16 { 16 } else { 32 };
    let at = |i, j: usize| x[(j / width * m + i) * width + j % width];
    for (i, j) in (0..m).flat_map(|i| (n..n.next_multiple_of(width)).map(move |j| (i, j))) {
        assert_eq!(at(i, j), 0.0, "padding of row {i}, column {j}");
    }
    (0..m * n).map(|x| at(x / n, x % n)).collect()
}

/// Probabilities of one row of logits.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|&z| (f64::from(z) - f64::from(max)).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|e| e / sum).collect()
}

/// The first of the largest.
pub(crate) fn argmax(x: &[f32]) -> u32 {
    (1..x.len()).fold(0, |best, j| if x[j] > x[best] { j } else { best }) as u32
}

/// Leaf `2i` + leaf `2i + 1` level by level; an odd last one moves up.
pub(crate) fn tree(mut leaves: Vec<f32>) -> f32 {
    while leaves.len() > 1 {
        leaves = leaves.chunks(2).map(|pair| pair.iter().copied().reduce(|a, b| a + b).unwrap()).collect();
    }
    leaves.first().copied().unwrap_or(0.0)
}
