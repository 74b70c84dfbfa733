//! The portable back end and reference: the crate `wide` on whatever the build's target has.
#![allow(unsafe_code)] // Only the signature of `new`, which it shares with the other back ends.

use wide::{f32x4, f32x16};

use super::{LANES, Powers, Simd};

/// The instruction set that the build was made for.
#[derive(Clone, Copy)]
pub(crate) struct Wide(());

impl Wide {
    /// # Safety
    /// None is needed: what the build was made for, the CPU has. The signature is that of the other back ends.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Wide(())
    }
}

/// `√½` as bits: where the fraction's binade is cut, see [`Simd::split`].
const SQRT_HALF: i32 = 0x3f35_04f3;

impl Simd for Wide {
    type V = f32x16;

    // A vector is four registers here. SSE2 has 16 of them, NEON 32.
    const TILE_ROWS: usize = if cfg!(target_arch = "aarch64") { 6 } else { 3 };
    const TILE_FEATURES: usize = Self::TILE_ROWS;
    const TILE_VECTORS: usize = 1;
    const CHAINS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> f32x16 {
        f32x16::splat(x)
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> f32x16 {
        f32x16::new(*x)
    }
    #[inline(always)]
    fn to_array(self, x: f32x16) -> [f32; LANES] {
        x.to_array()
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> f32x16 {
        f32x16::new(x.map(f32::from))
    }

    #[inline(always)]
    fn add(self, a: f32x16, b: f32x16) -> f32x16 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32x16, b: f32x16) -> f32x16 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32x16, b: f32x16) -> f32x16 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32x16, b: f32x16) -> f32x16 {
        a / b
    }
    #[inline(always)]
    fn sqrt(self, a: f32x16) -> f32x16 {
        a.sqrt()
    }
    #[inline(always)]
    fn mul_add(self, a: f32x16, b: f32x16, c: f32x16) -> f32x16 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    fn max(self, a: f32x16, b: f32x16) -> f32x16 {
        self.if_greater(a, b, a, b)
    }
    #[inline(always)]
    fn min(self, a: f32x16, b: f32x16) -> f32x16 {
        a.simd_lt(b).select(a, b)
    }
    #[inline(always)]
    fn if_greater(self, a: f32x16, b: f32x16, yes: f32x16, no: f32x16) -> f32x16 {
        a.simd_gt(b).select(yes, no)
    }

    #[inline(always)]
    fn scale(self, a: f32x16, n: f32x16) -> f32x16 {
        self.scale_in_two(a, n)
    }
    #[inline(always)]
    fn split(self, a: f32x16) -> (f32x16, f32x16) {
        let bits = a.to_array().map(|a| a.to_bits() as i32);
        let exponent = bits.map(|bits| bits.wrapping_sub(SQRT_HALF) >> 23);
        let mut fraction = [0.0; LANES];
        for ((fraction, bits), exponent) in fraction.iter_mut().zip(bits).zip(exponent) {
            *fraction = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32);
        }
        (f32x16::new(fraction), f32x16::new(exponent.map(|e| e as f32)))
    }
    #[inline(always)]
    fn transpose(self, rows: [f32x16; LANES]) -> [f32x16; LANES] {
        let rows = rows.map(f32x16::to_array);
        std::array::from_fn(|j| f32x16::new(std::array::from_fn(|i| rows[i][j])))
    }
    #[inline(always)]
    fn for_each_column(self, rows: [&[f32; LANES]; LANES], mut to: impl FnMut(usize, f32x16)) {
        for b in 0..LANES / 4 {
            let mut quarters = [[f32x4::ZERO; 4]; LANES / 4];
            for (quarter, rows) in quarters.iter_mut().zip(rows.as_chunks::<4>().0) {
                *quarter = f32x4::transpose(rows.map(|row| f32x4::new(row.as_chunks().0[b])));
            }
            for c in 0..4 {
                let mut column = [0.0; LANES];
                for (to, quarter) in column.as_chunks_mut().0.iter_mut().zip(&quarters) {
                    *to = quarter[c].to_array();
                }
                to(4 * b + c, f32x16::new(column));
            }
        }
    }
}

impl Powers for Wide {
    #[inline(always)]
    fn pow2(self, n: f32x16) -> f32x16 {
        f32x16::new(n.to_array().map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)))
    }
}
