//! Whether registers add up as the manual says: tried before they are used, on the machine that would use them.

use super::{Model, SIDE, Tile, Tiles};

/// Two products of `tiles`, added up in register `SUM`; the bits of its floats, in the right half of each row.
pub(crate) fn products<const SUM: usize, const LEFT: usize, const RIGHT: usize>(
    mut registers: impl Tiles,
    tiles: &[Tile; 4],
) -> [[u32; 2 * SIDE]; SIDE] {
    let mut sums = [[0.0; 2 * SIDE]; SIDE];
    registers.zero::<SUM>();
    for [left, right] in tiles.as_chunks().0 {
        registers.load::<LEFT>(left);
        registers.load::<RIGHT>(right);
        registers.multiply::<SUM, LEFT, RIGHT>();
    }
    registers.store::<SUM>(&mut sums, SIDE);
    sums.map(|row| row.map(f32::to_bits))
}

/// Whether these registers have the sums of the [`Model`], bit for bit, for numbers near 1 of every fraction.
pub(crate) fn is_passed(registers: impl Tiles) -> bool {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let mut half = || next() & 0x807f | (120 + next() % 16) << 7;
    let tiles = [(); 4].map(|()| Tile([(); SIDE].map(|()| [(); SIDE].map(|()| half() | half() << 16))));
    products::<0, 4, 6>(registers, &tiles) == products::<0, 4, 6>(Model::new(), &tiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The model, but for one thing.
    struct Other<const CHANGED: bool>(Model);

    impl<const CHANGED: bool> Tiles for Other<CHANGED> {
        fn zero<const TILE: usize>(&mut self) {
            self.0.zero::<TILE>();
        }
        fn load<const TILE: usize>(&mut self, from: &Tile) {
            let mut from = *from;
            // The last bit of one fraction.
            from.0[SIDE - 1][SIDE - 1] ^= u32::from(CHANGED);
            self.0.load::<TILE>(&from);
        }
        fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
            self.0.multiply::<SUM, LEFT, RIGHT>();
        }
        fn store<const TILE: usize>(&mut self, to: &mut [[f32; 2 * SIDE]; SIDE], col: usize) {
            self.0.store::<TILE>(to, col);
        }
    }

    #[test]
    fn one_bit_makes_the_difference() {
        assert!(is_passed(Other::<false>(Model::new())));
        assert!(!is_passed(Other::<true>(Model::new())));
    }
}
