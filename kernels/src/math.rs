//! `exp` and `ln` of a vector, in operations that every back end has: the same bits wherever the arithmetic is.

use crate::simd::Simd;

/// `ln 2` in two parts: the product of the first with an exponent is exact.
const LN_2: (f32, f32) = (0.693_115_23, 3.194_618_5e-5);

/// Adding and subtracting it rounds a small float to an integer, ties to even.
const ROUND: f32 = 12_582_912.0;

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

/// `e^x`; 0 below -104, infinite above 89, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.0), x));
    let n = round(s, s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN_2.0), x);
    let r = s.mul_add(n, s.splat(-LN_2.1), r);
    let p = s.mul_add(polynomial(s, r, EXP), s.mul(r, r), r);
    let p = s.add(p, s.splat(1.0));
    // 2^n in two factors, so that results below the normal range are rounded once and those above it overflow.
    let half = round(s, s.mul(n, s.splat(0.5)));
    s.mul(s.mul(p, s.pow2(half)), s.pow2(s.sub(n, half)))
}

/// `ln x` for positive normal `x`, NaN for NaN.
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
fn round<S: Simd>(s: S, x: S::V) -> S::V {
    s.sub(s.add(x, s.splat(ROUND)), s.splat(ROUND))
}

#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut sum = s.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        sum = s.mul_add(sum, x, s.splat(coefficients[i]));
    }
    sum
}
