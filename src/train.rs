//! The training loop.
//!
//! A world of one rank is server and worker at once (`solo` below); in a larger one rank 0 is the parameter server
//! ([`crate::server`]) and the others compute gradients ([`crate::worker`]). All of them take the same steps in the same
//! arithmetic, so that the same job ends with the same weights, bit for bit, on any number of ranks and threads.

use crate::asynchronous::Staleness;
use crate::batch::{Batch, Schedule};
use crate::checkpoint::{Checkpoint, Identity};
use crate::cluster::{self, Cluster, RankTimes, Reads};
use crate::conductor::{Conductor, End, Next, Signal, Taken};
use crate::error::Error;
use crate::evaluate::Evaluation;
use crate::gradient::RankGradient;
use crate::histogram::Gradients;
use crate::model::{Model, Tensors};
use crate::optimizer::{Optimizer, decayed};
use crate::pass::{Score, Target, Way};
use crate::records::Records;
use crate::server::{self, Served};
use crate::team::{self, Member, Pace};
use crate::update::Update;
use crate::windows::Reading;
use crate::worker;
use muster_collective::{Server, Shared, Transport, World, link};
use muster_kernels::Kernels;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Whether the loss of a batch, and with it the gradient, is a mean or a sum over its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// The mean: the learning rate does not depend on the batch size.
    Mean,
    /// The sum.
    Sum,
}

/// What decides the weights that come out, together with the model and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Of the initial weights and of the order of records.
    pub seed: u64,
    /// Records of a global batch.
    pub batch_size: usize,
    /// The most records of a micro-batch.
    pub micro_batch: usize,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Of the first epoch.
    pub learning_rate: f32,
    /// What the learning rate is multiplied with after each epoch.
    pub learning_rate_decay: f32,
    /// Mean or sum over the batch.
    pub loss_reduction: Reduction,
    /// Probabilities are clipped to at least this in the loss; 0 clips nothing.
    pub probability_floor: f32,
}

impl Recipe {
    /// Batches of 100 records at the optimizer's own learning rate, the mean loss, seed 1.
    pub fn of(optimizer: Optimizer) -> Recipe {
        Recipe {
            seed: 1,
            batch_size: 100,
            micro_batch: 32,
            optimizer,
            learning_rate: optimizer.default_learning_rate(),
            learning_rate_decay: 1.0,
            loss_reduction: Reduction::Mean,
            probability_floor: 0.0,
        }
    }
}

/// One job: a model, the data it is trained on, and how.
pub struct Job<'a> {
    /// The model's shape.
    pub model: &'a Model,
    /// The kernels' back end.
    pub kernels: &'a Kernels,
    /// Labelled records to train on.
    pub train: &'a Records,
    /// Labelled records to evaluate on after each epoch.
    pub test: Option<&'a Records>,
    /// How.
    pub recipe: &'a Recipe,
    /// Ranks, the parameter server among them.
    pub world_size: usize,
    /// Threads of this rank; of each rank where the ranks are threads themselves.
    pub threads: usize,
    /// How the ranks work together.
    pub cluster: Cluster<'a>,
    /// How long it took to read the data, for the account of times.
    pub reading_seconds: f64,
}

/// The weights and the optimizer's slots, kept by rank 0.
pub struct State {
    /// The weights.
    pub weights: Arc<Shared>,
    /// As many as [`Optimizer::slots`] names.
    pub slots: Vec<Arc<Shared>>,
    /// Counts the gradients of an epoch's last step, where somebody wants to see them.
    pub gradients: Option<Gradients>,
    /// How long rank 0 has waited for its records.
    pub reads: Reads,
}

/// What comes out of a training.
pub struct Outcome {
    /// The weights.
    pub weights: Vec<Tensors>,
    /// Why it ended.
    pub end: End,
    /// Where the ranks' time went.
    pub times: Vec<RankTimes>,
    /// How many gradients of asynchronous training have missed how many updates.
    pub staleness: Staleness,
}

/// Trains from a checkpoint on, or from the start, until the conductor ends it. In a world of processes this is rank 0's part; see
/// [`work`] for the others.
///
/// # Errors
/// A loss that is not finite, a rank that failed, a last checkpoint that could not be written.
pub fn train(job: &Job, start: &Checkpoint, conductor: &mut Conductor) -> Result<Outcome, Error> {
    let began = Instant::now();
    let import = |tensors: &Vec<_>| {
        let buffer = job.model.buffer();
        job.model.import(tensors, &buffer);
        Arc::new(buffer)
    };
    let gradients = conductor.histograms.then(|| Gradients::new(job.model));
    if job.world_size == 1 {
        let (weights, slots) = (import(&start.weights), start.slots.iter().map(import).collect());
        let state = State { weights, slots, gradients, reads: Reads::default() };
        let end = if conductor.is_finished() { End::Finished } else { solo(job, &state, conductor)? };
        job.finish_feed(0)?;
        let times = vec![RankTimes::since(began, 0, job, Default::default(), &state.reads)];
        let weights = job.model.export(&state.weights);
        return Ok(Outcome { weights, end, times, staleness: Staleness::new() });
    }
    let (ranks, lengths) = (job.ranks(), job.model.block_lengths());
    let shape = job.shape(&ranks, &lengths);
    let serve = |link: &Server, conductor: &mut Conductor| {
        job.model.import(&start.weights, link.weights());
        let slots = match link.commons().map(|commons| &commons.optimizer_slots) {
            Some(common) if !common.is_empty() => {
                start.slots.iter().zip(common).for_each(|(tensors, slot)| job.model.import(tensors, slot));
                common.clone()
            }
            _ => start.slots.iter().map(import).collect(),
        };
        let state = State { weights: link.weights().clone(), slots, gradients, reads: Reads::default() };
        let Served { end, staleness, alone } = server::run(job, link, &state, conductor)?;
        let times = RankTimes::since(began, 0, job, link.times(), &state.reads);
        let times = vec![RankTimes { alone, ..times }];
        Ok::<_, Error>(Outcome { weights: job.model.export(&state.weights), end, times, staleness })
    };
    let finish_own_feed = || if job.cluster.server_trains { job.finish_feed(0) } else { Ok(()) };
    if let Some((world, transport)) = job.cluster.world {
        let mut outcome = serve(&world.server(&shape, job.transport(world, transport))?, conductor)?;
        finish_own_feed()?;
        outcome.times = cluster::exchange(world, &outcome.times[0])?;
        return Ok(outcome);
    }
    let (link, workers) = link::threads(&shape);
    std::thread::scope(|scope| {
        let (first, ranks) = (1 - job.first_rank(), &ranks);
        let start =
            |(at, worker)| scope.spawn(move || worker::run(job, (first + at, ranks[first + at]), worker));
        let workers: Vec<_> = workers.into_iter().enumerate().map(start).collect();
        let mut outcome = serve(&link, conductor)?;
        finish_own_feed()?;
        for worker in workers {
            outcome.times.push(worker.join().expect("a worker catches its panics")?);
        }
        Ok(outcome)
    })
}

/// The part of any rank but 0 in a world of processes.
///
/// # Errors
/// If a rank has failed, this one or another.
pub fn work(job: &Job, (world, transport): (&World, Transport)) -> Result<(), Error> {
    let (ranks, lengths) = (job.ranks(), job.model.block_lengths());
    let index = ranks
        .iter()
        .position(|&rank| rank == world.rank())
        .expect("every rank but a mere server is a worker");
    let link = world.worker(&job.shape(&ranks, &lengths), job.transport(world, transport))?;
    let times = worker::run(job, (index, world.rank()), link)?;
    cluster::exchange(world, &times).map(|_| ())
}

/// The one rank of a world of one: gradients go straight into the weights.
fn solo(job: &Job, state: &State, conductor: &mut Conductor) -> Result<End, Error> {
    let first_step = conductor.steps();
    let rank = RankGradient::new(job, 0, (0, 1), &state.reads);
    let (pauses, signal) = (Pauses::new(job, state, conductor, None), Signal::default());
    let ends = team::run(job.threads, |team| {
        let (mut gradient, mut pace, mut step) = (rank.thread(), Pace::default(), first_step);
        loop {
            let batch = job.schedule().batch(step);
            if team.is_leader() {
                signal.set(step, pauses.next(step));
                pace.plan(team, step);
            }
            if gradient.forward(team, (step, &batch), &state.weights)?.is_none() {
                let end = pauses.after(team, (step, &batch), Taken::default(), Next::DRAINED)?;
                return Ok(end.expect("it is the end"));
            }
            let score = gradient.scores.iter().sum();
            job.check(step, &batch, score)?;
            let update = job.update(state, step, &batch);
            gradient.backward(team, &state.weights, Target::Update(&update));
            let (taken, next) = (Taken { score, ..Taken::default() }, signal.get(step));
            if let Some(end) = pauses.after(team, (step, &batch), taken, next)? {
                return Ok(end);
            }
            if next != Next::default() {
                pace.pause();
            }
            let Some(next_step) = team.next_step(step) else {
                // It rests at the end; what that is the leader says.
                return Ok(End::Finished);
            };
            if next_step > step + 1 {
                gradient.go_on_after(next_step - 1);
            }
            step = next_step;
        }
    });
    ends.into_iter().next().expect("a team has a leader")
}

impl<'a> Job<'a> {
    /// One rank of one thread, without a test set.
    pub fn of(model: &'a Model, kernels: &'a Kernels, train: &'a Records, recipe: &'a Recipe) -> Job<'a> {
        let (world_size, threads, reading_seconds) = (1, 1, 0.0);
        let cluster = Cluster::default();
        Job { model, kernels, train, test: None, recipe, world_size, threads, cluster, reading_seconds }
    }
}

impl Job<'_> {
    /// Which records make up which step.
    pub fn schedule(&self) -> Schedule {
        let Recipe { batch_size, micro_batch, .. } = *self.recipe;
        Schedule { records: self.train.len(), batch_size, micro_batch }
    }

    /// Whose records this process needs, and in which order. Ranks that are threads share what they read.
    pub(crate) fn reading(&self) -> Reading {
        let seat = match self.cluster.world {
            None => (0, 1),
            Some((world, _)) => self.seat(self.worker_of(world.rank())),
        };
        Reading { seed: self.recipe.seed, schedule: self.schedule(), seat }
    }

    /// What the gradient of a batch of `rows` records is multiplied with.
    pub(crate) fn scale(&self, rows: usize) -> f32 {
        match self.recipe.loss_reduction {
            Reduction::Mean => 1.0 / rows as f32,
            Reduction::Sum => 1.0,
        }
    }

    /// What the bits of its result depend on.
    pub fn identity(&self) -> Identity {
        Identity {
            widths: self.model.widths(),
            recipe: self.recipe.clone(),
            data_sha256: self.train.digest(),
            arithmetic: Way::of((self.model, self.kernels), self.train.kind())
                .arithmetic(self.kernels)
                .to_owned(),
        }
    }

    pub(crate) fn learning_rate(&self, epoch: u64) -> f32 {
        decayed(self.recipe.learning_rate, self.recipe.learning_rate_decay, epoch)
    }

    /// How step `step` changes `state`.
    pub(crate) fn update<'a>(&'a self, state: &'a State, step: u64, batch: &Batch) -> Update<'a> {
        let (optimizer, rate) = (self.recipe.optimizer, self.learning_rate(batch.epoch));
        let rate = match optimizer {
            Optimizer::Adam { beta1, beta2, .. } => Optimizer::adam_rate(rate, beta1, beta2, step),
            _ => rate,
        };
        let State { weights, slots, gradients, .. } = state;
        Update { kernels: self.kernels, weights, slots, gradients: gradients.as_ref(), step, optimizer, rate }
    }

    /// Stops before a gradient that is not finite spoils the weights.
    pub(crate) fn check(&self, step: u64, batch: &Batch, score: Score) -> Result<(), Error> {
        if score.loss.is_finite() {
            return Ok(());
        }
        let learning_rate = self.learning_rate(batch.epoch);
        Err(Error::Diverged { step: step + 1, loss: score.loss, learning_rate })
    }
}

/// What the members of rank 0's team do together between steps.
pub(crate) struct Pauses<'a, 'c> {
    job: &'a Job<'a>,
    state: &'a State,
    conductor: Mutex<&'a mut Conductor<'c>>,
    evaluation: Option<(&'a Records, Evaluation)>,
    /// The workers, who wait meanwhile.
    link: Option<&'a Server>,
}

impl<'a, 'c> Pauses<'a, 'c> {
    pub fn new(
        job: &'a Job,
        state: &'a State,
        conductor: &'a mut Conductor<'c>,
        link: Option<&'a Server>,
    ) -> Pauses<'a, 'c> {
        let evaluation = job.test.map(|test| (test, Evaluation::new(test.len())));
        Pauses { job, state, conductor: Mutex::new(conductor), evaluation, link }
    }

    fn conductor(&self) -> std::sync::MutexGuard<'_, &'a mut Conductor<'c>> {
        self.conductor.lock().expect("no panic while it is held")
    }

    /// What the conductor wants to follow `step`.
    pub fn next(&self, step: u64) -> Next {
        let next = self.conductor().next(step);
        if let Some(gradients) = self.state.gradients.as_ref().filter(|_| next.evaluate) {
            gradients.choose(step);
        }
        next
    }

    /// After a step: takes note of it, and evaluates, saves and ends as `next` says.
    pub fn after(
        &self,
        team: &Member,
        (step, batch): (u64, &Batch),
        taken: Taken,
        next: Next,
    ) -> Result<Option<End>, Error> {
        if team.is_leader() && next != Next::DRAINED {
            let reading = self.state.reads.seconds();
            self.conductor().done(self.job, step, batch, Taken { reading, ..taken });
            self.job.done(0, step + 1);
        }
        if next == Next::default() {
            return Ok(None);
        }
        match self.link.filter(|_| team.is_leader()) {
            Some(link) => link.pausing(|| self.pause(team, next)),
            None => self.pause(team, next),
        }
    }

    /// Evaluates, saves and ends as `next` says.
    fn pause(&self, team: &Member, next: Next) -> Result<Option<End>, Error> {
        team.wait();
        if let Some((test, evaluation)) = self.evaluation.as_ref().filter(|_| next.evaluate) {
            evaluation.run((self.job.model, self.job.kernels, &self.state.weights), test, team);
            team.wait();
            // All members, or none, go on to the next meeting.
            evaluation.score()?;
        }
        let mut done = Ok(());
        if team.is_leader() {
            let test = self.evaluation.as_ref().filter(|_| next.evaluate);
            let test = test.map(|(test, evaluation)| evaluation.score().map(|score| (score, test.len())));
            let test = test.transpose()?;
            done = self.conductor().pause(next, self.job, self.state, test);
        }
        team.wait();
        done.map(|()| next.end)
    }
}

#[cfg(test)]
pub(crate) mod tests;
