//! The promise: the same weights for any number of ranks and threads, and for a training that was interrupted.

use super::*;
use crate::checkpoint::{Progress, sha256};
use crate::cluster::{Computing, Mode, Updates};
use crate::conductor::Event;
use crate::dataset::{Dataset, Features, Kind};
use crate::histogram::Bucket;
use crate::records::Records;
use crate::storage::{HadoopConfig, Storage};
use crate::store::Store;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

mod records;

pub(crate) const MOMENTUM: Optimizer = Optimizer::Momentum { momentum: 0.9 };
const ADAGRAD: Optimizer = Optimizer::Adagrad { initial_accumulator: 0.1 };

/// Two noisy clouds a class around corners of a cube: learnable, with some zeros.
pub(crate) fn clouds(records: usize) -> Records {
    let mut random = crate::random::Random::new(5, crate::random::Purpose::Weights, 1, 2);
    let labels: Vec<u32> = (0..records).map(|_| random.below(3) as u32).collect();
    let feature = |(label, i): (u32, usize)| {
        let center = if i % 3 == label as usize { 1.5 } else { 0.0 };
        (center + random.truncated_normal()).max(0.0) as f32
    };
    let features = labels.iter().flat_map(|&label| (0..20).map(move |i| (label, i))).map(feature).collect();
    let data = Dataset::from_features(Path::new("clouds"), Features::F32(features), &[20], 3).unwrap();
    data.with_labels(Path::new("clouds"), labels).unwrap().into()
}

pub(crate) fn recipe(optimizer: Optimizer) -> Recipe {
    Recipe {
        seed: 7,
        batch_size: 30,
        micro_batch: 8,
        optimizer,
        learning_rate: optimizer.default_learning_rate(),
        learning_rate_decay: 0.9,
        loss_reduction: Reduction::Mean,
        probability_floor: 0.0,
    }
}

pub(crate) fn job_of<'a>(
    model: &'a Model,
    data: &'a Records,
    recipe: &'a Recipe,
    world_size: usize,
) -> Job<'a> {
    Job {
        model,
        kernels: Kernels::select().unwrap(),
        train: data,
        test: None,
        recipe,
        world_size,
        threads: 2,
        cluster: Cluster::default(),
        reading_seconds: 0.0,
    }
}

pub(crate) struct Outcome {
    pub(crate) sha256: String,
    progress: Progress,
    end: End,
    staleness: Staleness,
}

/// Trains on until `last_step`; an interrupt comes after `interrupt_at` steps.
pub(crate) fn run(
    job: &Job,
    store: Option<&Store>,
    last_step: u64,
    interrupt_at: Option<u64>,
) -> Result<Outcome, Error> {
    let start = match store {
        Some(store) => store.start(job.identity(), true, true, |error| panic!("{error}"))?,
        None => Checkpoint::start(job.identity()),
    };
    let interrupt = AtomicUsize::new(0);
    let mut observer = |event: Event| {
        if let Event::Step(step) = event
            && Some(step.steps) == interrupt_at
        {
            interrupt.store(15, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let position = (start.progress.clone(), job.schedule(), last_step);
    let mut conductor = Conductor::new(position, store, Duration::MAX, &interrupt, &mut observer);
    let super::Outcome { weights, end, staleness, times } = train(job, &start, &mut conductor)?;
    assert_eq!(
        times.iter().map(|times| times.rank).collect::<Vec<_>>(),
        (0..job.world_size).collect::<Vec<_>>()
    );
    Ok(Outcome { sha256: sha256(&weights), progress: conductor.progress.clone(), end, staleness })
}

#[test]
fn any_number_of_ranks_and_threads_ends_with_the_same_weights() {
    // 100 records: three batches of 30 and one of 10 an epoch.
    let data = clouds(100);
    for widths in [vec![20, 3], vec![20, 70, 3], vec![20, 70, 40, 3]] {
        for optimizer in [Optimizer::Sgd, MOMENTUM, ADAGRAD, Optimizer::ADAM] {
            let (model, recipe) = (Model::new(&widths), recipe(optimizer));
            let hash = |world_size, threads, updates| {
                let (server_trains, computing) = (world_size == 3, Computing::InTurns(3));
                let cluster = Cluster { server_trains, updates, computing, ..Cluster::default() };
                let job = Job { threads, cluster, ..job_of(&model, &data, &recipe, world_size) };
                run(&job, None, 10, None).unwrap().sha256
            };
            let alone = hash(1, 1, Updates::Auto);
            for (world_size, threads) in [(1, 3), (2, 1), (3, 1), (3, 2), (6, 1)] {
                for updates in [Updates::Server, Updates::All] {
                    let what = format!("{widths:?} {optimizer:?} on {world_size} × {threads}, {updates:?}");
                    assert_eq!(hash(world_size, threads, updates), alone, "{what}");
                }
            }
        }
    }
}

/// Bytes of which many are 0, which take another way through the first layer.
pub(crate) fn sparse_bytes() -> Records {
    let bytes: Vec<u8> =
        (0..100 * 20).map(|i: usize| if i.is_multiple_of(3) { (i * i % 251) as u8 } else { 0 }).collect();
    let features = Features::U8 { bytes: bytes.into(), scale: 1.0 / 255.0 };
    let labels = (0..100).map(|i| i % 3).collect();
    let data = Dataset::from_features(Path::new("bytes"), features, &[20], 3).unwrap();
    let data = data.with_labels(Path::new("bytes"), labels).unwrap();
    assert!(matches!(data.kind(), Kind::U8 { density: 30..=50, .. }));
    data.into()
}

/// 20 units are one slice, which leaves most threads none.
#[test]
fn bytes_on_more_threads_than_slices_end_with_the_same_weights() {
    let data = sparse_bytes();
    for widths in [vec![20, 3], vec![20, 20, 3], vec![20, 70, 20, 3]] {
        let (model, recipe) = (Model::new(&widths), recipe(MOMENTUM));
        for kernels in [Kernels::select().unwrap(), muster_kernels::with_modelled_tiles()] {
            let hash = |world_size, threads| {
                let job = Job { kernels, threads, ..job_of(&model, &data, &recipe, world_size) };
                run(&job, None, 10, None).unwrap().sha256
            };
            let alone = hash(1, 1);
            for (world_size, threads) in [(1, 2), (1, 4), (3, 3)] {
                assert_eq!(hash(world_size, threads), alone, "{widths:?} on {world_size} × {threads}");
            }
        }
    }
}

#[test]
fn a_first_layer_by_tiles_has_an_arithmetic_of_its_own() {
    let (data, recipe, kernels) =
        (sparse_bytes(), recipe(Optimizer::Sgd), muster_kernels::with_modelled_tiles());
    for (widths, is_by_tiles) in [(vec![20, 3], false), (vec![20, 20, 3], true)] {
        let model = Model::new(&widths);
        let job = Job { kernels, ..job_of(&model, &data, &recipe, 1) };
        assert_eq!(job.identity().arithmetic == "tiles-bf16x3", is_by_tiles, "{widths:?}");
        run(&job, None, 10, None).unwrap();
    }
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_bits_and_the_same_report() {
    let data = clouds(100);
    let (model, recipe) = (Model::new(&[20, 40, 3]), recipe(Optimizer::ADAM));
    let job = |world_size| Job { test: Some(&data), ..job_of(&model, &data, &recipe, world_size) };
    let whole = run(&job(1), None, 11, None).unwrap();
    assert_eq!((whole.end, whole.progress.epochs.len()), (End::Finished, 2));
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Arc::new(Storage::new(HadoopConfig::default())), directory.path(), 3).unwrap();
    let first = run(&job(3), Some(&store), 11, Some(5)).unwrap();
    assert_eq!(first.end, End::Interrupted(15));
    assert!((6..=7).contains(&first.progress.steps), "{} steps", first.progress.steps);
    let second = run(&job(1), Some(&store), 11, None).unwrap();
    assert_eq!((second.end, &second.sha256), (End::Finished, &whole.sha256));
    for (resumed, whole) in second.progress.epochs.iter().zip(&whole.progress.epochs) {
        assert_eq!((resumed.loss, resumed.train_accuracy), (whole.loss, whole.train_accuracy));
        assert_eq!((resumed.test_loss, resumed.test_accuracy), (whole.test_loss, whole.test_accuracy));
    }
}

/// Per epoch and layer: the buckets of weights and gradients, and how many parameters there are.
fn histograms(job: &Job, last_step: u64) -> Vec<Vec<[Vec<Bucket>; 2]>> {
    let (start, interrupt, mut seen) = (Checkpoint::start(job.identity()), AtomicUsize::new(0), Vec::new());
    let mut observer = |event: Event| {
        if let Event::Layers(layers) = event {
            seen.push(
                layers.iter().map(|layer| [layer.weights.buckets(), layer.gradients.buckets()]).collect(),
            );
        }
    };
    let position = (start.progress.clone(), job.schedule(), last_step);
    let mut conductor = Conductor::new(position, None, Duration::MAX, &interrupt, &mut observer);
    conductor.histograms = true;
    train(job, &start, &mut conductor).unwrap();
    seen
}

#[test]
fn histograms_of_an_epoch_count_every_parameter_once_on_any_number_of_ranks() {
    let data = clouds(100);
    let (model, recipe) = (Model::new(&[20, 40, 3]), recipe(MOMENTUM));
    let alone = histograms(&job_of(&model, &data, &recipe, 1), 5);
    assert_eq!(alone.len(), 1, "an epoch of four steps is whole");
    for (layers, (layer, parameters)) in
        alone.iter().flat_map(|layers| layers.iter().zip([(0, 840), (1, 123)]))
    {
        for buckets in layers {
            assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), parameters, "layer {layer}");
            assert!(buckets.len() > 10, "layer {layer}: {buckets:?}");
        }
    }
    assert_eq!(histograms(&job_of(&model, &data, &recipe, 3), 5), alone);
}

#[test]
fn a_training_learns() {
    let data = clouds(600);
    let (model, recipe) = (Model::new(&[20, 16, 3]), recipe(MOMENTUM));
    let job = Job { test: Some(&data), threads: 1, ..job_of(&model, &data, &recipe, 2) };
    let epochs = run(&job, None, 200, None).unwrap().progress.epochs;
    assert!(epochs[9].test_accuracy.unwrap() > 0.95, "{epochs:?}");
    assert!(epochs[9].loss < epochs[0].loss / 2.0);
}

#[test]
fn a_loss_that_is_not_finite_ends_the_training_and_names_step_and_rate() {
    let data = clouds(100);
    let model = Model::new(&[20, 16, 3]);
    let recipe = Recipe { learning_rate: 1e30, ..recipe(Optimizer::Sgd) };
    for world_size in [1, 3] {
        let job = job_of(&model, &data, &recipe, world_size);
        let error = run(&job, None, 100, None).err().expect("it diverges").to_string();
        assert!(
            error.contains("at step ") && error.contains(&format!("learning rate of {}", 1e30_f32)),
            "{error}"
        );
    }
}

#[test]
fn asynchronous_training_takes_every_step_keeps_its_bound_and_learns() {
    let data = clouds(600);
    let (model, recipe) = (Model::new(&[20, 16, 3]), recipe(MOMENTUM));
    for (max_staleness, server_trains) in [(None, false), (None, true), (Some(0), false), (Some(2), true)] {
        let cluster = Cluster { mode: Mode::Async { max_staleness }, server_trains, ..Cluster::default() };
        let job = Job { test: Some(&data), threads: 1, cluster, ..job_of(&model, &data, &recipe, 4) };
        let Outcome { progress, staleness, .. } = run(&job, None, 203, None).unwrap();
        assert_eq!((progress.steps, progress.epochs.len()), (203, 10));
        assert_eq!(staleness.values().sum::<u64>(), 203, "{staleness:?}");
        let stalest = *staleness.keys().last().unwrap();
        assert!(stalest <= max_staleness.unwrap_or(203), "{staleness:?}");
        let epochs = progress.epochs;
        assert!(epochs[9].test_accuracy.unwrap() > 0.9, "{epochs:?}");
    }
}

#[test]
fn one_asynchronous_worker_has_the_bits_of_a_synchronous_one() {
    let data = clouds(100);
    let (model, recipe) = (Model::new(&[20, 16, 3]), recipe(ADAGRAD));
    let cluster = Cluster { mode: Mode::Async { max_staleness: None }, ..Cluster::default() };
    let alone = Job { cluster, ..job_of(&model, &data, &recipe, 2) };
    let sync = job_of(&model, &data, &recipe, 1);
    let [alone, sync] = [alone, sync].map(|job| run(&job, None, 11, None).unwrap().sha256);
    assert_eq!(alone, sync);
}

#[test]
fn an_interrupt_ends_asynchronous_training_after_what_is_out() {
    let (data, directory) = (clouds(100), tempfile::tempdir().unwrap());
    let (model, recipe) = (Model::new(&[20, 16, 3]), recipe(ADAGRAD));
    let store = Store::open(Arc::new(Storage::new(HadoopConfig::default())), directory.path(), 3).unwrap();
    let cluster = Cluster { mode: Mode::Async { max_staleness: None }, ..Cluster::default() };
    let job = Job { cluster, ..job_of(&model, &data, &recipe, 4) };
    let first = run(&job, Some(&store), 50, Some(9)).unwrap();
    assert_eq!(first.end, End::Interrupted(15));
    assert!((10..=14).contains(&first.progress.steps), "{} steps", first.progress.steps);
    let second = run(&job, Some(&store), 50, None).unwrap();
    assert_eq!((second.end, second.progress.steps), (End::Finished, 50));
}
