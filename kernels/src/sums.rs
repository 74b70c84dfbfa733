//! Sums: the bias gradient over micro-batches, partial results of slices, a norm.

use crate::panel::check_width;
use crate::simd::{LANES, Simd};
use crate::table::Kernels;
use crate::tree::{Tree, check_leaves};

impl Kernels {
    /// `db[j] = Σ_i d[i][j]` for one panel: `d` `[m][width]`, `db` `[width]`.
    ///
    /// `leaves` are the ends of the micro-batches, the last one `m`: chains of additions from zero, added by the
    /// tree of [`Kernels::matmul_tn_panel`].
    pub fn bias_gradient(&self, d: &[f32], leaves: &[usize], width: usize, db: &mut [f32]) {
        check_width(width);
        assert!(d.len().is_multiple_of(width), "length {} of d [m][{width}]", d.len());
        check_leaves(leaves, d.len() / width);
        assert_eq!(db.len(), width, "length of db");
        self.table.bias_gradient(d, leaves, width, db);
    }

    /// `out = ((p₀ + p₁) + p₂) + …`: `parts` `[slices][out.len()]`, whole vectors of 16.
    pub fn sum_slices(&self, parts: &[f32], out: &mut [f32]) {
        let len = out.len();
        assert!(len.is_multiple_of(LANES), "length {len} of out, which is no multiple of {LANES}");
        assert!(
            len == 0 || (!parts.is_empty() && parts.len().is_multiple_of(len)),
            "length of parts [slices][{len}]"
        );
        self.table.sum_slices(parts, out);
    }

    /// `Σ x²` in double precision: 16 partial sums over `j mod 16`, then a tree of halves.
    pub fn sum_of_squares(&self, x: &[f32]) -> f64 {
        self.table.sum_of_squares(x)
    }
}

#[inline(always)]
pub(crate) fn bias_gradient<S: Simd>(s: S, d: &[f32], leaves: &[usize], width: usize, db: &mut [f32]) {
    for col in (0..width).step_by(LANES) {
        let mut tree = Tree::<S, 1, 1>::new(s);
        let mut sum = s.splat(0.0);
        let mut first = 0;
        for (leaf, &end) in leaves.iter().enumerate() {
            for row in d[first * width..end * width].chunks_exact(width) {
                sum = s.add(sum, s.load(row[col..].first_chunk().expect("a row of whole vectors")));
            }
            first = end;
            if leaf + 1 < leaves.len() {
                tree.push([[sum]]);
                sum = s.splat(0.0);
            }
        }
        let [[sum]] = tree.finish([[sum]]);
        db[col..col + LANES].copy_from_slice(&s.to_array(sum));
    }
}

#[inline(always)]
pub(crate) fn sum_slices<S: Simd>(s: S, parts: &[f32], out: &mut [f32]) {
    let len = out.len();
    for (i, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut slices = parts.chunks_exact(len).map(|slice| s.load(&slice.as_chunks().0[i]));
        let mut sum = slices.next().expect("at least one slice");
        for slice in slices {
            sum = s.add(sum, slice);
        }
        *out = s.to_array(sum);
    }
}

/// A product of two floats is exact in double precision, so that fusing it with the sum changes nothing.
#[inline(always)]
pub(crate) fn sum_of_squares<S: Simd>(_: S, x: &[f32]) -> f64 {
    let mut sums = [0.0; LANES];
    let (vectors, rest) = x.as_chunks::<LANES>();
    for vector in vectors {
        for (sum, &x) in sums.iter_mut().zip(vector) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(x) * f64::from(x);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::naive;
    use crate::testing::{assert_close, floats, leaves, on_each};

    proptest! {
        #[test]
        fn the_bias_gradient_sums_the_rows_of_each_leaf_then_the_tree(
            (m, leaves) in (0_usize..70).prop_flat_map(|m| (Just(m), leaves(m))), wide: bool, seed: u64,
        ) {
            let width = if wide { 32 } else { 16 };
            let d = floats(m * width, seed);
            let results = on_each(|kernels| {
                let mut db = vec![f32::NAN; width];
                kernels.bias_gradient(&d, &leaves, width, &mut db);
                db
            });
            let expected: Vec<f32> = (0..width).map(|j| {
                let mut start = 0;
                naive::tree(leaves.iter().map(|&end| {
                    let rows = std::mem::replace(&mut start, end)..end;
                    rows.fold(0.0, |sum, i| sum + d[i * width + j])
                }).collect())
            }).collect();
            for (backend, db) in results {
                assert_eq!(db, expected, "{}", backend);
            }
        }

        #[test]
        fn slices_are_added_in_order(slices in 1_usize..9, m in 0_usize..9, wide: bool, seed: u64) {
            let width = if wide { 32 } else { 16 };
            let parts = floats(slices * m * width, seed);
            let results = on_each(|kernels| {
                let mut out = vec![f32::NAN; m * width];
                kernels.sum_slices(&parts, &mut out);
                out
            });
            let expected: Vec<f32> = (0..m * width).map(|at| {
                let slices = parts.chunks((m * width).max(1)).map(|slice| slice[at]);
                slices.reduce(|a, b| a + b).unwrap()
            }).collect();
            for (backend, out) in results {
                assert_eq!(out, expected, "{}", backend);
            }
        }

        #[test]
        fn the_norm_is_that_of_double_precision(len in 0_usize..200, seed: u64) {
            let x = floats(len, seed);
            let expected: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            for (backend, sum) in on_each(|kernels| vec![kernels.sum_of_squares(&x) as f32]) {
                assert_close(backend, &sum, &[expected], 1e-7);
            }
        }
    }
}
