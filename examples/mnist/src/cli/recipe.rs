//! The options that decide the weights.

use super::values::{below_one, positive, rate};
use clap::{Args, ValueEnum};

/// What decides the weights.
#[derive(Args, Debug)]
#[command(next_help_heading = "Training")]
pub struct RecipeArgs {
    /// Records of a global batch [default: 100]
    #[arg(short, long, visible_alias = "batch_size", value_name = "N", value_parser = positive::<usize>)]
    pub batch_size: Option<usize>,
    /// The most records of a micro-batch: the leaves of the tree in which gradients are added
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = positive::<usize>)]
    pub micro_batch: usize,
    /// Update rule [default: sgd]
    #[arg(long)]
    pub optimizer: Option<OptimizerName>,
    /// Momentum of sgd, from 0 up to but not including 1 [default: 0.9]
    #[arg(long, value_parser = below_one)]
    pub momentum: Option<f32>,
    /// Learning rate of the first epoch [default: that of the optimizer]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub learning_rate: Option<f32>,
    /// What the learning rate is multiplied with after each epoch [default: 0.8; with a recipe, 1]
    #[arg(long, value_name = "FACTOR", value_parser = rate)]
    pub learning_rate_decay: Option<f32>,
    /// Whether a batch's loss is the mean or the sum over its records [default: mean]
    #[arg(long)]
    pub loss_reduction: Option<ReductionName>,
    /// Seed of the initial weights and of the order of records
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A whole recipe; options given beside it win
    #[arg(long)]
    pub recipe: Option<RecipeName>,
}

/// Update rules by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OptimizerName {
    /// Stochastic gradient descent, with momentum unless --momentum 0
    Sgd,
    /// Adagrad
    Adagrad,
    /// Adam
    Adam,
}

/// Loss reductions by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReductionName {
    /// The learning rate does not depend on the batch size
    Mean,
    /// As TensorFlowOnSpark has it
    Sum,
}

/// Whole recipes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecipeName {
    /// That of TensorFlowOnSpark's example: Adagrad, learning rate 0.01, summed loss, 1000 steps of 100 records
    Tfos2017,
}
