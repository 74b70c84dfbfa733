//! The vector that every kernel is written in: 16 floats, on every machine.
//!
//! One register with AVX-512, two with AVX2, four with SSE2 or NEON. Because the logical width never changes, sums
//! over lanes have one order everywhere, and back ends with a fused multiply-add agree bit for bit.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod wide;

/// Floats in a vector.
pub(crate) const LANES: usize = 16;

/// The operations that the kernels use. A value of an implementing type proves that the CPU has its instructions,
/// so the methods are safe. Bodies that use them are `#[inline(always)]` and reach their instruction set only
/// through the entry points that `table` stamps.
pub(crate) trait Simd: Copy {
    /// 16 floats.
    type V: Copy;

    /// Rows of the tile that a micro-kernel keeps in registers, at most 14.
    const TILE_ROWS: usize;
    /// The same for the weight gradient, where rows are columns of a panel.
    const TILE_FEATURES: usize;
    /// Vectors in a row of that tile: 1 or 2.
    const TILE_VECTORS: usize;
    /// Chains of multiply-adds that hide the latency of one another and fit the registers: 4 or 8.
    const CHAINS: usize;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &[f32; LANES]) -> Self::V;
    fn to_array(self, x: Self::V) -> [f32; LANES];
    fn load_u8(self, x: &[u8; LANES]) -> Self::V;

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the arithmetic is `chain-fma`.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` where `a > b`, else `b`: a NaN in `b` stays, one in `a` goes.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `a < b`, else `b`: a NaN in `b` stays, one in `a` goes.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `yes` where `a > b`, else `no`.
    fn if_greater(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;

    /// `a * 2^n`, rounded once, for `a` in `[½, 2)` and integral `n` in `-151..=129`.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;
    /// The nearest integer, ties to even, for `a` of at most `2^22`.
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        /// From here to the next power of two, floats are 1 apart.
        const INTEGERS: f32 = 12_582_912.0;
        self.sub(self.add(a, self.splat(INTEGERS)), self.splat(INTEGERS))
    }
    /// `(f, e)` with `a = f * 2^e`, `f` in `[√½, √2)` and `e` integral, for positive normal `a`.
    fn split(self, a: Self::V) -> (Self::V, Self::V);
    /// Columns become rows.
    fn transpose(self, rows: [Self::V; LANES]) -> [Self::V; LANES];
    /// Calls `to` with each column of 16 rows in memory and its number. It has half of the shuffles of [`Simd::transpose`], and where there are
    /// few registers, not all columns are in them at once.
    fn for_each_column(self, rows: [&[f32; LANES]; LANES], to: impl FnMut(usize, Self::V));

    /// Writes `place << 8 | byte` for the bytes that are not 0, whose places count from `first`, to the front of `entries`, and returns how many
    /// there are. What the list holds after them is left open.
    #[inline(always)]
    fn nonzeros(self, bytes: &[u8; LANES], first: u32, entries: &mut [u32; LANES]) -> usize {
        if *bytes == [0; LANES] {
            return 0;
        }
        let mut count = 0;
        for (j, &byte) in bytes.iter().enumerate() {
            // Without a branch: which bytes are 0 cannot be predicted.
            entries[count] = (first + j as u32) << 8 | u32::from(byte);
            count += usize::from(byte != 0);
        }
        count
    }

    /// The first `x.len()` lanes are `x`, the others `fill`.
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> Self::V {
        let mut padded = [fill; LANES];
        padded[..x.len()].copy_from_slice(x);
        self.load(&padded)
    }

    /// `to`, of at most 16 floats, becomes the first lanes of `x`.
    #[inline(always)]
    fn store_part(self, x: Self::V, to: &mut [f32]) {
        to.copy_from_slice(&self.to_array(x)[..to.len()]);
    }
}

/// A back end without an instruction for [`Simd::scale`].
pub(crate) trait Powers: Simd {
    /// `2^n` for integral `n` in `-126..=127`.
    fn pow2(self, n: Self::V) -> Self::V;

    /// [`Simd::scale`] in two factors, of which the first is exact: results below the normal range are rounded once and those above it overflow.
    #[inline(always)]
    fn scale_in_two(self, a: Self::V, n: Self::V) -> Self::V {
        let half = self.round(self.mul(n, self.splat(0.5)));
        self.mul(self.mul(a, self.pow2(half)), self.pow2(self.sub(n, half)))
    }
}
