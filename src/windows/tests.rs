//! A process holds the records that its ranks need, and those only.

use super::*;
use crate::batch::shuffle;
use crate::blocks::tests::Place;
use crate::parts::Format;
use crate::records::Records;

const RECORDS: usize = 70_000;

fn reading(seat: (usize, usize)) -> Reading {
    Reading { seed: 3, schedule: Schedule { records: RECORDS, batch_size: 900, micro_batch: 32 }, seat }
}

#[test]
fn workers_need_every_record_once() {
    let mut seen = vec![0; RECORDS];
    for index in 0..4 {
        let mut own = 0;
        for window in [0..65_000, 65_000..RECORDS] {
            reading((index, 4)).needed(window, |position| {
                seen[position] += 1;
                own += 1;
            });
        }
        // A batch is 29 micro-batches: some workers have 7 of them, some 8.
        assert!((RECORDS * 7 / 30..RECORDS * 8 / 28).contains(&own), "{own}");
    }
    assert!(seen.iter().all(|&times| times == 1));
}

#[test]
fn a_window_has_the_records_that_the_order_says() {
    let place = Place::of(RECORDS);
    let (Records::Blocks(blocks), Records::Memory(all)) =
        (place.records_in(Format::Csv2, 3), place.records_in_memory())
    else {
        panic!("where are they?")
    };
    for (epoch, seat) in [(0, (1, 3)), (1, (0, 1))] {
        let mut order = Vec::new();
        shuffle(3, epoch, RECORDS, &mut order);
        let reading = reading(seat);
        let steps = reading.schedule.steps_per_epoch();
        for step in [0, 71, 72, 73, steps - 1] {
            let batch = reading.schedule.batch(epoch * steps + step);
            let present = Present::of(&blocks, reading, &batch).unwrap();
            let share = Share::rows_of(batch.positions.len(), batch.leaves, seat.0, seat.1);
            let own = batch.positions.start + share.start..batch.positions.start + share.end;
            for (position, &record) in own.clone().zip(&order[own]) {
                let (dataset, row) = present.row(position);
                let record = record as usize;
                assert_eq!(dataset.feature_row(row), all.feature_row(record));
                assert_eq!(dataset.label(row), all.label(record));
            }
            let held: usize =
                present.0.iter().filter_map(|window| window.rows.as_ref()).map(Dataset::len).sum();
            assert!(held <= RECORDS / seat.1 + 1000, "{held}");
            assert!(blocks.shelf.0.lock().unwrap().len() <= 3);
        }
    }
}
