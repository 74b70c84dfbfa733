//! Windows of the order of records, for records that are read again and again: what a process holds of them.
//!
//! All ranks of a process share them. The next window is read while the present one is used, so that a process holds what its
//! ranks need of two windows, of three where one follows another, whatever the number of records.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Mutex, OnceLock};

use crate::batch::{BLOCK, Batch, Order, Schedule, WINDOW};
use crate::blocks::Blocks;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::gradient::Share;

/// The most windows that a process holds at once: where a batch lies in two, those and the next.
pub(crate) const HELD: usize = 3;

/// Whose records are read, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Of the order.
    pub seed: u64,
    /// Which records make up which step.
    pub schedule: Schedule,
    /// The worker whose share of every batch is needed, of how many; all of it is (0, 1).
    pub seat: (usize, usize),
}

/// The records of a window that are needed here.
pub struct Window {
    /// Where it stands in the epoch's order.
    positions: Range<usize>,
    /// For every position, its row in `rows`; anything for those that are not needed.
    row_of: Vec<u32>,
    /// None when no record is needed.
    rows: Option<Dataset>,
}

impl Window {
    /// The data set and the row in it of the record at a position of the epoch's order, where it is in this window.
    pub fn row(&self, position: usize) -> Option<(&Dataset, usize)> {
        let at = position.checked_sub(self.positions.start)?;
        Some((self.rows.as_ref()?, *self.row_of.get(at)? as usize))
    }
}

/// Which window of which reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    reading: Reading,
    epoch: u64,
    window: usize,
}

/// A window that is being read or was, or why it could not be.
type Slot = Arc<OnceLock<Result<Arc<Window>, String>>>;

/// The windows that were asked for last, and the next.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<VecDeque<(Key, Slot)>>);

impl Blocks {
    /// The windows that a batch lies in. Reads the one after them ahead, and forgets those before.
    ///
    /// # Errors
    /// [`Error::Reading`].
    pub(crate) fn windows(self: &Arc<Self>, reading: Reading, batch: &Batch) -> Result<Vec<Arc<Window>>> {
        let key = |window| Key { reading, epoch: batch.epoch, window };
        let wanted = reading.schedule.windows(batch);
        let slots: Vec<Slot> = {
            let mut shelf = self.shelf.0.lock().expect("no panic while it is held");
            let is_before = |at: &Key| (at.epoch, at.window) < (batch.epoch, *wanted.start());
            shelf.retain(|(at, _)| at.reading == reading && !is_before(at));
            let after = *wanted.end() + 1;
            let next = match after < reading.schedule.windows_per_epoch() {
                true => key(after),
                false => Key { epoch: batch.epoch + 1, ..key(0) },
            };
            let slots = wanted.map(|window| self.slot(&mut shelf, key(window))).collect();
            self.slot(&mut shelf, next);
            slots
        };
        let read = |slot: &Slot| match slot.wait() {
            Ok(window) => Ok(window.clone()),
            Err(text) => Err(Error::Reading { text: text.clone() }),
        };
        slots.iter().map(read).collect()
    }

    /// The place of a window on the shelf; begins to read it where it is not there.
    fn slot(self: &Arc<Self>, shelf: &mut VecDeque<(Key, Slot)>, key: Key) -> Slot {
        if let Some((_, slot)) = shelf.iter().find(|(at, _)| *at == key) {
            return slot.clone();
        }
        let slot = Slot::default();
        shelf.push_back((key, slot.clone()));
        let (blocks, filled) = (self.clone(), slot.clone());
        self.pool.spawn(move || {
            let window = blocks.read_window(key).map(Arc::new).map_err(|error| error.to_string());
            filled.get_or_init(|| window);
        });
        slot
    }

    /// Records of the windows that have been read and are still there.
    pub(crate) fn held(&self) -> usize {
        let shelf = self.shelf.0.lock().expect("no panic while it is held");
        let rows = |slot: &Slot| {
            slot.get().and_then(|read| read.as_ref().ok()?.rows.as_ref()).map_or(0, Dataset::len)
        };
        shelf.iter().map(|(_, slot)| rows(slot)).sum()
    }

    fn read_window(&self, key: Key) -> Result<Window> {
        let Key { reading, epoch, window } = key;
        let order = Order::new(reading.seed, epoch, self.len());
        let positions = order.positions(window);
        let mut records = Vec::new();
        order.append(window, &mut records);
        let mut needed: Vec<(u32, u32)> = Vec::new();
        reading.needed(positions.clone(), |position| {
            let at = position - positions.start;
            needed.push((records[at], at as u32));
        });
        needed.sort_unstable();
        let mut row_of = vec![0; positions.len()];
        for (row, &(_, at)) in needed.iter().enumerate() {
            row_of[at as usize] = row as u32;
        }
        records.clear();
        records.extend(needed.iter().map(|(record, _)| *record));
        drop(needed);
        let rows = (!records.is_empty()).then(|| self.read(&records)).transpose()?;
        Ok(Window { positions, row_of, rows })
    }
}

impl Reading {
    /// Calls `each` with those of some positions of an epoch's order that are needed.
    fn needed(&self, positions: Range<usize>, mut each: impl FnMut(usize)) {
        let Reading { schedule, seat: (index, workers), .. } = *self;
        let first = (positions.start / schedule.batch_size) as u64;
        for step in first..schedule.steps_per_epoch() {
            let batch = schedule.batch(step);
            if batch.positions.start >= positions.end {
                break;
            }
            let share = Share::rows_of(batch.positions.len(), batch.leaves, index, workers);
            let own = batch.positions.start + share.start..batch.positions.start + share.end;
            (own.start.max(positions.start)..own.end.min(positions.end)).for_each(&mut each);
        }
    }
}

/// The windows that the present batch of a rank lies in.
#[derive(Default)]
pub(crate) struct Present(Vec<Arc<Window>>);

impl Present {
    /// Those of `batch`.
    pub fn of(blocks: &Arc<Blocks>, reading: Reading, batch: &Batch) -> Result<Present> {
        Ok(Present(blocks.windows(reading, batch)?))
    }

    /// The data set and the row in it of the record at a position of the epoch's order.
    pub fn row(&self, position: usize) -> (&Dataset, usize) {
        self.0.iter().find_map(|window| window.row(position)).expect("the windows of the batch are here")
    }
}

impl Schedule {
    /// The windows in which a batch may lie: which of them is not certain, because the last block of the data may be short.
    pub fn windows(&self, batch: &Batch) -> RangeInclusive<usize> {
        let window = |position: usize| position / WINDOW;
        let last = window(batch.positions.end - 1 + BLOCK - 1);
        window(batch.positions.start)..=last.min(self.windows_per_epoch() - 1)
    }

    /// Windows in an epoch.
    pub fn windows_per_epoch(&self) -> usize {
        self.records.div_ceil(WINDOW)
    }
}
