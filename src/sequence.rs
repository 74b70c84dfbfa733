//! The records of a training one batch after the other, in the order that every way of reading them has: for a driver, which sends them
//! to others. Of records that do not fit into memory, the windows are there that the present batch lies in, and the next.

use crate::batch::{Batch, Schedule, shuffle};
use crate::blocks::Blocks;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::records::Records;
use crate::windows::{Present, Reading};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// See the module.
pub struct Sequence<'a> {
    reading: Reading,
    source: Source<'a>,
    /// The epoch and its windows that are there.
    prepared: Option<(u64, RangeInclusive<usize>)>,
}

enum Source<'a> {
    /// All records, and the order of the present epoch.
    Memory(&'a Dataset, Vec<u32>),
    /// An index of them, and the windows of the present batch.
    Windows(&'a Arc<Blocks>, Present),
}

impl<'a> Sequence<'a> {
    /// That of a training with this seed and schedule.
    ///
    /// # Panics
    /// If the records are fed themselves.
    pub fn new(records: &'a Records, seed: u64, schedule: Schedule) -> Sequence<'a> {
        let source = match records {
            Records::Memory(dataset) => Source::Memory(dataset, Vec::new()),
            Records::Blocks(blocks) => Source::Windows(blocks, Present::default()),
            Records::Fed { .. } => panic!("what is fed is not fed on"),
        };
        Sequence { reading: Reading { seed, schedule, seat: (0, 1) }, source, prepared: None }
    }

    /// Sees to it that the records of a batch are there; later batches go faster than earlier ones.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn prepare(&mut self, batch: &Batch) -> Result<()> {
        let windows = match self.source {
            Source::Memory(..) => 0..=0,
            Source::Windows(..) => self.reading.schedule.windows(batch),
        };
        if self.prepared.replace((batch.epoch, windows.clone())) == Some((batch.epoch, windows)) {
            return Ok(());
        }
        match &mut self.source {
            Source::Memory(dataset, order) => shuffle(self.reading.seed, batch.epoch, dataset.len(), order),
            Source::Windows(blocks, present) => *present = Present::of(blocks, self.reading, batch)?,
        }
        Ok(())
    }

    /// The data set and the row in it of the record at a position of the epoch's order, which is in the batch that was prepared last.
    pub fn row(&self, position: usize) -> (&Dataset, usize) {
        match &self.source {
            Source::Memory(dataset, order) => (dataset, order[position] as usize),
            Source::Windows(_, present) => present.row(position),
        }
    }

    /// Records that are in memory.
    pub fn held(&self) -> usize {
        match &self.source {
            Source::Memory(dataset, _) => dataset.len(),
            Source::Windows(blocks, _) => blocks.held(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::WINDOW;
    use crate::blocks::tests::Place;
    use crate::parts::Format;
    use crate::windows::HELD;

    #[test]
    fn records_that_do_not_fit_come_in_the_same_order_and_few_at_a_time() {
        const RECORDS: usize = 5 * WINDOW + 77;
        let (place, other) = (Place::of(RECORDS), Place::of(0));
        compare([place.records_in(Format::Csv2, 3), place.records_in_memory()], RECORDS);
        compare(other.numbers(Format::Csv2, RECORDS), RECORDS);
    }

    /// All records of the first are read again and again, those of the second are in memory.
    fn compare(records: [Records; 2], count: usize) {
        let schedule = Schedule { records: count, batch_size: 9000, micro_batch: 32 };
        let mut both = records.each_ref().map(|records| Sequence::new(records, 3, schedule));
        for step in (0..schedule.steps_per_epoch() + 3).chain([2, 9]) {
            let batch = schedule.batch(step);
            both.iter_mut().for_each(|sequence| sequence.prepare(&batch).unwrap());
            for position in batch.positions.step_by(7) {
                let [a, b] = both.each_ref().map(|sequence| sequence.row(position));
                assert_eq!((a.0.feature_row(a.1), a.0.label(a.1)), (b.0.feature_row(b.1), b.0.label(b.1)));
            }
            // And the one that was read ahead in vain where the next batch is not the one that follows.
            assert!(both[0].held() <= (HELD + 1) * WINDOW, "{}", both[0].held());
        }
        assert_eq!(both[1].held(), count);
    }
}
