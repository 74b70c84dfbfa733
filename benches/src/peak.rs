//! Multiply-adds a second of one core: what no matrix product can pass.
#![allow(unsafe_code)] // Intrinsics, behind run-time detection.

use muster_kernels::Backend;

/// Multiply-adds of a chain in one run; a sum of so many ones is exact in `f32`.
const STEPS: usize = 4096;

/// Multiply-adds in independent chains, enough of them to hide their latency.
#[derive(Clone, Copy)]
pub struct Peak {
    /// One run; returns one for every multiply-add of every lane, since each of them adds 1.
    pub run: fn() -> f32,
    /// Floating-point operations of a run.
    pub flops: f64,
}

impl Peak {
    /// The widest multiply-adds of a back end; none where it does not run. Where the arithmetic rounds products on their own, a
    /// multiplication and an addition.
    pub fn of(backend: Backend) -> Option<Peak> {
        let peak =
            |run, lanes: usize, chains: usize| Peak { run, flops: (2 * lanes * chains * STEPS) as f64 };
        if !backend.is_available() {
            return None;
        }
        Some(match backend {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the back end is available, and with it its instructions. Tiles multiply no floats: their limit would not be comparable.
            Backend::Avx512 | Backend::Amx => peak(|| unsafe { x86::zmm() }, 16, x86::FMA_CHAINS),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Backend::Avx2 => peak(|| unsafe { x86::ymm() }, 8, x86::FMA_CHAINS),
            #[cfg(target_arch = "x86_64")]
            _ => peak(x86::xmm, 4, x86::SSE_CHAINS),
            #[cfg(not(target_arch = "x86_64"))]
            _ => peak(portable, 4, PORTABLE_CHAINS),
        })
    }
}

/// Chains of code that the compiler vectorizes for the build's target; as many as 32 registers hold.
#[cfg(not(target_arch = "x86_64"))]
const PORTABLE_CHAINS: usize = 16;

/// Four lanes a chain, fused where the target has that.
#[cfg(not(target_arch = "x86_64"))]
fn portable() -> f32 {
    let one = std::hint::black_box(1.0_f32);
    let mut sums = [[0.0_f32; 4]; PORTABLE_CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum =
                sum.map(
                    |sum| if cfg!(target_arch = "aarch64") { sum.mul_add(one, one) } else { sum * one + one },
                );
        }
    }
    sums.as_flattened().iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::STEPS;

    /// More than the latency of 4 cycles times 2 a cycle, and with the constants still within 16 registers.
    pub(super) const FMA_CHAINS: usize = 12;
    /// A multiplication and an addition take up to 8 cycles; the constants take another register.
    pub(super) const SSE_CHAINS: usize = 14;

    // The factor is 1 without the compiler's knowledge, so no multiply-add can be left out or be joined with the next one.

    #[target_feature(enable = "avx512f")]
    pub(super) fn zmm() -> f32 {
        let one = _mm512_set1_ps(black_box(1.0));
        let mut sums = [_mm512_setzero_ps(); FMA_CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, one, one);
            }
        }
        sums.map(|sum| _mm512_reduce_add_ps(sum)).iter().sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn ymm() -> f32 {
        let one = _mm256_set1_ps(black_box(1.0));
        let mut sums = [_mm256_setzero_ps(); FMA_CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, one, one);
            }
        }
        let halves = sums.map(|sum| _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1)));
        halves.map(total).iter().sum()
    }

    pub(super) fn xmm() -> f32 {
        // SAFETY: SSE is part of every x86-64.
        unsafe {
            let one = _mm_set1_ps(black_box(1.0));
            let mut sums = [_mm_setzero_ps(); SSE_CHAINS];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = _mm_add_ps(_mm_mul_ps(*sum, one), one);
                }
            }
            sums.map(total).iter().sum()
        }
    }

    fn total(lanes: __m128) -> f32 {
        // SAFETY: both are four floats.
        unsafe { std::mem::transmute::<__m128, [f32; 4]>(lanes) }.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_multiply_add_is_done() {
        for peak in Backend::ALL.into_iter().filter_map(Peak::of) {
            assert_eq!(f64::from((peak.run)()), peak.flops / 2.0);
        }
        assert!(Peak::of(Backend::Wide).is_some());
    }
}
