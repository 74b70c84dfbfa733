//! What the micro-kernels share: tiles of a fixed number of rows, and their vectors in memory.
#![allow(unsafe_code)] // Micro-kernels walk their operands by pointers; `panel` and `panel_tn` check the lengths.

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

/// Runs `tile` over `rows` rows in as few tiles as there can be, of nearly equal heights: 100 rows in tiles of at
/// most 14 are four of 12 and four of 13, where a last one of 2 would leave the FMA units idle.
///
/// # Safety
/// The operands of `tile` must have `rows` rows.
#[inline(always)]
pub(crate) unsafe fn for_each_tile<T: Tile>(rows: usize, tile: &T) {
    let tiles = rows.div_ceil(T::ROWS);
    for t in 0..tiles {
        let first = t * rows / tiles;
        // SAFETY: the arms run as many rows as lie between two ends that `rows` bounds.
        unsafe {
            match (t + 1) * rows / tiles - first {
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
