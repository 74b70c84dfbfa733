//! A step of training allocates nothing, on no rank: three times the steps take exactly as many allocations.

// A global allocator is unsafe to implement; this one counts and passes on.
#![allow(unsafe_code)]

use muster::checkpoint::Checkpoint;
use muster::cluster::{Cluster, Computing, Updates};
use muster::conductor::{Conductor, Event};
use muster::dataset::{Dataset, Features};
use muster::model::Model;
use muster::optimizer::Optimizer;
use muster::records::Records;
use muster::train::{Job, Recipe, Reduction, train};
use muster_kernels::Kernels;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const RECORDS: usize = 6000;
const FEATURES: usize = 20;
const CLASSES: usize = 3;

/// Counts the allocations of all threads.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the counter neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn steps_allocate_nothing() {
    let floats = Features::F32((0..RECORDS * FEATURES).map(|i| (i % 7) as f32 / 7.0).collect());
    let bytes = || (0..RECORDS * FEATURES).map(|i| (i % 3 * (i % 50)) as u8).collect::<Vec<_>>().into();
    let bytes = || Features::U8 { bytes: bytes(), scale: 1.0 / 255.0 };
    let (kernels, tiles) = (Kernels::select().unwrap(), muster_kernels::with_modelled_tiles());
    for (features, kernels) in [(floats, kernels), (bytes(), kernels), (bytes(), tiles)] {
        let data = Dataset::from_features(Path::new("cycles"), features, &[FEATURES], CLASSES).unwrap();
        let labels = (0..RECORDS).map(|i| (i % CLASSES) as u32).collect();
        let data = data.with_labels(Path::new("cycles"), labels).unwrap().into();
        // The first training, and what waits for this test beside it, set up what is set up once.
        allocations((&data, kernels), 3, true, 50);
        for (world_size, server_trains) in [(1, false), (3, false), (3, true)] {
            let few = allocations((&data, kernels), world_size, server_trains, 50);
            let many = allocations((&data, kernels), world_size, server_trains, 150);
            assert_eq!(few, many, "world of {world_size}, server trains: {server_trains}");
        }
    }
}

/// How many allocations a training of so many steps makes, all within its first epoch.
fn allocations(
    (data, kernels): (&Records, &Kernels),
    world_size: usize,
    server_trains: bool,
    steps: u64,
) -> u64 {
    let model = Model::new(&[FEATURES, 40, CLASSES]);
    let recipe = Recipe {
        seed: 1,
        batch_size: 30,
        micro_batch: 8,
        optimizer: Optimizer::ADAM,
        learning_rate: 0.001,
        learning_rate_decay: 1.0,
        loss_reduction: Reduction::Mean,
        probability_floor: 0.0,
    };
    let job = Job {
        model: &model,
        kernels,
        train: data,
        test: None,
        recipe: &recipe,
        world_size,
        threads: 2,
        // Both ways of computing a step and of updating the weights begin early: what each sets up once is there in the shorter training, too.
        cluster: Cluster {
            server_trains,
            updates: Updates::All,
            computing: Computing::InTurns(10),
            ..Cluster::default()
        },
        reading_seconds: 0.0,
    };
    let start = Checkpoint::start(job.identity());
    let (interrupt, mut observer) = (AtomicUsize::new(0), |_: Event| ());
    let position = (start.progress.clone(), job.schedule(), steps);
    let mut conductor = Conductor::new(position, None, Duration::MAX, &interrupt, &mut observer);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    train(&job, &start, &mut conductor).unwrap();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}
