//! AVX-512 with its byte, word and short-vector parts, as every CPU since 2017 has it: a vector is one register.
#![allow(unsafe_code)] // Intrinsics; that the CPU has them is what a value of `Avx512` proves.

use std::arch::x86_64::*;

use super::{LANES, Simd};

/// Proof that the CPU has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The CPU must have AVX-512 F, BW, DQ and VL, and the caller must be compiled for it.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Avx512(())
    }
}

/// `√½` as bits: where the fraction's binade is cut, see [`Simd::split`].
const SQRT_HALF: i32 = 0x3f35_04f3;

/// The first `len` lanes.
#[inline(always)]
fn first(len: usize) -> __mmask16 {
    assert!(len <= LANES, "{len} floats are no part of a vector");
    ((1_u32 << len) - 1) as __mmask16
}

// SAFETY of every block below: a value of `Avx512` exists only where the CPU has AVX-512 F, BW, DQ and VL, and pointers come from
// references to arrays of the length that is read.
impl Simd for Avx512 {
    type V = __m512;

    // 28 accumulators, two vectors of B and one broadcast of A are 31 of 32 registers.
    const TILE_ROWS: usize = 14;
    const TILE_FEATURES: usize = 11;
    const TILE_VECTORS: usize = 2;
    const CHAINS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> __m512 {
        let mask = first(x.len());
        // SAFETY: see above; lanes past the slice's end are not read.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, x.as_ptr()) }
    }
    #[inline(always)]
    fn store_part(self, x: __m512, to: &mut [f32]) {
        let mask = first(to.len());
        // SAFETY: see above; nothing past the slice's end is written.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, x) };
    }
    #[inline(always)]
    fn to_array(self, x: __m512) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(array.as_mut_ptr(), x) };
        array
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn nonzeros(self, bytes: &[u8; LANES], first: u32, entries: &mut [u32; LANES]) -> usize {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            let mask = _mm_test_epi8_mask(bytes, bytes);
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let places = _mm512_slli_epi32::<8>(_mm512_add_epi32(_mm512_set1_epi32(first as i32), lanes));
            let all = _mm512_or_si512(places, _mm512_cvtepu8_epi32(bytes));
            // In a register first: compressing into memory takes a hundred times as long on some CPUs.
            _mm512_storeu_si512(entries.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(mask, all));
            mask.count_ones() as usize
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn if_greater(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes) }
    }

    #[inline(always)]
    fn scale(self, a: __m512, n: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn split(self, a: __m512) -> (__m512, __m512) {
        // SAFETY: see above.
        unsafe {
            let bits = _mm512_castps_si512(a);
            let exponent = _mm512_srai_epi32::<23>(_mm512_sub_epi32(bits, _mm512_set1_epi32(SQRT_HALF)));
            let fraction = _mm512_sub_epi32(bits, _mm512_slli_epi32::<23>(exponent));
            (_mm512_castsi512_ps(fraction), _mm512_cvtepi32_ps(exponent))
        }
    }
    #[inline(always)]
    fn transpose(self, rows: [__m512; LANES]) -> [__m512; LANES] {
        // SAFETY: see above.
        unsafe {
            let zero = _mm512_setzero_ps();
            // Each step swaps one bit of the row's index with one of the lane's: pairs of floats, of doubles, then
            // of 128-bit quarters twice.
            let mut pairs = [zero; LANES];
            for i in 0..LANES / 2 {
                pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            let mut quads = [zero; LANES];
            for i in 0..LANES / 4 {
                for j in 0..2 {
                    let low = _mm512_castps_pd(pairs[4 * i + j]);
                    let high = _mm512_castps_pd(pairs[4 * i + j + 2]);
                    quads[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                    quads[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                }
            }
            // quads[4 i + c] holds column 4 b + c of rows 4 i .. 4 i + 4 in quarter b.
            let mut columns = [zero; LANES];
            for c in 0..4 {
                let [q0, q1, q2, q3] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
                let low01 = _mm512_shuffle_f32x4::<0b01_00_01_00>(q0, q1);
                let high01 = _mm512_shuffle_f32x4::<0b11_10_11_10>(q0, q1);
                let low23 = _mm512_shuffle_f32x4::<0b01_00_01_00>(q2, q3);
                let high23 = _mm512_shuffle_f32x4::<0b11_10_11_10>(q2, q3);
                columns[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(low01, low23);
                columns[4 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(low01, low23);
                columns[8 + c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(high01, high23);
                columns[12 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(high01, high23);
            }
            columns
        }
    }
    #[inline(always)]
    fn for_each_column(self, rows: [&[f32; LANES]; LANES], mut to: impl FnMut(usize, __m512)) {
        let mut columns = [self.splat(0.0); LANES];
        for (b, columns) in columns.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let quarters = rows.map(|row| row.as_chunks::<4>().0[b].as_ptr());
            // SAFETY: see above.
            unsafe {
                let mut rows = [_mm512_setzero_ps(); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    // Quarter q is of row 4 q + i: quarters are put together as they are loaded.
                    *row = _mm512_castps128_ps512(_mm_loadu_ps(quarters[i]));
                    *row = _mm512_mask_broadcast_f32x4(*row, 0x00f0, _mm_loadu_ps(quarters[4 + i]));
                    *row = _mm512_mask_broadcast_f32x4(*row, 0x0f00, _mm_loadu_ps(quarters[8 + i]));
                    *row = _mm512_mask_broadcast_f32x4(*row, 0xf000, _mm_loadu_ps(quarters[12 + i]));
                }
                let [r0, r1, r2, r3] = rows;
                let (low01, high01) = (_mm512_unpacklo_ps(r0, r1), _mm512_unpackhi_ps(r0, r1));
                let (low23, high23) = (_mm512_unpacklo_ps(r2, r3), _mm512_unpackhi_ps(r2, r3));
                *columns = [
                    _mm512_shuffle_ps::<0b01_00_01_00>(low01, low23),
                    _mm512_shuffle_ps::<0b11_10_11_10>(low01, low23),
                    _mm512_shuffle_ps::<0b01_00_01_00>(high01, high23),
                    _mm512_shuffle_ps::<0b11_10_11_10>(high01, high23),
                ];
            }
        }
        for (j, column) in columns.into_iter().enumerate() {
            to(j, column);
        }
    }
}
