//! The registers as Intel's manual describes them (SDM volume 2, TDPBF16PS): for tests on machines without them, and what those of a CPU are tried
//! against.

use super::{SIDE, Tile, Tiles};

/// Registers in memory; one of floats has their bits.
pub(crate) struct Model([[[u32; SIDE]; SIDE]; 8]);

impl Model {
    pub(crate) fn new() -> Model {
        Model([[[0; SIDE]; SIDE]; 8])
    }
}

impl Tiles for Model {
    fn zero<const TILE: usize>(&mut self) {
        self.0[TILE] = [[0; SIDE]; SIDE];
    }

    fn load<const TILE: usize>(&mut self, from: &Tile) {
        self.0[TILE] = from.0;
    }

    fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let (left, right) = (self.0[LEFT], self.0[RIGHT]);
        for (sums, left) in self.0[SUM].iter_mut().zip(&left) {
            let (mut even, mut odd) = ([0.0; SIDE], [0.0; SIDE]);
            for (&x, right) in left.iter().zip(&right) {
                for (j, &y) in right.iter().enumerate() {
                    even[j] = multiply_add(x << 16, y << 16, even[j]);
                    odd[j] = multiply_add(x & 0xffff_0000, y & 0xffff_0000, odd[j]);
                }
            }
            for (sum, (even, odd)) in sums.iter_mut().zip(even.into_iter().zip(odd)) {
                *sum = add(operand(*sum), add(even, odd)).to_bits();
            }
        }
    }

    fn store<const TILE: usize>(&mut self, to: &mut [[f32; 2 * SIDE]; SIDE], col: usize) {
        for (to, row) in to.iter_mut().zip(&self.0[TILE]) {
            to[col..col + SIDE].copy_from_slice(&row.map(f32::from_bits));
        }
    }
}

/// A float of these bits, or a zero for a denormal.
fn operand(bits: u32) -> f32 {
    let x = f32::from_bits(bits);
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// `x * y + z`, for `x` and `y` that are bf16 but for denormals: their product is exact in double precision.
fn multiply_add(x: u32, y: u32, z: f32) -> f32 {
    round_sum(f64::from(operand(x)) * f64::from(operand(y)), f64::from(z))
}

fn add(x: f32, y: f32) -> f32 {
    round_sum(f64::from(x), f64::from(y))
}

/// The float nearest to `x + y`, of two the even one; zero for a denormal.
///
/// The sum is first rounded to odd in double precision (to the neighbour whose last bit is 1, if it is not exact), whose 53 bits are more
/// than twice the 24 of a float and 2: then rounding twice is rounding once (Boldo and Melquiond 2008).
fn round_sum(x: f64, y: f64) -> f32 {
    /// What rounds to the least normal number in a format that has no least exponent.
    const LEAST: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1 << 25) as f64);
    let sum = x + y;
    // What the sum lacks (Knuth's two-sum).
    let part = sum - x;
    let rest = (x - (sum - part)) + (y - part);
    let odd = match sum.to_bits() {
        bits if rest == 0.0 || !rest.is_finite() || bits & 1 == 1 => bits,
        bits if (rest > 0.0) == (sum > 0.0) => bits + 1,
        bits => bits - 1,
    };
    let odd = f64::from_bits(odd);
    if odd.abs() < LEAST { 0.0_f32.copysign(odd as f32) } else { odd as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_rounded_once() {
        let one = f32::to_bits(1.0);
        // The first lies a little above the middle of two floats, by less than double precision can say beside 1.
        let middle = 1.0 + f32::EPSILON / 2.0;
        assert_eq!(middle, 1.0, "ties to even");
        assert_eq!(round_sum(1.0, f64::from(f32::EPSILON) / 2.0), 1.0);
        assert_eq!(round_sum(1.0 + f64::from(f32::EPSILON) / 2.0, 2.0_f64.powi(-60)), 1.0 + f32::EPSILON);
        assert_eq!(round_sum(1.0 + f64::from(f32::EPSILON) / 2.0, -2.0_f64.powi(-60)), 1.0);
        assert_eq!(round_sum(-1.0 - f64::from(f32::EPSILON) / 2.0, -2.0_f64.powi(-60)), -1.0 - f32::EPSILON);
        assert_eq!(multiply_add(one, one, -1.0).to_bits(), 0);
    }

    #[test]
    fn it_rounds_as_a_fused_multiply_add_does() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for _ in 0..20_000 {
            // Exponents around 1, so that the three overlap in every way.
            let mut number =
                |bits: u32| f32::from_bits(next() & 0x807f_ffff & bits | (115 + next() % 25) << 23);
            let (x, y, z) = (number(0xffff_0000), number(0xffff_0000), number(0xffff_ffff));
            let expected = x.mul_add(y, z);
            assert_eq!(multiply_add(x.to_bits(), y.to_bits(), z), expected, "{x:e} * {y:e} + {z:e}");
        }
    }

    #[test]
    fn denormals_are_zeros() {
        let (tiny, small) = (f32::from_bits(1), f32::MIN_POSITIVE);
        assert_eq!(multiply_add(0x0001_0000, f32::to_bits(1e30), 0.0), 0.0);
        assert_eq!(multiply_add(small.to_bits(), f32::to_bits(0.5), 0.0), 0.0);
        assert_eq!(operand(tiny.to_bits() | 1 << 31).to_bits(), 1 << 31);
        assert_eq!(add(small, -small * 1.5), 0.0);
        assert_eq!(add(small * 1.5, small), small * 2.5);
    }

    #[test]
    fn pairs_are_of_a_row_on_the_left_and_of_a_column_on_the_right() {
        let bf16 = |x: f32| x.to_bits() >> 16;
        let pair = |a: f32, b: f32| bf16(a) | bf16(b) << 16;
        let (mut left, mut right, mut to) = (Tile::ZERO, Tile::ZERO, [[0.0; 2 * SIDE]; SIDE]);
        left.0[3][5] = pair(2.0, 3.0);
        right.0[5][7] = pair(5.0, 7.0);
        let mut model = Model::new();
        model.load::<4>(&left);
        model.load::<5>(&right);
        model.multiply::<0, 4, 5>();
        model.multiply::<0, 4, 5>();
        model.store::<0>(&mut to, SIDE);
        assert_eq!(to[3][SIDE + 7], 2.0 * (2.0 * 5.0 + 3.0 * 7.0));
        assert_eq!(to.as_flattened().iter().sum::<f32>(), 62.0);
    }
}
