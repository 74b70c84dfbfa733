//! Rank 0 of a larger world: the parameter server. It finishes the gradient trees and applies the update rule; where it trains, too, it may take
//! whole steps by itself.
//!
//! What the workers say of their gradients comes first and decides what follows the step. The gradients come behind it from the first float
//! on, and are added up, applied and sent back as weights while the rest is under way.

use crate::asynchronous::{self, Staleness};
use crate::batch::Batch;
use crate::cluster::{Computing, Mode};
use crate::conductor::{Conductor, End, Next, Signal, Taken};
use crate::error::Error;
use crate::gradient::{RankGradient, Share, ThreadGradient};
use crate::pass::{Score, Target};
use crate::records::Records;
use crate::sum::{self, Sum};
use crate::team::{self, Member};
use crate::train::{Job, Pauses, State};
use crate::update::Update;
use crate::worker::describe;
use muster_collective::{Order, Push, Server};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

mod flow;
mod turns;

use flow::Flow;
use turns::{Turn, Turns};

/// How serving ended.
pub struct Served {
    /// Why.
    pub end: End,
    /// How many gradients have missed how many updates.
    pub staleness: Staleness,
    /// Steps that rank 0 computed by itself although it has workers.
    pub alone: u64,
}

/// Serves steps until the conductor ends the training; then, and on an error, the workers end too.
///
/// # Errors
/// A loss that is not finite, a rank that failed, a last checkpoint that could not be written.
pub fn run(job: &Job, link: &Server, state: &State, conductor: &mut Conductor) -> Result<Served, Error> {
    let served = match job.cluster.mode {
        _ if conductor.is_finished() => {
            Ok(Served { end: End::Finished, staleness: Staleness::new(), alone: 0 })
        }
        Mode::Sync => serve(job, link, state, conductor),
        Mode::Async { max_staleness } => asynchronous::serve(job, link, state, conductor, max_staleness)
            .map(|(end, staleness)| Served { end, staleness, alone: 0 }),
    };
    match &served {
        Err(error) => link.fail(&error.to_string()),
        Ok(_) => link.stop()?,
    }
    served
}

fn serve(job: &Job, link: &Server, state: &State, conductor: &mut Conductor) -> Result<Served, Error> {
    let first_step = conductor.steps();
    let trains = job.cluster.server_trains;
    let own = trains.then(|| RankGradient::new(job, 0, job.seat(0), &state.reads));
    let has_all =
        trains && matches!(job.train, Records::Memory(_)) && job.cluster.computing != Computing::All;
    let whole = has_all.then(|| RankGradient::new(job, 0, (0, 1), &state.reads));
    let computing = if has_all { job.cluster.computing } else { Computing::All };
    let serving = Serving {
        job,
        link,
        state,
        pauses: Pauses::new(job, state, conductor, Some(link)),
        signal: Signal::default(),
        pushes: RwLock::new(vec![Push::default(); job.workers()]),
        flow: Flow::new(link, job.threads),
        all_update: job.all_update(),
        turns: Mutex::new(Turns::new(computing, job.cluster.step_timeout)),
        is_alone: Default::default(),
        steps_alone: AtomicU64::new(0),
    };
    let ends = team::run(job.threads, |team| {
        let own_blocks = |ranks| {
            let of_rank = sum::blocks_of(&state.weights, 0..state.weights.blocks(), 0, ranks);
            sum::blocks_of(&state.weights, of_rank, team.index(), team.count())
        };
        let mut part = Part {
            own: own.as_ref().map(|own| own.thread()),
            whole: whole.as_ref().map(|whole| whole.thread()),
            sum: Sum::new(link.slots(), state.weights.blocks()),
            blocks: own_blocks(1),
            blocks_with_help: own_blocks(job.world_size),
        };
        for step in first_step.. {
            let batch = job.schedule().batch(step);
            let done = match &mut part.whole {
                Some(whole) if serving.is_alone(step) => serving.alone(team, (step, &batch), whole),
                _ => serving.together(team, (step, &batch), &mut part),
            };
            let Some((score, next)) = done? else { return Ok::<_, Error>(End::Failed) };
            let taken = Taken { score, ..spent(link) };
            if let Some(end) = serving.pauses.after(team, (step, &batch), taken, next)? {
                return Ok(end);
            }
        }
        unreachable!("the conductor ends the loop")
    });
    let end = ends.into_iter().next().expect("a team has a leader")?;
    Ok(Served { end, staleness: Staleness::new(), alone: serving.steps_alone.into_inner() })
}

/// What the members of the server's team share.
struct Serving<'a, 'c> {
    job: &'a Job<'a>,
    link: &'a Server,
    state: &'a State,
    pauses: Pauses<'a, 'c>,
    signal: Signal,
    /// What the workers say of their gradients.
    pushes: RwLock<Vec<Push>>,
    flow: Flow<'a>,
    /// Whether the workers help to update.
    all_update: bool,
    turns: Mutex<Turns>,
    /// Whether rank 0 computes an even, an odd step by itself.
    is_alone: [AtomicBool; 2],
    /// How many it has.
    steps_alone: AtomicU64,
}

/// One member's part.
struct Part<'a> {
    /// Rank 0's share of the batch, if it trains.
    own: Option<ThreadGradient<'a>>,
    /// All of the batch, if rank 0 has all records.
    whole: Option<ThreadGradient<'a>>,
    sum: Sum<'a>,
    /// What it updates.
    blocks: Range<usize>,
    /// The same where the workers help.
    blocks_with_help: Range<usize>,
}

impl<'a> Serving<'a, '_> {
    /// Whether rank 0 computes a step by itself.
    fn is_alone(&self, step: u64) -> bool {
        self.is_alone[step as usize % 2].load(Ordering::Relaxed)
    }

    /// Announces what follows a step, and who computes the next one; returns whether all ranks do, and at once. Of this one rank 0's share took
    /// `own`. The leader calls it while the others wait.
    fn announce(&self, step: u64, batch: &Batch, next: Next, own: Option<Duration>) -> bool {
        let mut turns = self.turns.lock().expect("no panic while it is held");
        let share = || Share::rows_of(batch.positions.len(), batch.leaves, 0, self.job.workers()).len();
        let own = own.map(|took| (took, share() as f64 / batch.positions.len() as f64));
        let turn = turns.next(Instant::now(), own);
        if next != Next::default() {
            turns.pause();
        }
        self.is_alone[(step + 1) as usize % 2].store(turn == Turn::Alone, Ordering::Relaxed);
        self.signal.set(step, next);
        next == Next::default() && turn == Turn::All
    }

    /// A step that all ranks compute; none, if it has failed.
    fn together(
        &self,
        team: &Member,
        (step, batch): (u64, &Batch),
        part: &mut Part<'a>,
    ) -> Result<Option<(Score, Next)>, Error> {
        let Serving { job, link, state, flow, .. } = self;
        let ordered = if team.is_leader() { link.publish(Order::Compute(step)) } else { Ok(()) };
        let (start, mut took) = (Instant::now(), None);
        if let Some(own) = &mut part.own {
            let share = own.compute(team, (step, batch), &state.weights, &link.slots()[0])?;
            if team.is_leader() {
                describe(batch, share, own, &mut self.pushes.write().expect("no thread panicked")[0]);
                took = Some(start.elapsed());
            }
        }
        if team.is_leader() {
            let mut pushes = self.pushes.write().expect("no thread panicked");
            let next = match ordered
                .map_err(Error::from)
                .and_then(|()| collect(job, link, step, batch, &mut pushes))
            {
                Ok(()) if has_drained(batch, &pushes) => Next::DRAINED,
                Ok(()) => self.pauses.next(step),
                Err(error) => {
                    self.signal.set(step, Next { end: Some(End::Failed), ..Next::default() });
                    drop(pushes);
                    team.wait();
                    return Err(error);
                }
            };
            let may_leave = self.announce(step, batch, next, took);
            flow.begin(may_leave, self.all_update && next == Next::default());
        }
        team.wait();
        let next = self.signal.get(step);
        if next.end == Some(End::Failed) {
            return Ok(None);
        }
        flow.ask_for_help(team, step);
        let pushes = self.pushes.read().expect("no thread panicked");
        part.sum.begin(batch.leaves);
        let updated = match next {
            Next::DRAINED => 0..0,
            _ if flow.has_help() => part.blocks_with_help.clone(),
            _ => part.blocks.clone(),
        };
        let rule = job.update(state, step, batch);
        for block in updated {
            part.sum.take(block, pushes.iter().map(|push| &push.nodes[..]));
            update(&rule, block, &mut part.sum, (team, flow));
            part.sum.release();
        }
        flow.finish(team);
        let score = score(&pushes);
        drop(pushes);
        team.wait();
        Ok(if flow.failure(team)? { None } else { Some((score, next)) })
    }

    /// A step that rank 0 computes by itself, while the others wait; none, if it has failed.
    fn alone(
        &self,
        team: &Member,
        (step, batch): (u64, &Batch),
        whole: &mut ThreadGradient,
    ) -> Result<Option<(Score, Next)>, Error> {
        let Serving { job, state, flow, .. } = self;
        if team.is_leader() {
            flow.begin(false, false);
            self.steps_alone.fetch_add(1, Ordering::Relaxed);
            self.announce(step, batch, self.pauses.next(step), None);
        }
        whole.forward(team, (step, batch), &state.weights)?;
        if team.is_leader() {
            // All members have met in this step: none takes a failure of it for one of the last.
            flow.go_on();
        }
        let score = whole.scores.iter().sum();
        job.check(step, batch, score)?;
        let next = self.signal.get(step);
        whole.backward(team, &state.weights, Target::Update(&job.update(state, step, batch)));
        team.wait();
        Ok(if flow.failure(team)? { None } else { Some((score, next)) })
    }
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
