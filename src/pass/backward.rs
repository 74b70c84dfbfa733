//! The backward pass: gradients of the loss with respect to weights and activations.

use super::{Back, Features, Input, Pass, Sparse};
use crate::batch::leaf_rows;
use crate::model::Layer;
use crate::team::Member;
use muster_collective::Shared;
use muster_collective::shared::RefMut;
use muster_collective::tree::Node;
use muster_kernels::{Finish, Panels, Start};
use std::ops::Range;

/// Where gradients go.
pub struct Slot<'a> {
    /// One gradient after another, each in the blocks of the model.
    pub buffer: &'a Shared,
    /// What each of them sums.
    pub nodes: &'a [NodeRows],
}

/// The rows below a node of the gradient tree, counted from the first row of the rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRows {
    /// The node.
    pub node: Node,
    /// Its rows.
    rows: Range<usize>,
    /// Ends of its micro-batches, counted from its first row.
    ends: Vec<usize>,
}

impl NodeRows {
    /// The rows of `node` on a rank whose rows of the batch begin at `first`, in a batch of `rows` rows and `leaves` micro-batches.
    pub fn new(node: Node, first: usize, rows: usize, leaves: usize) -> NodeRows {
        let span = node.span(leaves);
        let start = leaf_rows(rows, leaves, span.start).start;
        let ends: Vec<usize> = span.map(|leaf| leaf_rows(rows, leaves, leaf).end - start).collect();
        let last = *ends.last().expect("a node has leaves");
        NodeRows { node, rows: start - first..start - first + last, ends }
    }

    /// Its rows of a panel of a matrix with all rows of the rank.
    fn of<'d>(&self, panel: &'d [f32], width: usize) -> &'d [f32] {
        &panel[self.rows.start * width..self.rows.end * width]
    }

    /// Number of rows.
    #[expect(clippy::len_without_is_empty, reason = "a node has rows")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

impl Pass<'_> {
    /// Gradients of this thread's blocks of parameters, for each of the slot's nodes.
    pub fn backward(&mut self, team: &Member, weights: &Shared, slot: &Slot) {
        if let Features::Sparse(sparse) = &mut self.features
            && let Sparse { rows, back: Back::Columns(transposed, leaves), .. } = &mut **sparse
        {
            leaves.clear();
            for node in slot.nodes {
                leaves.extend(node.ends.iter().map(|end| node.rows.start + end));
            }
            transposed.transpose(rows, leaves);
        }
        for slice in team.share(self.model.last().inputs.count()) {
            self.last_gradient(slice, slot);
            self.last_delta(weights, slice);
            if slice == 0 {
                self.last_bias_gradient(slot);
            }
        }
        for index in (0..self.model.hidden().len()).rev() {
            self.hidden_gradient(team, index, slot);
            if index > 0 {
                team.wait();
                self.hidden_delta(team, weights, index);
            }
        }
    }

    /// dW of a slice of the last layer: inputᵀ `[the slice's columns, rows]` · dlogits `[rows, classes]`.
    fn last_gradient(&self, slice: usize, slot: &Slot) {
        let (width, block) = (self.model.classes().width, self.model.last_block(slice));
        let inputs = self.model.last().inputs.columns_of(slice).len();
        self.with_last_input(slice, |input| {
            for n in 0..slot.nodes.len() {
                let mut gradient = self.gradient(slot, n, block..block + 1);
                self.weight_gradient(&input, (slot, n), &self.logits, width, &mut gradient, inputs);
            }
        });
    }

    /// The gradient with respect to a slice of the last hidden layer: dlogits `[rows, classes]` · Wᵀ `[classes, the slice's units]`, masked.
    fn last_delta(&mut self, weights: &Shared, slice: usize) {
        let Some(index) = self.model.hidden().len().checked_sub(1) else { return };
        let (last, rows, block) = (self.model.last(), self.shared.rows, self.model.last_block(slice));
        let (units, classes) = (last.inputs, last.outputs);
        let weight = weights.read(block..block + 1);
        let output = Panels::new(&self.logits, rows, classes.columns, classes.width);
        let hidden = self.shared.hidden[index].read(slice..slice + 1);
        let mut delta = self.shared.deltas[index].write(slice..slice + 1);
        let panels = hidden.chunks_exact(rows * units.width).zip(delta.chunks_exact_mut(rows * units.width));
        for (panel, (hidden, delta)) in panels.enumerate() {
            let transposed = &mut self.transposed[..classes.columns * units.width];
            let inputs = units.columns_of(slice).len();
            self.kernels.transpose_block(
                &weight,
                inputs,
                classes.columns,
                classes.width,
                panel,
                transposed,
                units.width,
            );
            let mask = Finish::Mask(hidden);
            self.kernels.matmul_panel(output, transposed, units.width, Start::Zero, mask, delta);
        }
    }

    /// dW and db of this thread's slices of a hidden layer.
    fn hidden_gradient(&self, team: &Member, index: usize, slot: &Slot) {
        let (rows, layer) = (self.shared.rows, &self.model.hidden()[index]);
        let (inputs, width) = (layer.inputs.columns, layer.outputs.width);
        let slices = team.share(layer.outputs.count());
        let delta = self.shared.deltas[index].read(slices.clone());
        let blocks = self.model.hidden_blocks(index, slices);
        self.with_input(index, |input| {
            for (n, node) in slot.nodes.iter().enumerate() {
                let mut gradient = self.gradient(slot, n, blocks.clone());
                self.weight_gradient(&input, (slot, n), &delta, width, &mut gradient, inputs + 1);
                let panels =
                    gradient.chunks_exact_mut((inputs + 1) * width).zip(delta.chunks_exact(rows * width));
                for (panel, d) in panels {
                    self.kernels.bias_gradient(
                        node.of(d, width),
                        &node.ends,
                        width,
                        &mut panel[inputs * width..],
                    );
                }
            }
        });
    }

    /// The gradient with respect to this thread's slices of the layer before hidden layer `index`: delta `[rows, outputs]` · Wᵀ
    /// `[outputs, the slice's units]`, masked.
    fn hidden_delta(&mut self, team: &Member, weights: &Shared, index: usize) {
        let (rows, layer) = (self.shared.rows, self.model.hidden()[index]);
        let width = layer.inputs.width;
        let above = self.shared.deltas[index].read_all();
        let above = Panels::new(&above, rows, layer.outputs.columns, layer.outputs.width);
        for slice in team.share(layer.inputs.count()) {
            let hidden = self.shared.hidden[index - 1].read(slice..slice + 1);
            let mut delta = self.shared.deltas[index - 1].write(slice..slice + 1);
            let panels = hidden.chunks_exact(rows * width).zip(delta.chunks_exact_mut(rows * width));
            for (panel, (hidden, delta)) in layer.inputs.panels_of(slice).zip(panels) {
                self.transpose_rows(weights, index, &layer, panel);
                let transposed = &self.transposed[..layer.outputs.columns * width];
                self.kernels.matmul_panel(above, transposed, width, Start::Zero, Finish::Mask(hidden), delta);
            }
        }
    }

    /// Rows `panel * width ..` of a hidden layer's W `[inputs, outputs]`, transposed: `[outputs][width]`.
    fn transpose_rows(&mut self, weights: &Shared, index: usize, layer: &Layer, panel: usize) {
        let (inputs, width) = (layer.inputs, layer.inputs.width);
        for slice in 0..layer.outputs.count() {
            let block = self.model.hidden_block(index, slice);
            let weights = weights.read(block..block + 1);
            let columns = layer.outputs.columns_of(slice);
            let transposed = &mut self.transposed[columns.start * width..columns.end * width];
            self.kernels.transpose_block(
                &weights,
                inputs.columns + 1,
                columns.len(),
                layer.outputs.width,
                panel,
                transposed,
                width,
            );
        }
    }

    /// dW `[panels][gradient_rows][width]` = tree over the micro-batches of the slot's `n`-th node of inputᵀ · d `[panels][rows][width]`.
    fn weight_gradient(
        &self,
        input: &Input,
        (slot, n): (&Slot, usize),
        d: &[f32],
        width: usize,
        gradient: &mut [f32],
        gradient_rows: usize,
    ) {
        let (rows, node) = (self.shared.rows, &slot.nodes[n]);
        match input {
            Input::Sparse(sparse, columns) => {
                let columns = columns.clone();
                match &sparse.back {
                    Back::Columns(at, _) => {
                        let first = slot.nodes[..n].iter().map(|node| node.ends.len()).sum();
                        let leaves = first..first + node.ends.len();
                        self.kernels.matmul_tn_by_columns(
                            at,
                            columns,
                            leaves,
                            d,
                            width,
                            gradient,
                            gradient_rows,
                        );
                    }
                    Back::Rows(partial) => {
                        // A thread without units has no panel to write.
                        let Some(gradient) = gradient.get_mut(..columns.len() * width) else { return };
                        let leaves = (node.rows.start, &node.ends[..]);
                        let (rows, partial) = (&sparse.rows, &mut partial.borrow_mut());
                        self.kernels.matmul_tn_by_rows(rows, columns, leaves, d, width, gradient, partial);
                    }
                }
            }
            Input::Dense(input) => {
                let input = input.window(node.rows.clone());
                let panels =
                    gradient.chunks_exact_mut(gradient_rows * width).zip(d.chunks_exact(rows * width));
                for (panel, d) in panels {
                    let panel = &mut panel[..input.cols() * width];
                    self.kernels.matmul_tn_panel(input, &node.ends, node.of(d, width), width, panel);
                }
            }
        }
    }

    /// Some blocks of the `n`-th gradient of a slot.
    fn gradient<'s>(&self, slot: &Slot<'s>, n: usize, blocks: Range<usize>) -> RefMut<'s> {
        let first = n * (self.model.bias_block() + 1);
        slot.buffer.write(first + blocks.start..first + blocks.end)
    }

    /// The last bias's gradient, for every node of the slot: tree over its micro-batches of the sums of rows of dlogits.
    fn last_bias_gradient(&self, slot: &Slot) {
        let (rows, width, block) = (self.shared.rows, self.model.classes().width, self.model.bias_block());
        for (n, node) in slot.nodes.iter().enumerate() {
            let mut gradient = self.gradient(slot, n, block..block + 1);
            for (db, d) in gradient.chunks_exact_mut(width).zip(self.logits.chunks_exact(rows * width)) {
                self.kernels.bias_gradient(node.of(d, width), &node.ends, width, db);
            }
        }
    }
}
