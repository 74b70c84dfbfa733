//! Histograms of many numbers in one cheap pass: the bucket of an f32 is its top bits, sign, exponent and three bits of the mantissa,
//! so that buckets are about a tenth wide and no bounds are searched.

use crate::model::Model;
use muster_collective::Shared;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bits of an f32 below those that make up its bucket.
const SHIFT: u32 = 20;
/// Buckets: of each sign 2048.
const BUCKETS: usize = 1 << (32 - SHIFT);
/// The first bucket of negative numbers, which has −0.
const NEGATIVE: usize = BUCKETS / 2;
/// From here on, within a sign, numbers are not finite.
const NOT_FINITE: usize = (f32::INFINITY.to_bits() >> SHIFT) as usize;

/// Numbers counted by size; those that are not finite are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    counts: Vec<u32>,
    /// The least of them.
    pub min: f64,
    /// The greatest of them.
    pub max: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub squares: f64,
}

/// Numbers from `low` up to `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Its lower bound.
    pub low: f64,
    /// Its upper bound.
    pub high: f64,
    /// How many numbers lie in it.
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        Histogram { counts: vec![0; BUCKETS], min, max, sum: 0.0, squares: 0.0 }
    }
}

impl Histogram {
    /// Counts numbers.
    pub fn add(&mut self, values: &[f32]) {
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        // Four sums, because additions that wait for each other take longer than everything else here.
        let (mut sums, mut squares) = ([0.0; 4], [0.0; 4]);
        for (at, &value) in values.iter().enumerate() {
            let value = if value.is_finite() { value } else { continue };
            self.counts[(value.to_bits() >> SHIFT) as usize] += 1;
            (min, max) = (min.min(value), max.max(value));
            sums[at % 4] += f64::from(value);
            squares[at % 4] += f64::from(value) * f64::from(value);
        }
        (self.min, self.max) = (self.min.min(min.into()), self.max.max(max.into()));
        self.sum += sums.iter().sum::<f64>();
        self.squares += squares.iter().sum::<f64>();
    }

    /// Counts what another one has counted.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// Takes back `count` zeros.
    pub fn forget_zeros(&mut self, count: usize) {
        self.counts[0] = self.counts[0].saturating_sub(count as u32);
    }

    /// How many numbers were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// The buckets that are not empty, from the least numbers to the greatest. Those of the smallest numbers of both signs are one.
    pub fn buckets(&self) -> Vec<Bucket> {
        let bound = |bucket: usize| f64::from(f32::from_bits((bucket as u32) << SHIFT));
        let negative = (1..NOT_FINITE).rev().map(|bucket| Bucket {
            low: -bound(bucket + 1),
            high: -bound(bucket),
            count: self.counts[NEGATIVE + bucket].into(),
        });
        let count = u64::from(self.counts[0]) + u64::from(self.counts[NEGATIVE]);
        let zero = Bucket { low: -bound(1), high: bound(1), count };
        let positive = (1..NOT_FINITE).map(|bucket| Bucket {
            low: bound(bucket),
            high: bound(bucket + 1).min(f32::MAX.into()),
            count: self.counts[bucket].into(),
        });
        negative.chain([zero]).chain(positive).filter(|bucket| bucket.count > 0).collect()
    }
}

/// Histograms of one layer's parameters, weights and biases together.
#[derive(Clone, Debug)]
pub struct LayerHistograms {
    /// Of the parameters, at the end of an epoch.
    pub weights: Histogram,
    /// Of their gradient in its last step.
    pub gradients: Histogram,
}

/// From one counting to the next: histograms of shorter epochs would take longer than the epochs.
const PAUSE: Duration = Duration::from_secs(1);

/// No step is counted.
const NO_STEP: u64 = u64::MAX;

/// The gradients of one step by block of the flat buffer, so that threads, which own blocks, need not wait for each other.
pub struct Gradients {
    blocks: Vec<Mutex<Histogram>>,
    /// The step that is counted, or [`NO_STEP`]. A slow thread may still be at the step before when it is chosen.
    step: AtomicU64,
    not_before: Mutex<Instant>,
}

impl Gradients {
    /// Nothing counted yet.
    pub fn new(model: &Model) -> Gradients {
        let blocks = model.block_lengths().iter().map(|_| Mutex::default()).collect();
        Gradients { blocks, step: AtomicU64::new(NO_STEP), not_before: Mutex::new(Instant::now()) }
    }

    /// `step` is going to be the last one of an epoch: it is counted, unless another one was just before.
    pub fn choose(&self, step: u64) {
        let is_due = Instant::now() >= *self.not_before.lock().expect("no panic while it is held");
        self.step.store(if is_due { step } else { NO_STEP }, Ordering::Release);
    }

    /// Counts a run of a block's gradient of `step`, if this step is counted.
    pub fn add(&self, step: u64, block: usize, gradient: &[f32]) {
        if self.step.load(Ordering::Acquire) == step {
            self.blocks[block].lock().expect("no panic while it is held").add(gradient);
        }
    }

    /// The histograms of each layer after a step that was counted; the next one is another time.
    pub fn take(&self, model: &Model, weights: &Shared) -> Option<Vec<LayerHistograms>> {
        if self.step.swap(NO_STEP, Ordering::AcqRel) == NO_STEP {
            return None;
        }
        *self.not_before.lock().expect("no panic while it is held") = Instant::now() + PAUSE;
        let layer = |layer| {
            let (mut of_weights, mut of_gradients) = (Histogram::default(), Histogram::default());
            for block in model.layer_blocks(layer) {
                of_weights.add(&weights.read(block..block + 1));
                let gradient =
                    std::mem::take(&mut *self.blocks[block].lock().expect("no panic while it is held"));
                of_gradients.merge(&gradient);
            }
            of_weights.forget_zeros(model.padding(layer));
            of_gradients.forget_zeros(model.padding(layer));
            LayerHistograms { weights: of_weights, gradients: of_gradients }
        };
        Some((0..model.layers().len()).map(layer).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_finite_number_lies_in_its_bucket(
            values in prop::collection::vec(prop_oneof![any::<f32>(), -1.0f32..1.0, Just(0.0), Just(-0.0)], 1..100), cut: prop::sample::Index,
        ) {
            let (mut all, mut rest) = (Histogram::default(), Histogram::default());
            let cut = cut.index(values.len());
            all.add(&values[..cut]);
            rest.add(&values[cut..]);
            all.merge(&rest);
            let finite: Vec<f64> = values.iter().filter(|v| v.is_finite()).map(|&v| v.into()).collect();
            prop_assert_eq!(all.count(), finite.len() as u64);
            let buckets = all.buckets();
            prop_assert!(buckets.windows(2).all(|pair| pair[0].high <= pair[1].low));
            for bucket in &buckets {
                // A negative bucket has its lower bound outside and its upper bound inside.
                let within = |&&value: &&f64| match bucket.low >= 0.0 {
                    true => (bucket.low..bucket.high).contains(&value) || value == bucket.high && value == f64::from(f32::MAX),
                    false if bucket.high > 0.0 => bucket.low < value && value < bucket.high,
                    false => bucket.low < value && value <= bucket.high,
                };
                prop_assert_eq!(finite.iter().filter(within).count() as u64, bucket.count, "{:?}", bucket);
                prop_assert!(bucket.low < bucket.high);
            }
            if !finite.is_empty() {
                prop_assert_eq!(all.min, finite.iter().copied().fold(f64::INFINITY, f64::min));
                prop_assert_eq!(all.max, finite.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            }
        }
    }

    #[test]
    fn a_model_s_histograms_leave_out_its_padding() {
        let model = Model::new(&[5, 40, 3]);
        let (weights, gradients) = (model.buffer(), Gradients::new(&model));
        let ones = model.filled(1.0);
        model.import(&ones, &weights);
        let count = |step| {
            for (block, length) in model.block_lengths().into_iter().enumerate() {
                gradients.add(step, block, &vec![0.0; length]);
            }
        };
        count(3);
        assert!(gradients.take(&model, &weights).is_none(), "no step was counted");
        gradients.choose(4);
        (3..6).for_each(count);
        let found = gradients.take(&model, &weights).expect("it was counted");
        for (found, parameters) in found.iter().zip([6 * 40, 41 * 3]) {
            assert_eq!(found.weights.count(), parameters);
            assert_eq!(found.weights.buckets().len(), 1, "no zero is left");
            assert_eq!((found.weights.sum, found.weights.squares), (parameters as f64, parameters as f64));
            assert_eq!(found.gradients.count(), parameters);
        }
        gradients.choose(5);
        assert!(gradients.take(&model, &weights).is_none(), "it is too soon");
    }
}
