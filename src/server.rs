//! Rank 0 of a larger world: the parameter server. It finishes the gradient trees and applies the update rule.

use crate::batch::Batch;
use crate::conductor::{Conductor, End, Next, Signal};
use crate::error::Error;
use crate::pass::Score;
use crate::team;
use crate::train::{Job, Pauses, State};
use muster_collective::shared::Ref;
use muster_collective::threads::{Order, Push, Server};
use muster_collective::tree::{CHUNK, Node, Summer};
use std::sync::RwLock;

/// Serves steps until the conductor ends the training; then, and on an error, the workers end too.
pub fn run(job: &Job, link: &Server, state: &State, conductor: &mut Conductor) -> Result<End, Error> {
    let first_step = conductor.steps();
    let (pauses, signal, pushes) = (Pauses::new(job, state, conductor), Signal::default(), RwLock::default());
    link.publish(first_step, Order::Go);
    let ends = team::run(job.threads, |team| {
        let mut summer = Summer::new(1);
        let blocks = crate::batch::share(state.weights.blocks(), team.index(), team.count());
        for step in first_step.. {
            let batch = job.schedule().batch(step);
            if team.is_leader() {
                let mut pushes = pushes.write().expect("no thread panicked");
                let next = match collect(job, link, step, &batch, &mut pushes) {
                    Ok(()) => pauses.next(step),
                    Err(error) => {
                        link.fail(&error.to_string());
                        signal.set(step, Next { end: Some(End::Failed), ..Next::default() });
                        drop(pushes);
                        team.wait();
                        return Err(error);
                    }
                };
                signal.set(step, next);
            }
            team.wait();
            let next = signal.get(step);
            if next.end == Some(End::Failed) {
                return Ok(End::Failed);
            }
            let pushes = pushes.read().expect("no thread panicked");
            summer.set_leaves(batch.leaves);
            for block in blocks.clone() {
                update(job, link, state, (step, &batch), &pushes, block, &mut summer);
            }
            let score = score(&pushes);
            drop(pushes);
            team.wait();
            let end = pauses.after(team, (step, &batch), score, next)?;
            if team.is_leader() {
                link.publish(step + 1, if end.is_some() { Order::Stop } else { Order::Go });
            }
            if let Some(end) = end {
                return Ok(end);
            }
        }
        unreachable!("the conductor ends the loop")
    });
    let end = ends.into_iter().next().expect("a team has a leader");
    if let Err(error) = &end {
        link.fail(&error.to_string());
    }
    end
}

/// Waits for all workers' gradients of a step.
fn collect(job: &Job, link: &Server, step: u64, batch: &Batch, pushes: &mut Vec<Push>) -> Result<(), Error> {
    link.collect(step, pushes)?;
    job.check(step, batch, score(pushes))
}

/// Loss and hits of the batch, in the order of its micro-batches.
fn score(pushes: &[Push]) -> Score {
    let leaves = pushes.iter().flat_map(|push| push.losses.iter().zip(&push.hits));
    leaves.fold(Score::default(), |sum, (loss, hits)| Score { loss: sum.loss + loss, hits: sum.hits + hits })
}

/// Adds up a block's gradients and applies the update rule, chunk by chunk, so that neither leaves the cache.
fn update(
    job: &Job,
    link: &Server,
    state: &State,
    (step, batch): (u64, &Batch),
    pushes: &[Push],
    block: usize,
    summer: &mut Summer,
) {
    let blocks = state.weights.blocks();
    let parts: Vec<(Node, Ref)> = pushes
        .iter()
        .zip(link.slots())
        .flat_map(|(push, slot)| {
            push.nodes.iter().enumerate().map(move |(n, &node)| {
                let at = n * blocks + block;
                (node, slot.read(at..at + 1))
            })
        })
        .collect();
    let length = state.weights.range(block..block + 1).len();
    let mut gradient = [0.0; CHUNK];
    for at in (0..length).step_by(CHUNK) {
        let gradient = &mut gradient[..CHUNK.min(length - at)];
        let chunk = at..at + gradient.len();
        let parts = parts.iter().map(|(node, part)| (*node, &part[chunk.clone()]));
        summer.sum(parts, |sum, part| job.kernels.add_assign(sum, part), gradient);
        job.update(state, step, batch, block, at, gradient);
    }
}
