//! Rank 0 of a larger world: the parameter server. It finishes the gradient trees and applies the update rule.
//!
//! What the workers say of their gradients comes first and decides what follows the step. The gradients come behind it from the first float
//! on, and are added up, applied and sent back as weights while the rest is under way.

use crate::asynchronous::{self, Staleness};
use crate::batch::Batch;
use crate::cluster::Mode;
use crate::conductor::{Conductor, End, Next, Signal, Taken};
use crate::error::Error;
use crate::gradient::RankGradient;
use crate::pass::Score;
use crate::sum::{self, Sum};
use crate::team::{self, Member};
use crate::train::{Job, Pauses, State};
use crate::update::Update;
use crate::worker::describe;
use muster_collective::{Order, Push, Server};
use std::sync::RwLock;

mod flow;

use flow::Flow;

/// Serves steps until the conductor ends the training; then, and on an error, the workers end too.
///
/// # Errors
/// A loss that is not finite, a rank that failed, a last checkpoint that could not be written.
pub fn run(
    job: &Job,
    link: &Server,
    state: &State,
    conductor: &mut Conductor,
) -> Result<(End, Staleness), Error> {
    let end = match job.cluster.mode {
        _ if conductor.is_finished() => Ok((End::Finished, Staleness::new())),
        Mode::Sync => serve(job, link, state, conductor).map(|end| (end, Staleness::new())),
        Mode::Async { max_staleness } => asynchronous::serve(job, link, state, conductor, max_staleness),
    };
    match &end {
        Err(error) => link.fail(&error.to_string()),
        Ok(_) => link.stop()?,
    }
    end
}

fn serve(job: &Job, link: &Server, state: &State, conductor: &mut Conductor) -> Result<End, Error> {
    let first_step = conductor.steps();
    let own = job.cluster.server_trains.then(|| RankGradient::new(job, 0, job.seat(0), &state.reads));
    let (pauses, signal) = (Pauses::new(job, state, conductor, Some(link)), Signal::default());
    let pushes = RwLock::new(vec![Push::default(); job.workers()]);
    let (flow, all_update) = (Flow::new(link, job.threads), job.all_update());
    let ends = team::run(job.threads, |team| {
        let mut own = own.as_ref().map(|own| own.thread());
        let mut sum = Sum::new(link.slots(), state.weights.blocks());
        // Of this member, if the workers help and if they do not.
        let blocks_of = |ranks| {
            let of_rank = sum::share(&state.weights, 0..state.weights.blocks(), 0, ranks);
            sum::share(&state.weights, of_rank, team.index(), team.count())
        };
        let (blocks_with_help, blocks_alone) = (blocks_of(job.world_size), blocks_of(1));
        for step in first_step.. {
            let batch = job.schedule().batch(step);
            let ordered = if team.is_leader() { link.publish(Order::Compute(step)) } else { Ok(()) };
            if let Some(own) = &mut own {
                let share = own.compute(team, (step, &batch), &state.weights, &link.slots()[0])?;
                if team.is_leader() {
                    describe(&batch, share, own, &mut pushes.write().expect("no thread panicked")[0]);
                }
            }
            if team.is_leader() {
                let mut pushes = pushes.write().expect("no thread panicked");
                let next = match ordered
                    .map_err(Error::from)
                    .and_then(|()| collect(job, link, step, &batch, &mut pushes))
                {
                    Ok(()) if has_drained(&batch, &pushes) => Next::DRAINED,
                    Ok(()) => pauses.next(step),
                    Err(error) => {
                        signal.set(step, Next { end: Some(End::Failed), ..Next::default() });
                        drop(pushes);
                        team.wait();
                        return Err(error);
                    }
                };
                signal.set(step, next);
                let goes_on = next == Next::default();
                flow.begin(goes_on, all_update && goes_on);
            }
            team.wait();
            let next = signal.get(step);
            if next.end == Some(End::Failed) {
                return Ok(End::Failed);
            }
            flow.ask_for_help(team, step);
            let pushes = pushes.read().expect("no thread panicked");
            sum.begin(batch.leaves);
            let updated = match next {
                Next::DRAINED => 0..0,
                _ if flow.has_help() => blocks_with_help.clone(),
                _ => blocks_alone.clone(),
            };
            let rule = job.update(state, step, &batch);
            for block in updated {
                sum.take(block, pushes.iter().map(|push| &push.nodes[..]));
                update(&rule, block, &mut sum, (team, &flow));
                sum.release();
            }
            flow.finish(team);
            let taken = Taken { score: score(&pushes), ..spent(link) };
            drop(pushes);
            team.wait();
            if flow.failure(team)? {
                return Ok(End::Failed);
            }
            if let Some(end) = pauses.after(team, (step, &batch), taken, next)? {
                return Ok(end);
            }
        }
        unreachable!("the conductor ends the loop")
    });
    ends.into_iter().next().expect("a team has a leader")
}

/// Where the time of the server's side of a link went so far.
pub(crate) fn spent(link: &Server) -> Taken {
    let (communication, waiting) = link.spent();
    Taken { communication, waiting, ..Taken::default() }
}

/// Waits for what all workers say of their gradients of a step.
fn collect(job: &Job, link: &Server, step: u64, batch: &Batch, pushes: &mut [Push]) -> Result<(), Error> {
    link.others().iter().try_for_each(|&worker| link.collect(worker, &mut pushes[worker]))?;
    job.check(step, batch, score(pushes))
}

/// Whether a worker has had no records for its share any more.
fn has_drained(batch: &Batch, pushes: &[Push]) -> bool {
    pushes.iter().map(|push| push.losses.len()).sum::<usize>() < batch.leaves
}

/// Loss and hits of the batch, in the order of its micro-batches.
fn score(pushes: &[Push]) -> Score {
    let leaves = pushes.iter().flat_map(|push| push.losses.iter().zip(&push.hits));
    leaves.fold(Score::default(), |sum, (loss, hits)| Score { loss: sum.loss + loss, hits: sum.hits + hits })
}

/// Adds up a block's gradients as they come and applies the update rule.
fn update(rule: &Update, block: usize, sum: &mut Sum, (team, flow): (&Member, &Flow)) {
    let floats = rule.weights.range(block..block + 1);
    for run in floats.clone().step_by(flow::RUN) {
        let run = run..floats.end.min(run + flow::RUN);
        if !flow.has_come(team, run.end) {
            return;
        }
        // Held for a run only: what is updated is read on its way to the workers.
        let mut held = rule.blocks(block..block + 1);
        sum.apply(rule, &mut held, run.start - floats.start..run.end - floats.start);
        drop(held);
        if team.is_leader() || run.end == floats.end {
            flow.has_updated(team, run.end);
        }
    }
}
