//! Random numbers whose bits depend on nothing but the seed: not on crate versions, the C library, threads or ranks.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream of random numbers is for; streams of different purposes are independent.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights of a layer.
    Weights = 1,
    /// The order of blocks of records in an epoch.
    Blocks = 2,
    /// The order of records within a window of blocks.
    Window = 3,
}

/// One stream of random numbers.
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream `(major, minor)` of a purpose, such as (epoch, window).
    pub fn new(seed: u64, purpose: Purpose, major: u64, minor: u64) -> Random {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, major, minor]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Random(ChaCha8Rng::from_seed(key))
    }

    /// A whole number in `0..n`, each as likely as the other to within 2⁻³² (Lemire's multiplication without the rejection).
    ///
    /// # Panics
    /// If `n` is 0 or above 2³².
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0 && n as u64 <= 1 << 32, "random numbers are drawn below 1..=2^32, not {n}");
        ((self.0.next_u64() as u128 * n as u128) >> 64) as usize
    }

    /// Puts `items` into random order (Fisher and Yates).
    pub fn shuffle(&mut self, items: &mut [u32]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Normally distributed around 0 with deviation 1, drawn again until it lies within ±2 (TensorFlow's `truncated_normal`).
    /// Marsaglia's polar method; the logarithm is the `libm` crate's, because that of the host may differ in the last bit.
    pub fn truncated_normal(&mut self) -> f64 {
        loop {
            let (u, v) = (self.symmetric(), self.symmetric());
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let z = u * (-2.0 * libm::log(s) / s).sqrt();
                if z.abs() <= 2.0 {
                    return z;
                }
            }
        }
    }

    /// Uniform in (-1, 1).
    fn symmetric(&mut self) -> f64 {
        const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
        2.0 * ((self.0.next_u64() >> 11) as f64 * UNIT) - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_reproducible_and_differ() {
        let draw = |purpose, major, minor| Random::new(7, purpose, major, minor).below(1 << 32);
        assert_eq!(draw(Purpose::Weights, 0, 0), draw(Purpose::Weights, 0, 0));
        let all = [
            draw(Purpose::Weights, 0, 0),
            draw(Purpose::Blocks, 0, 0),
            draw(Purpose::Blocks, 1, 0),
            draw(Purpose::Blocks, 0, 1),
        ];
        assert!((1..4).all(|i| !all[..i].contains(&all[i])), "{all:?}");
    }

    #[test]
    fn normals_have_the_moments_of_the_truncated_distribution() {
        let mut random = Random::new(1, Purpose::Weights, 0, 0);
        let draws: Vec<f64> = (0..100_000).map(|_| random.truncated_normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|z| z * z).sum::<f64>() / draws.len() as f64;
        approx::assert_abs_diff_eq!(mean, 0.0, epsilon = 0.01);
        // 1 - 4 φ(2) / (2 Φ(2) - 1)
        approx::assert_abs_diff_eq!(variance, 0.7737, epsilon = 0.01);
        assert!(draws.iter().all(|z| z.abs() <= 2.0));
    }

    #[test]
    fn shuffling_is_a_permutation() {
        let mut items: Vec<u32> = (0..1000).collect();
        Random::new(3, Purpose::Window, 0, 0).shuffle(&mut items);
        assert_ne!(items[..20], (0..20).collect::<Vec<u32>>());
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<u32>>());
    }
}
