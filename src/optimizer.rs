//! Update rules: gradient in, weights out, one pass over memory.

use muster_kernels::Kernels;
use serde::{Deserialize, Serialize};

/// How a gradient changes the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Optimizer {
    /// w ← w − η g
    Sgd,
    /// v ← μ v + g; w ← w − η v
    Momentum {
        /// μ, in [0, 1).
        momentum: f32,
    },
    /// a ← a + g²; w ← w − η g / √a (Duchi, Hazan and Singer 2011)
    Adagrad {
        /// a at the start.
        initial_accumulator: f32,
    },
    /// Kingma and Ba 2015, in the form of its section 2's end: both corrections within the step size.
    Adam {
        /// β₁
        beta1: f32,
        /// β₂
        beta2: f32,
        /// ε̂
        epsilon: f32,
    },
}

impl Optimizer {
    /// Adam with the constants of its paper.
    pub const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

    /// The learning rate that suits most dense models, when the loss is a mean over the batch.
    pub fn default_learning_rate(&self) -> f32 {
        match self {
            Optimizer::Sgd => 0.5,
            Optimizer::Momentum { .. } => 0.1,
            Optimizer::Adagrad { .. } => 0.05,
            Optimizer::Adam { .. } => 0.001,
        }
    }

    /// What each parameter's slots are called, and what they hold at the start.
    pub fn slots(&self) -> &'static [&'static str] {
        match self {
            Optimizer::Sgd => &[],
            Optimizer::Momentum { .. } => &["velocity"],
            Optimizer::Adagrad { .. } => &["accumulator"],
            Optimizer::Adam { .. } => &["m", "v"],
        }
    }

    /// What a slot holds at the start.
    pub fn initial(&self) -> f32 {
        if let Optimizer::Adagrad { initial_accumulator } = self { *initial_accumulator } else { 0.0 }
    }

    /// Applies the gradient of step `step` (from 0) to `weights`; `slots` are those of the same parameters.
    pub fn update(
        &self,
        kernels: &Kernels,
        learning_rate: f32,
        step: u64,
        gradient: &[f32],
        weights: &mut [f32],
        slots: &mut [&mut [f32]],
    ) {
        match (self, slots) {
            (Optimizer::Sgd, []) => kernels.sgd(learning_rate, gradient, weights),
            (Optimizer::Momentum { momentum }, [v]) => {
                kernels.momentum(learning_rate, *momentum, gradient, v, weights);
            }
            (Optimizer::Adagrad { .. }, [accumulator]) => {
                kernels.adagrad(learning_rate, gradient, accumulator, weights);
            }
            (&Optimizer::Adam { beta1, beta2, epsilon }, [m, v]) => {
                let corrected = corrected_rate(learning_rate, beta1, beta2, step);
                kernels.adam(corrected, beta1, beta2, epsilon, gradient, m, v, weights);
            }
            (optimizer, slots) => panic!("{optimizer:?} with {} slots", slots.len()),
        }
    }
}

/// η √(1 − β₂ᵗ) / (1 − β₁ᵗ) for t = step + 1.
fn corrected_rate(learning_rate: f32, beta1: f32, beta2: f32, step: u64) -> f32 {
    let power = |beta: f32| libm::pow(f64::from(beta), (step + 1) as f64);
    (f64::from(learning_rate) * (1.0 - power(beta2)).sqrt() / (1.0 - power(beta1))) as f32
}

/// η in an epoch: `initial` times `decay` for every epoch before it.
pub fn decayed(initial: f32, decay: f32, epoch: u64) -> f32 {
    (f64::from(initial) * libm::pow(f64::from(decay), epoch as f64)) as f32
}
