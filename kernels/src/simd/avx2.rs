//! AVX2 and FMA: a vector is two registers.
#![allow(unsafe_code)] // Intrinsics; that the CPU has them is what a value of `Avx2` proves.

use std::arch::x86_64::*;

use super::{LANES, Powers, Simd};

/// Proof that the CPU has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The CPU must have AVX2 and FMA, and the caller must be compiled for them.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Avx2(())
    }
}

/// Lanes 0–7 and 8–15.
#[derive(Clone, Copy)]
pub(crate) struct Pair(__m256, __m256);

/// `√½` as bits: where the fraction's binade is cut, see [`Simd::split`].
const SQRT_HALF: i32 = 0x3f35_04f3;

// SAFETY of every block below: a value of `Avx2` exists only where the CPU has AVX2 and FMA, and pointers come from
// references to arrays of the length that is read.
impl Simd for Avx2 {
    type V = Pair;

    // 12 accumulators, two halves of B and one broadcast of A are 15 of 16 registers.
    const TILE_ROWS: usize = 6;
    const TILE_FEATURES: usize = 6;
    const TILE_VECTORS: usize = 1;
    const CHAINS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Pair {
        // SAFETY: see above.
        let x = unsafe { _mm256_set1_ps(x) };
        Pair(x, x)
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }
    #[inline(always)]
    fn to_array(self, x: Pair) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(array.as_mut_ptr(), x.0);
            _mm256_storeu_ps(array.as_mut_ptr().add(8), x.1);
        }
        array
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Pair {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            let low = _mm256_cvtepu8_epi32(bytes);
            let high = _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes));
            Pair(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn sqrt(self, a: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_sqrt_ps(a.0), _mm256_sqrt_ps(a.1)) }
    }
    #[inline(always)]
    fn mul_add(self, a: Pair, b: Pair, c: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn max(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn min(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: see above.
        unsafe { Pair(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn if_greater(self, a: Pair, b: Pair, yes: Pair, no: Pair) -> Pair {
        // SAFETY: see above.
        unsafe {
            Pair(
                _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_GT_OQ>(a.0, b.0)),
                _mm256_blendv_ps(no.1, yes.1, _mm256_cmp_ps::<_CMP_GT_OQ>(a.1, b.1)),
            )
        }
    }

    #[inline(always)]
    fn scale(self, a: Pair, n: Pair) -> Pair {
        self.scale_in_two(a, n)
    }
    #[inline(always)]
    fn split(self, a: Pair) -> (Pair, Pair) {
        // SAFETY: see above.
        let half = |a| unsafe {
            let bits = _mm256_castps_si256(a);
            let exponent = _mm256_srai_epi32::<23>(_mm256_sub_epi32(bits, _mm256_set1_epi32(SQRT_HALF)));
            let fraction = _mm256_sub_epi32(bits, _mm256_slli_epi32::<23>(exponent));
            (_mm256_castsi256_ps(fraction), _mm256_cvtepi32_ps(exponent))
        };
        let ((f0, e0), (f1, e1)) = (half(a.0), half(a.1));
        (Pair(f0, f1), Pair(e0, e1))
    }
    #[inline(always)]
    fn transpose(self, rows: [Pair; LANES]) -> [Pair; LANES] {
        let mut columns = [self.splat(0.0); LANES];
        // SAFETY: see above.
        unsafe {
            // Four 8×8 blocks; the ones off the diagonal change places.
            let block = |i: usize| std::array::from_fn(|j| rows[i + j]);
            let (top, bottom): ([Pair; 8], [Pair; 8]) = (block(0), block(8));
            let left_top = transpose8(top.map(|r| r.0));
            let right_top = transpose8(top.map(|r| r.1));
            let left_bottom = transpose8(bottom.map(|r| r.0));
            let right_bottom = transpose8(bottom.map(|r| r.1));
            for j in 0..8 {
                columns[j] = Pair(left_top[j], left_bottom[j]);
                columns[8 + j] = Pair(right_top[j], right_bottom[j]);
            }
        }
        columns
    }
    #[inline(always)]
    fn for_each_column(self, rows: [&[f32; LANES]; LANES], mut to: impl FnMut(usize, Pair)) {
        // Four columns at a time fit the registers.
        for b in 0..LANES / 4 {
            let quarters = rows.map(|row| row.as_chunks::<4>().0[b].as_ptr());
            // SAFETY: see above.
            let (low, high) = unsafe {
                let mut rows = [_mm256_setzero_ps(); 8];
                for (i, row) in rows.iter_mut().enumerate() {
                    // Halves are put together as they are loaded: rows i and i + 4, then those of the other eight.
                    let first = 8 * (i / 4) + i % 4;
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(quarters[first]));
                    *row = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(quarters[first + 4]));
                }
                let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
                (transpose4([r0, r1, r2, r3]), transpose4([r4, r5, r6, r7]))
            };
            for (c, (low, high)) in low.into_iter().zip(high).enumerate() {
                to(4 * b + c, Pair(low, high));
            }
        }
    }
}

impl Powers for Avx2 {
    #[inline(always)]
    fn pow2(self, n: Pair) -> Pair {
        // SAFETY: see above.
        let half = |n| unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        };
        Pair(half(n.0), half(n.1))
    }
}

/// Columns of an 8×8 block.
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
unsafe fn transpose8(rows: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller has AVX.
    unsafe {
        let zero = _mm256_setzero_ps();
        let mut quads = [zero; 8];
        for i in 0..2 {
            let [r0, r1, r2, r3] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
            quads[4 * i..4 * i + 4].copy_from_slice(&transpose4([r0, r1, r2, r3]));
        }
        let mut columns = [zero; 8];
        for c in 0..4 {
            columns[c] = _mm256_permute2f128_ps::<0x20>(quads[c], quads[4 + c]);
            columns[4 + c] = _mm256_permute2f128_ps::<0x31>(quads[c], quads[4 + c]);
        }
        columns
    }
}

/// Columns become rows in both halves.
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
unsafe fn transpose4([r0, r1, r2, r3]: [__m256; 4]) -> [__m256; 4] {
    // SAFETY: the caller has AVX.
    unsafe {
        let (low01, high01) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
        let (low23, high23) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
        [
            _mm256_shuffle_ps::<0b01_00_01_00>(low01, low23),
            _mm256_shuffle_ps::<0b11_10_11_10>(low01, low23),
            _mm256_shuffle_ps::<0b01_00_01_00>(high01, high23),
            _mm256_shuffle_ps::<0b11_10_11_10>(high01, high23),
        ]
    }
}
