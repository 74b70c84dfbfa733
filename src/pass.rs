//! The forward and backward pass of a team over its rows of a batch.
//!
//! Every thread owns whole slices of units (see [`crate::model`]): it finds their activations, their part of the logits, their
//! gradients. With one hidden layer the threads meet once a step, when each has written its partial logits; every further
//! hidden layer adds a meeting on the way forward and one on the way back. Every output is a fixed expression of its inputs,
//! so that the results do not depend on the number of threads or rows.
//!
//! Shapes are in panels, as the kernels have them: an activation is `[panels][rows][width]`.

use crate::batch::leaf_rows;
use crate::dataset::{Dataset, FeatureRow};
use crate::model::{Layer, Model, Slices};
use crate::team::Member;
use muster_collective::Shared;
use muster_collective::tree::Node;
use muster_kernels::{Finish, Kernels, Panels, Start, prefetch};
use std::ops::Range;

/// Rows that are asked for before they are converted.
const ROWS_AHEAD: usize = 8;

/// What the threads of a team share for batches of a certain number of rows.
pub struct Workspace {
    rows: usize,
    /// Each hidden layer's activations, a block a slice.
    hidden: Vec<Shared>,
    /// The loss's gradients with respect to them, before the ReLU.
    deltas: Vec<Shared>,
    /// Each slice's part of the logits; two of them, because a fast thread may begin the next step before a slow one has read.
    partial_logits: [Shared; 2],
}

impl Workspace {
    /// For batches of `rows` rows.
    pub fn new(model: &Model, rows: usize) -> Workspace {
        let of_units = |slices: Slices| {
            Shared::new((0..slices.count()).map(|q| slices.panels_of(q).len() * rows * slices.width))
        };
        let layers = || model.hidden().iter().map(|layer| of_units(layer.outputs)).collect();
        let logits = rows * model.classes().padded();
        let partial = || Shared::new(vec![logits; model.last().inputs.count()]);
        Workspace { rows, hidden: layers(), deltas: layers(), partial_logits: [partial(), partial()] }
    }
}

/// One thread's part in passes over batches of a certain number of rows.
pub struct Pass<'a> {
    model: &'a Model,
    kernels: &'a Kernels,
    shared: &'a Workspace,
    /// Features `[panels][rows][width]`: every thread converts them for itself, which is cheaper than to fetch them from another core.
    features: Vec<f32>,
    labels: Vec<u32>,
    /// Logits; after [`Pass::loss`] the loss's gradient with respect to them. Every thread finds all of them.
    logits: Vec<f32>,
    losses: Vec<f32>,
    predicted: Vec<u32>,
    /// A block of weights, transposed.
    transposed: Vec<f32>,
    turn: usize,
}

/// Loss of a run of records, and how many of them were classified rightly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Sum over the records.
    pub loss: f64,
    /// Number of records whose largest logit is that of their label.
    pub hits: u32,
}

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

    /// Number of rows.
    #[expect(clippy::len_without_is_empty, reason = "a node has rows")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

impl<'a> Pass<'a> {
    /// A thread's part of passes of `model` in the workspace of its team.
    pub fn new(model: &'a Model, kernels: &'a Kernels, shared: &'a Workspace) -> Pass<'a> {
        let rows = shared.rows;
        let transposed = model.layers().iter().map(|l| l.inputs.width * l.outputs.columns).max();
        Pass {
            model,
            kernels,
            shared,
            features: vec![0.0; rows * model.inputs().padded()],
            labels: vec![0; rows],
            logits: vec![0.0; rows * model.classes().padded()],
            losses: vec![0.0; rows],
            predicted: vec![0; rows],
            transposed: vec![0.0; transposed.unwrap_or(0)],
            turn: 0,
        }
    }

    /// Takes the given records of a data set as the rows of the batch.
    ///
    /// # Panics
    /// If their number is not that of the workspace.
    pub fn load(&mut self, dataset: &Dataset, records: impl ExactSizeIterator<Item = usize> + Clone) {
        let rows = self.shared.rows;
        assert_eq!(records.len(), rows, "a batch of another number of rows than its workspace");
        let mut ahead = records.clone();
        ahead.by_ref().take(ROWS_AHEAD).for_each(|record| prefetch(dataset.feature_bytes(record)));
        for (row, record) in records.enumerate() {
            if let Some(record) = ahead.next() {
                prefetch(dataset.feature_bytes(record));
            }
            match dataset.feature_row(record) {
                FeatureRow::U8 { bytes, scale } => {
                    self.kernels.pixels_to_panels(bytes, scale, &mut self.features, rows, row);
                }
                FeatureRow::F32(numbers) => {
                    self.kernels.row_to_panels(numbers, &mut self.features, rows, row);
                }
            }
            self.labels[row] = dataset.label(record).unwrap_or(0);
        }
    }

    /// Logits `[rows, classes]` of the loaded rows, for every thread of the team.
    pub fn forward(&mut self, team: &Member, weights: &Shared) {
        for index in 0..self.model.hidden().len() {
            self.hidden_forward(team, weights, index);
            if index + 1 < self.model.hidden().len() {
                team.wait();
            }
        }
        self.turn ^= 1;
        let partial = &self.shared.partial_logits[self.turn];
        for slice in team.share(self.model.last().inputs.count()) {
            self.partial_logits(weights, slice, &mut partial.write(slice..slice + 1));
        }
        team.wait();
        self.kernels.sum_slices(&partial.read_all(), &mut self.logits);
    }

    /// Activations `[rows, units]` of this thread's slices of a hidden layer: ReLU(input · W + b).
    fn hidden_forward(&self, team: &Member, weights: &Shared, index: usize) {
        let (rows, layer) = (self.shared.rows, &self.model.hidden()[index]);
        let (inputs, width) = (layer.inputs.columns, layer.outputs.width);
        self.with_input(index, |input| {
            for slice in team.share(layer.outputs.count()) {
                let block = self.model.hidden_block(index, slice);
                let weights = weights.read(block..block + 1);
                let (weight, bias) = weights.split_at(weights.len() / (inputs + 1) * inputs);
                let mut output = self.shared.hidden[index].write(slice..slice + 1);
                let panels = weight.chunks_exact(inputs * width).zip(bias.chunks_exact(width));
                for ((w, b), output) in panels.zip(output.chunks_exact_mut(rows * width)) {
                    self.kernels.matmul_panel(input, w, width, Start::Zero, Finish::BiasRelu(b), output);
                }
            }
        });
    }

    /// A slice's part of the logits: input `[rows, the slice's columns]` · W `[the slice's columns, classes]`. The first slice adds the
    /// bias, because only its owner may read that while the others are still at the step before.
    fn partial_logits(&self, weights: &Shared, slice: usize, output: &mut [f32]) {
        let (rows, last) = (self.shared.rows, self.model.last());
        let (inputs, width) = (last.inputs.columns_of(slice).len(), last.outputs.width);
        let (block, bias) = (self.model.last_block(slice), self.model.bias_block());
        let weight = weights.read(block..block + 1);
        let bias = (slice == 0).then(|| weights.read(bias..bias + 1));
        self.with_last_input(slice, |input| {
            let panels = weight.chunks_exact(inputs * width);
            for (panel, (w, output)) in panels.zip(output.chunks_exact_mut(rows * width)).enumerate() {
                let bias = bias.as_ref().map(|bias| Finish::Bias(&bias[panel * width..(panel + 1) * width]));
                self.kernels.matmul_panel(input, w, width, Start::Zero, bias.unwrap_or(Finish::None), output);
            }
        });
    }

    /// Cross-entropy of the logits, which are replaced by their gradient times `scale`. Probabilities below `floor` are clipped.
    pub fn loss(&mut self, scale: f32, floor: f32) {
        let (rows, classes) = (self.shared.rows, self.model.classes().columns);
        self.kernels.softmax_cross_entropy(
            &mut self.logits,
            rows,
            classes,
            &self.labels,
            scale,
            floor,
            &mut self.losses,
            &mut self.predicted,
        );
    }

    /// The class of each row, by the logits.
    pub fn predict(&mut self) -> &[u32] {
        let (rows, classes) = (self.shared.rows, self.model.classes().columns);
        self.kernels.argmax(&self.logits, rows, classes, &mut self.predicted);
        &self.predicted
    }

    /// Loss and hits of a run of rows.
    pub fn score(&self, rows: Range<usize>) -> Score {
        let hits = self.predicted[rows.clone()].iter().zip(&self.labels[rows.clone()]);
        Score {
            loss: self.losses[rows].iter().map(|&loss| f64::from(loss)).sum(),
            hits: hits.filter(|(predicted, label)| predicted == label).count() as u32,
        }
    }

    /// Gradients of this thread's blocks of parameters, for each of the slot's nodes.
    pub fn backward(&mut self, team: &Member, weights: &Shared, slot: &Slot) {
        for slice in team.share(self.model.last().inputs.count()) {
            self.last_gradient(slice, slot);
            self.last_delta(weights, slice);
            if slice == 0 {
                self.bias_gradient(&self.logits, self.model.classes(), slot, self.model.bias_block(), 0);
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
        let (last, block) = (self.model.last(), self.model.last_block(slice));
        self.with_last_input(slice, |input| {
            self.weight_gradient(input, &self.logits, last.outputs.width, slot, block);
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
        let layer = &self.model.hidden()[index];
        self.with_input(index, |input| {
            for slice in team.share(layer.outputs.count()) {
                let block = self.model.hidden_block(index, slice);
                let delta = self.shared.deltas[index].read(slice..slice + 1);
                self.weight_gradient(input, &delta, layer.outputs.width, slot, block);
                let weights =
                    layer.outputs.panels_of(slice).len() * layer.inputs.columns * layer.outputs.width;
                self.bias_gradient(&delta, layer.outputs, slot, block, weights);
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
            let weight = &weights[..weights.len() / (inputs.columns + 1) * inputs.columns];
            let columns = layer.outputs.columns_of(slice);
            let transposed = &mut self.transposed[columns.start * width..columns.end * width];
            self.kernels.transpose_block(
                weight,
                inputs.columns,
                columns.len(),
                layer.outputs.width,
                panel,
                transposed,
                width,
            );
        }
    }

    /// For every node of the slot: C `[k, panels of d]` = tree over the node's micro-batches of aᵀ · d, at the start of `block`.
    fn weight_gradient(&self, a: Panels, d: &[f32], width: usize, slot: &Slot, block: usize) {
        let rows = self.shared.rows;
        for (n, node) in slot.nodes.iter().enumerate() {
            let mut gradient = self.slot_block(slot, n, block);
            let a = a.window(node.rows.clone());
            let panels = gradient.chunks_exact_mut(a.cols() * width).zip(d.chunks_exact(rows * width));
            for (c, d) in panels {
                let d = &d[node.rows.start * width..node.rows.end * width];
                self.kernels.matmul_tn_panel(a, &node.ends, d, width, c);
            }
        }
    }

    /// For every node of the slot: tree over the node's micro-batches of the sums over rows of d, at position `at` of `block`.
    fn bias_gradient(&self, d: &[f32], columns: Slices, slot: &Slot, block: usize, at: usize) {
        let (rows, width) = (self.shared.rows, columns.width);
        for (n, node) in slot.nodes.iter().enumerate() {
            let mut gradient = self.slot_block(slot, n, block);
            for (db, d) in gradient[at..].chunks_exact_mut(width).zip(d.chunks_exact(rows * width)) {
                let d = &d[node.rows.start * width..node.rows.end * width];
                self.kernels.bias_gradient(d, &node.ends, width, db);
            }
        }
    }

    /// The `n`-th gradient's part of a block.
    fn slot_block<'s>(
        &self,
        slot: &Slot<'s>,
        n: usize,
        block: usize,
    ) -> muster_collective::shared::RefMut<'s> {
        let at = n * (self.model.bias_block() + 1) + block;
        slot.buffer.write(at..at + 1)
    }

    /// Lends what goes into layer `index`.
    fn with_input(&self, index: usize, work: impl FnOnce(Panels)) {
        let (rows, inputs) = (self.shared.rows, self.model.layers()[index].inputs);
        match index.checked_sub(1) {
            None => work(Panels::new(&self.features, rows, inputs.columns, inputs.width)),
            Some(before) => {
                work(Panels::new(&self.shared.hidden[before].read_all(), rows, inputs.columns, inputs.width));
            }
        }
    }

    /// Lends a slice of what goes into the last layer.
    fn with_last_input(&self, slice: usize, work: impl FnOnce(Panels)) {
        let (rows, inputs) = (self.shared.rows, self.model.last().inputs);
        let columns = inputs.columns_of(slice).len();
        match self.shared.hidden.last() {
            None => {
                let panels = inputs.panels_of(slice);
                let features =
                    &self.features[panels.start * rows * inputs.width..panels.end * rows * inputs.width];
                work(Panels::new(features, rows, columns, inputs.width));
            }
            Some(hidden) => work(Panels::new(&hidden.read(slice..slice + 1), rows, columns, inputs.width)),
        }
    }
}

#[cfg(test)]
mod tests;
