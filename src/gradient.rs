//! One rank's gradient of one step: its share of the batch, from wherever its records are, through the passes of its team, into its slot.

use crate::batch::{Batch, leaf_rows, share, shuffle};
use crate::cluster::Reads;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::pass::{NodeRows, Pass, Score, Slot, Workspace};
use crate::records::Records;
use crate::team::Member;
use crate::train::Job;
use crate::windows::{Present, Reading};
use muster_collective::{Shared, tree};
use std::ops::{Range, RangeInclusive};
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
    /// The rows of worker `index` of `workers` in a batch of `rows` records, cut into `leaves` micro-batches.
    pub fn rows_of(rows: usize, leaves: usize, index: usize, workers: usize) -> Range<usize> {
        let held = share(leaves, index, workers);
        let start = |leaf: usize| leaf_rows(rows, leaves, leaf).start;
        start(held.start)..start(held.end)
    }

    /// The share of worker `index` of `workers` in a batch of `rows` records, cut into `leaves` micro-batches.
    pub fn new(rows: usize, leaves: usize, index: usize, workers: usize) -> Share {
        let (held, own_rows) = (share(leaves, index, workers), Share::rows_of(rows, leaves, index, workers));
        let first = own_rows.start;
        let of_leaf = |leaf| {
            let rows = leaf_rows(rows, leaves, leaf);
            rows.start - first..rows.end - first
        };
        let own: Vec<Range<usize>> = held.clone().map(of_leaf).collect();
        let nodes = tree::subtrees(held, leaves);
        Share {
            batch_rows: rows,
            rows: own_rows,
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
    reading: Reading,
    source: RwLock<RowSource<'a>>,
    /// Which worker this is for the feed.
    worker: usize,
    /// How long it has waited for records.
    reads: &'a Reads,
}

/// Where the rows of the present batch are.
enum RowSource<'a> {
    /// All records are in memory; the order of the present epoch says which of them come when.
    Memory(&'a Dataset, Vec<u32>),
    /// The windows are in memory that the batch lies in.
    Windows(Present),
    /// The feed has brought this rank's share, whose first row has this position; none when no more will come.
    Fed(usize, Option<Dataset>),
    /// They could not be read.
    Failed(String),
}

impl RowSource<'_> {
    /// The data set and the row in it of the record at a position of the epoch's order.
    fn row(&self, position: usize) -> (&Dataset, usize) {
        match self {
            RowSource::Memory(dataset, order) => (dataset, order[position] as usize),
            RowSource::Windows(windows) => windows.row(position),
            RowSource::Fed(first, Some(rows)) => (rows, position - first),
            RowSource::Fed(_, None) | RowSource::Failed(_) => {
                unreachable!("a batch that is not there is not computed")
            }
        }
    }
}

/// One thread's part in it.
pub struct ThreadGradient<'a> {
    rank: &'a RankGradient<'a>,
    /// A pass for each seat.
    passes: Vec<Pass<'a>>,
    /// The epoch and its windows that are there; of records that are fed, the step.
    prepared: Option<(u64, RangeInclusive<usize>)>,
    /// Loss and hits of each micro-batch of the last step, the same in every thread.
    pub scores: Vec<Score>,
}

impl<'a> RankGradient<'a> {
    /// For worker `worker`, which computes share `index` of `workers` of each batch.
    pub fn new(
        job: &'a Job,
        worker: usize,
        (index, workers): (usize, usize),
        reads: &'a Reads,
    ) -> RankGradient<'a> {
        let schedule = job.schedule();
        let seat = |rows: usize| {
            let share = Share::new(rows, rows.div_ceil(schedule.micro_batch), index, workers);
            let workspace = Workspace::new(job.model, share.rows.len());
            (share, workspace)
        };
        let seats = schedule.batch_sizes().map(seat).collect();
        let source = match job.train {
            Records::Memory(dataset) => RowSource::Memory(dataset, Vec::new()),
            Records::Blocks(_) => RowSource::Windows(Present::default()),
            Records::Fed { .. } => RowSource::Fed(0, None),
        };
        RankGradient { job, seats, reading: job.reading(), source: RwLock::new(source), worker, reads }
    }

    /// The most gradients that a slot has to hold.
    pub fn nodes_max(&self) -> usize {
        self.seats.iter().map(|(share, _)| share.nodes.len()).max().unwrap_or(0)
    }

    /// The part of one thread of the team.
    pub fn thread(&'a self, team: &Member) -> ThreadGradient<'a> {
        let pass = |(_, workspace): &'a (Share, Workspace)| {
            let Job { model, kernels, train, .. } = *self.job;
            Pass::new((model, kernels), workspace, train.sparse_scale(), team)
        };
        let passes = self.seats.iter().map(pass).collect();
        ThreadGradient { rank: self, passes, prepared: None, scores: Vec::new() }
    }

    /// Sees to it that the rows of a step are there, where a new epoch or window begins or they are fed.
    fn prepare(
        &self,
        team: &Member,
        prepared: &mut Option<(u64, RangeInclusive<usize>)>,
        (step, batch): (u64, &Batch),
        rows: &Range<usize>,
    ) {
        let wanted = Some(match self.job.train {
            Records::Memory(_) => (batch.epoch, 0..=0),
            Records::Blocks(_) => (batch.epoch, self.reading.schedule.windows(batch)),
            Records::Fed { .. } => (step, 0..=0),
        });
        if *prepared == wanted {
            return;
        }
        *prepared = wanted;
        if team.is_leader() {
            let mut source = self.source.write().expect("no thread panicked");
            if let Err(error) = self.renew(&mut source, (step, batch), rows) {
                *source = RowSource::Failed(error.to_string());
            }
        }
        team.wait();
    }

    /// Gets the rows of a step.
    fn renew(
        &self,
        source: &mut RowSource,
        (step, batch): (u64, &Batch),
        rows: &Range<usize>,
    ) -> Result<(), Error> {
        match (&mut *source, self.job.train) {
            (RowSource::Memory(dataset, order), _) => {
                shuffle(self.reading.seed, batch.epoch, dataset.len(), order);
            }
            (windows, Records::Blocks(blocks)) => {
                let present = self.reads.during(|| Present::of(blocks, self.reading, batch))?;
                *windows = RowSource::Windows(present);
            }
            (fed, _) => {
                let feed = self.job.cluster.feed.expect("records that are fed have a feed");
                let first = batch.positions.start + rows.start;
                let rows = self.reads.during(|| feed.take(self.worker, step, rows.len()))?;
                *fed = RowSource::Fed(first, rows);
            }
        }
        Ok(())
    }
}

impl<'a> ThreadGradient<'a> {
    /// The gradient of a step, at `weights`, into `slot`; returns this rank's share of the batch, or none if there are no more records.
    /// The members of the team are done with their own blocks when it returns, not necessarily the others.
    ///
    /// # Errors
    /// [`Error::Reading`], in every member of the team.
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
        rank.prepare(team, &mut self.prepared, (step, batch), &share.rows);
        let pass = &mut self.passes[seat];
        {
            let source = rank.source.read().expect("no thread panicked");
            match &*source {
                RowSource::Failed(text) => return Err(Error::Reading { text: text.clone() }),
                RowSource::Fed(_, None) => return Ok(None),
                _ => {}
            }
            let first = batch.positions.start;
            pass.load(
                (first + share.rows.start..first + share.rows.end).map(|position| source.row(position)),
            );
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
