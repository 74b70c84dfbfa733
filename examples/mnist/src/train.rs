//! `mnist train`

mod terminal;

use crate::cli;
use crate::console::{self, Console, interrupts};
use crate::digests::Digests;
use crate::fabric::Found;
use crate::launched::Launched;
use crate::material::{Material, threads};
use crate::recipe::{follows, last_step, recipe};
use crate::settings::settings;
use crate::tensorboard::{self, TensorBoard};
use crate::{driver, evaluator, fed, plan, ranks, source};
use anyhow::{Context, Result, bail, ensure};
use muster::agree::Facts;
use muster::checkpoint::{self, Checkpoint, Identity};
use muster::conductor::{Conductor, End, Event};
use muster::evaluator::Evaluator;
use muster::metrics::{self, REPORT_FILE, Recorder};
use muster::mistakes::{self, Mistakes};
use muster::pass::Way;
use muster::records::Records;
use muster::report::{KernelsUsed, Report, Results};
use muster::storage::path::Location;
use muster::storage::{Storage, file};
use muster::store::Store;
use muster::train::{Job, Outcome};
use muster_collective::World;
use muster_kernels::Kernels;
use muster_launcher::message::Task;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Trains and returns the exit code: 128 and the signal's number when one ended it.
pub fn run(options: &mut cli::Train) -> Result<ExitCode> {
    options.seed_mode.check("train")?;
    if !options.plan_json
        && let Some(code) =
            driver::run(&options.launch, options.cluster.cluster_size, options.cluster.evaluator)?
    {
        return Ok(code);
    }
    let evaluators = ranks::evaluators(&options.cluster);
    ranks::run((ranks::step_timeout(&options.cluster), evaluators), |world| {
        options.cluster.server_trains |= ranks::are_two_in_step(options, world);
        let options = &*options;
        let recipe = recipe(&options.recipe);
        let is_plan = options.plan_json;
        let feed = if is_plan { None } else { fed::training(options, &recipe)? };
        // Told within the world: a rank that fails ends all of them, and would have no time to say why.
        let launched = Launched::register(Task::Train, evaluators > 0, Kernels::select()?, feed)?;
        ensure!(
            evaluators == 0 || world.is_none() || launched.is_watched(),
            "--evaluator needs somebody who tells it when the training has ended; start these ranks with `muster run --evaluator`"
        );
        let done = match world {
            Some(world) if world.is_aside() => evaluator::run_rank(options, &launched),
            _ => run_rank(options, world, &launched),
        };
        launched.finish(done)
    })
}

/// One process's part: all of it, or, of a world, that of its rank.
fn run_rank(options: &cli::Train, world: Option<&World>, launched: &Launched) -> Result<ExitCode> {
    let rank = world.map_or(0, World::rank);
    let storage = Arc::new(Storage::from_environment()?);
    let evaluators = ranks::evaluators(&options.cluster);
    let ranks_here = match world {
        Some(_) => 1,
        None => ranks::size(options.cluster.cluster_size, evaluators, world)? + evaluators,
    };
    let is_fed = launched.is_fed();
    if is_fed {
        launched.start(ranks_here)?;
    }
    let fed = launched.fed(source::SCALE);
    let digests = Digests::default();
    let prepare = || Material::prepare(options, &storage, world, fed.as_ref(), &digests);
    let material = ranks::in_turn(world, options.data.images.is_none() && !is_fed, &digests, prepare)?;
    let kernels = agree(world, options, &material, &digests)?;
    let material = material?;
    let watch = |rank, steps| launched.step(rank, steps);
    let cluster = ranks::cluster(options, world, fed.as_ref(), &watch)?;
    let job = Job {
        model: &material.model,
        kernels,
        train: &material.train,
        // With an evaluator no other rank evaluates while it trains.
        test: material.test.as_ref().filter(|_| options.plan_json || evaluators == 0),
        recipe: &material.recipe,
        world_size: material.world_size,
        threads: options.cluster.threads.unwrap_or_else(|| threads(&material, world, cluster.server_trains)),
        cluster,
        reading_seconds: material.reading_seconds,
    };
    if options.plan_json {
        return plan::print(&job, material.dataset, last_step(options, &job));
    }
    let evaluates = if evaluators > 0 { Some(evaluator::records(material.test.as_ref())?) } else { None };
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
    let report_to = options.report.as_deref().map(writable).transpose()?;
    let log_dir = options.launch.log_dir.as_deref().or(launched.log_dir());
    let log_dir = log_dir.or(options.tensorboard.then_some(Path::new(tensorboard::LOG_DIR)));
    let store = Store::open(storage.clone(), &options.model, options.keep)?;
    let resume = !options.no_resume || launched.is_restart();
    let start = store.start(job.identity(), resume, options.require_same_bits, |warning| {
        console::remark(format!("warning: {warning}"));
    })?;
    let last_step = last_step(options, &job);
    let (storage, dataset, test) = (&storage, material.dataset, material.test.as_ref());
    let evaluates = evaluates.filter(|_| world.is_none());
    let run = Run {
        options,
        job,
        storage,
        store,
        start,
        last_step,
        dataset,
        test,
        evaluates,
        report_to,
        log_dir,
        launched,
        found,
    };
    run.train()
}

/// The kernels to use, when all ranks are ready and want the same.
fn agree(
    world: Option<&World>,
    options: &cli::Train,
    material: &Result<Material>,
    digests: &Digests,
) -> Result<&'static Kernels> {
    let by_tiles = |material: &Material| Way::pays_by_tiles(&material.model, material.train.kind());
    let Some(world) = world else {
        let by_tiles = material.as_ref().is_ok_and(by_tiles);
        return Ok(if by_tiles { Kernels::select_for_bytes()? } else { Kernels::select()? });
    };
    let facts = |material: &Material| {
        let identity = Identity {
            widths: material.model.widths(),
            recipe: material.recipe.clone(),
            data_sha256: material.train.digest(),
            arithmetic: String::new(),
        };
        let others = [
            ("the version", env!("CARGO_PKG_VERSION").to_owned()),
            ("the program's digest", digests.program()),
            ("--async", format!("{:?}", ranks::mode(options))),
            ("--server-trains", options.cluster.server_trains.to_string()),
            ("--transport", format!("{:?}", options.cluster.transport)),
            ("--fabric", format!("{:?}", options.cluster.fabric.required().collect::<Vec<_>>())),
            ("--step-timeout", options.cluster.step_timeout.to_string()),
        ];
        Facts::here(&identity, by_tiles(material), others).map_err(|error| error.to_string())
    };
    let own = material.as_ref().map_err(|error| format!("{error:#}")).and_then(facts);
    Ok(muster::agree::agree(world, own)?)
}

/// Everything a training needs, checked before it begins.
struct Run<'a> {
    options: &'a cli::Train,
    job: Job<'a>,
    storage: &'a Arc<Storage>,
    store: Store,
    start: Checkpoint,
    last_step: u64,
    dataset: &'static str,
    /// The test set, which is looked at when all is done.
    test: Option<&'a Records>,
    /// The same, if a thread of this process is the evaluator.
    evaluates: Option<&'a Records>,
    report_to: Option<&'a Path>,
    log_dir: Option<&'a Path>,
    launched: &'a Launched,
    found: Found,
}

impl Run<'_> {
    fn train(self) -> Result<ExitCode> {
        let Run { job, start, last_step, .. } = &self;
        let mut recorder = self.recorder()?;
        let _tensorboard = self.tensorboard()?;
        let steps = last_step.saturating_sub(start.progress.steps);
        let console = Console::new(if follows(job) { 0 } else { steps }, "steps");
        console.line(format_args!("{} ===== Start", console::now()));
        console.line(self.plan());
        let interrupt = interrupts(self.launched.interrupt())?;
        let first = start.progress.steps;
        let mut observer = |event: Event| {
            if let Some(recorder) = &mut recorder {
                recorder.observe(&event);
                warn(&console, recorder.warning());
            }
            self.show(&console, event, first);
        };
        let mut conductor = Conductor::new(
            (start.progress.clone(), job.schedule(), *last_step),
            Some(&self.store),
            Duration::from_secs_f64(self.options.checkpoint_secs),
            &interrupt,
            &mut observer,
        );
        conductor.histograms = self.log_dir.is_some();
        let mut train = || muster::train::train(job, start, &mut conductor);
        let outcome = match self.evaluator()? {
            None => train().map_err(anyhow::Error::from),
            Some(evaluator) => {
                let trained = evaluator::beside(evaluator, (&console, self.launched), &interrupt, train);
                trained.and_then(|outcome| Ok(outcome?))
            }
        };
        let (progress, train_seconds) = (conductor.progress.clone(), conductor.train_seconds);
        console.clear();
        let Outcome { weights, end, times, staleness } = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                warn(
                    &console,
                    recorder.and_then(|recorder| recorder.end(&format!("failed: {error:#}"), &[])),
                );
                return Err(error);
            }
        };
        let fabric_counters = self.found.change(self.job.cluster.world.map(|(world, _)| world))?;
        let report = self.report(progress, train_seconds, &weights)?;
        let results = Results { staleness, ranks: times, ..report.results };
        let report = Report { fabric_counters, results, ..report };
        if let Some(recorder) = recorder {
            warn(&console, recorder.end(&reason(end), &report.results.mistakes));
        }
        if let Some(path) = self.report_to {
            let json = serde_json::to_vec_pretty(&report)?;
            file::write_atomic(path, |out| out.write_all(&json))?;
        }
        if let Some(directory) = self.log_dir {
            let json = serde_json::to_vec_pretty(&report)?;
            let done = self.storage.create(directory.join(REPORT_FILE), &|out| out.write_all(&json));
            warn(&console, done.err().map(|error| format!("no report: {error}")));
        }
        self.summarize(&console, &report, first);
        Found::prove(&self.options.cluster.fabric, &report.fabric_counters)?;
        console.line(format_args!("{} ===== Stop", console::now()));
        Ok(match end {
            End::Interrupted(signal) => ExitCode::from(128 + signal as u8),
            End::Finished | End::Drained | End::Failed => ExitCode::SUCCESS,
        })
    }

    /// What writes metrics, if they are wanted.
    fn recorder(&self) -> Result<Option<Recorder>> {
        let Some(directory) = self.log_dir else { return Ok(None) };
        let run = metrics::Run {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            first_step: self.start.progress.steps,
            last_step: self.last_step,
            steps_per_epoch: self.job.schedule().steps_per_epoch(),
            every: self.options.metrics_every,
            world_size: self.job.world_size,
            reading: self.job.reading_seconds,
            options: settings(self.options, &self.job, self.dataset, self.last_step),
            ..Default::default()
        };
        let recorder = Recorder::begin(self.storage, directory, run);
        recorder.context("cannot begin to write metrics; choose another --log-dir").map(Some)
    }

    /// What evaluates in this process, if anything does.
    fn evaluator(&self) -> Result<Option<Evaluator<'_>>> {
        let Some(test) = self.evaluates else { return Ok(None) };
        let (place, of) = ((&**self.storage, &*self.options.model), (self.job.model, self.job.kernels));
        evaluator::logged(Evaluator::new(place, of, test, 1), self.storage, self.log_dir).map(Some)
    }

    /// TensorBoard on the log directory, if it is wanted.
    fn tensorboard(&self) -> Result<Option<TensorBoard>> {
        let Some(directory) = self.log_dir.filter(|_| self.options.tensorboard) else {
            return Ok(None);
        };
        let Location::Local(directory) = self.storage.locate(directory)? else {
            bail!(
                "TensorBoard reads directories of this machine only, not {}; choose another --log-dir",
                directory.display()
            );
        };
        TensorBoard::start(&directory).map(Some)
    }

    fn report(
        &self,
        progress: checkpoint::Progress,
        train_seconds: f64,
        weights: &[muster::model::Tensors],
    ) -> Result<Report> {
        let (job, schedule) = (&self.job, self.job.schedule());
        let records = schedule.records_until(progress.steps);
        let mistakes = self.test.map(|test| find_mistakes(job, test, weights)).transpose()?;
        let records_now = records - schedule.records_until(self.start.progress.steps);
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            dataset: self.dataset.to_owned(),
            dataset_sha256: job.train.digest(),
            optimizer: job.recipe.optimizer,
            seed: job.recipe.seed,
            batch_size: job.recipe.batch_size,
            micro_batch: job.recipe.micro_batch,
            threads: job.threads,
            mode: job.cluster.mode,
            server_trains: job.cluster.server_trains,
            transport: job.cluster.world.map_or("threads", |(_, transport)| transport.name()),
            mpi: job.cluster.world.map(|(world, _)| world.library().to_owned()),
            fabric: self.found.name.clone(),
            fabric_counters: Default::default(),
            kernels: KernelsUsed::of(job.model, job.kernels, job.train),
            records,
            results: Results {
                model: job.model.widths(),
                world_size: job.world_size,
                steps: progress.steps,
                epochs: progress.epochs,
                test_accuracy: mistakes.as_ref().and_then(|mistakes| mistakes.confusion.accuracy()),
                confusion: mistakes.iter().flat_map(|m| m.confusion.rows().map(<[u64]>::to_vec)).collect(),
                mistakes: mistakes.map(|mistakes| mistakes.worst).unwrap_or_default(),
                train_seconds,
                images_per_second: if records_now == 0 { 0.0 } else { records_now as f64 / train_seconds },
                weights_sha256: checkpoint::sha256(weights),
                ..Results::default()
            },
        })
    }
}

fn find_mistakes(job: &Job, test: &Records, weights: &[muster::model::Tensors]) -> Result<Mistakes> {
    let buffer = job.model.buffer();
    job.model.import(weights, &buffer);
    Ok(mistakes::find((job.model, job.kernels, &buffer), test, job.threads)?)
}

/// Why a training ended, as the metrics have it.
fn reason(end: End) -> String {
    match end {
        End::Finished => "finished".to_owned(),
        End::Drained => "no more records".to_owned(),
        End::Interrupted(signal) => format!("interrupted by signal {signal}"),
        End::Failed => "failed".to_owned(),
    }
}

fn warn(console: &Console, warning: Option<String>) {
    if let Some(warning) = warning {
        console.remark(format_args!("warning: {warning}"));
    }
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
