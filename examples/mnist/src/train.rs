//! `mnist train`

use crate::cli::{self, OptimizerName, RecipeName, ReductionName};
use crate::console::{self, Console, interrupts};
use crate::fabric::Found;
use crate::launched::Launched;
use crate::memory::{self, Ranks};
use crate::{driver, fed, parts, plan, ranks, source};
use anyhow::{Context, Result, bail, ensure};
use muster::agree::Facts;
use muster::checkpoint::{self, Checkpoint, Identity};
use muster::cluster::RankTimes;
use muster::conductor::{Conductor, End, Event};
use muster::evaluate::Evaluation;
use muster::model::Model;
use muster::optimizer::Optimizer;
use muster::records::Records;
use muster::report::{KernelsUsed, Report};
use muster::storage::{Storage, file};
use muster::store::Store;
use muster::team;
use muster::train::{Job, Outcome, Recipe, Reduction};
use muster_collective::World;
use muster_kernels::Kernels;
use muster_launcher::feed::Fed;
use muster_launcher::message::Task;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The seed's model has one hidden layer of 128 units.
const HIDDEN: usize = 128;
/// Epochs when neither --epochs nor --steps is given.
const EPOCHS: u64 = 5;
/// Steps of `--recipe tfos2017`.
const TFOS_STEPS: u64 = 1000;

/// Trains and returns the exit code: 128 and the signal's number when one ended it.
pub fn run(options: &cli::Train) -> Result<ExitCode> {
    options.data.later.refuse()?;
    options.seed_mode.check("train")?;
    if !options.plan_json
        && let Some(code) = driver::run(&options.launch, options.cluster.cluster_size.unwrap_or(1))?
    {
        return Ok(code);
    }
    ranks::run(ranks::step_timeout(&options.cluster), |world| {
        let recipe = recipe(&options.recipe);
        let is_plan = options.plan_json;
        let feed = if is_plan { None } else { fed::training(options, &recipe)? };
        // Told within the world: a rank that fails ends all of them, and would have no time to say why.
        let launched = Launched::register(Task::Train, Kernels::select()?, feed)?;
        let done = run_rank(options, world, &launched);
        launched.finish(done)
    })
}

/// One process's part: all of it, or, of a world, that of its rank.
fn run_rank(options: &cli::Train, world: Option<&World>, launched: &Launched) -> Result<ExitCode> {
    let rank = world.map_or(0, World::rank);
    let storage = Arc::new(Storage::from_environment()?);
    let ranks_here = if world.is_some() { 1 } else { ranks::size(options.cluster.cluster_size, world)? };
    let is_fed = launched.is_fed();
    if is_fed {
        launched.start(ranks_here)?;
    }
    let fed = launched.fed(source::SCALE);
    let prepare = || Material::prepare(options, &storage, world, fed.as_ref());
    let material = ranks::in_turn(world, options.data.data.is_none() && !is_fed, prepare)?;
    let kernels = agree(world, options, &material)?;
    let material = material?;
    let watch = |rank, steps| launched.step(rank, steps);
    let cluster = ranks::cluster(options, world, fed.as_ref(), &watch)?;
    let job = Job {
        model: &material.model,
        kernels,
        train: &material.train,
        test: material.test.as_ref(),
        recipe: &material.recipe,
        world_size: material.world_size,
        threads: options.cluster.threads.unwrap_or_else(|| threads(&material, world, cluster.server_trains)),
        cluster,
        reading_seconds: material.reading_seconds,
    };
    if options.plan_json {
        return plan::print(&job, material.dataset, last_step(options, &job));
    }
    let found = Found::here(&options.cluster.fabric, cluster.world)?;
    if !is_fed {
        launched.start(ranks_here)?;
    }
    if let Some(world) = cluster.world.filter(|_| rank != 0) {
        // Rank 0 is told to end, finishes its step and ends the others.
        let _ignored = interrupts(launched.interrupt())?;
        muster::train::work(&job, world)?;
        found.change(Some(world.0))?;
        return Ok(ExitCode::SUCCESS);
    }
    let in_log_dir = launched.log_dir().map(|directory| directory.join("report.json"));
    let report_to = options.report.as_ref().or(in_log_dir.as_ref()).map(|path| writable(path)).transpose()?;
    let store = Store::open(storage, &options.model, options.keep)?;
    let resume = !options.no_resume || launched.is_restart();
    let start = store.start(job.identity(), resume, options.require_same_bits, |warning| {
        console::remark(format!("warning: {warning}"));
    })?;
    let last_step = last_step(options, &job);
    let run =
        Run { options, job, store, start, last_step, dataset: material.dataset, report_to, launched, found };
    run.train()
}

/// The kernels to use, when all ranks are ready and want the same.
fn agree(
    world: Option<&World>,
    options: &cli::Train,
    material: &Result<Material>,
) -> Result<&'static Kernels> {
    let Some(world) = world else { return Ok(Kernels::select()?) };
    let facts = |material: &Material| {
        let identity = Identity {
            widths: material.model.widths(),
            recipe: material.recipe.clone(),
            data_sha256: material.train.digest(),
            arithmetic: String::new(),
        };
        let others = [
            ("the version", env!("CARGO_PKG_VERSION").to_owned()),
            ("the program's sha256", ranks::program_sha256()),
            ("--async", format!("{:?}", ranks::mode(options))),
            ("--server-trains", options.cluster.server_trains.to_string()),
            ("--transport", format!("{:?}", options.cluster.transport)),
            ("--fabric", format!("{:?}", options.cluster.fabric.required().collect::<Vec<_>>())),
            ("--step-timeout", options.cluster.step_timeout.to_string()),
        ];
        Facts::here(&identity, others).map_err(|error| error.to_string())
    };
    let own = material.as_ref().map_err(|error| format!("{error:#}")).and_then(facts);
    Ok(muster::agree::agree(world, own)?)
}

/// What is trained on what.
struct Material {
    dataset: &'static str,
    train: Records,
    test: Option<Records>,
    model: Model,
    recipe: Recipe,
    world_size: usize,
    reading_seconds: f64,
}

impl Material {
    fn prepare(
        options: &cli::Train,
        storage: &Arc<Storage>,
        world: Option<&World>,
        fed: Option<&Fed>,
    ) -> Result<Material> {
        let world_size = ranks::size(options.cluster.cluster_size, world)?;
        let threads = options.cluster.threads.unwrap_or(1);
        ensure!(threads <= 1024, "--threads {threads}; at most 1024 are possible");
        let remark: &(dyn Fn(&str) + Sync) = &|text| {
            if world.is_none_or(|world| world.rank() == 0) {
                console::remark(text);
            }
        };
        let start = Instant::now();
        let training = match &options.data.images {
            Some(images) => parts::training(storage, images, options, fed.map(Fed::records))?,
            None => {
                let mnist = source::open(options.data.data.as_deref(), remark)?;
                mnist.warning.as_deref().into_iter().for_each(remark);
                mnist.into_training()?
            }
        };
        let source::Training { train, test, name: dataset } = training;
        let hidden = options.hidden.clone().map_or(vec![HIDDEN], |hidden| hidden.0);
        let model = Model::new(&[&[train.width()], &hidden[..], &[source::CLASSES]].concat());
        let (recipe, records) = (recipe(&options.recipe), train.len());
        let batch = recipe.batch_size;
        ensure!(
            batch <= records,
            "--batch-size {batch} is larger than the data set of {records} records; choose at most {records}"
        );
        let (mode, server_trains) = (ranks::mode(options), options.cluster.server_trains);
        if !options.plan_json {
            let ranks = Ranks { size: world_size, server_trains, mode };
            memory::check(&model, &recipe, &train, ranks, world)?;
        }
        let reading_seconds = start.elapsed().as_secs_f64();
        Ok(Material { dataset, train, test, model, recipe, world_size, reading_seconds })
    }
}

/// Threads of this process's rank, or of each of its ranks: the usable cores, divided by the workers that share them.
fn threads(material: &Material, world: Option<&World>, server_trains: bool) -> usize {
    let (usable, first) = (usable_cores(), usize::from(!server_trains));
    match world {
        Some(world) => world.roster().share_of_cores(world.rank(), usable, |rank| rank >= first),
        None => (usable / (material.world_size - first.min(material.world_size - 1))).max(1),
    }
}

/// Everything a training needs, checked before it begins.
struct Run<'a> {
    options: &'a cli::Train,
    job: Job<'a>,
    store: Store,
    start: Checkpoint,
    last_step: u64,
    dataset: &'static str,
    report_to: Option<&'a Path>,
    launched: &'a Launched,
    found: Found,
}

impl Run<'_> {
    fn train(self) -> Result<ExitCode> {
        let Run { job, start, last_step, .. } = &self;
        let steps = last_step.saturating_sub(start.progress.steps);
        let console = Console::new(if follows(job) { 0 } else { steps }, "steps");
        console.line(format_args!("{} ===== Start", console::now()));
        console.line(self.plan());
        let interrupt = interrupts(self.launched.interrupt())?;
        let first = start.progress.steps;
        let mut observer = |event: Event| self.show(&console, event, first);
        let mut conductor = Conductor::new(
            (start.progress.clone(), job.schedule(), *last_step),
            Some(&self.store),
            Duration::from_secs_f64(self.options.checkpoint_secs),
            &interrupt,
            &mut observer,
        );
        let Outcome { weights, end, times, staleness } = muster::train::train(job, start, &mut conductor)?;
        let (progress, train_seconds) = (conductor.progress.clone(), conductor.train_seconds);
        console.clear();
        let fabric_counters = self.found.change(self.job.cluster.world.map(|(world, _)| world))?;
        let report = self.report(progress, train_seconds, &weights)?;
        let report = Report { staleness, ranks: times, fabric_counters, ..report };
        if let Some(path) = self.report_to {
            let json = serde_json::to_vec_pretty(&report)?;
            file::write_atomic(path, |out| out.write_all(&json))?;
        }
        self.summarize(&console, &report, first);
        Found::prove(&self.options.cluster.fabric, &report.fabric_counters)?;
        console.line(format_args!("{} ===== Stop", console::now()));
        Ok(match end {
            End::Interrupted(signal) => ExitCode::from(128 + signal as u8),
            End::Finished | End::Drained | End::Failed => ExitCode::SUCCESS,
        })
    }

    fn plan(&self) -> String {
        let (job, schedule) = (&self.job, self.job.schedule());
        let steps = self.last_step.saturating_sub(self.start.progress.steps);
        let from = match self.start.progress.steps {
            0 => String::new(),
            done => format!(", going on from step {done}"),
        };
        let (workers, leaves) =
            ((job.world_size - 1).max(1), job.recipe.batch_size.div_ceil(job.recipe.micro_batch));
        let idle = match workers.saturating_sub(leaves) {
            0 => String::new(),
            idle => format!(", {idle} workers idle: a batch has {leaves} micro-batches"),
        };
        let shape: Vec<String> = job.model.widths().iter().map(usize::to_string).collect();
        let (shape, ranks, threads) = (shape.join("-"), self.ranks(), job.threads);
        let how = format!("({ranks}, {threads} threads each, kernels {})", job.kernels.backend().name());
        if follows(job) {
            let path = job.train.path().display();
            return format!("plan: {shape} on records as they appear in {path} {how}{from}{idle}");
        }
        let records = schedule.records_until(self.last_step)
            - schedule.records_until(self.start.progress.steps.min(self.last_step));
        format!(
            "plan: {shape} on {} records of {} {how}: {steps} steps = {:.2} epochs = {records} records{from}{idle}",
            schedule.records,
            self.dataset,
            steps as f64 / schedule.steps_per_epoch() as f64,
        )
    }

    /// The ranks and what lies between them.
    fn ranks(&self) -> String {
        let size = self.job.world_size;
        let Some((world, transport)) = self.job.cluster.world else { return format!("{size} ranks") };
        let nodes = world.roster().nodes();
        let s = if nodes == 1 { "" } else { "s" };
        let fabric = self.found.name.as_deref().unwrap_or_default();
        format!(
            "{size} ranks on {nodes} node{s}, transport {}, {}, fabric {fabric}",
            transport.name(),
            world.library()
        )
    }

    fn show(&self, console: &Console, event: Event, first: u64) {
        match event {
            Event::Step { steps, rows, score } => {
                console.progress(steps - first, || format!("loss {:.4}", score.loss / rows as f64));
                if self.options.recipe.recipe == Some(RecipeName::Tfos2017) && steps.is_multiple_of(100) {
                    let accuracy = f64::from(score.hits) / rows as f64;
                    console.line(format_args!("{} step: {steps} accuracy: {accuracy}", console::now()));
                }
            }
            Event::Epoch(epoch) => {
                let test = epoch
                    .test_accuracy
                    .map_or(String::new(), |accuracy| format!(", test accuracy {:.2} %", 100.0 * accuracy));
                console.line(format_args!(
                    "epoch {}: loss {:.4}, accuracy {:.2} %{test}, {:.3} s",
                    epoch.epoch,
                    epoch.loss,
                    100.0 * epoch.train_accuracy,
                    epoch.seconds
                ));
            }
            Event::Saved(_) => {}
            Event::NotSaved(error) => {
                console.remark(format_args!(
                    "warning: no checkpoint: {error}; training goes on and tries again"
                ));
            }
        }
    }

    fn report(
        &self,
        progress: checkpoint::Progress,
        train_seconds: f64,
        weights: &[muster::model::Tensors],
    ) -> Result<Report> {
        let (job, schedule) = (&self.job, self.job.schedule());
        let records = schedule.records_until(progress.steps);
        let records_now = records - schedule.records_until(self.start.progress.steps);
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            dataset: self.dataset.to_owned(),
            dataset_sha256: job.train.digest(),
            model: job.model.widths(),
            optimizer: job.recipe.optimizer,
            seed: job.recipe.seed,
            batch_size: job.recipe.batch_size,
            micro_batch: job.recipe.micro_batch,
            world_size: job.world_size,
            threads: job.threads,
            mode: job.cluster.mode,
            server_trains: job.cluster.server_trains,
            transport: job.cluster.world.map_or("threads", |(_, transport)| transport.name()),
            mpi: job.cluster.world.map(|(world, _)| world.library().to_owned()),
            fabric: self.found.name.clone(),
            fabric_counters: Default::default(),
            staleness: Default::default(),
            ranks: Vec::new(),
            kernels: KernelsUsed::of(job.kernels, job.train),
            steps: progress.steps,
            epochs: progress.epochs,
            records,
            test_accuracy: job.test.map(|test| accuracy(job, test, weights)).transpose()?,
            train_seconds,
            images_per_second: if records_now == 0 { 0.0 } else { records_now as f64 / train_seconds },
            weights_sha256: checkpoint::sha256(weights),
        })
    }

    fn summarize(&self, console: &Console, report: &Report, first: u64) {
        if report.steps == first {
            console.line(
                "nothing to train: the model has these steps already; a larger --epochs or --steps goes on",
            );
        }
        if let Some(accuracy) = report.test_accuracy {
            console.line(format_args!("test accuracy    {:.2} %", 100.0 * accuracy));
        }
        console.line(format_args!("images/s         {:.0}", report.images_per_second));
        console.line(format_args!("seconds          {:.3}", report.train_seconds));
        console.line(format_args!("steps            {}", report.steps));
        console.line(format_args!("weights sha256   {}", report.weights_sha256));
        if !report.staleness.is_empty() {
            let entries: Vec<String> =
                report.staleness.iter().map(|(missed, gradients)| format!("{missed}: {gradients}")).collect();
            console.line(format_args!("staleness        {}", entries.join(", ")));
        }
        for (counter, grown) in &report.fabric_counters {
            console.line(format_args!("fabric           {counter}: {grown}"));
        }
        if report.ranks.len() > 1 {
            report.ranks.iter().for_each(|times| console.line(account(times)));
        }
        console.line(format_args!("model            {}", self.options.model.display()));
    }
}

/// Where a rank's time went, as a line.
fn account(times: &RankTimes) -> String {
    let RankTimes { rank, compute, communication, reading, .. } = times;
    let waiting: f64 = times.waiting.iter().sum();
    let longest = times.longest_wait().map_or(String::new(), |(rank, _)| format!(", most for rank {rank}"));
    format!(
        "rank {rank:<11} compute {compute:.3} s, communication {communication:.3} s, waiting {waiting:.3} s{longest}, reading {reading:.3} s"
    )
}

fn accuracy(job: &Job, test: &Records, weights: &[muster::model::Tensors]) -> Result<f64> {
    let buffer = job.model.buffer();
    job.model.import(weights, &buffer);
    let evaluation = Evaluation::new(test.len());
    team::run(job.threads, |team| evaluation.run((job.model, job.kernels, &buffer), test, team));
    Ok(f64::from(evaluation.score()?.hits) / test.len() as f64)
}

/// The recipe that the options name.
fn recipe(options: &cli::RecipeArgs) -> Recipe {
    let tfos = options.recipe == Some(RecipeName::Tfos2017);
    let momentum = options.momentum.unwrap_or(0.9);
    let optimizer = match options.optimizer {
        None if tfos => Optimizer::Adagrad { initial_accumulator: 0.1 },
        None | Some(OptimizerName::Sgd) if momentum > 0.0 => Optimizer::Momentum { momentum },
        None | Some(OptimizerName::Sgd) => Optimizer::Sgd,
        Some(OptimizerName::Adagrad) => Optimizer::Adagrad { initial_accumulator: 0.1 },
        Some(OptimizerName::Adam) => Optimizer::ADAM,
    };
    let rate = if tfos { 0.01 } else { optimizer.default_learning_rate() };
    let reduction = match options.loss_reduction {
        Some(ReductionName::Sum) => Reduction::Sum,
        None if tfos => Reduction::Sum,
        None | Some(ReductionName::Mean) => Reduction::Mean,
    };
    Recipe {
        seed: options.seed,
        batch_size: options.batch_size.unwrap_or(100),
        micro_batch: options.micro_batch,
        optimizer,
        learning_rate: options.learning_rate.unwrap_or(rate),
        learning_rate_decay: options.learning_rate_decay.unwrap_or(if tfos { 1.0 } else { 0.8 }),
        loss_reduction: reduction,
        probability_floor: if tfos { 1e-10 } else { 0.0 },
    }
}

/// The step after which training ends: that of --epochs or --steps, whichever is first.
fn last_step(options: &cli::Train, job: &Job) -> u64 {
    let tfos = options.recipe.recipe == Some(RecipeName::Tfos2017);
    let steps = options.steps.or((tfos && options.epochs.is_none()).then_some(TFOS_STEPS));
    // What is followed has no epochs: it ends when it is told to.
    let epochs = options.epochs.or((steps.is_none() && !follows(job)).then_some(EPOCHS));
    let of_epochs = epochs.map(|epochs| epochs.saturating_mul(job.schedule().steps_per_epoch()));
    steps.into_iter().chain(of_epochs).min().unwrap_or(u64::MAX)
}

/// Whether the workers are fed with parts as they appear.
fn follows(job: &Job) -> bool {
    job.cluster.feed.is_some_and(|feed| feed.is_open())
}

/// Threads that this process may run at once, by affinity and cgroup.
fn usable_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Finds out before the training whether a file can be written.
fn writable(path: &Path) -> Result<&Path> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        bail!("cannot write the report {}: it is a directory; name a file with --report", path.display());
    }
    tempfile::tempfile_in(directory).with_context(|| {
        format!("cannot write the report {}; choose another place with --report", path.display())
    })?;
    Ok(path)
}
