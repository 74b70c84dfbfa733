//! One rank's gradient of one step: its share of the batch, from wherever its records are, through the passes of its team, into its slot.

use crate::batch::{Batch, leaf_rows, share, shuffle};
use crate::cluster::Reads;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::pass::{NodeRows, Pass, Score, Target, Workspace};
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
    /// That of the present step.
    seat: usize,
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
    pub fn thread(&'a self) -> ThreadGradient<'a> {
        let pass = |(_, workspace): &'a (Share, Workspace)| {
            let Job { model, kernels, train, .. } = *self.job;
            Pass::new((model, kernels), workspace, train.kind())
        };
        let passes = self.seats.iter().map(pass).collect();
        ThreadGradient { rank: self, passes, seat: 0, prepared: None, scores: Vec::new() }
    }

    /// Sees to it that the rows of a step are there, where a new epoch or window begins or they are fed.
    fn prepare(
        &self,
        team: &Member,
        prepared: &mut Option<(u64, RangeInclusive<usize>)>,
        (step, batch): (u64, &Batch),
        rows: &Range<usize>,
    ) {
        let wanted = Some(self.wanted((step, batch)));
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

    /// What has to be there for a step.
    fn wanted(&self, (step, batch): (u64, &Batch)) -> (u64, RangeInclusive<usize>) {
        match self.job.train {
            Records::Memory(_) => (batch.epoch, 0..=0),
            Records::Blocks(_) => (batch.epoch, self.reading.schedule.windows(batch)),
            Records::Fed { .. } => (step, 0..=0),
        }
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
        let share = self.forward(team, (step, batch), weights)?;
        if share.is_some() {
            self.backward(team, weights, Target::Slot(slot));
        }
        Ok(share)
    }

    /// The first half of a step, which finds its scores.
    ///
    /// # Errors
    /// [`Error::Reading`], in every member of the team.
    pub fn forward(
        &mut self,
        team: &Member,
        (step, batch): (u64, &Batch),
        weights: &Shared,
    ) -> Result<Option<&'a Share>, Error> {
        let rank = self.rank;
        let is_seat = |(share, _): &(Share, Workspace)| share.batch_rows == batch.positions.len();
        self.seat = rank.seats.iter().position(is_seat).expect("a seat for every size of batch");
        let share = &rank.seats[self.seat].0;
        self.scores.clear();
        if share.rows.is_empty() {
            return Ok(Some(share));
        }
        rank.prepare(team, &mut self.prepared, (step, batch), &share.rows);
        let pass = &mut self.passes[self.seat];
        {
            let source = rank.source.read().expect("no thread panicked");
            match &*source {
                RowSource::Failed(text) => return Err(Error::Reading { text: text.clone() }),
                RowSource::Fed(_, None) => return Ok(None),
                _ => {}
            }
            let first = batch.positions.start;
            let positions = first + share.rows.start..first + share.rows.end;
            pass.load(team, positions.map(|position| source.row(position)));
        }
        pass.forward(team, weights, step);
        pass.loss(rank.job.scale(share.batch_rows), rank.job.recipe.probability_floor);
        self.scores.extend(share.leaves.iter().map(|leaf| pass.score(leaf.clone())));
        Ok(Some(share))
    }

    /// Goes on after a step that the others have taken without this member.
    pub fn go_on_after(&mut self, step: u64) {
        let batch = self.rank.job.schedule().batch(step);
        self.prepared = Some(self.rank.wanted((step, &batch)));
    }

    /// The second half: the gradients of this member's blocks, to where they go.
    pub fn backward(&mut self, team: &Member, weights: &Shared, target: Target) {
        let share = &self.rank.seats[self.seat].0;
        if !share.rows.is_empty() {
            self.passes[self.seat].backward(team, weights, &share.nodes, target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, sha256};
    use crate::model::Model;
    use crate::team::{self, Rest};
    use crate::train::State;
    use crate::train::tests::{MOMENTUM, clouds, job_of, recipe, run, sparse_bytes};
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::thread;

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

    /// The weights after 50 steps of a team of three in which members rest and come back at steps of every kind.
    fn sha256_of_changing_team(job: &Job) -> String {
        let start = Checkpoint::start(job.identity());
        let import = |tensors: &Vec<_>| {
            let buffer = job.model.buffer();
            job.model.import(tensors, &buffer);
            Arc::new(buffer)
        };
        let slots = start.slots.iter().map(import).collect();
        let weights = import(&start.weights);
        let state = State { weights, slots, gradients: None, reads: Reads::default() };
        let rank = RankGradient::new(job, 0, (0, 1), &state.reads);
        team::run_resting(3, Rest::SHORT, |team| {
            let (mut gradient, mut step) = (rank.thread(), 0);
            while step < 50 {
                let batch = job.schedule().batch(step);
                if team.is_leader() {
                    let members = match step % 9 {
                        1 | 2 => team.count() - 1,
                        5 | 7 => {
                            while !team.may_grow() {
                                thread::yield_now();
                            }
                            team.count() + 1
                        }
                        _ => team.count(),
                    };
                    team.plan(step, members);
                }
                gradient.forward(team, (step, &batch), &state.weights).unwrap().expect("there are records");
                gradient.backward(team, &state.weights, Target::Update(&job.update(&state, step, &batch)));
                let Some(next) = team.next_step(step) else { return };
                if next > step + 1 {
                    gradient.go_on_after(next - 1);
                }
                step = next;
            }
        });
        sha256(&job.model.export(&state.weights))
    }

    #[test]
    fn a_team_that_shrinks_and_grows_ends_with_the_same_weights() {
        for data in [clouds(100), sparse_bytes()] {
            for widths in [vec![20, 3], vec![20, 100, 3], vec![20, 70, 40, 3]] {
                let (model, recipe) = (Model::new(&widths), recipe(MOMENTUM));
                let job = Job { threads: 1, ..job_of(&model, &data, &recipe, 1) };
                let expected = run(&job, None, 50, None).unwrap().sha256;
                assert_eq!(sha256_of_changing_team(&job), expected, "{widths:?}");
            }
        }
    }
}
