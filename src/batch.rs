//! The global order of records, and who gets which of them.
//!
//! The order is a pure function of (seed, epoch, number of records): blocks of [`BLOCK`] consecutive records are permuted, then
//! records are shuffled within windows of that order. A global batch is the next run of records; it is cut into micro-batches of
//! nearly equal length, the leaves of the gradient tree, and each worker gets a run of leaves.

use crate::random::{Purpose, Random};
use std::ops::Range;

/// Consecutive records that stay in one window: what a reader fetches at once from storage.
pub const BLOCK: usize = 1024;

/// Blocks among which records are shuffled by default: 65,536 records, all of MNIST.
pub const WINDOW_BLOCKS: usize = 64;

/// Records of a window, if none of its blocks is short.
pub const WINDOW: usize = WINDOW_BLOCKS * BLOCK;

/// Which records make up which step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Records in the data set.
    pub records: usize,
    /// Records of a global batch; the last one of an epoch may have fewer.
    pub batch_size: usize,
    /// The most records of a micro-batch.
    pub micro_batch: usize,
}

/// One step's part of its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Where its records stand in the epoch's order.
    pub positions: Range<usize>,
    /// Number of micro-batches.
    pub leaves: usize,
}

impl Schedule {
    /// Batches in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.records.div_ceil(self.batch_size) as u64
    }

    /// The batch of a step, counted from 0 over all epochs.
    pub fn batch(&self, step: u64) -> Batch {
        let (epoch, index) = (step / self.steps_per_epoch(), (step % self.steps_per_epoch()) as usize);
        let start = index * self.batch_size;
        let positions = start..(start + self.batch_size).min(self.records);
        Batch { epoch, leaves: positions.len().div_ceil(self.micro_batch), positions }
    }

    /// The number of records in each of the at most two kinds of batches: whole ones and the last one of an epoch.
    pub fn batch_sizes(&self) -> impl Iterator<Item = usize> {
        let last = self.records % self.batch_size;
        let whole = (self.records >= self.batch_size).then_some(self.batch_size);
        whole.into_iter().chain((last > 0).then_some(last))
    }

    /// Records used by the first `steps` steps.
    pub fn records_until(&self, steps: u64) -> u64 {
        let (epochs, rest) = (steps / self.steps_per_epoch(), steps % self.steps_per_epoch());
        epochs * self.records as u64 + rest * self.batch_size as u64
    }
}

/// The records of leaf `leaf` of a batch of `rows` records in `leaves` micro-batches.
pub fn leaf_rows(rows: usize, leaves: usize, leaf: usize) -> Range<usize> {
    leaf * rows / leaves..(leaf + 1) * rows / leaves
}

/// The run of `items` (leaves, slices, blocks, …) that falls to the `index`-th of `count` equal holders.
pub fn share(items: usize, index: usize, count: usize) -> Range<usize> {
    index * items / count..(index + 1) * items / count
}

/// Writes the order of the records of an epoch to `order`.
///
/// # Panics
/// If there are 2³² records or more.
pub fn shuffle(seed: u64, epoch: u64, records: usize, order: &mut Vec<u32>) {
    let windows = Order::new(seed, epoch, records);
    order.clear();
    (0..windows.len()).for_each(|window| windows.append(window, order));
}

/// The order of the records of an epoch, window by window.
pub struct Order {
    seed: u64,
    epoch: u64,
    records: u32,
    window_blocks: usize,
    /// All blocks, in their order.
    blocks: Vec<u32>,
}

impl Order {
    /// Of an epoch.
    ///
    /// # Panics
    /// If there are 2³² records or more.
    pub fn new(seed: u64, epoch: u64, records: usize) -> Order {
        Order::of_windows(seed, epoch, records, WINDOW_BLOCKS)
    }

    fn of_windows(seed: u64, epoch: u64, records: usize, window_blocks: usize) -> Order {
        let records = u32::try_from(records).expect("fewer than 2^32 records");
        let mut blocks: Vec<u32> = (0..records.div_ceil(BLOCK as u32)).collect();
        Random::new(seed, Purpose::Blocks, epoch, 0).shuffle(&mut blocks);
        Order { seed, epoch, records, window_blocks, blocks }
    }

    /// Number of windows.
    #[expect(clippy::len_without_is_empty, reason = "a data set has at least one record")]
    pub fn len(&self) -> usize {
        self.blocks.len().div_ceil(self.window_blocks)
    }

    /// Where a window stands in the order.
    pub fn positions(&self, window: usize) -> Range<usize> {
        let start = |block: usize| self.blocks[..block].iter().map(|&block| self.block(block).len()).sum();
        let end = self.blocks.len().min((window + 1) * self.window_blocks);
        start(window * self.window_blocks)..start(end)
    }

    /// Appends the records of a window to `order`.
    pub fn append(&self, window: usize, order: &mut Vec<u32>) {
        let start = order.len();
        let blocks = self.blocks.chunks(self.window_blocks).nth(window).unwrap_or_default();
        order.extend(blocks.iter().flat_map(|&block| self.block(block)));
        Random::new(self.seed, Purpose::Window, self.epoch, window as u64).shuffle(&mut order[start..]);
    }

    /// The records of a block.
    fn block(&self, block: u32) -> Range<u32> {
        let first = block * BLOCK as u32;
        first..self.records.min(first.saturating_add(BLOCK as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_epoch_uses_every_record_once(records in 1usize..5000, seed: u64, epoch in 0u64..5, window in 1usize..4) {
            let windows = Order::of_windows(seed, epoch, records, window);
            let mut order = Vec::new();
            for window in 0..windows.len() {
                prop_assert_eq!(windows.positions(window).start, order.len());
                windows.append(window, &mut order);
                prop_assert_eq!(windows.positions(window).end, order.len());
            }
            order.sort_unstable();
            prop_assert_eq!(order, (0..records as u32).collect::<Vec<_>>());
        }

        #[test]
        fn batches_and_leaves_cover_an_epoch(records in 1usize..3000, batch_size in 1usize..300, micro_batch in 1usize..50) {
            let schedule = Schedule { records, batch_size, micro_batch };
            let mut next = 0;
            for step in 0..schedule.steps_per_epoch() {
                let batch = schedule.batch(step);
                prop_assert_eq!((batch.epoch, batch.positions.start), (0, next));
                prop_assert!(schedule.batch_sizes().any(|rows| rows == batch.positions.len()));
                let rows = batch.positions.len();
                let mut row = 0;
                for leaf in 0..batch.leaves {
                    let leaf = leaf_rows(rows, batch.leaves, leaf);
                    prop_assert_eq!(leaf.start, row);
                    prop_assert!((1..=micro_batch).contains(&leaf.len()));
                    row = leaf.end;
                }
                prop_assert_eq!(row, rows);
                next = batch.positions.end;
                prop_assert_eq!(schedule.records_until(step + 1), next as u64);
            }
            prop_assert_eq!(next, records);
            prop_assert_eq!(schedule.batch(schedule.steps_per_epoch()).epoch, 1);
        }
    }

    #[test]
    fn a_hundred_records_are_four_leaves_of_25() {
        let leaves: Vec<_> = (0..4).map(|leaf| leaf_rows(100, 4, leaf).len()).collect();
        assert_eq!(Schedule { records: 60_000, batch_size: 100, micro_batch: 32 }.batch(0).leaves, 4);
        assert_eq!(leaves, [25; 4]);
    }

    #[test]
    fn the_order_depends_on_seed_and_epoch() {
        let order = |seed, epoch| {
            let mut order = Vec::new();
            shuffle(seed, epoch, 5000, &mut order);
            order
        };
        assert_eq!(order(1, 1), order(1, 1));
        assert_ne!(order(1, 1), order(1, 2));
        assert_ne!(order(1, 1), order(2, 1));
    }
}
