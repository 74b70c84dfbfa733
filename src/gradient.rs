//! One rank's gradient of one step: its share of the batch, from memory or a feed, through the passes of its team, into its slot.

use crate::batch::{Batch, WINDOW_BLOCKS, leaf_rows, share, shuffle};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::pass::{NodeRows, Pass, Score, Slot, Workspace};
use crate::team::Member;
use crate::train::Job;
use muster_collective::{Shared, tree};
use std::ops::Range;
use std::sync::RwLock;

/// What one of several workers gets of a batch of a certain size.
pub struct Share {
    /// Records of the whole batch.
    batch_rows: usize,
    /// Its rows of the batch.
    rows: Range<usize>,
    /// Rows of each of its micro-batches, counted from its first row.
    leaves: Vec<Range<usize>>,
    /// The sums it sends.
    pub nodes: Vec<NodeRows>,
}

impl Share {
    /// Its rows of the batch, as numbers of rows from the batch's first.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The share of worker `index` of `workers` in a batch of `rows` records, cut into `leaves` micro-batches.
    pub fn new(rows: usize, leaves: usize, index: usize, workers: usize) -> Share {
        let held = share(leaves, index, workers);
        let first = leaf_rows(rows, leaves, held.start.min(leaves - 1)).start;
        let of_leaf = |leaf| {
            let rows = leaf_rows(rows, leaves, leaf);
            rows.start - first..rows.end - first
        };
        let own: Vec<Range<usize>> = held.clone().map(of_leaf).collect();
        let nodes = tree::subtrees(held, leaves);
        Share {
            batch_rows: rows,
            rows: first..first + own.last().map_or(0, |leaf| leaf.end),
            leaves: own,
            nodes: nodes.into_iter().map(|node| NodeRows::new(node, first, rows, leaves)).collect(),
        }
    }
}

/// What the threads of a rank share.
pub struct RankGradient<'a> {
    job: &'a Job<'a>,
    /// For batches of each size.
    seats: Vec<(Share, Workspace)>,
    /// The order of records in the present epoch.
    order: RwLock<Vec<u32>>,
    /// Which worker this is for the feed.
    worker: usize,
    /// The records of the present step, where there is a feed.
    fed: RwLock<Result<Option<Dataset>, String>>,
}

/// One thread's part in it.
pub struct ThreadGradient<'a> {
    rank: &'a RankGradient<'a>,
    /// A pass for each seat.
    passes: Vec<Pass<'a>>,
    /// The epoch whose order of records is there.
    epoch: Option<u64>,
    /// Loss and hits of each micro-batch of the last step, the same in every thread.
    pub scores: Vec<Score>,
}

impl<'a> RankGradient<'a> {
    /// For worker `worker`, which computes share `index` of `workers` of each batch.
    pub fn new(job: &'a Job, worker: usize, (index, workers): (usize, usize)) -> RankGradient<'a> {
        let schedule = job.schedule();
        let seat = |rows: usize| {
            let share = Share::new(rows, rows.div_ceil(schedule.micro_batch), index, workers);
            let workspace = Workspace::new(job.model, share.rows.len());
            (share, workspace)
        };
        let seats = schedule.batch_sizes().map(seat).collect();
        RankGradient { job, seats, order: RwLock::default(), worker, fed: RwLock::new(Ok(None)) }
    }

    /// The most gradients that a slot has to hold.
    pub fn nodes_max(&self) -> usize {
        self.seats.iter().map(|(share, _)| share.nodes.len()).max().unwrap_or(0)
    }

    /// One thread's part.
    pub fn thread(&'a self) -> ThreadGradient<'a> {
        let pass = |(_, workspace): &'a (Share, Workspace)| {
            Pass::new(self.job.model, self.job.kernels, workspace, self.job.train)
        };
        let passes = self.seats.iter().map(pass).collect();
        ThreadGradient { rank: self, passes, epoch: None, scores: Vec::new() }
    }

    /// Brings the order of records up to date, where a new epoch begins.
    fn prepare_order(&self, team: &Member, prepared: &mut Option<u64>, batch: &Batch) {
        if prepared.replace(batch.epoch) == Some(batch.epoch) {
            return;
        }
        if team.is_leader() {
            let mut order = self.order.write().expect("no thread panicked");
            shuffle(self.job.recipe.seed, batch.epoch, self.job.train.len(), WINDOW_BLOCKS, &mut order);
        }
        team.wait();
    }

    /// Takes the records of a step from the feed, if there is one. None if no more will come.
    fn prepare_records(&self, team: &Member, step: u64, rows: usize) -> Result<Option<()>, Error> {
        let Some(feed) = self.job.cluster.feed else { return Ok(Some(())) };
        if team.is_leader() {
            let records = feed.take(self.worker, step, rows).map_err(|error| error.to_string());
            *self.fed.write().expect("no thread panicked") = records;
        }
        team.wait();
        match &*self.fed.read().expect("no thread panicked") {
            Ok(records) => Ok(records.is_some().then_some(())),
            Err(text) => Err(Error::Feed { text: text.clone() }),
        }
    }
}

impl<'a> ThreadGradient<'a> {
    /// The gradient of a step, at `weights`, into `slot`; returns this rank's share of the batch, or none if there are no more records.
    /// The members of the team are done with their own blocks when it returns, not necessarily the others.
    ///
    /// # Errors
    /// If the feed fails.
    pub fn compute(
        &mut self,
        team: &Member,
        (step, batch): (u64, &Batch),
        weights: &Shared,
        slot: &Shared,
    ) -> Result<Option<&'a Share>, Error> {
        let rank = self.rank;
        let is_seat = |(share, _): &(Share, Workspace)| share.batch_rows == batch.positions.len();
        let seat = rank.seats.iter().position(is_seat).expect("a seat for every size of batch");
        let share = &rank.seats[seat].0;
        self.scores.clear();
        if share.rows.is_empty() {
            return Ok(Some(share));
        }
        if rank.job.cluster.feed.is_none() {
            rank.prepare_order(team, &mut self.epoch, batch);
        }
        if rank.prepare_records(team, step, share.rows.len())?.is_none() {
            return Ok(None);
        }
        let pass = &mut self.passes[seat];
        if let Ok(Some(records)) = &*rank.fed.read().expect("no thread panicked") {
            pass.load(records, 0..share.rows.len());
        } else {
            let order = rank.order.read().expect("no thread panicked");
            let batch = &order[batch.positions.clone()][share.rows.clone()];
            pass.load(rank.job.train, batch.iter().map(|&record| record as usize));
        }
        pass.forward(team, weights);
        pass.loss(rank.job.scale(share.batch_rows), rank.job.recipe.probability_floor);
        self.scores.extend(share.leaves.iter().map(|leaf| pass.score(leaf.clone())));
        pass.backward(team, weights, &Slot { buffer: slot, nodes: &share.nodes });
        Ok(Some(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_of_all_workers_are_the_batch(rows in 1usize..300, micro_batch in 1usize..40, workers in 1usize..12) {
            let leaves = rows.div_ceil(micro_batch);
            let mut next = 0;
            for index in 0..workers {
                let share = Share::new(rows, leaves, index, workers);
                prop_assert!(share.rows.is_empty() || share.rows.start == next);
                next += share.rows.len();
                prop_assert_eq!(share.leaves.iter().map(Range::len).sum::<usize>(), share.rows.len());
                prop_assert_eq!(share.nodes.iter().map(NodeRows::len).sum::<usize>(), share.rows.len());
            }
            prop_assert_eq!(next, rows);
        }
    }
}
