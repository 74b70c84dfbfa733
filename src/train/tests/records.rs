//! Records that do not lie in memory: sent from outside, or read again and again.

use super::*;
use crate::blocks::tests::{FORMATS, Place};
use crate::dataset::FeatureRow;
use crate::feed::Facts;
use crate::gradient::Share;

/// Records out of memory, as a driver would send them; none from step `end` on.
struct Sent<'a> {
    data: &'a Records,
    schedule: crate::batch::Schedule,
    workers: usize,
    end: u64,
}

impl crate::feed::Feed for Sent<'_> {
    fn take(&self, worker: usize, step: u64, rows: usize) -> Result<Option<Dataset>, Error> {
        if step >= self.end {
            return Ok(None);
        }
        let (batch, mut order) = (self.schedule.batch(step), Vec::new());
        crate::batch::shuffle(7, batch.epoch, self.data.len(), &mut order);
        let worker = if self.workers == 1 { 0 } else { worker };
        let own = Share::rows_of(batch.positions.len(), batch.leaves, worker, self.workers);
        let records = &order[batch.positions][own];
        let Records::Memory(data) = self.data else { panic!("clouds are in memory") };
        assert_eq!(records.len(), rows);
        let row = |&record: &u32| match data.feature_row(record as usize) {
            FeatureRow::F32(numbers) => numbers.to_vec(),
            FeatureRow::U8 { .. } => unreachable!("clouds are numbers"),
        };
        let features = Features::F32(records.iter().flat_map(row).collect());
        let labels = records.iter().map(|&record| data.label(record as usize).unwrap()).collect();
        Dataset::from_features(Path::new("sent"), features, &[20], 3)?
            .with_labels(Path::new("sent"), labels)
            .map(Some)
    }

    fn is_open(&self) -> bool {
        false
    }

    fn finish(&self, _: usize) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn records_that_are_sent_give_the_same_weights_until_no_more_come() {
    let (data, model, recipe) = (clouds(100), Model::new(&[20, 40, 3]), recipe(MOMENTUM));
    let elsewhere = Records::fed(Path::new("clouds"), Facts::of(&data), 1.0);
    let whole = run(&job_of(&model, &data, &recipe, 1), None, 30, None).unwrap();
    let part = run(&job_of(&model, &data, &recipe, 1), None, 20, None).unwrap();
    for (world_size, server_trains) in [(1, false), (2, false), (4, false), (3, true), (7, false)] {
        let cluster = Cluster { server_trains, updates: Updates::All, ..Cluster::default() };
        let sent_to = Job { cluster, ..job_of(&model, &elsewhere, &recipe, world_size) };
        let workers = if world_size == 1 { 1 } else { sent_to.workers() };
        for (end, expected) in [(u64::MAX, &whole), (20, &part)] {
            let sent = Sent { data: &data, schedule: sent_to.schedule(), workers, end };
            let cluster = Cluster { feed: Some(&sent), ..cluster };
            let job = Job { cluster, ..job_of(&model, &elsewhere, &recipe, world_size) };
            let outcome = run(&job, None, 30, None).unwrap();
            assert_eq!(outcome.sha256, expected.sha256, "{world_size} ranks, until step {end}");
            let ended = if end == 20 { (End::Drained, 20) } else { (End::Finished, 30) };
            assert_eq!((outcome.end, outcome.progress.steps), ended, "{world_size} ranks");
        }
    }
}

/// Asynchronous workers are given steps ahead: those that have no records are given back.
#[test]
fn asynchronous_workers_use_all_that_is_sent_until_no_more_comes() {
    let (data, model, recipe) = (clouds(100), Model::new(&[20, 40, 3]), recipe(MOMENTUM));
    let elsewhere = Records::fed(Path::new("clouds"), Facts::of(&data), 1.0);
    for max_staleness in [None, Some(0), Some(1)] {
        for (world_size, server_trains) in [(2, false), (4, false), (3, true), (7, false)] {
            let mode = Mode::Async { max_staleness };
            let cluster = Cluster { mode, server_trains, ..Cluster::default() };
            let schedule = job_of(&model, &elsewhere, &recipe, world_size).schedule();
            for end in [u64::MAX, 20, 1, 0] {
                // Every worker computes whole batches.
                let sent = Sent { data: &data, schedule, workers: 1, end };
                let cluster = Cluster { feed: Some(&sent), ..cluster };
                let job = Job { cluster, ..job_of(&model, &elsewhere, &recipe, world_size) };
                let outcome = run(&job, None, 30, None).unwrap();
                let ended = if end < 30 { (End::Drained, end) } else { (End::Finished, 30) };
                assert_eq!(
                    (outcome.end, outcome.progress.steps),
                    ended,
                    "{max_staleness:?}, {world_size} ranks"
                );
            }
        }
    }
}

#[test]
fn records_that_are_read_again_and_again_train_to_the_weights_of_those_in_memory() {
    // Three windows, the last one short; batches that lie in two of them; an epoch and a half.
    let (place, model) = (Place::of(150_000), Model::new(&[6, 8, 3]));
    let recipe = Recipe { batch_size: 1000, ..recipe(MOMENTUM) };
    let memory = place.records_in_memory();
    let expected = run(&job_of(&model, &memory, &recipe, 1), None, 225, None).unwrap();
    for (format, world_size) in FORMATS.into_iter().zip([1, 3, 4, 2]) {
        let blocks = place.records_in(format, 7);
        assert_eq!((blocks.digest(), blocks.kind()), (memory.digest(), memory.kind()));
        let cluster = Cluster { server_trains: world_size == 4, ..Cluster::default() };
        let job = Job { test: Some(&blocks), cluster, ..job_of(&model, &blocks, &recipe, world_size) };
        let outcome = run(&job, None, 225, None).unwrap();
        assert_eq!(outcome.sha256, expected.sha256, "{format}, {world_size} ranks");
        assert_eq!(outcome.progress.epochs[0].loss, expected.progress.epochs[0].loss);
        assert!(outcome.progress.epochs[0].test_accuracy.is_some());
    }
    let blocks = place.records_in(crate::parts::Format::TfRecord, 3);
    let cluster = Cluster { mode: Mode::Async { max_staleness: None }, ..Cluster::default() };
    let job = Job { cluster, ..job_of(&model, &blocks, &recipe, 2) };
    assert_eq!(run(&job, None, 225, None).unwrap().sha256, expected.sha256, "one asynchronous worker");
}

#[test]
fn records_that_can_no_longer_be_read_end_the_training_everywhere() {
    let (place, model) = (Place::of(3000), Model::new(&[6, 8, 3]));
    let (recipe, memory) = (recipe(MOMENTUM), place.records_in_memory());
    for (train_vanishes, world_size, mode) in [
        (true, 1, Mode::Sync),
        (true, 3, Mode::Sync),
        (true, 3, Mode::Async { max_staleness: None }),
        (false, 1, Mode::Sync),
        (false, 3, Mode::Sync),
    ] {
        let blocks = place.records_in(crate::parts::Format::Csv2, 2);
        place.remove("part-00001");
        for server_trains in [false, world_size > 1] {
            let cluster = Cluster { mode, server_trains, ..Cluster::default() };
            let job = job_of(&model, &memory, &recipe, world_size);
            let (train, test) = if train_vanishes { (&blocks, None) } else { (&memory, Some(&blocks)) };
            let job = Job { train, test, cluster, ..job };
            let error = run(&job, None, 200, None).err().expect("a part is gone").to_string();
            assert!(error.contains("part-00001: No such file"), "{error}");
        }
    }
}
