//! Small data sets as IDX files: noisy pictures of 12 × 12 pixels in 10 classes that a model learns within an epoch or two.

use std::fs;
use std::path::Path;

/// Rows and columns of a picture; 144 pixels are no multiple of any kernel's width.
pub const SIDE: usize = 12;
/// Training records: with batches of 100 the last one of an epoch has 30.
pub const TRAIN: usize = 330;
/// Test records.
pub const TEST: usize = 120;

/// Names of the four files.
pub const NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// Numbers that look random and are the same everywhere (Marsaglia 2003, xorshift).
pub struct Noise(u64);

impl Noise {
    /// `seed` may be anything.
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}

/// Writes the four files.
pub fn write(directory: &Path, seed: u64) {
    fs::create_dir_all(directory).unwrap();
    for (first, count, seed) in [(0, TRAIN, seed), (2, TEST, seed + 1000)] {
        let (images, labels) = pictures(count, seed);
        fs::write(directory.join(NAMES[first]), idx(&[count, SIDE, SIDE], &images)).unwrap();
        fs::write(directory.join(NAMES[first + 1]), idx(&[count], &labels)).unwrap();
    }
}

/// Pixels `[count, SIDE, SIDE]` and labels `[count]`. A class is a bright cross at a place of its own; half of the rest is black.
pub fn pictures(count: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut noise = Noise::new(seed);
    let labels: Vec<u8> = (0..count).map(|_| noise.below(10) as u8).collect();
    let mut images = Vec::with_capacity(count * SIDE * SIDE);
    for &label in &labels {
        let (row, column) = (label as usize, (7 * label as usize + 3) % SIDE);
        images.extend((0..SIDE * SIDE).map(|pixel| {
            let on_cross = pixel / SIDE == row || pixel % SIDE == column;
            match noise.below(8) {
                0..=3 if !on_cross => 0,
                _ if on_cross => 120 + noise.below(136) as u8,
                _ => noise.below(160) as u8,
            }
        }));
    }
    (images, labels)
}

/// An IDX file of bytes.
pub fn idx(dims: &[usize], data: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|&dim| file.extend((dim as u32).to_be_bytes()));
    file.extend(data);
    file
}
