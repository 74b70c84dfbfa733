//! Options of `mnist train` as a recipe and a number of steps.

use crate::cli::{self, OptimizerName, RecipeName, ReductionName};
use muster::optimizer::Optimizer;
use muster::train::{Job, Recipe, Reduction};

/// Epochs when neither --epochs nor --steps is given.
const EPOCHS: u64 = 5;
/// Steps of `--recipe tfos2017`.
const TFOS_STEPS: u64 = 1000;

/// The recipe that the options name.
pub fn recipe(options: &cli::RecipeArgs) -> Recipe {
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
pub fn last_step(options: &cli::Train, job: &Job) -> u64 {
    let tfos = options.recipe.recipe == Some(RecipeName::Tfos2017);
    let steps = options.steps.or((tfos && options.epochs.is_none()).then_some(TFOS_STEPS));
    // What is followed has no epochs: it ends when it is told to.
    let epochs = options.epochs.or((steps.is_none() && !follows(job)).then_some(EPOCHS));
    let of_epochs = epochs.map(|epochs| epochs.saturating_mul(job.schedule().steps_per_epoch()));
    steps.into_iter().chain(of_epochs).min().unwrap_or(u64::MAX)
}

/// Whether the workers are fed with parts as they appear.
pub fn follows(job: &Job) -> bool {
    job.cluster.feed.is_some_and(|feed| feed.is_open())
}
