//! Rank 0 in asynchronous training: every worker computes whole batches of its own, whose gradients are applied as they come.
//!
//! A gradient that was computed at weights of version v and is applied at version w has missed w − v updates: its *staleness*. Under a
//! bound K it has to be applied while the version is at most v + K; so weights are only lent, and gradients only
//! applied, as long as all that are still out can be applied in time, one after the other.

use crate::batch::Batch;
use crate::conductor::{Conductor, End, Next, Taken};
use crate::error::Error;
use crate::gradient::RankGradient;
use crate::pass::Score;
use crate::server::spent;
use crate::team;
use crate::train::{Job, Pauses, State};
use crate::worker::describe;
use muster_collective::{Order, Push, Server};
use std::collections::BTreeMap;
use std::sync::{Mutex, RwLock};

/// How many gradients have missed how many updates.
pub type Staleness = BTreeMap<u64, u64>;

/// What a worker is computing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loan {
    step: u64,
    /// Of the weights it was lent.
    version: u64,
}

/// Who computes what, at weights of which version.
struct Loans {
    /// The next step that nobody has been given.
    next_step: u64,
    /// No step from here on is given to anybody.
    end_step: u64,
    /// Updates applied.
    version: u64,
    max_staleness: u64,
    /// By worker.
    out: Vec<Option<Loan>>,
    staleness: Staleness,
}

impl Loans {
    /// The workers whose gradients may be applied next, those with the oldest weights first.
    fn applicable(&self) -> Vec<usize> {
        let mut workers: Vec<usize> =
            (0..self.out.len()).filter(|&worker| self.is_applicable(worker)).collect();
        workers.sort_by_key(|&worker| self.out[worker].map(|loan| loan.version));
        workers
    }

    fn is_applicable(&self, worker: usize) -> bool {
        let others = self.out.iter().enumerate().filter(|(other, _)| *other != worker);
        self.out[worker].is_some() && self.in_time(others.filter_map(|(_, loan)| *loan), self.version + 1)
    }

    /// Whether these loans can be applied one after the other from `version` on, none of them too late.
    fn in_time(&self, loans: impl Iterator<Item = Loan>, version: u64) -> bool {
        let mut last: Vec<u64> = loans.map(|loan| loan.version.saturating_add(self.max_staleness)).collect();
        last.sort_unstable();
        last.iter().zip(version..).all(|(&last, at)| at <= last)
    }

    /// Gives steps to idle workers, as many as the bound allows and in the workers' order; returns who got which.
    fn lend(&mut self) -> Vec<(usize, u64)> {
        let mut given = Vec::new();
        for worker in 0..self.out.len() {
            let loan = Loan { step: self.next_step, version: self.version };
            let out = self.out.iter().flatten().copied().chain([loan]);
            if self.out[worker].is_none() && self.next_step < self.end_step && self.in_time(out, self.version)
            {
                self.out[worker] = Some(loan);
                self.next_step += 1;
                given.push((worker, loan.step));
            }
        }
        given
    }

    /// There are no records for what a worker was to compute, nor for any later step.
    fn withdraw(&mut self, worker: usize) {
        self.out[worker] = None;
        self.end_step = self.next_step;
    }

    /// A worker's gradient is applied; returns how many updates it has missed.
    fn apply(&mut self, worker: usize) -> u64 {
        let loan = self.out[worker].take().expect("only what is out is applied");
        let missed = self.version - loan.version;
        *self.staleness.entry(missed).or_default() += 1;
        self.version += 1;
        missed
    }
}

/// What the leader of the team has decided for the present turn.
#[derive(Default)]
struct Turn {
    /// Who gets which step.
    given: Vec<(usize, u64)>,
    /// Whose gradient is applied, and what he said of it.
    worker: usize,
    push: Push,
    batch: Option<Batch>,
    /// How many updates the gradient has missed.
    missed: u64,
    next: Next,
}

impl Turn {
    /// Whether there were records to compute the gradient of.
    fn is_computed(&self) -> bool {
        !self.push.losses.is_empty()
    }
}

/// Applies gradients until the conductor ends the training and all that were still out have come.
///
/// # Errors
/// As for [`crate::server::run`].
pub fn serve(
    job: &Job,
    link: &Server,
    state: &State,
    conductor: &mut Conductor,
    max_staleness: Option<u64>,
) -> Result<(End, Staleness), Error> {
    let (first_step, end_step) = (conductor.steps(), conductor.last_step());
    let own = job.cluster.server_trains.then(|| RankGradient::new(job, 0, job.seat(0), &state.reads));
    let loans = Mutex::new(Loans {
        next_step: first_step,
        end_step,
        version: first_step,
        max_staleness: max_staleness.unwrap_or(u64::MAX),
        out: vec![None; job.workers()],
        staleness: Staleness::new(),
    });
    let (pauses, turn) = (Pauses::new(job, state, conductor, Some(link)), RwLock::new(Turn::default()));
    let leader = Leader { job, link, loans: &loans, pauses: &pauses };
    let ends = team::run(job.threads, |team| {
        let mut own = own.as_ref().map(|own| own.thread());
        let blocks = crate::batch::share(state.weights.blocks(), team.index(), team.count());
        let mut version = first_step;
        loop {
            let mut failed = Ok(());
            if team.is_leader() {
                turn.write().expect("no thread panicked").given = leader.loans().lend();
            }
            team.wait();
            lend_weights(link, state, blocks.clone(), &turn.read().expect("no thread panicked").given);
            team.wait();
            if team.is_leader() {
                let mut turn = turn.write().expect("no thread panicked");
                failed = leader.collect(&mut turn);
                if failed.is_err() {
                    turn.next.end = Some(End::Failed);
                }
            }
            team.wait();
            if let (Some(own), true) = (&mut own, is_own(link, &turn)) {
                let batch =
                    turn.read().expect("no thread panicked").batch.clone().expect("the leader chose it");
                let step = leader.loans().out[0].map_or(version, |loan| loan.step);
                let share = own.compute(team, (step, &batch), &link.copies()[0], &link.slots()[0])?;
                team.wait();
                if team.is_leader() {
                    describe(&batch, share, own, &mut turn.write().expect("no thread panicked").push);
                }
            }
            if team.is_leader() {
                failed = failed.and_then(|()| leader.decide(&mut turn.write().expect("no thread panicked")));
                if failed.is_err() {
                    turn.write().expect("no thread panicked").next.end = Some(End::Failed);
                }
            }
            team.wait();
            failed?;
            let (worker, is_computed, next, batch, taken) = {
                let turn = turn.read().expect("no thread panicked");
                let taken = Taken { score: score(&turn.push), staleness: Some(turn.missed), ..spent(link) };
                (turn.worker, turn.is_computed(), turn.next, turn.batch.clone(), taken)
            };
            if next.end == Some(End::Failed) {
                return Ok::<_, Error>(End::Failed);
            }
            let batch = batch.expect("the leader chose it");
            if is_computed {
                let update = job.update(state, version, &batch);
                for block in blocks.clone() {
                    let gradient = link.slots()[worker].read(block..block + 1);
                    update.blocks(block..block + 1).apply(0, &gradient);
                }
            }
            team.wait();
            if !is_computed && next != Next::DRAINED {
                continue;
            }
            if let Some(end) = pauses.after(team, (version, &batch), taken, next)? {
                return Ok(end);
            }
            version += 1;
        }
    });
    let end = ends.into_iter().next().expect("a team has a leader")?;
    Ok((end, loans.into_inner().expect("no thread panicked").staleness))
}

/// Copies the weights for those who get an order.
fn lend_weights(link: &Server, state: &State, blocks: std::ops::Range<usize>, given: &[(usize, u64)]) {
    for &(worker, _) in given {
        for block in blocks.clone() {
            let weights = state.weights.read(block..block + 1);
            link.copies()[worker].write(block..block + 1).copy_from_slice(&weights);
        }
    }
}

/// Whether this turn's gradient is one that rank 0 itself has to compute.
fn is_own(link: &Server, turn: &RwLock<Turn>) -> bool {
    let turn = turn.read().expect("no thread panicked");
    turn.next.end.is_none() && !link.others().contains(&turn.worker)
}

fn score(push: &Push) -> Score {
    let leaves = push.losses.iter().zip(&push.hits);
    leaves.fold(Score::default(), |sum, (loss, hits)| Score { loss: sum.loss + loss, hits: sum.hits + hits })
}

/// What only the leader does: it talks to the workers and to the conductor.
struct Leader<'a, 'c> {
    job: &'a Job<'a>,
    link: &'a Server,
    loans: &'a Mutex<Loans>,
    pauses: &'a Pauses<'a, 'c>,
}

impl Leader<'_, '_> {
    fn loans(&self) -> std::sync::MutexGuard<'_, Loans> {
        self.loans.lock().expect("no panic while it is held")
    }

    /// Gives the orders and waits for a gradient, which may be one that this rank has yet to compute.
    fn collect(&self, turn: &mut Turn) -> Result<(), Error> {
        let others = self.link.others();
        for &(worker, step) in turn.given.iter().filter(|(worker, _)| others.contains(worker)) {
            self.link.give(worker, Order::Compute(step))?;
        }
        turn.next = Next::default();
        {
            let loans = self.loans();
            if loans.out.iter().all(Option::is_none) {
                turn.push.losses.clear();
                turn.batch = Some(self.job.schedule().batch(loans.version));
                turn.next = Next::DRAINED;
                return Ok(());
            }
        }
        let (remote, own): (Vec<usize>, Vec<usize>) =
            self.loans().applicable().into_iter().partition(|worker| others.contains(worker));
        turn.worker = match own.first() {
            Some(&own) => self.link.collect_now(&remote, &mut turn.push)?.unwrap_or(own),
            None => self.link.collect_any(&remote, &mut turn.push)?,
        };
        let step = self.loans().out[turn.worker].expect("it was asked for a gradient").step;
        turn.batch = Some(self.job.schedule().batch(step));
        Ok(())
    }

    /// Checks the gradient and decides what follows it. The end waits for all gradients that are out.
    fn decide(&self, turn: &mut Turn) -> Result<(), Error> {
        let mut loans = self.loans();
        if turn.next == Next::DRAINED {
            return Ok(());
        }
        if !turn.is_computed() {
            loans.withdraw(turn.worker);
            return Ok(());
        }
        let batch = turn.batch.as_ref().expect("chosen with the worker");
        self.job.check(loans.version, batch, score(&turn.push))?;
        turn.next = self.pauses.next(loans.version);
        turn.missed = loans.apply(turn.worker);
        if turn.next.end.is_some() {
            loans.end_step = loans.next_step;
            if loans.out.iter().any(Option::is_some) {
                (turn.next.end, turn.next.save) = (None, false);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whoever comes first, nothing is staler than the bound, nobody waits for ever, and every step is applied.
        #[test]
        fn the_bound_holds_and_everybody_gets_on(
            workers in 1usize..7, bound in prop::option::of(0u64..9), choices in prop::collection::vec(any::<usize>(), 200),
        ) {
            let mut loans = Loans {
                next_step: 3, end_step: 103, version: 3, max_staleness: bound.unwrap_or(u64::MAX),
                out: vec![None; workers], staleness: Staleness::new(),
            };
            let mut lent = Vec::new();
            let mut choices = choices.into_iter();
            loop {
                lent.extend(loans.lend().into_iter().map(|(_, step)| step));
                if loans.out.iter().all(Option::is_none) {
                    break;
                }
                let applicable = loans.applicable();
                prop_assert!(!applicable.is_empty(), "all are out and none may come back");
                loans.apply(applicable[choices.next().unwrap() % applicable.len()]);
            }
            prop_assert_eq!(lent, (3..103).collect::<Vec<u64>>());
            prop_assert_eq!(loans.staleness.values().sum::<u64>(), 100);
            prop_assert!(bound.is_none_or(|bound| *loans.staleness.keys().last().unwrap() <= bound));
        }
    }
}
