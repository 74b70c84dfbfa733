//! Update rules and their constants; the kernels apply them, in one pass over memory.

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

    /// Adam's step size at step `step` (from 0): η √(1 − β₂ᵗ) / (1 − β₁ᵗ) for t = step + 1.
    pub fn adam_rate(learning_rate: f32, beta1: f32, beta2: f32, step: u64) -> f32 {
        let power = |beta: f32| libm::pow(f64::from(beta), (step + 1) as f64);
        (f64::from(learning_rate) * (1.0 - power(beta2)).sqrt() / (1.0 - power(beta1))) as f32
    }
}

/// η in an epoch: `initial` times `decay` for every epoch before it.
pub fn decayed(initial: f32, decay: f32, epoch: u64) -> f32 {
    (f64::from(initial) * libm::pow(f64::from(decay), epoch as f64)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adams_first_step_is_the_learning_rate_whatever_the_gradient() {
        // w moves by rate · m / √v = rate · (1 − β₁) g / (√(1 − β₂) |g|).
        let rate = Optimizer::adam_rate(0.001, 0.9, 0.999, 0);
        let moved = f64::from(rate) * (1.0 - f64::from(0.9f32)) / (1.0 - f64::from(0.999f32)).sqrt();
        approx::assert_relative_eq!(moved, 0.001, max_relative = 1e-6);
    }

    #[test]
    fn the_learning_rate_decays_by_epoch() {
        assert_eq!(decayed(0.5, 1.0, 7), 0.5);
        assert_eq!(decayed(0.5, 0.5, 2), 0.125);
    }
}
