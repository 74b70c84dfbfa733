//! The backward pass: gradients of the loss with respect to weights and activations.

use super::{Features, Input, Pass, Sparse};
use crate::batch::leaf_rows;
use crate::model::Layer;
use crate::team::Member;
use crate::update::{self, Update};
use muster_collective::Shared;
use muster_collective::shared::RefMut;
use muster_collective::tree::Node;
use muster_kernels::{Finish, Panels, Start};
use std::ops::Range;

/// Panels of units whose gradient is found at once: as many vectors as the widest kernel takes.
const PIECE_PANELS: usize = 4;
/// Features whose gradient is found at once where most of them are zero. With 128 of them a step of 784-128-10 and one of 784-512-512-10
/// take 1 to 5 % less time than with 32: the kernel begins anew less often.
const PIECE_ROWS: usize = 128;
/// Floats of a piece of a gradient, which stays in the second-level cache until it has gone where it goes.
pub(super) const PIECE: usize = PIECE_PANELS * PIECE_ROWS * 32;

/// Where the gradients of a step go.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// Into a slot: one gradient after another, of each node, each in the blocks of the model.
    Slot(&'a Shared),
    /// Straight into the weights; then the one node is the whole batch.
    Update(&'a Update<'a>),
}

/// Some blocks of a gradient, wherever they go.
enum Sink<'a> {
    Slot(RefMut<'a>),
    Update(update::Blocks<'a>),
}

impl Sink<'_> {
    /// Has `compute` write the gradient of as many parameters from `at` on as `piece` is long: where it goes, or into `piece` on its way there.
    fn put(&mut self, at: usize, piece: &mut [f32], compute: impl FnOnce(&mut [f32])) {
        match self {
            Sink::Slot(slot) => compute(&mut slot[at..at + piece.len()]),
            Sink::Update(blocks) => {
                compute(piece);
                blocks.apply(at, piece);
            }
        }
    }

    /// Takes the gradient of the parameters from `at` on.
    fn take(&mut self, at: usize, piece: &[f32]) {
        match self {
            Sink::Slot(slot) => slot[at..at + piece.len()].copy_from_slice(piece),
            Sink::Update(blocks) => blocks.apply(at, piece),
        }
    }
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
    /// Gradients of this thread's blocks of parameters, for each of some nodes. All gradients with respect to activations come first:
    /// they need the weights that a gradient may change.
    pub fn backward(&mut self, team: &Member, weights: &Shared, nodes: &[NodeRows], target: Target) {
        self.transpose_features(nodes);
        let (hidden, slices) = (self.model.hidden().len(), team.share(self.model.last().inputs.count()));
        for slice in slices.clone() {
            self.last_delta(weights, slice);
        }
        for index in (1..hidden).rev() {
            team.wait();
            self.hidden_delta(team, weights, index);
        }
        let reads_of_others = hidden > 1 && matches!(target, Target::Update(_));
        if reads_of_others {
            // Others may still be reading these weights.
            team.wait();
        }
        for slice in slices {
            self.last_gradient(slice, nodes, target);
            if slice == 0 {
                self.last_bias_gradient(nodes, target);
            }
        }
        for index in (0..hidden).rev() {
            self.hidden_gradient(team, index, nodes, target);
        }
        if reads_of_others {
            // Others may still be reading these activations, which the next step changes.
            team.wait();
        }
    }

    /// The features by columns, where their gradient is found so.
    fn transpose_features(&mut self, nodes: &[NodeRows]) {
        let leaves = &mut self.leaves;
        leaves.clear();
        for node in nodes {
            leaves.extend(node.ends.iter().map(|end| node.rows.start + end));
        }
        match &mut self.features {
            Features::Sparse(sparse) if sparse.by_columns => {
                let Sparse { rows, transposed, .. } = &mut **sparse;
                transposed.transpose(rows, leaves);
            }
            Features::Tiles(tiles) => self.kernels.tile_columns(tiles, leaves),
            Features::Sparse(_) | Features::Dense(_) => {}
        }
    }

    /// dW of a slice of the last layer: inputᵀ `[the slice's columns, rows]` · dlogits `[rows, classes]`.
    fn last_gradient(&self, slice: usize, nodes: &[NodeRows], target: Target) {
        let (width, block) = (self.model.classes().width, self.model.last_block(slice));
        let inputs = self.model.last().inputs.columns_of(slice).len();
        self.with_last_input(slice, |input| {
            for n in 0..nodes.len() {
                let mut sink = self.sink(target, n, block..block + 1);
                self.weight_gradient(&input, (nodes, n), &self.logits, width, &mut sink, inputs);
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
    fn hidden_gradient(&self, team: &Member, index: usize, nodes: &[NodeRows], target: Target) {
        let (rows, layer) = (self.shared.rows, &self.model.hidden()[index]);
        let (inputs, width) = (layer.inputs.columns, layer.outputs.width);
        let slices = team.share(layer.outputs.count());
        let delta = self.shared.deltas[index].read(slices.clone());
        let blocks = self.model.hidden_blocks(index, slices);
        self.with_input(index, |input| {
            for (n, node) in nodes.iter().enumerate() {
                let mut sink = self.sink(target, n, blocks.clone());
                self.weight_gradient(&input, (nodes, n), &delta, width, &mut sink, inputs + 1);
                for (panel, d) in delta.chunks_exact(rows * width).enumerate() {
                    self.bias_gradient(node, d, width, &mut sink, (panel * (inputs + 1) + inputs) * width);
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

    /// dW `[panels][gradient_rows][width]` = tree over the micro-batches of the `n`-th node of inputᵀ · d `[panels][rows][width]`.
    fn weight_gradient(
        &self,
        input: &Input,
        (nodes, n): (&[NodeRows], usize),
        d: &[f32],
        width: usize,
        sink: &mut Sink,
        gradient_rows: usize,
    ) {
        let (rows, node) = (self.shared.rows, &nodes[n]);
        let piece = &mut **self.piece.borrow_mut();
        let first = nodes[..n].iter().map(|node| node.ends.len()).sum();
        let leaves = first..first + node.ends.len();
        match input {
            Input::Tiles(tiles) => {
                let at_once = PIECE / width;
                for (panel, d) in d.chunks_exact(rows * width).enumerate() {
                    for start in (0..tiles.cols()).step_by(at_once) {
                        let part = start..(start + at_once).min(tiles.cols());
                        let (piece, leaves) = (&mut piece[..part.len() * width], leaves.clone());
                        let compute =
                            |to: &mut [f32]| self.kernels.matmul_tn_bytes(tiles, part, leaves, d, width, to);
                        sink.put((panel * gradient_rows + start) * width, piece, compute);
                    }
                }
            }
            Input::Sparse(sparse, columns) if sparse.by_columns => {
                for (group, d) in d.chunks(PIECE_PANELS * rows * width).enumerate() {
                    for start in columns.clone().step_by(PIECE_ROWS) {
                        let part = start..(start + PIECE_ROWS).min(columns.end);
                        let (taken, leaves, at) = (part.len(), leaves.clone(), start - columns.start);
                        let transposed = &sparse.transposed;
                        let compute = |to: &mut [f32], to_rows| {
                            self.kernels
                                .matmul_tn_by_columns(transposed, part, leaves, d, width, to, to_rows);
                        };
                        let at = |panel| ((group * PIECE_PANELS + panel) * gradient_rows + at) * width;
                        match sink {
                            Sink::Slot(slot) => compute(&mut slot[at(0)..], gradient_rows),
                            Sink::Update(_) => {
                                let piece = &mut piece[..d.len() / rows * taken];
                                compute(piece, taken);
                                let panels = piece.chunks_exact(taken * width).enumerate();
                                panels.for_each(|(panel, piece)| sink.take(at(panel), piece));
                            }
                        }
                    }
                }
            }
            // A thread without units has no panel.
            Input::Sparse(..) if d.is_empty() => {}
            Input::Sparse(sparse, columns) => {
                let (columns, leaves) = (columns.clone(), (node.rows.start, &node.ends[..]));
                let (rows, partial) = (&sparse.rows, &mut sparse.partial.borrow_mut());
                sink.take(0, self.kernels.matmul_tn_by_rows(rows, columns, leaves, d, width, partial));
            }
            Input::Dense(input) => {
                let input = input.window(node.rows.clone());
                let at_once = PIECE / (input.width() * width);
                for (panel, d) in d.chunks_exact(rows * width).enumerate() {
                    for q in (0..input.count()).step_by(at_once) {
                        let part = input.panels(q..(q + at_once).min(input.count()));
                        let at = panel * gradient_rows + q * input.width();
                        let piece = &mut piece[..part.cols() * width];
                        let d = node.of(d, width);
                        let compute =
                            |to: &mut [f32]| self.kernels.matmul_tn_panel(part, &node.ends, d, width, to);
                        sink.put(at * width, piece, compute);
                    }
                }
            }
        }
    }

    /// db of a panel, at `at` of its blocks: tree over the micro-batches of a node of the sums of rows of d `[rows][width]`.
    fn bias_gradient(&self, node: &NodeRows, d: &[f32], width: usize, sink: &mut Sink, at: usize) {
        let db = &mut [0.0; 32][..width];
        self.kernels.bias_gradient(node.of(d, width), &node.ends, width, db);
        sink.take(at, db);
    }

    /// The last bias's gradient, for every node.
    fn last_bias_gradient(&self, nodes: &[NodeRows], target: Target) {
        let (rows, width, block) = (self.shared.rows, self.model.classes().width, self.model.bias_block());
        for (n, node) in nodes.iter().enumerate() {
            let mut sink = self.sink(target, n, block..block + 1);
            for (panel, d) in self.logits.chunks_exact(rows * width).enumerate() {
                self.bias_gradient(node, d, width, &mut sink, panel * width);
            }
        }
    }

    /// Where some blocks of the `n`-th node's gradient go.
    fn sink<'s>(&self, target: Target<'s>, n: usize, blocks: Range<usize>) -> Sink<'s> {
        let first = n * (self.model.bias_block() + 1);
        match target {
            Target::Slot(slot) => Sink::Slot(slot.write(first + blocks.start..first + blocks.end)),
            Target::Update(update) => {
                assert_eq!(n, 0, "an update takes the sum of the whole batch");
                Sink::Update(update.blocks(blocks))
            }
        }
    }
}
