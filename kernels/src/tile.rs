//! What the micro-kernels share: tiles of a fixed number of rows, and their vectors in memory.
#![allow(unsafe_code)] // Micro-kernels walk their operands by pointers; `panel` and `panel_tn` check the lengths.

use std::ops::Range;

use crate::simd::{LANES, Simd};

/// A micro-kernel: `MR` rows of a product, kept in registers.
pub(crate) trait Tile {
    /// The most rows that fit the registers.
    const ROWS: usize;

    /// Computes rows `first..first + MR`.
    ///
    /// # Safety
    /// These rows must exist in the operands that the tile was made with.
    unsafe fn run<const MR: usize>(&self, first: usize);
}

/// `0..rows` in as few tiles of at most `most` as there can be, of nearly equal heights, the taller ones first: 100 rows in tiles of at most 14
/// are four of 13 and four of 12, where a last one of 2 would leave the FMA units idle.
#[inline(always)]
pub(crate) fn heights(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let tiles = rows.div_ceil(most);
    // Once: a division takes as long as a tenth of a tile of a short chain.
    let (height, taller) = (rows / tiles.max(1), rows % tiles.max(1));
    let mut end = 0;
    (0..tiles).map(move |t| {
        let first = end;
        end += height + usize::from(t < taller);
        first..end
    })
}

/// Runs `tile` over `rows` rows, by [`heights`].
///
/// # Safety
/// The operands of `tile` must have `rows` rows.
#[inline(always)]
pub(crate) unsafe fn for_each_tile<T: Tile>(rows: usize, tile: &T) {
    for rows in heights(rows, T::ROWS) {
        // SAFETY: the caller vouches for the rows.
        unsafe { run_tile(rows.start, rows.len(), tile) };
    }
}

/// Runs `tile` over rows `first..first + height`, at most as many as it can take.
///
/// # Safety
/// The operands of `tile` must have these rows.
#[inline(always)]
pub(crate) unsafe fn run_tile<T: Tile>(first: usize, height: usize, tile: &T) {
    // SAFETY: each arm runs as many rows as the caller vouches for.
    unsafe {
        match height {
            // The guards are constants: heights past `ROWS` are not compiled.
            1 if const { T::ROWS >= 1 } => tile.run::<1>(first),
            2 if const { T::ROWS >= 2 } => tile.run::<2>(first),
            3 if const { T::ROWS >= 3 } => tile.run::<3>(first),
            4 if const { T::ROWS >= 4 } => tile.run::<4>(first),
            5 if const { T::ROWS >= 5 } => tile.run::<5>(first),
            6 if const { T::ROWS >= 6 } => tile.run::<6>(first),
            7 if const { T::ROWS >= 7 } => tile.run::<7>(first),
            8 if const { T::ROWS >= 8 } => tile.run::<8>(first),
            9 if const { T::ROWS >= 9 } => tile.run::<9>(first),
            10 if const { T::ROWS >= 10 } => tile.run::<10>(first),
            11 if const { T::ROWS >= 11 } => tile.run::<11>(first),
            12 if const { T::ROWS >= 12 } => tile.run::<12>(first),
            13 if const { T::ROWS >= 13 } => tile.run::<13>(first),
            14 if const { T::ROWS >= 14 } => tile.run::<14>(first),
            height => unreachable!("a tile of {height} rows"),
        }
    }
}

/// `MR` rows of `N` vectors.
pub(crate) type Block<S, const MR: usize, const N: usize> = [[<S as Simd>::V; N]; MR];

/// The `MR` rows of `N` vectors at `c`, `ldc` floats apart.
///
/// # Safety
/// All of them must be readable.
#[inline(always)]
pub(crate) unsafe fn load_block<S: Simd, const MR: usize, const N: usize>(
    s: S,
    c: *const f32,
    ldc: usize,
) -> Block<S, MR, N> {
    let mut block = [[s.splat(0.0); N]; MR];
    for (r, row) in block.iter_mut().enumerate() {
        for (v, x) in row.iter_mut().enumerate() {
            // SAFETY: the caller vouches for every row.
            *x = unsafe { load(s, c.add(r * ldc + v * LANES)) };
        }
    }
    block
}

/// Writes `block` to the rows at `c`, `ldc` floats apart.
///
/// # Safety
/// All of them must be writable.
#[inline(always)]
pub(crate) unsafe fn store_block<S: Simd, const MR: usize, const N: usize>(
    s: S,
    block: Block<S, MR, N>,
    c: *mut f32,
    ldc: usize,
) {
    for (r, row) in block.iter().enumerate() {
        for (v, &x) in row.iter().enumerate() {
            // SAFETY: the caller vouches for every row.
            unsafe { *c.add(r * ldc + v * LANES).cast() = s.to_array(x) };
        }
    }
}

/// The vector at `p`.
///
/// # Safety
/// 16 floats must be readable there.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::V {
    // SAFETY: the caller vouches for the 16 floats.
    s.load(unsafe { &*p.cast() })
}
