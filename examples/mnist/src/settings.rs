//! What a training was told, by option: what the metrics say of a run, so that runs can be compared.

use crate::cli;
use muster::cluster::Mode;
use muster::optimizer::Optimizer;
use muster::train::{Job, Recipe, Reduction};
use std::collections::BTreeMap;

/// The options as they hold, those that were not given among them.
pub fn settings(options: &cli::Train, job: &Job, dataset: &str, last_step: u64) -> BTreeMap<String, String> {
    let Recipe { seed, batch_size, micro_batch, optimizer, learning_rate, learning_rate_decay, .. } =
        *job.recipe;
    let data = options.data.images.as_ref().or(options.data.data.as_ref());
    let max_staleness = match job.cluster.mode {
        Mode::Async { max_staleness: Some(bound) } => Some(bound.to_string()),
        Mode::Async { max_staleness: None } => Some("none".to_owned()),
        Mode::Sync => None,
    };
    let (name, momentum) = match optimizer {
        Optimizer::Sgd => ("sgd", None),
        Optimizer::Momentum { momentum } => ("sgd", Some(momentum.to_string())),
        Optimizer::Adagrad { .. } => ("adagrad", None),
        Optimizer::Adam { .. } => ("adam", None),
    };
    let reduction = if job.recipe.loss_reduction == Reduction::Mean { "mean" } else { "sum" };
    let mode = if max_staleness.is_some() { "async" } else { "sync" };
    let entries = [
        ("dataset", Some(dataset.to_owned())),
        ("data", data.map(|path| path.display().to_string())),
        ("hidden", Some(hidden(job))),
        ("steps", Some(last_step.to_string())),
        ("batch-size", Some(batch_size.to_string())),
        ("micro-batch", Some(micro_batch.to_string())),
        ("optimizer", Some(name.to_owned())),
        ("momentum", momentum),
        ("learning-rate", Some(learning_rate.to_string())),
        ("learning-rate-decay", Some(learning_rate_decay.to_string())),
        ("loss-reduction", Some(reduction.to_owned())),
        ("seed", Some(seed.to_string())),
        ("cluster-size", Some(job.world_size.to_string())),
        ("threads", Some(job.threads.to_string())),
        ("mode", Some(mode.to_owned())),
        ("max-staleness", max_staleness),
        ("server-trains", Some(job.cluster.server_trains.to_string())),
        (
            "transport",
            Some(job.cluster.world.map_or("threads", |(_, transport)| transport.name()).to_owned()),
        ),
        ("kernels", Some(job.kernels.backend().name().to_owned())),
    ];
    entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The hidden layers as `--hidden` takes them.
fn hidden(job: &Job) -> String {
    let widths: Vec<String> =
        job.model.hidden().iter().map(|layer| layer.outputs.columns.to_string()).collect();
    if widths.is_empty() { "none".to_owned() } else { widths.join(",") }
}
