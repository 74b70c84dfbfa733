//! Feed mode: a driver reads the parts and sends the records to the workers.

use crate::cli::{self, InputMode};
use crate::launched::Launched;
use crate::source::{CLASSES, SCALE};
use crate::{parts, ranks};
use anyhow::{Result, bail, ensure};
use muster::cluster::Mode;
use muster::inference::{predict, read_model};
use muster::storage::Storage;
use muster::train::Recipe;
use muster_kernels::Kernels;
use muster_launcher::environment::Environment;
use muster_launcher::feed::spec::{Course, FeedSpec, Goal};
use muster_launcher::job::Input;
use muster_launcher::message::Task;
use std::process::ExitCode;

/// How the records come, by the options and by what the launcher says.
pub fn input(options: &cli::Launch) -> Result<Input> {
    let given = Environment::read(|name| std::env::var_os(name))?.map_or(Input::Program, |from| from.input);
    let follows = options.follow || given == Input::Follow;
    let is_fed = follows || given == Input::Feed || options.input_mode == Some(InputMode::Feed);
    ensure!(
        !is_fed || options.input_mode != Some(InputMode::Direct),
        "--input-mode direct with --feed or --follow, which feed the workers; leave one of them out"
    );
    Ok(match (follows, is_fed) {
        (true, _) => Input::Follow,
        (false, true) => Input::Feed,
        (false, false) => Input::Program,
    })
}

/// What a training is to be fed with, if it is.
pub fn training(options: &cli::Train, recipe: &Recipe) -> Result<Option<FeedSpec>> {
    let input = input(&options.launch)?;
    let asynchronous = ranks::mode(options) != Mode::Sync;
    ensure!(
        !(asynchronous && input == Input::Follow && options.cluster.server_trains),
        "--follow with --async and --server-trains: while rank 0 waits for records of its own, it would apply nobody's gradients; leave \
         --server-trains out"
    );
    let Recipe { seed, batch_size, micro_batch, .. } = *recipe;
    let first_rank = usize::from(!options.cluster.server_trains);
    spec(
        &options.data,
        input,
        (first_rank, options.cache_mib.saturating_mul(1 << 20)),
        Goal::Train(Course { seed, batch_size, micro_batch, asynchronous }),
    )
}

fn spec(
    data: &cli::Data,
    input: Input,
    (first_rank, cache_bytes): (usize, u64),
    goal: Goal,
) -> Result<Option<FeedSpec>> {
    if input == Input::Program {
        return Ok(None);
    }
    let Some(images) = &data.images else {
        bail!("the driver feeds parts; name their directory with --images (`mnist prepare` makes one)");
    };
    Ok(Some(FeedSpec {
        format: data.format().to_string(),
        features: images.clone(),
        labels: data.labels.clone(),
        shape: parts::SHAPE.to_vec(),
        classes: CLASSES,
        is_bytes: true,
        first_rank,
        cache_bytes,
        follow: input == Input::Follow,
        goal,
    }))
}

/// `mnist inference` in feed mode: a line for each record, which the driver writes; none if it is not fed.
pub fn inference(options: &cli::Inference) -> Result<Option<ExitCode>> {
    let goal = Goal::Inference { output: options.output.clone(), overwrite: options.overwrite };
    let Some(spec) = spec(&options.data, input(&options.launch)?, (0, 0), goal)? else { return Ok(None) };
    let kernels = Kernels::select()?;
    let launched = Launched::register(Task::Inference, false, kernels, Some(spec))?;
    let done = classify(options, kernels, &launched);
    launched.finish(done).map(Some)
}

fn classify(options: &cli::Inference, kernels: &Kernels, launched: &Launched) -> Result<ExitCode> {
    let (model, weights) = read_model(&Storage::from_environment()?, &options.model)?;
    launched.start(launched.ranks())?;
    let fed = launched.fed(SCALE).expect("it has said what it is fed with");
    let records = fed.records();
    parts::check_model(&model, (records.width(), records.path()), &options.model)?;
    let classify = |records: &muster::dataset::Dataset| {
        let predictions = predict(&model, kernels, &weights, records);
        if let Some(labels) = records.labels() {
            let right = predictions.iter().zip(labels).filter(|(prediction, label)| prediction == label);
            launched.classified(labels.len() as u64, right.count() as u64);
        }
        let label = |record| records.label(record).map_or("-".to_owned(), |label| label.to_string());
        let line = |(record, class)| format!("Label: {}, Prediction: {class}\n", label(record));
        Ok(predictions.iter().enumerate().map(line).collect())
    };
    std::thread::scope(|scope| {
        let work = |worker| {
            scope.spawn({
                let fed = &fed;
                let classify = &classify;
                move || fed.infer(worker, classify)
            })
        };
        let workers: Vec<_> = fed.workers().map(work).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic").map(drop))
    })?;
    Ok(ExitCode::SUCCESS)
}
