//! The fixed tree in which the gradients of micro-batches are added.
//!
//! A global batch is cut into `leaves` micro-batches. Level by level, leaf 2i is added to leaf 2i + 1, and an odd last one moves up, until
//! one sum is left. The expression depends on the number of leaves alone: a worker sends the sums of the maximal complete
//! subtrees that it holds, the server finishes the tree, and the bits are the same for any number of workers.

use std::ops::Range;

/// A node: the sum of the leaves `index << level .. (index + 1) << level`, as far as there are leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// 0 for a leaf.
    pub level: u32,
    /// From the left, within the level.
    pub index: usize,
}

impl Node {
    /// The leaves below this node in a tree of `leaves` leaves.
    pub fn span(self, leaves: usize) -> Range<usize> {
        self.index << self.level..((self.index + 1) << self.level).min(leaves)
    }

    fn is_left_of(self, right: Node) -> bool {
        (self.level, self.index + 1) == (right.level, right.index)
    }

    /// The node that this one is carried up to, unadded, for want of a right sibling.
    fn carried_up(mut self, leaves: usize) -> Node {
        let count = |level: u32| leaves.div_ceil(1 << level);
        while self.index.is_multiple_of(2) && self.index + 1 == count(self.level) && count(self.level) > 1 {
            self = Node { level: self.level + 1, index: self.index / 2 };
        }
        self
    }
}

/// The maximal complete subtrees that a holder of the leaves `held` can sum, from the left.
pub fn subtrees(held: Range<usize>, leaves: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = held.start;
    while at < held.end {
        let mut node = Node { level: 0, index: at };
        loop {
            node = node.carried_up(leaves);
            let parent = Node { level: node.level + 1, index: node.index / 2 };
            let span = parent.span(leaves);
            if node.index % 2 == 1 || span.len() == node.span(leaves).len() || span.end > held.end {
                break;
            }
            node = parent;
        }
        nodes.push(node);
        at = node.span(leaves).end;
    }
    nodes
}

/// Adds up neighbouring nodes as far as they make up larger subtrees, and leaves those in `merged`, from the left. What a node's sum lies
/// in is the caller's: `add` adds its second argument to its first.
pub fn merge<T: Copy>(
    nodes: impl IntoIterator<Item = (Node, T)>,
    leaves: usize,
    merged: &mut Vec<(Node, T)>,
    add: impl Fn(T, T),
) {
    merged.clear();
    for (node, mut sum) in nodes {
        let mut node = node.carried_up(leaves);
        while let Some((left, total)) =
            merged.pop_if(|(left, _)| node.index % 2 == 1 && left.is_left_of(node))
        {
            add(total, sum);
            (node, sum) = (Node { level: left.level + 1, index: left.index / 2 }.carried_up(leaves), total);
        }
        merged.push((node, sum));
    }
}

/// Adds up the subtrees of all holders, chunk by chunk of a flat buffer.
pub struct Summer {
    leaves: usize,
    /// What waits for its right sibling.
    stack: Vec<(Node, Partial)>,
    spare: Vec<Box<[f32; CHUNK]>>,
}

/// A sum of some leaves.
enum Partial {
    /// As a holder has it: the part of this number.
    Part(usize),
    /// Found here.
    Sum(Box<[f32; CHUNK]>),
}

/// Floats summed at a time: small enough that the partial sums of every level stay in the L1 cache.
pub const CHUNK: usize = 1024;

impl Summer {
    /// For trees of `leaves` leaves.
    pub fn new(leaves: usize) -> Summer {
        Summer { leaves, stack: Vec::new(), spare: Vec::new() }
    }

    /// Changes the number of leaves, as the last, smaller batch of an epoch does.
    pub fn set_leaves(&mut self, leaves: usize) {
        self.leaves = leaves;
    }

    /// The root's sum of one chunk, of at most [`CHUNK`] floats: `part(i)` is that of the `i`-th of the holders' `nodes`, which are given from the
    /// left and whose spans cover all leaves. `add` sets its first argument to the sum of the others, `add_assign` adds its second argument to its
    /// first.
    ///
    /// # Panics
    /// If the nodes do not make up the tree.
    pub fn sum<'a>(
        &'a mut self,
        nodes: impl IntoIterator<Item = Node>,
        part: impl Fn(usize) -> &'a [f32],
        add: impl Fn(&mut [f32], &[f32], &[f32]),
        add_assign: impl Fn(&mut [f32], &[f32]),
    ) -> &'a [f32] {
        let mut length = 0;
        for (i, node) in nodes.into_iter().enumerate() {
            length = part(i).len();
            let (mut node, mut sum) = (node.carried_up(self.leaves), Partial::Part(i));
            while node.index % 2 == 1 {
                let (left, total) = self.stack.pop().expect("a right node without its left sibling");
                assert_eq!(
                    (left.level, left.index + 1),
                    (node.level, node.index),
                    "nodes that are no siblings"
                );
                sum = match (total, sum) {
                    (Partial::Part(left), Partial::Part(right)) => {
                        let mut sum = self.spare.pop().unwrap_or_else(|| Box::new([0.0; CHUNK]));
                        add(&mut sum[..length], part(left), part(right));
                        Partial::Sum(sum)
                    }
                    (Partial::Sum(mut sum), Partial::Part(i)) | (Partial::Part(i), Partial::Sum(mut sum)) => {
                        add_assign(&mut sum[..length], part(i));
                        Partial::Sum(sum)
                    }
                    (Partial::Sum(mut total), Partial::Sum(sum)) => {
                        add_assign(&mut total[..length], &sum[..length]);
                        self.spare.push(sum);
                        Partial::Sum(total)
                    }
                };
                node = Node { level: node.level + 1, index: node.index / 2 }.carried_up(self.leaves);
            }
            self.stack.push((node, sum));
        }
        let (node, sum) = self.stack.pop().expect("at least one node");
        assert!(self.stack.is_empty() && node.span(self.leaves) == (0..self.leaves), "the nodes leave gaps");
        match sum {
            Partial::Part(i) => part(i),
            Partial::Sum(sum) => {
                self.spare.push(sum);
                &self.spare[self.spare.len() - 1][..length]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// The definition, level by level.
    fn reference(mut level: Vec<f32>) -> f32 {
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| if let [a, b] = pair { a + b } else { pair[0] }).collect();
        }
        level[0]
    }

    fn sum_of(values: &[f32], node: Node) -> f32 {
        reference(values[node.span(values.len())].to_vec())
    }

    proptest! {
        #[test]
        fn any_division_among_workers_gives_the_bits_of_one(
            values in prop::collection::vec(-1e3f32..1e3, 1..40),
            cuts in prop::collection::vec(0usize..40, 0..6),
        ) {
            let leaves = values.len();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(leaves)).chain([0, leaves]).collect();
            cuts.sort_unstable();
            let nodes: Vec<Node> = cuts.windows(2).flat_map(|w| subtrees(w[0]..w[1], leaves)).collect();
            let sums: Vec<[f32; 1]> = nodes.iter().map(|&n| [sum_of(&values, n)]).collect();
            let add = |sum: &mut [f32], a: &[f32], b: &[f32]| sum[0] = a[0] + b[0];
            let add_assign = |a: &mut [f32], b: &[f32]| a[0] += b[0];
            let mut summer = Summer::new(leaves);
            let root = summer.sum(nodes.iter().copied(), |i| &sums[i], add, add_assign);
            prop_assert_eq!(root[0].to_bits(), reference(values).to_bits());
        }

        #[test]
        fn merging_the_nodes_of_neighbours_is_what_one_holder_would_send(
            values in prop::collection::vec(-1e3f32..1e3, 1..40),
            cuts in prop::collection::vec(0usize..40, 2..6),
        ) {
            let leaves = values.len();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(leaves)).collect();
            cuts.sort_unstable();
            let nodes: Vec<Node> = cuts.windows(2).flat_map(|w| subtrees(w[0]..w[1], leaves)).collect();
            let sums: Vec<Cell<f32>> = nodes.iter().map(|&n| Cell::new(sum_of(&values, n))).collect();
            let mut merged = Vec::new();
            merge(nodes.into_iter().zip(&sums), leaves, &mut merged, |a, b| a.set(a.get() + b.get()));
            let found: Vec<Node> = merged.iter().map(|(node, _)| *node).collect();
            prop_assert_eq!(found, subtrees(cuts[0]..cuts[cuts.len() - 1], leaves));
            for (node, sum) in merged {
                prop_assert_eq!(sum.get().to_bits(), sum_of(&values, node).to_bits());
            }
        }

        #[test]
        fn subtrees_cover_what_is_held(leaves in 1usize..100, a in 0usize..100, b in 0usize..100) {
            let (a, b) = (a.min(leaves), b.min(leaves));
            let held = a.min(b)..a.max(b);
            let nodes = subtrees(held.clone(), leaves);
            let covered: Vec<usize> = nodes.iter().flat_map(|n| n.span(leaves)).collect();
            prop_assert_eq!(covered, held.collect::<Vec<_>>());
            prop_assert!(nodes.len() <= 2 * 7);
        }
    }

    #[test]
    fn the_holder_of_everything_sends_the_root() {
        for leaves in 1..50 {
            assert_eq!(subtrees(0..leaves, leaves).len(), 1, "{leaves} leaves");
        }
    }
}
