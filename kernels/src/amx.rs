//! AMX: eight registers that hold 16 rows of 64 bytes, and the multiply-adds of 16×16 floats by 32 pairs of bf16.
//!
//! The operations on them are a trait, so that what is built of them is tested on machines without them, by a model of the registers.

#[cfg(target_arch = "x86_64")]
mod instructions;
mod model;
#[cfg(target_arch = "x86_64")]
mod permission;
pub(crate) mod planes;
#[cfg(any(test, target_arch = "x86_64"))]
mod trial;

#[cfg(target_arch = "x86_64")]
pub(crate) use instructions::Amx;
pub(crate) use model::Model;
#[cfg(target_arch = "x86_64")]
pub(crate) use permission::missing;

/// Rows of a tile, and the pairs or floats in each.
pub(crate) const SIDE: usize = 16;
/// Steps of a chain that one multiplication of tiles goes.
pub(crate) const DEPTH: usize = 2 * SIDE;

/// Pairs of bf16, of which the lower half of a word is the first.
///
/// Of a left operand: word `j` of row `i` holds the elements `(i, 2j)` and `(i, 2j + 1)`. Of a right one: word `j` of row `p` holds
/// `(2p, j)` and `(2p + 1, j)`.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Tile(pub(crate) [[u32; SIDE]; SIDE]);

impl Tile {
    pub(crate) const ZERO: Tile = Tile([[0; SIDE]; SIDE]);
}

/// The registers, numbered from 0 to 7. A value of an implementing type proves that the CPU has them and that they are configured.
pub(crate) trait Tiles {
    fn zero<const TILE: usize>(&mut self);
    fn load<const TILE: usize>(&mut self, from: &Tile);
    /// `SUM += LEFT · RIGHT`, TDPBF16PS: each float of `SUM` is added the sum of two chains, of the 16 even and the 16 odd products, each a
    /// chain of fused multiply-adds from 0. Rounded to the nearest, ties to even; denormals are zeros, as operands and as results.
    fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
    /// Writes the 16 floats of each row to columns `col..col + 16`.
    fn store<const TILE: usize>(&mut self, to: &mut [[f32; 2 * SIDE]; SIDE], col: usize);
}
