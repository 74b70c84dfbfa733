//! Floats as three planes of bf16, in tiles: `x = x₁ + x₂ + x₃`, each the bf16 nearest to what is left of x.
//!
//! A bf16 has 8 of a float's 24 bits, so that nothing is left after three, as long as the third is no denormal.
#![allow(unsafe_code)] // Views are pointers; whoever made them has checked what lies behind them.

use super::{DEPTH, SIDE, Tile, Tiles};
use crate::matmul::View;
use crate::table::Table;

/// Rows of a left operand, or columns of a right one, whose tiles lie together.
pub(crate) const STRIP: usize = 2 * SIDE;
/// Planes of an operand.
pub(crate) const PLANES: usize = 3;

/// The two tiles of a strip, of one plane, over [`DEPTH`] steps of the chain.
pub(crate) type Pair = [Tile; 2];

/// `[32, 32]`: 16 rows, and 16 more.
pub(crate) type Sums = [[[f32; 2 * SIDE]; SIDE]; 2];

/// Which way pairs of bf16 lie in a tile.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// The largest absolute value of each of the first `n` rows or columns of C, over `k` steps of the chain, as bits: what is not finite is larger
/// than all that is.
#[inline(always)]
pub(crate) fn largest(view: View, n: usize, k: usize, largest: &mut Vec<u32>) {
    let bits = |x: &f32| x.to_bits() & !(1 << 31);
    largest.clear();
    largest.resize(n, 0);
    if view.along_k {
        for (x, largest) in largest.iter_mut().enumerate() {
            // SAFETY: a view holds the elements that it is asked for.
            *largest = unsafe { view.row(x, 0, k) }.iter().map(bits).max().unwrap_or(0);
        }
    } else {
        for p in 0..k {
            // SAFETY: as above.
            for (largest, x) in largest.iter_mut().zip(unsafe { view.row(0, p, n) }) {
                *largest = bits(x).max(*largest);
            }
        }
    }
}

/// Appends the planes of `[n, k]` of `view`: strip after strip, in each plane after plane, in each step after step. What lies past `n` and `k`
/// is zero.
#[inline(always)]
pub(crate) fn pack(table: &Table, side: Side, view: View, n: usize, k: usize, to: &mut Vec<Pair>) {
    let (steps, before) = (k.div_ceil(DEPTH), to.len());
    to.resize(before + n.div_ceil(STRIP) * PLANES * steps, [Tile::ZERO; 2]);
    for (s, strip) in to[before..].chunks_exact_mut((PLANES * steps).max(1)).enumerate() {
        let [first, second, third] = planes_mut(strip);
        for half in [0, 1] {
            let x = s * STRIP + half * SIDE;
            let rows = SIDE.min(n.saturating_sub(x));
            for step in 0..steps {
                let p = step * DEPTH;
                let tiles = [&mut first[step][half], &mut second[step][half], &mut third[step][half]];
                split(table, side, view.from(x, p), rows, DEPTH.min(k - p), tiles);
            }
        }
    }
}

/// The planes of a packed strip.
pub(crate) fn planes(strip: &[Pair]) -> [&[Pair]; PLANES] {
    let (first, others) = strip.split_at(strip.len() / PLANES);
    let (second, third) = others.split_at(first.len());
    [first, second, third]
}

fn planes_mut(strip: &mut [Pair]) -> [&mut [Pair]; PLANES] {
    let (first, others) = strip.split_at_mut(strip.len() / PLANES);
    let (second, third) = others.split_at_mut(first.len());
    [first, second, third]
}

/// A tile of each plane, of `[n, k]` of `view`, at most `[16, 32]`.
#[inline(always)]
fn split(table: &Table, side: Side, view: View, n: usize, k: usize, tiles: [&mut Tile; PLANES]) {
    let mut floats = [0.0; SIDE * DEPTH];
    let [first, second, third] = tiles.map(|tile| &mut tile.0);
    let words =
        first.iter_mut().zip(second).zip(third).map(|((first, second), third)| [first, second, third]);
    match side {
        Side::Left => {
            table.pack_panel(view.turned(), k, n, DEPTH, &mut floats);
            for (row, words) in floats.as_chunks::<DEPTH>().0.iter().zip(words) {
                let (even, odd) =
                    (std::array::from_fn(|j| row[2 * j]), std::array::from_fn(|j| row[2 * j + 1]));
                split_pairs(&even, &odd, words);
            }
        }
        Side::Right => {
            table.pack_panel(view, n, k, SIDE, &mut floats);
            for ([even, odd], words) in floats.as_chunks::<SIDE>().0.as_chunks::<2>().0.iter().zip(words) {
                split_pairs(even, odd, words);
            }
        }
    }
}

/// The planes of 16 pairs.
#[inline(always)]
fn split_pairs(even: &[f32; SIDE], odd: &[f32; SIDE], words: [&mut [u32; SIDE]; PLANES]) {
    let (mut even, mut odd) = (*even, *odd);
    for words in words {
        for ((word, even), odd) in words.iter_mut().zip(&mut even).zip(&mut odd) {
            let (low, high) = (nearest(*even), nearest(*odd));
            *word = low.to_bits() >> 16 | high.to_bits();
            (*even, *odd) = (*even - low, *odd - high);
        }
    }
}

/// The bf16 nearest to `x`, of two the even one; a NaN stays one.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    let bits = x.to_bits();
    let quiet = u32::from(x.is_nan()) << 22;
    let half = if x.is_finite() { 0x7fff + (bits >> 16 & 1) } else { 0 };
    f32::from_bits(((bits | quiet) + half) & 0xffff_0000)
}

/// Registers 0 to 3 become zero.
#[inline(always)]
pub(crate) fn zero_sums<T: Tiles>(tiles: &mut T) {
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
}

/// Registers 4 and 5 become a pair of tiles of the left operand.
#[inline(always)]
pub(crate) fn load_left<T: Tiles>(tiles: &mut T, [upper, lower]: &Pair) {
    tiles.load::<4>(upper);
    tiles.load::<5>(lower);
}

/// Registers 6 and 7 become a pair of tiles of the right operand.
#[inline(always)]
pub(crate) fn load_right<T: Tiles>(tiles: &mut T, [first, second]: &Pair) {
    tiles.load::<6>(first);
    tiles.load::<7>(second);
}

/// Adds the product of registers 4, 5 and 6, 7 to registers 0 to 3, `[32, 32]`.
#[inline(always)]
pub(crate) fn multiply_pairs<T: Tiles>(tiles: &mut T) {
    tiles.multiply::<0, 4, 6>();
    tiles.multiply::<1, 4, 7>();
    tiles.multiply::<2, 5, 6>();
    tiles.multiply::<3, 5, 7>();
}

/// The sums in registers 0 to 3: of the upper 16 rows, and of the lower.
#[inline(always)]
pub(crate) fn store_sums<T: Tiles>(tiles: &mut T) -> Sums {
    let mut sums: Sums = [[[0.0; 2 * SIDE]; SIDE]; 2];
    let [upper, lower] = &mut sums;
    tiles.store::<0>(upper, 0);
    tiles.store::<1>(upper, SIDE);
    tiles.store::<2>(lower, 0);
    tiles.store::<3>(lower, SIDE);
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The planes of one float.
    fn planes_of(x: f32) -> [f32; PLANES] {
        let mut words = [[0; SIDE]; PLANES];
        let [first, second, third] = &mut words;
        split_pairs(&[x; SIDE], &[-x; SIDE], [first, second, third]);
        words.map(|words| {
            let (even, odd) = (f32::from_bits(words[0] << 16), f32::from_bits(words[0] & 0xffff_0000));
            assert!(even == -odd && words == [words[0]; SIDE]);
            even
        })
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bits in [0x7f80_0001, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff, 0x7fc0_0000] {
            assert!(nearest(f32::from_bits(bits)).is_nan(), "{bits:#x}");
        }
        assert_eq!([f32::INFINITY, f32::NEG_INFINITY].map(nearest), [f32::INFINITY, f32::NEG_INFINITY]);
    }

    proptest! {
        #[test]
        fn three_planes_are_the_float_and_the_bound_of_each_holds(fraction in 0_u32..1 << 23, exponent in 25_u32..186) {
            let x = f32::from_bits(exponent << 23 | fraction);
            let [first, second, third] = planes_of(x).map(f64::from);
            prop_assert_eq!(first + second + third, f64::from(x));
            prop_assert!(second.abs() <= f64::from(x) * 2.0_f64.powi(-8));
            prop_assert!(third.abs() <= f64::from(x) * 2.0_f64.powi(-17));
        }

        #[test]
        fn what_denormal_planes_lose_is_less_than_two_of_the_least_normal_numbers(bits in 0_u32..25 << 23) {
            let x = f32::from_bits(bits);
            let normal: f64 = planes_of(x).into_iter().filter(|plane| !plane.is_subnormal()).map(f64::from).sum();
            prop_assert!((normal - f64::from(x)).abs() < 2.0 * f64::from(f32::MIN_POSITIVE));
        }
    }
}
