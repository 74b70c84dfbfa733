//! The FMA peak of one core: what no matrix product can pass.
#![allow(unsafe_code)] // Intrinsics, behind run-time detection.

/// Independent chains, more than latency times throughput of any core (4 cycles, 2 a cycle).
const CHAINS: usize = 12;
/// Multiply-adds of a chain in one run.
const STEPS: usize = 4096;

/// One run of the widest multiply-adds that this CPU has, and its floating-point operations.
pub fn fma_run() -> (fn(), f64) {
    let flops = |lanes: usize| (2 * lanes * CHAINS * STEPS) as f64;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature has just been found.
        return (|| unsafe { x86::zmm() }, flops(16));
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features have just been found.
        return (|| unsafe { x86::ymm() }, flops(8));
    }
    (portable, flops(4))
}

/// Four lanes a chain, for what the build's target makes of them.
fn portable() {
    let mut sums = [[1.0_f32; 4]; CHAINS];
    let x = std::hint::black_box(0.5_f32);
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = sum.map(|sum| sum * x + x);
        }
    }
    std::hint::black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, STEPS};

    #[target_feature(enable = "avx512f")]
    pub(super) fn zmm() {
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        let x = _mm512_set1_ps(black_box(0.5));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn ymm() {
        let mut sums = [_mm256_setzero_ps(); CHAINS];
        let x = _mm256_set1_ps(black_box(0.5));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }
}
