//! The peer trainer: SGD on a multi-layer perceptron as a C programmer writes it over a BLAS, with plain loops for the
//! bias, ReLU, softmax and update, and a batch assembled from shuffled `u8` pixels for every step.
#![allow(unsafe_code)] // One call into code compiled for what run-time detection has found.

use std::time::Instant;

use muster_kernels::Form;

use crate::blas::Blas;

const BATCH: usize = 100;
const LEARNING_RATE: f32 = 0.1;

/// One layer: row-major weights `[inputs, outputs]`, activations and gradients of a batch.
struct Layer {
    inputs: usize,
    outputs: usize,
    w: Vec<f32>,
    b: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
    /// Output `[BATCH, outputs]`, and its gradient.
    y: Vec<f32>,
    dy: Vec<f32>,
}

/// The model and its data.
pub struct CTrainer<'a> {
    blas: &'a Blas,
    images: &'a [u8],
    labels: &'a [u8],
    order: Vec<u32>,
    at: usize,
    x: Vec<f32>,
    layers: Vec<Layer>,
    random: u64,
}

impl<'a> CTrainer<'a> {
    /// A perceptron with `hidden` units between the pixels of an image and `classes`.
    ///
    /// `images` are `[labels.len(), pixels]`; at least a batch of them.
    pub fn new(blas: &'a Blas, hidden: &[usize], classes: usize, images: &'a [u8], labels: &'a [u8]) -> Self {
        assert!(labels.len() >= BATCH, "{} images are no batch of {BATCH}", labels.len());
        let pixels = images.len() / labels.len();
        let sizes: Vec<usize> = [pixels].into_iter().chain(hidden.iter().copied()).chain([classes]).collect();
        let mut random = 0x2545_F491_4F6C_DD1D;
        let layers = sizes.windows(2).map(|size| Layer::new(size[0], size[1], &mut random)).collect();
        let order = (0..labels.len() as u32).collect();
        CTrainer { blas, images, labels, order, at: usize::MAX, x: vec![0.0; BATCH * pixels], layers, random }
    }

    /// Trains `steps` steps on `threads` threads; returns images a second.
    pub fn images_per_second(&mut self, threads: usize, steps: usize) -> f64 {
        self.blas.set_threads(threads);
        let start = Instant::now();
        for _ in 0..steps {
            self.step();
        }
        (steps * BATCH) as f64 / start.elapsed().as_secs_f64()
    }

    /// One step; returns the mean loss of its batch.
    pub fn step(&mut self) -> f32 {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the feature has just been found.
                return unsafe { self.step_avx512() };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the features have just been found.
                return unsafe { self.step_avx2() };
            }
        }
        self.step_plain()
    }

    /// The loops as a compiler vectorizes them with `-march=native`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn step_avx512(&mut self) -> f32 {
        self.step_plain()
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn step_avx2(&mut self) -> f32 {
        self.step_plain()
    }

    #[inline(always)]
    fn step_plain(&mut self) -> f32 {
        let labels = self.next_batch();
        self.forward();
        let loss = self.loss(&labels);
        self.backward();
        for layer in &mut self.layers {
            descend(&mut layer.w, &layer.dw);
            descend(&mut layer.b, &layer.db);
        }
        loss
    }

    /// Scales the next images of the shuffled order into `x`; returns their labels.
    #[inline(always)]
    fn next_batch(&mut self) -> [u8; BATCH] {
        if self.at > self.order.len() - BATCH {
            for i in (1..self.order.len()).rev() {
                self.order.swap(i, next(&mut self.random) as usize % (i + 1));
            }
            self.at = 0;
        }
        let pixels = self.x.len() / BATCH;
        let mut labels = [0; BATCH];
        let order = &self.order[self.at..self.at + BATCH];
        for ((&i, x), label) in order.iter().zip(self.x.chunks_exact_mut(pixels)).zip(&mut labels) {
            let i = i as usize;
            for (x, &pixel) in x.iter_mut().zip(&self.images[i * pixels..(i + 1) * pixels]) {
                *x = f32::from(pixel) * (1.0 / 255.0);
            }
            *label = self.labels[i];
        }
        self.at += BATCH;
        labels
    }

    #[inline(always)]
    fn forward(&mut self) {
        let last = self.layers.len() - 1;
        for l in 0..=last {
            let (before, rest) = self.layers.split_at_mut(l);
            let layer = &mut rest[0];
            let x = before.last().map_or(&self.x, |before| &before.y);
            let size = [BATCH, layer.outputs, layer.inputs];
            self.blas.matmul(Form::NN, size, x, &layer.w, 0.0, &mut layer.y);
            for row in layer.y.chunks_exact_mut(layer.outputs) {
                for (y, &b) in row.iter_mut().zip(&layer.b) {
                    *y = if l < last { (*y + b).max(0.0) } else { *y + b };
                }
            }
        }
    }

    /// Softmax and cross-entropy; the gradient goes to the last layer's `dy`.
    #[inline(always)]
    fn loss(&mut self, labels: &[u8; BATCH]) -> f32 {
        let layer = self.layers.last_mut().expect("a layer");
        let mut loss = 0.0;
        let rows = layer.y.chunks_exact(layer.outputs).zip(layer.dy.chunks_exact_mut(layer.outputs));
        for ((y, dy), &label) in rows.zip(labels) {
            let max = y.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for (dy, &y) in dy.iter_mut().zip(y) {
                *dy = (y - max).exp();
                sum += *dy;
            }
            loss += sum.ln() - (y[label as usize] - max);
            for dy in dy.iter_mut() {
                *dy *= 1.0 / (sum * BATCH as f32);
            }
            dy[label as usize] -= 1.0 / BATCH as f32;
        }
        loss / BATCH as f32
    }

    #[inline(always)]
    fn backward(&mut self) {
        for l in (0..self.layers.len()).rev() {
            let (before, rest) = self.layers.split_at_mut(l);
            let layer = &mut rest[0];
            let (inputs, outputs) = (layer.inputs, layer.outputs);
            let x = before.last().map_or(&self.x, |before| &before.y);
            self.blas.matmul(Form::TN, [inputs, outputs, BATCH], x, &layer.dy, 0.0, &mut layer.dw);
            layer.db.fill(0.0);
            for row in layer.dy.chunks_exact(outputs) {
                for (db, &dy) in layer.db.iter_mut().zip(row) {
                    *db += dy;
                }
            }
            if let Some(before) = before.last_mut() {
                self.blas.matmul(
                    Form::NT,
                    [BATCH, inputs, outputs],
                    &layer.dy,
                    &layer.w,
                    0.0,
                    &mut before.dy,
                );
                for (dy, &y) in before.dy.iter_mut().zip(&before.y) {
                    *dy = if y > 0.0 { *dy } else { 0.0 };
                }
            }
        }
    }
}

impl Layer {
    fn new(inputs: usize, outputs: usize, random: &mut u64) -> Self {
        let size = (2.0 / inputs as f32).sqrt();
        let mut uniform = || (next(random) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        Layer {
            inputs,
            outputs,
            w: (0..inputs * outputs).map(|_| uniform() * size).collect(),
            b: vec![0.0; outputs],
            dw: vec![0.0; inputs * outputs],
            db: vec![0.0; outputs],
            y: vec![0.0; BATCH * outputs],
            dy: vec![0.0; BATCH * outputs],
        }
    }
}

#[inline(always)]
fn descend(w: &mut [f32], dw: &[f32]) {
    for (w, &dw) in w.iter_mut().zip(dw) {
        *w -= LEARNING_RATE * dw;
    }
}

/// Marsaglia's xorshift (2003).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_what_the_brightest_pixel_says() {
        let Some(blas) = Blas::mkl().or_else(Blas::openblas) else {
            eprintln!("not on this machine: MKL or OpenBLAS (benches/peers/install.sh installs them)");
            return;
        };
        let labels: Vec<u8> = (0..200).map(|i| (i % 10) as u8).collect();
        let images: Vec<u8> =
            labels.iter().flat_map(|&l| (0..20).map(move |p| if p == l { 255 } else { p })).collect();
        let mut trainer = CTrainer::new(&blas, &[16, 12], 10, &images, &labels);
        let first = trainer.step();
        let last = (0..300).map(|_| trainer.step()).last().unwrap();
        assert!(first > 1.5 && last < 0.3, "loss went from {first} to {last}");
    }
}
