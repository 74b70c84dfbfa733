//! `exp` and `ln` of a vector, in operations that every back end has: the same bits wherever the arithmetic is.

use crate::simd::Simd;

/// `ln 2` in two parts: the product of the first with an exponent is exact.
const LN_2: (f32, f32) = (0.693_115_23, 3.194_618_5e-5);

/// `e^r - 1 - r = r²·(c₀ + c₁ r + …)` for `|r| <= ½ ln 2`: minimax, relative error 2^-28.3.
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_745, 0.001_381_454];

/// `ln(1+f) - f + ½f² = f³·(c₀ + c₁ f + …)` for `1+f` in `[√½, √2)`: minimax, relative error 2^-27.
const LN: [f32; 8] = [
    0.333_333_3,
    -0.250_008_2,
    0.200_012_27,
    -0.166_233_57,
    0.142_017_59,
    -0.131_601_81,
    0.127_615_75,
    -0.076_344_95,
];

/// `e^x`; 0 below -104, infinite above 89, NaN for NaN. Off by at most 1.02 units in the last place, over all floats.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN_2.0), x);
    let r = s.mul_add(n, s.splat(-LN_2.1), r);
    let p = s.mul_add(polynomial(s, r, EXP), s.mul(r, r), r);
    let p = s.add(p, s.splat(1.0));
    s.scale(p, n)
}

/// `ln x` for positive normal `x`, NaN for NaN. Off by at most 0.9 units in the last place, over all floats.
#[inline(always)]
pub(crate) fn ln<S: Simd>(s: S, x: S::V) -> S::V {
    let (fraction, n) = s.split(x);
    let f = s.sub(fraction, s.splat(1.0));
    let square = s.mul(f, f);
    let p = s.mul(polynomial(s, f, LN), s.mul(square, f));
    let p = s.mul_add(n, s.splat(LN_2.1), p);
    let p = s.mul_add(square, s.splat(-0.5), p);
    let p = s.mul_add(n, s.splat(LN_2.0), s.add(p, f));
    // The exponent of a NaN is a number: this makes the result a NaN again.
    s.mul_add(x, s.splat(0.0), p)
}

#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut sum = s.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        sum = s.mul_add(sum, x, s.splat(coefficients[i]));
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)] // Bodies compiled for back ends, behind run-time detection.

    use super::*;
    use crate::simd::LANES;
    use crate::simd::wide::Wide;

    type Function = fn([f32; LANES]) -> [f32; LANES];

    /// `exp` and `ln` of each back end that this machine has.
    fn backends() -> Vec<(Function, Function)> {
        fn wide(f: fn(Wide, wide::f32x16) -> wide::f32x16, x: [f32; LANES]) -> [f32; LANES] {
            // SAFETY: `Wide` needs nothing of the CPU.
            let s = unsafe { Wide::new() };
            s.to_array(f(s, s.load(&x)))
        }
        let mut functions: Vec<(Function, Function)> = vec![(|x| wide(exp, x), |x| wide(ln, x))];
        #[cfg(target_arch = "x86_64")]
        if crate::Backend::Avx2.is_available() {
            // SAFETY: the back end is available, and with it the features.
            functions.push((|x| unsafe { fused::exp(x) }, |x| unsafe { fused::ln(x) }));
        }
        #[cfg(target_arch = "x86_64")]
        if crate::Backend::Avx512.is_available() {
            // SAFETY: as above.
            functions.push((|x| unsafe { wider::exp(x) }, |x| unsafe { wider::ln(x) }));
        }
        functions
    }

    /// `exp` and `ln` compiled for a back end.
    #[cfg(target_arch = "x86_64")]
    macro_rules! compiled {
        ($module:ident, $backend:ty, $features:literal) => {
            mod $module {
                use super::*;

                #[target_feature(enable = $features)]
                pub(super) fn exp(x: [f32; LANES]) -> [f32; LANES] {
                    // SAFETY: this function is compiled for the features.
                    let s = unsafe { <$backend>::new() };
                    s.to_array(super::exp(s, s.load(&x)))
                }

                #[target_feature(enable = $features)]
                pub(super) fn ln(x: [f32; LANES]) -> [f32; LANES] {
                    // SAFETY: this function is compiled for the features.
                    let s = unsafe { <$backend>::new() };
                    s.to_array(super::ln(s, s.load(&x)))
                }
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    compiled!(fused, crate::simd::avx2::Avx2, "avx2,fma");
    #[cfg(target_arch = "x86_64")]
    compiled!(wider, crate::simd::avx512::Avx512, "avx512f,avx512bw,avx512dq,avx512vl,fma");

    /// The largest error in units in the last place over the floats whose bits are in `bits`.
    fn max_ulp(bits: impl Iterator<Item = u32>, f: Function, exact: fn(f64) -> f64) -> f64 {
        let mut max = 0.0_f64;
        let mut x = [1.0; LANES];
        let mut lane = 0;
        for bits in bits {
            x[lane] = f32::from_bits(bits);
            lane = (lane + 1) % LANES;
            if lane > 0 {
                continue;
            }
            for (x, y) in x.into_iter().zip(f(x)) {
                let exact = exact(f64::from(x));
                // The unit of the binade that the exact result lies in, of denormals below the normal range.
                let exponent = ((exact.abs().to_bits() >> 52) as i32 - 1023).max(-126);
                let error = (f64::from(y) - exact).abs() / 2.0_f64.powi(exponent - 23);
                assert!(y.is_finite(), "f({x:e}) = {y:e}");
                max = max.max(error);
            }
        }
        max
    }

    fn check(step: usize) {
        for (exp, ln) in backends() {
            let (low, high) = (-104.0_f32, 88.7_f32);
            let negative = max_ulp(((-0.0_f32).to_bits()..=low.to_bits()).step_by(step), exp, f64::exp);
            let positive = max_ulp((0..=high.to_bits()).step_by(step), exp, f64::exp);
            assert!(negative.max(positive) < 1.02, "exp is off by {negative} below zero, {positive} above");
            let normal = f32::MIN_POSITIVE.to_bits()..=f32::MAX.to_bits();
            let error = max_ulp(normal.step_by(step), ln, f64::ln);
            assert!(error < 0.9, "ln is off by {error}");
            eprintln!("exp {negative:.3} below zero, {positive:.3} above; ln {error:.3} ulp");
        }
    }

    /// Back ends with a fused multiply-add have the same bits, over every so many floats.
    fn compare(step: usize) {
        let [_, rest @ ..] = &backends()[..] else { unreachable!("wide runs everywhere") };
        for pair in rest.windows(2) {
            for first in (0..=u32::MAX).step_by(step * LANES) {
                let x: [f32; LANES] =
                    std::array::from_fn(|lane| f32::from_bits(first.wrapping_add((lane * step) as u32)));
                for (ours, theirs) in [(pair[0].0(x), pair[1].0(x)), (pair[0].1(x), pair[1].1(x))] {
                    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                    assert!(ours.iter().zip(&theirs).all(same), "of {x:?}: {ours:?}, {theirs:?}");
                }
            }
        }
    }

    #[test]
    fn exp_and_ln_keep_their_error_bound() {
        check(4_099);
        compare(4_099);
    }

    #[test]
    #[ignore = "all floats take minutes"]
    fn exp_and_ln_keep_their_error_bound_over_all_floats() {
        check(1);
        compare(1);
    }

    #[test]
    fn the_ends_of_exp() {
        for (exp, ln) in backends() {
            let mut x = [0.0; LANES];
            x[..5].copy_from_slice(&[f32::NEG_INFINITY, -105.0, f32::INFINITY, 90.0, f32::NAN]);
            let y = exp(x);
            assert_eq!(y[..4], [0.0, 0.0, f32::INFINITY, f32::INFINITY]);
            assert!(y[4].is_nan() && y[5] == 1.0);
            assert!(ln([f32::NAN; LANES])[0].is_nan());
        }
    }
}
