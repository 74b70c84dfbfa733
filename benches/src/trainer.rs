//! Our own trainer on the data of its peer: plain SGD at batch 100, one rank.

use muster::checkpoint::{Checkpoint, Progress};
use muster::cluster::Cluster;
use muster::conductor::Conductor;
use muster::dataset::{Dataset, Features};
use muster::model::Model;
use muster::optimizer::Optimizer;
use muster::records::Records;
use muster::train::{Job, Recipe, Reduction, train};
use muster_kernels::Kernels;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// A model and its data.
pub struct Trainer {
    kernels: &'static Kernels,
    model: Model,
    data: Records,
}

impl Trainer {
    /// A perceptron with `hidden` units between the pixels of an image and `classes`; `images` are `[labels.len(), pixels]`.
    pub fn new(
        kernels: &'static Kernels,
        hidden: &[usize],
        classes: usize,
        images: &[u8],
        labels: &[u8],
    ) -> Trainer {
        let pixels = images.len() / labels.len();
        let features = Features::U8 { bytes: images.to_vec().into(), scale: 1.0 / 255.0 };
        let data = Dataset::from_features(Path::new("images"), features, &[pixels], classes)
            .and_then(|data| {
                data.with_labels(Path::new("labels"), labels.iter().map(|&label| label.into()).collect())
            })
            .unwrap_or_else(|error| panic!("{error}"));
        let widths = [&[pixels], hidden, &[classes]].concat();
        Trainer { kernels, model: Model::new(&widths), data: data.into() }
    }

    /// Trains `steps` steps on `threads` threads; returns images a second, order and batch assembly included.
    pub fn images_per_second(&self, threads: usize, steps: u64) -> f64 {
        let recipe = Recipe {
            seed: 1,
            batch_size: 100,
            micro_batch: 32,
            optimizer: Optimizer::Sgd,
            learning_rate: 0.1,
            learning_rate_decay: 1.0,
            loss_reduction: Reduction::Mean,
            probability_floor: 0.0,
        };
        let Trainer { kernels, model, data } = self;
        let job = Job {
            model,
            kernels,
            train: data,
            test: None,
            recipe: &recipe,
            world_size: 1,
            threads,
            cluster: Cluster::default(),
            reading_seconds: 0.0,
        };
        let start = Checkpoint::start(job.identity());
        let (interrupt, mut observer) = (AtomicUsize::new(0), |_: muster::conductor::Event| {});
        let position = (Progress::default(), job.schedule(), steps);
        let mut conductor = Conductor::new(position, None, Duration::MAX, &interrupt, &mut observer);
        train(&job, &start, &mut conductor).unwrap_or_else(|error| panic!("{error}"));
        (steps * 100) as f64 / conductor.train_seconds
    }
}
