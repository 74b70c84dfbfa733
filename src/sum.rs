//! The sum of all workers' gradients of a step, block by block, on its way into the weights.

use crate::update::{Blocks, Update};
use muster_collective::Shared;
use muster_collective::shared::Ref;
use muster_collective::tree::{CHUNK, Node, Summer};
use std::ops::Range;
use std::sync::Arc;

/// One thread's sums.
pub struct Sum<'a> {
    /// Each worker's gradients: block `node * blocks + b`.
    slots: &'a [Arc<Shared>],
    blocks: usize,
    summer: Summer,
    /// The gradients of the present block, each a whole subtree of micro-batches.
    parts: Vec<(Node, Ref<'a>)>,
}

impl<'a> Sum<'a> {
    /// Of gradients in these slots, of weights in so many blocks.
    pub fn new(slots: &'a [Arc<Shared>], blocks: usize) -> Sum<'a> {
        Sum { slots, blocks, summer: Summer::new(1), parts: Vec::new() }
    }

    /// A new step, whose batch has so many micro-batches.
    pub fn begin(&mut self, leaves: usize) {
        self.summer.set_leaves(leaves);
    }

    /// Takes up a block, of which each worker's slot has the gradients of `nodes`.
    pub fn take<'n>(&mut self, block: usize, nodes: impl Iterator<Item = &'n [Node]>) {
        self.parts.clear();
        for (nodes, slot) in nodes.zip(self.slots) {
            self.parts.extend(nodes.iter().enumerate().map(|(n, &node)| {
                let at = n * self.blocks + block;
                (node, slot.read(at..at + 1))
            }));
        }
    }

    /// Adds up a range of the block's floats and applies the update rule, chunk by chunk, so that neither leaves the cache.
    pub fn apply(&mut self, rule: &Update, held: &mut Blocks, range: Range<usize>) {
        let Sum { parts, summer, .. } = self;
        for at in range.clone().step_by(CHUNK) {
            let chunk = at..range.end.min(at + CHUNK);
            let nodes = parts.iter().map(|(node, _)| *node);
            let gradient = summer.sum(
                nodes,
                |i| &parts[i].1[chunk.clone()],
                |sum, a, b| rule.kernels.add(sum, a, b),
                |sum, part| rule.kernels.add_assign(sum, part),
            );
            held.apply(at, gradient);
        }
    }

    /// Gives the block's gradients back to those who write them.
    pub fn release(&mut self) {
        self.parts.clear();
    }
}

/// Those of some blocks of weights that fall to the `index`-th of `count` holders, who get about as many floats each.
pub fn blocks_of(weights: &Shared, blocks: Range<usize>, index: usize, count: usize) -> Range<usize> {
    let floats = weights.range(blocks.clone());
    let start = |block: usize| weights.range(block..block).start;
    // The block whose beginning is nearest to where equal shares would be cut.
    let cut = |index: usize| {
        let at = floats.start + index * floats.len() / count;
        (blocks.start..=blocks.end).min_by_key(|&block| start(block).abs_diff(at)).unwrap_or(blocks.end)
    };
    cut(index)..cut(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_follow_one_another_and_are_about_equal(
            lengths in prop::collection::vec(1usize..100, 1..30), count in 1usize..8,
        ) {
            let weights = Shared::new(lengths.clone());
            let all = lengths.len() / 3..lengths.len();
            let (total, longest) = (weights.range(all.clone()).len(), *lengths.iter().max().unwrap());
            let mut next = all.start;
            for index in 0..count {
                let blocks = blocks_of(&weights, all.clone(), index, count);
                prop_assert_eq!(blocks.start, next);
                next = blocks.end;
                prop_assert!(weights.range(blocks).len() <= total / count + 1 + longest);
            }
            prop_assert_eq!(next, all.end);
        }
    }
}
