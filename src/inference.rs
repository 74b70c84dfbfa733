//! Inference: part in, part out.

use crate::checkpoint;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::evaluate;
use crate::model::{Model, Tensors};
use crate::storage::Storage;
use muster_kernels::Kernels;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Reads the model of a model directory, or a model file.
///
/// # Errors
/// If there is none, or it is damaged.
pub fn read_model(storage: &Storage, path: &Path) -> Result<(Model, Vec<Tensors>), Error> {
    let is_directory = storage.stat(path)?.is_some_and(|entry| entry.is_dir);
    let path = if is_directory { path.join("model.safetensors") } else { path.to_owned() };
    let file = storage.file(&path)?;
    let bytes = file.bytes(0..file.length()).map_err(Error::io("read", &path))?;
    checkpoint::decode_model(&bytes, &path)
}

/// The class of each record, in order, by a model's weights.
pub fn predict(model: &Model, kernels: &Kernels, weights: &[Tensors], dataset: &Dataset) -> Vec<u32> {
    let buffer = model.buffer();
    model.import(weights, &buffer);
    let chunks = evaluate::chunks(dataset.len());
    // A thread takes runs of chunks, so that it makes its workspace once a run.
    let runs = chunks.div_ceil(8);
    let of_run = |run: usize| {
        let mut predictions = Vec::new();
        let chunks = run * 8..chunks.min((run + 1) * 8);
        evaluate::forward((model, kernels, &buffer), dataset, chunks, |_, pass| {
            predictions.extend_from_slice(pass.predict());
        });
        predictions
    };
    (0..runs).into_par_iter().flat_map_iter(of_run).collect()
}

/// How often records of each class were given each class: `[classes, classes]`, rows by label.
#[derive(Serialize, Deserialize)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

impl Confusion {
    /// Nothing counted yet.
    pub fn new(classes: usize) -> Confusion {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Counts labels against predictions.
    pub fn add(&mut self, labels: &[u32], predictions: &[u32]) {
        for (&label, &prediction) in labels.iter().zip(predictions) {
            self.counts[label as usize * self.classes + prediction as usize] += 1;
        }
    }

    /// Adds what was counted elsewhere, for as many classes.
    pub fn merge(&mut self, other: &Confusion) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    /// Share of the records whose prediction is their label; none when nothing was counted.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.classes).map(|class| self.counts[class * self.classes + class]).sum();
        let all: u64 = self.counts.iter().sum();
        (all > 0).then(|| right as f64 / all as f64)
    }

    /// The rows, by label.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks_exact(self.classes)
    }
}
