//! A rank that computes gradients: pull an order and the weights, push the gradient of its share of the batch.

use crate::batch::Batch;
use crate::cluster::{RankTimes, Reads};
use crate::error::Error;
use crate::gradient::{RankGradient, Share, ThreadGradient};
use crate::team;
use crate::train::Job;
use muster_collective::{Order, Push, Worker};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
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
    let Order::Compute(first_step) = link.pull()? else { return Ok(()) };
    let rank = RankGradient::new(job, index, job.seat(index), reads);
    let order = Mutex::new(Order::Compute(first_step));
    let ordered = || *order.lock().expect("no panic while it is held");
    let results = team::run(job.threads, |team| {
        let (mut gradient, mut push) = (rank.thread(), Push::default());
        let mut done = Ok(());
        while let Order::Compute(step) = ordered() {
            let batch = job.schedule().batch(step);
            let share = gradient.compute(team, (step, &batch), link.weights(), link.slot())?;
            team.wait();
            if team.is_leader() {
                describe(&batch, share, &gradient, &mut push);
                let next = link.push(&push).and_then(|()| link.pull());
                if next.is_ok() && share.is_some() {
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
