//! A rank that computes gradients: pull an order and the weights, push the gradient of its share of the batch. Where all ranks see the weights,
//! it may be ordered to update its share of them, too.

use crate::batch::{Batch, share};
use crate::cluster::{RankTimes, Reads};
use crate::error::Error;
use crate::gradient::{RankGradient, Share, ThreadGradient};
use crate::sum::{self, Sum};
use crate::team::{self, Member};
use crate::train::{Job, State};
use muster_collective::tree::{self, Node};
use muster_collective::{Commons, Order, Push, Shared, Worker};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Worker `index`, of rank `rank`, does what the server orders, until it orders no more. What goes wrong ends the job on all ranks.
///
/// # Errors
/// If a rank has failed, this one or another.
pub fn run(job: &Job, (index, rank): (usize, usize), link: Worker) -> Result<RankTimes, Error> {
    let (start, reads) = (Instant::now(), Reads::default());
    let work = || follow(job, index, &link, &reads);
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let reason = "a thread panicked; its message stands above".to_owned();
        Err(muster_collective::Error::Failed { reason }.into())
    });
    if let Err(error) = &done {
        link.fail(&error.to_string());
    }
    done?;
    let times = RankTimes::since(start, rank, job, link.times(), &reads);
    // By itself the world gives signs of life, while the feed is waited for; with a link, that would have to.
    drop(link);
    job.finish_feed(index)?;
    Ok(times)
}

/// Carries out orders.
fn follow(job: &Job, index: usize, link: &Worker, reads: &Reads) -> Result<(), Error> {
    let first = link.pull()?;
    if first == Order::Stop {
        return Ok(());
    }
    let rank = RankGradient::new(job, index, job.seat(index), reads);
    let helper = link.commons().map(|commons| Helper::new(job, index, link.weights(), commons));
    let order = Mutex::new(first);
    let ordered = || *order.lock().expect("no panic while it is held");
    let results = team::run(job.threads, |team| {
        let (mut gradient, mut push) = (rank.thread(), Push::default());
        let mut sum = helper.as_ref().map(Helper::sum);
        let (mut done, mut computed) = (Ok(()), None);
        loop {
            match ordered() {
                Order::Compute(step) => {
                    let batch = job.schedule().batch(step);
                    let share = gradient.compute(team, (step, &batch), link.weights(), link.slot())?;
                    if team.is_leader() {
                        describe(&batch, share, &gradient, &mut push);
                    }
                    computed = share.map(|_| step);
                }
                Order::Update(step) => {
                    let (helper, sum) = helper.as_ref().zip(sum.as_mut()).expect("the server knows who can");
                    helper.update(team, step, sum);
                    push.clear();
                }
                Order::Stop => break,
            }
            team.wait();
            if team.is_leader() {
                let next = link.push(&push).and_then(|()| link.pull());
                // A step is done when no update of it is to come.
                if let Ok(Order::Compute(_) | Order::Stop) = next
                    && let Some(step) = computed.take()
                {
                    job.done(index + job.first_rank(), step + 1);
                }
                *order.lock().expect("no panic while it is held") = *next.as_ref().unwrap_or(&Order::Stop);
                done = next.map(|_| ());
            }
            team.wait();
        }
        done.map_err(Error::from)
    });
    results.into_iter().collect()
}

/// A worker's share of the update, where all ranks see the weights.
struct Helper<'a> {
    job: &'a Job<'a>,
    state: State,
    commons: &'a Commons,
    /// Which of the ranks, the server first.
    rank: usize,
    /// The gradients in each worker's slot, for batches of so many micro-batches.
    nodes: Vec<(usize, Vec<Vec<Node>>)>,
}

impl<'a> Helper<'a> {
    fn new(job: &'a Job, index: usize, weights: &Arc<Shared>, commons: &'a Commons) -> Helper<'a> {
        let slots = commons.optimizer_slots.clone();
        let state = State { weights: weights.clone(), slots, gradients: None, reads: Reads::default() };
        let (schedule, workers) = (job.schedule(), job.workers());
        let of_batch = |rows: usize| {
            let leaves = rows.div_ceil(schedule.micro_batch);
            let held = |worker| tree::subtrees(share(leaves, worker, workers), leaves);
            (leaves, (0..workers).map(held).collect())
        };
        let nodes = schedule.batch_sizes().map(of_batch).collect();
        Helper { job, state, commons, rank: index + job.first_rank(), nodes }
    }

    /// What a thread adds up with.
    fn sum(&self) -> Sum<'_> {
        Sum::new(&self.commons.slots, self.state.weights.blocks())
    }

    /// Updates this member's blocks. All gradients are there, and nobody needs the weights as they were.
    fn update<'s>(&'s self, team: &Member, step: u64, sum: &mut Sum<'s>) {
        let batch = self.job.schedule().batch(step);
        let is_of_batch = |(leaves, _): &&(usize, Vec<Vec<Node>>)| *leaves == batch.leaves;
        let (_, nodes) = self.nodes.iter().find(is_of_batch).expect("every size of batch");
        let weights = &self.state.weights;
        let of_rank = sum::blocks_of(weights, 0..weights.blocks(), self.rank, self.job.world_size);
        let rule = self.job.update(&self.state, step, &batch);
        sum.begin(batch.leaves);
        for block in sum::blocks_of(weights, of_rank, team.index(), team.count()) {
            sum.take(block, nodes.iter().map(|nodes| &nodes[..]));
            let mut held = rule.blocks(block..block + 1);
            sum.apply(&rule, &mut held, 0..weights.range(block..block + 1).len());
            sum.release();
        }
    }
}

/// What a worker says of its share of a batch; nothing, if there are no more records.
pub(crate) fn describe(batch: &Batch, share: Option<&Share>, gradient: &ThreadGradient, push: &mut Push) {
    push.leaves = batch.leaves;
    push.nodes.clear();
    push.nodes.extend(share.iter().flat_map(|share| share.nodes.iter().map(|rows| rows.node)));
    push.losses.clear();
    push.losses.extend(gradient.scores.iter().map(|score| score.loss));
    push.hits.clear();
    push.hits.extend(gradient.scores.iter().map(|score| score.hits));
}
