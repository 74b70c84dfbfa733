//! Our own trainer on the data of its peer: plain SGD at batch 100.

use muster::checkpoint::{Checkpoint, Progress};
use muster::cluster::Cluster;
use muster::conductor::Conductor;
use muster::dataset::{Dataset, Features};
use muster::error::Error;
use muster::model::Model;
use muster::optimizer::Optimizer;
use muster::records::Records;
use muster::train::{Job, Recipe, Reduction, train, work};
use muster_collective::{Transport, World};
use muster_kernels::Kernels;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Records of a batch.
pub const BATCH: usize = 100;

const RECIPE: Recipe = Recipe {
    seed: 1,
    batch_size: BATCH,
    micro_batch: 32,
    optimizer: Optimizer::Sgd,
    learning_rate: 0.1,
    learning_rate_decay: 1.0,
    loss_reduction: Reduction::Mean,
    probability_floor: 0.0,
};

/// A model and its data.
pub struct Trainer {
    kernels: &'static Kernels,
    model: Model,
    data: Records,
}

impl Trainer {
    /// A perceptron with `hidden` units between the pixels of an image and `classes`; `images` are `[labels.len(), pixels]`.
    ///
    /// # Errors
    /// If images and labels do not go together.
    pub fn new(
        kernels: &'static Kernels,
        hidden: &[usize],
        classes: usize,
        images: &[u8],
        labels: &[u8],
    ) -> Result<Trainer, Error> {
        let pixels = images.len() / labels.len();
        let features = Features::U8 { bytes: images.to_vec().into(), scale: 1.0 / 255.0 };
        let data = Dataset::from_features(Path::new("images"), features, &[pixels], classes)?;
        let data =
            data.with_labels(Path::new("labels"), labels.iter().map(|&label| label.into()).collect())?;
        Ok(Trainer::over(kernels, hidden, data.into()))
    }

    /// The same over records that are there already.
    pub fn over(kernels: &'static Kernels, hidden: &[usize], data: Records) -> Trainer {
        let model = Model::new(&[&[data.width()], hidden, &[data.classes()]].concat());
        Trainer { kernels, model, data }
    }

    /// Trains `steps` steps on `threads` threads; returns images a second, order and batch assembly included.
    ///
    /// # Errors
    /// If the loss is not finite.
    pub fn images_per_second(&self, threads: usize, steps: u64) -> Result<f64, Error> {
        self.train(&self.job(threads, 1, Cluster::default()), steps)
    }

    /// The same by all ranks of a world, of one thread each; they all call it. Rank 0 gets the rate, the others 0. Rank 0 is the
    /// server, and computes gradients only if `server_trains`.
    ///
    /// # Errors
    /// If the loss is not finite, or a rank has failed.
    pub fn images_per_second_of(
        &self,
        (world, transport): (&World, Transport),
        server_trains: bool,
        steps: u64,
    ) -> Result<f64, Error> {
        let cluster = Cluster { world: Some((world, transport)), server_trains, ..Cluster::default() };
        let job = self.job(1, world.roster().len(), cluster);
        if world.rank() == 0 { self.train(&job, steps) } else { work(&job, (world, transport)).map(|()| 0.0) }
    }

    fn job<'a>(&'a self, threads: usize, world_size: usize, cluster: Cluster<'a>) -> Job<'a> {
        let Trainer { kernels, model, data } = self;
        let (recipe, reading_seconds) = (&RECIPE, 0.0);
        Job { model, kernels, train: data, test: None, recipe, world_size, threads, cluster, reading_seconds }
    }

    fn train(&self, job: &Job, steps: u64) -> Result<f64, Error> {
        let start = Checkpoint::start(job.identity());
        let (interrupt, mut observer) = (AtomicUsize::new(0), |_: muster::conductor::Event| {});
        let position = (Progress::default(), job.schedule(), steps);
        let mut conductor = Conductor::new(position, None, Duration::MAX, &interrupt, &mut observer);
        train(job, &start, &mut conductor)?;
        Ok((steps * BATCH as u64) as f64 / conductor.train_seconds)
    }
}

/// Images of random pixels, of which `density` of 256 are not 0, and labels.
pub fn random_images(images: usize, pixels: usize, classes: usize, density: u64) -> (Vec<u8>, Vec<u8>) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 32
    };
    let pixel = |random: u64| if random % 256 < density { (random >> 8) as u8 | 1 } else { 0 };
    let labels = (0..images).map(|i| (i * 7 % classes) as u8).collect();
    ((0..images * pixels).map(|_| pixel(next())).collect(), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_the_density_that_is_asked_for() {
        let (images, labels) = random_images(500, 100, 10, 64);
        let share = images.iter().filter(|&&pixel| pixel > 0).count() as f64 / images.len() as f64;
        assert!((share - 0.25).abs() < 0.01, "{share}");
        assert_eq!((labels.len(), labels.iter().max()), (500, Some(&9)));
    }

    #[test]
    fn a_rate_is_images_over_seconds() {
        let (images, labels) = random_images(200, 20, 10, 64);
        let trainer = Trainer::new(Kernels::select().unwrap(), &[8], 10, &images, &labels).unwrap();
        let rate = trainer.images_per_second(1, 20).unwrap();
        assert!(rate.is_finite() && rate > 0.0, "{rate}");
    }
}
