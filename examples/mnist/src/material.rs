//! What is trained on what: the data, the model, and whether they fit.

use crate::digests::Digests;
use crate::memory::{self, Ranks};
use crate::{cli, console, parts, ranks, recipe, source};
use anyhow::{Result, ensure};
use muster::model::Model;
use muster::records::Records;
use muster::storage::Storage;
use muster::train::Recipe;
use muster_collective::World;
use muster_launcher::feed::Fed;
use std::time::Instant;

/// The seed's model has one hidden layer of 128 units.
const HIDDEN: usize = 128;

/// What is trained on what.
pub struct Material {
    /// The name of the data set.
    pub dataset: &'static str,
    /// To train on.
    pub train: Records,
    /// To evaluate on.
    pub test: Option<Records>,
    /// The model's shape.
    pub model: Model,
    /// How.
    pub recipe: Recipe,
    /// All ranks.
    pub world_size: usize,
    /// How long it took to read the data.
    pub reading_seconds: f64,
}

impl Material {
    /// Reads or is fed; finds out whether it fits. What `digests` know already is not computed again.
    pub fn prepare(
        options: &cli::Train,
        storage: &Storage,
        world: Option<&World>,
        fed: Option<&Fed>,
        digests: &Digests,
    ) -> Result<Material> {
        let world_size =
            ranks::size(options.cluster.cluster_size, ranks::evaluators(&options.cluster), world)?;
        let threads = options.cluster.threads.unwrap_or(1);
        ensure!(threads <= 1024, "--threads {threads}; at most 1024 are possible");
        let remark: &(dyn Fn(&str) + Sync) = &|text| {
            if world.is_none_or(|world| world.rank() == 0) {
                console::remark(text);
            }
        };
        let start = Instant::now();
        let training = match &options.data.images {
            Some(images) => parts::training(storage, images, options, fed.map(Fed::records))?,
            None => {
                let mnist = source::open(options.data.data.as_deref(), remark, digests)?;
                mnist.warning.as_deref().into_iter().for_each(remark);
                mnist.into_training()?
            }
        };
        let source::Training { train, test, name: dataset } = training;
        let model = model(options, train.width());
        let (recipe, records) = (recipe::recipe(&options.recipe), train.len());
        let batch = recipe.batch_size;
        ensure!(
            batch <= records,
            "--batch-size {batch} is larger than the data set of {records} records; choose at most {records}"
        );
        let (mode, server_trains) = (ranks::mode(options), options.cluster.server_trains);
        if !options.plan_json {
            let ranks = Ranks { size: world_size, server_trains, mode };
            memory::check(&model, &recipe, &train, ranks, world)?;
        }
        let reading_seconds = start.elapsed().as_secs_f64();
        Ok(Material { dataset, train, test, model, recipe, world_size, reading_seconds })
    }
}

/// What an evaluator needs that has a process of its own: the model's shape, and the records to evaluate on, if there are any.
pub fn of_evaluator(options: &cli::Train, storage: &Storage) -> Result<(Model, Option<Records>)> {
    let test = match (&options.data.images, &options.test_images) {
        (None, _) => {
            source::open(options.data.data.as_deref(), &|_| (), &Digests::default())?.into_training()?.test
        }
        (Some(_), None) => None,
        (Some(_), Some(images)) => Some(parts::test(storage, images, options)?),
    };
    let width = test.as_ref().map_or(1, Records::width);
    Ok((model(options, width), test))
}

/// A model of records of `width` features.
fn model(options: &cli::Train, width: usize) -> Model {
    let hidden = options.hidden.clone().map_or(vec![HIDDEN], |hidden| hidden.0);
    Model::new(&[&[width], &hidden[..], &[source::CLASSES]].concat())
}

/// Threads of this process's rank, or of each of its ranks: the usable cores, divided by the workers that share them.
pub fn threads(material: &Material, world: Option<&World>, server_trains: bool) -> usize {
    let (usable, first) = (ranks::usable_cores(), usize::from(!server_trains));
    match world {
        Some(world) => world.roster().share_of_cores(world.rank(), usable, |rank| rank >= first),
        None => (usable / (material.world_size - first.min(material.world_size - 1))).max(1),
    }
}
