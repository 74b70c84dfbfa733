//! One step's update of the weights and the optimizer's slots, a run of parameters after the other, as their gradients are found.

use crate::histogram::Gradients;
use crate::optimizer::Optimizer;
use muster_collective::Shared;
use muster_collective::shared::RefMut;
use muster_kernels::Kernels;
use std::ops::Range;
use std::sync::Arc;

/// The update rule with all that it takes in one step.
pub struct Update<'a> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) weights: &'a Shared,
    pub(crate) slots: &'a [Arc<Shared>],
    /// Sees every gradient.
    pub(crate) gradients: Option<&'a Gradients>,
    /// From 0.
    pub(crate) step: u64,
    pub(crate) optimizer: Optimizer,
    /// η of the step; of Adam with its corrections.
    pub(crate) rate: f32,
}

/// Neighbouring blocks of one layer that are being updated.
pub struct Blocks<'a> {
    update: &'a Update<'a>,
    first: usize,
    weights: RefMut<'a>,
    slots: [Option<RefMut<'a>>; 2],
}

impl<'a> Update<'a> {
    /// Holds some blocks of one layer.
    ///
    /// # Panics
    /// If another thread reads or writes one of them.
    pub fn blocks(&'a self, blocks: Range<usize>) -> Blocks<'a> {
        let slot = |index: usize| self.slots.get(index).map(|slot| slot.write(blocks.clone()));
        let (slots, weights) = ([slot(0), slot(1)], self.weights.write(blocks.clone()));
        Blocks { update: self, first: blocks.start, weights, slots }
    }
}

impl Blocks<'_> {
    /// Applies the gradient of the parameters from `at` on, counted from the first of the blocks.
    pub fn apply(&mut self, at: usize, gradient: &[f32]) {
        let Update { kernels, gradients, step, optimizer, rate, .. } = *self.update;
        if let Some(gradients) = gradients {
            gradients.add(step, self.first, gradient);
        }
        let range = at..at + gradient.len();
        let weights = &mut self.weights[range.clone()];
        match (optimizer, &mut self.slots) {
            (Optimizer::Sgd, _) => kernels.sgd(rate, gradient, weights),
            (Optimizer::Momentum { momentum }, [Some(v), _]) => {
                kernels.momentum(rate, momentum, gradient, &mut v[range], weights);
            }
            (Optimizer::Adagrad { .. }, [Some(sum), _]) => {
                kernels.adagrad(rate, gradient, &mut sum[range], weights);
            }
            (Optimizer::Adam { beta1, beta2, epsilon }, [Some(m), Some(v)]) => {
                let (m, v) = (&mut m[range.clone()], &mut v[range]);
                kernels.adam(rate, beta1, beta2, epsilon, gradient, m, v, weights);
            }
            _ => unreachable!("as many slots as the update rule has"),
        }
    }
}
