//! A rank that computes gradients: pull the weights, push the gradient of its share of the batch.

use crate::gradient::{RankGradient, ThreadGradient};
use crate::team::{self, Member};
use crate::train::Job;
use muster_collective::threads::{Order, Push, Worker};
use muster_collective::{Error, Shared};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes steps from `first_step` on, until the server says that no more are needed. What goes wrong ends the job on all ranks.
pub fn run(job: &Job, rank: &RankGradient, link: &Worker, first_step: u64) {
    let over = AtomicBool::new(false);
    let work = || {
        team::run(job.threads, |team| {
            let mut gradient = rank.thread();
            let mut push = Push::default();
            for step in first_step.. {
                let pulled = if team.is_leader() { link.pull(step) } else { Ok(Order::Go) };
                over.fetch_or(pulled != Ok(Order::Go), Ordering::AcqRel);
                team.wait();
                if over.load(Ordering::Acquire) {
                    return pulled.map(|_| ());
                }
                fill(job, &mut gradient, team, step, (link.weights(), link.slot()), &mut push);
                team.wait();
                if team.is_leader() {
                    link.push(step, &push);
                }
            }
            Ok::<(), Error>(())
        })
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(results) => {
            if let Some(Err(error)) = results.into_iter().next() {
                link.fail(&error.to_string());
            }
        }
        Err(_) => link.fail("a thread panicked; its message stands above"),
    }
}

/// Computes the gradient of a step and describes it.
fn fill(
    job: &Job,
    gradient: &mut ThreadGradient,
    team: &Member,
    step: u64,
    (weights, slot): (&Shared, &Shared),
    push: &mut Push,
) {
    let share = gradient.compute(team, step, &job.schedule().batch(step), weights, slot);
    push.nodes.clear();
    push.nodes.extend(share.nodes.iter().map(|rows| rows.node));
    push.losses.clear();
    push.losses.extend(gradient.scores.iter().map(|score| score.loss));
    push.hits.clear();
    push.hits.extend(gradient.scores.iter().map(|score| score.hits));
}
