//! Digits drawn by the program, for machines that cannot get MNIST and for tests.
//!
//! Each record is a pure function of (seed, index), and every operation on numbers is exactly rounded or from
//! the `libm` crate: the bytes are the same on every machine and for any number of threads.

#[cfg(test)]
mod tests;

use std::f32::consts::PI;
use std::path::Path;

use muster::dataset::{Dataset, Features};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::source::{CLASSES, SCALE, SYNTHETIC};

/// Rows and columns of an image.
const SIDE: usize = 28;
/// Segments that an arc is drawn with; at this size more cannot be seen.
const ARC_SEGMENTS: usize = 10;

type Point = [f32; 2];

/// A part of a glyph in the unit square, x to the right and y down.
enum Stroke {
    /// Straight lines from point to point.
    Line(&'static [Point]),
    /// Part of an ellipse; angles in turns, clockwise from the right.
    Arc { center: Point, radius: Point, from: f32, to: f32 },
}

use Stroke::{Arc, Line};

/// How each digit may be written: one of its variants is drawn.
const GLYPHS: [&[&[Stroke]]; CLASSES] = [
    &[&[Arc { center: [0.5, 0.5], radius: [0.34, 0.46], from: 0.0, to: 1.0 }]],
    &[&[Line(&[[0.5, 0.04], [0.5, 0.96]])], &[Line(&[[0.32, 0.24], [0.54, 0.04], [0.54, 0.96]])]],
    &[&[
        Arc { center: [0.48, 0.29], radius: [0.3, 0.25], from: 0.52, to: 1.1 },
        Line(&[[0.72, 0.44], [0.18, 0.95], [0.84, 0.95]]),
    ]],
    &[&[
        Arc { center: [0.45, 0.27], radius: [0.3, 0.23], from: 0.55, to: 1.25 },
        Arc { center: [0.45, 0.72], radius: [0.34, 0.24], from: 0.75, to: 1.45 },
    ]],
    &[
        &[Line(&[[0.62, 0.96], [0.62, 0.04], [0.14, 0.66], [0.88, 0.66]])],
        &[Line(&[[0.22, 0.06], [0.18, 0.52], [0.78, 0.5]]), Line(&[[0.76, 0.06], [0.72, 0.96]])],
    ],
    &[&[
        Line(&[[0.8, 0.05], [0.28, 0.06], [0.24, 0.45]]),
        Arc { center: [0.45, 0.68], radius: [0.34, 0.27], from: 0.66, to: 1.42 },
    ]],
    &[&[
        Arc { center: [0.78, 0.6], radius: [0.58, 0.58], from: 0.5, to: 0.76 },
        Arc { center: [0.5, 0.69], radius: [0.3, 0.26], from: 0.0, to: 1.0 },
    ]],
    &[
        &[Line(&[[0.16, 0.06], [0.84, 0.06], [0.42, 0.96]])],
        &[Line(&[[0.16, 0.06], [0.84, 0.06], [0.42, 0.96]]), Line(&[[0.36, 0.5], [0.78, 0.5]])],
    ],
    &[&[
        Arc { center: [0.5, 0.27], radius: [0.26, 0.22], from: 0.0, to: 1.0 },
        Arc { center: [0.5, 0.73], radius: [0.32, 0.24], from: 0.0, to: 1.0 },
    ]],
    &[
        &[
            Arc { center: [0.5, 0.3], radius: [0.29, 0.25], from: 0.0, to: 1.0 },
            Line(&[[0.79, 0.3], [0.72, 0.96]]),
        ],
        &[
            Arc { center: [0.5, 0.3], radius: [0.29, 0.25], from: 0.0, to: 1.0 },
            Arc { center: [0.24, 0.42], radius: [0.55, 0.55], from: 0.0, to: 0.24 },
        ],
    ],
];

/// A training and a test set of the given sizes, without a record in common.
pub fn train_and_test(train_len: usize, test_len: usize) -> (Dataset, Dataset) {
    (digits(1, train_len), digits(2, test_len))
}

/// `len` digits; the same for the same `seed`, and a longer set begins with a shorter one.
pub fn digits(seed: u64, len: usize) -> Dataset {
    let mut pixels = vec![0; len * SIDE * SIDE];
    let labels = pixels
        .par_chunks_exact_mut(SIDE * SIDE)
        .enumerate()
        .map(|(index, image)| {
            let mut random = Random::new(seed, index as u64);
            let digit = random.below(CLASSES);
            draw(digit, &mut random, image);
            digit as u32
        })
        .collect();
    let path = Path::new(SYNTHETIC);
    let features = Features::U8 { bytes: pixels.into(), scale: SCALE };
    Dataset::from_features(path, features, &[SIDE, SIDE], CLASSES)
        .and_then(|dataset| dataset.with_labels(path, labels))
        .expect("each image that was drawn has a label of a digit")
}

fn draw(digit: usize, random: &mut Random, image: &mut [u8]) {
    let variants = GLYPHS[digit];
    let hand = Hand::new(random);
    let mut ink = [0.0f32; SIDE * SIDE];
    for stroke in variants[random.below(variants.len())] {
        let points: Vec<Point> = stroke.points(random).into_iter().map(|point| hand.place(point)).collect();
        for ends in points.windows(2) {
            draw_segment(ends[0], ends[1], hand.pen_radius, &mut ink);
        }
    }
    for (pixel, ink) in image.iter_mut().zip(ink) {
        let speck = if random.below(150) == 0 { random.between(0.2, 0.9) } else { 0.0 };
        let uneven = if ink > 0.0 { ink * random.between(0.75, 1.0) } else { 0.0 };
        *pixel = (uneven.max(speck) * 255.0) as u8;
    }
}

impl Stroke {
    /// The corners of the stroke as a hand that is not quite steady puts them.
    fn points(&self, random: &mut Random) -> Vec<Point> {
        match self {
            Line(points) => points.iter().map(|point| point.map(|at| at + random.around(0.09))).collect(),
            Arc { center, radius, from, to } => {
                let center = center.map(|at| at + random.around(0.06));
                let radius = radius.map(|length| length * (1.0 + random.around(0.27)));
                let (from, to) = (from + random.around(0.07), to + random.around(0.07));
                let on_arc = |i: usize| {
                    let angle = 2.0 * PI * (from + (to - from) * i as f32 / ARC_SEGMENTS as f32);
                    [center[0] + radius[0] * libm::cosf(angle), center[1] + radius[1] * libm::sinf(angle)]
                };
                (0..=ARC_SEGMENTS).map(on_arc).collect()
            }
        }
    }
}

/// How one digit is placed on the page, and with which pen.
struct Hand {
    /// From the unit square around its centre to pixels.
    linear: [[f32; 2]; 2],
    center: Point,
    /// In pixels.
    pen_radius: f32,
}

impl Hand {
    fn new(random: &mut Random) -> Hand {
        let (width, height) = (random.between(11.0, 18.0), random.between(15.0, 20.0));
        let slant = random.around(0.3);
        let angle = random.around(0.3);
        let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
        let middle = (SIDE - 1) as f32 / 2.0;
        Hand {
            linear: [
                [cos * width, (cos * slant - sin) * height],
                [sin * width, (sin * slant + cos) * height],
            ],
            center: [middle + random.around(2.0), middle + random.around(2.0)],
            pen_radius: random.between(0.7, 1.8),
        }
    }

    fn place(&self, point: Point) -> Point {
        let (x, y) = (point[0] - 0.5, point[1] - 0.5);
        [0, 1].map(|axis| self.linear[axis][0] * x + self.linear[axis][1] * y + self.center[axis])
    }
}

/// Draws a line with round ends; a pixel is as dark as the pen covers it, so that edges are smooth.
fn draw_segment(start: Point, end: Point, pen_radius: f32, ink: &mut [f32; SIDE * SIDE]) {
    let reach = pen_radius + 0.5;
    let range = |axis: usize| {
        let low = (start[axis].min(end[axis]) - reach).max(0.0) as usize;
        let high = (start[axis].max(end[axis]) + reach).clamp(-1.0, (SIDE - 1) as f32);
        low..(high + 1.0) as usize
    };
    let along = [end[0] - start[0], end[1] - start[1]];
    let squared_length = (along[0] * along[0] + along[1] * along[1]).max(1e-12);
    for y in range(1) {
        for x in range(0) {
            let from_start = [x as f32 - start[0], y as f32 - start[1]];
            let projection = (from_start[0] * along[0] + from_start[1] * along[1]) / squared_length;
            let nearest = projection.clamp(0.0, 1.0);
            let [dx, dy] = [from_start[0] - nearest * along[0], from_start[1] - nearest * along[1]];
            let coverage = (reach - (dx * dx + dy * dy).sqrt()).clamp(0.0, 1.0);
            let pixel = &mut ink[y * SIDE + x];
            *pixel = pixel.max(coverage);
        }
    }
}

/// Random numbers of one record. The steps from random bits to a number stand here, so that they are not
/// those of some version of a library.
struct Random(ChaCha8Rng);

impl Random {
    fn new(seed: u64, stream: u64) -> Random {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(stream);
        Random(random)
    }

    /// An integer from 0 to `end - 1`.
    fn below(&mut self, end: usize) -> usize {
        ((u64::from(self.0.next_u32()) * end as u64) >> 32) as usize
    }

    /// A number from `low` to `high`.
    fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32;
        low + (high - low) * unit
    }

    /// A number from `-most` to `most`.
    fn around(&mut self, most: f32) -> f32 {
        self.between(-most, most)
    }
}
