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
        let mut tree = Tree::new();
        let mut row = 0;
        for &end in leaves {
            let mut sum = s.splat(0.0);
            for row in d[row * width..end * width].chunks_exact(width) {
                sum = s.add(sum, s.load(row[col..].first_chunk().expect("a row of whole vectors")));
            }
            tree.push(sum, |a, b| s.add(a, b));
            row = end;
        }
        let sum = tree.sum(|a, b| s.add(a, b)).unwrap_or(s.splat(0.0));
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
