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
use muster_collective::shared::RefMut;
use muster_collective::tree::Node;
use muster_kernels::{Bytes, Finish, Kernels, Panels, Start, bytes_stride, prefetch, transpose_bytes};
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
    /// Every thread takes the features for itself, which is cheaper than to fetch them from another core.
    features: Features,
    labels: Vec<u32>,
    /// Logits; after [`Pass::loss`] the loss's gradient with respect to them. Every thread finds all of them.
    logits: Vec<f32>,
    losses: Vec<f32>,
    predicted: Vec<u32>,
    /// A block of weights, transposed.
    transposed: Vec<f32>,
    turn: usize,
}

/// The features of the rows of a batch.
enum Features {
    /// `[panels][rows][width]`
    Dense(Vec<f32>),
    /// Bytes with many zeros, and what each of them stands for.
    Sparse {
        /// `[rows, features]`
        rows: Vec<u8>,
        /// `[features, rows]`, for the way back.
        columns: Vec<u8>,
        values: Box<[f32; 256]>,
    },
}

/// What goes into a layer.
enum Input<'a> {
    Dense(Panels<'a>),
    Sparse { rows: Bytes<'a>, columns: Bytes<'a> },
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

impl<'a> Pass<'a> {
    /// A thread's part of passes of `model` over records of `dataset`, in the workspace of its team.
    pub fn new(model: &'a Model, kernels: &'a Kernels, shared: &'a Workspace, dataset: &Dataset) -> Pass<'a> {
        let rows = shared.rows;
        let features = match dataset.sparse_scale() {
            None => Features::Dense(vec![0.0; rows * model.inputs().padded()]),
            Some(scale) => Features::Sparse {
                rows: vec![0; rows * bytes_stride(dataset.width())],
                columns: vec![0; dataset.width() * bytes_stride(rows)],
                values: Box::new(std::array::from_fn(|byte| byte as f32 * scale)),
            },
        };
        let transposed = model.layers().iter().map(|l| l.inputs.width * l.outputs.columns).max();
        Pass {
            model,
            kernels,
            shared,
            features,
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
            match (&mut self.features, dataset.feature_row(record)) {
                (Features::Sparse { rows, .. }, FeatureRow::U8 { bytes, .. }) => {
                    rows[row * bytes_stride(bytes.len())..][..bytes.len()].copy_from_slice(bytes);
                }
                (Features::Dense(features), FeatureRow::U8 { bytes, scale }) => {
                    self.kernels.pixels_to_panels(bytes, scale, features, rows, row);
                }
                (Features::Dense(features), FeatureRow::F32(numbers)) => {
                    self.kernels.row_to_panels(numbers, features, rows, row);
                }
                (Features::Sparse { .. }, FeatureRow::F32(_)) => unreachable!("only bytes are sparse"),
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
        let slices = team.share(layer.outputs.count());
        let weights = weights.read(self.model.hidden_blocks(index, slices.clone()));
        let mut output = self.shared.hidden[index].write(slices);
        self.with_input(index, |input| match input {
            Input::Sparse { rows, .. } => {
                let finish = Finish::BiasRelu(weights.get(inputs * width..).unwrap_or(&[]));
                self.kernels.matmul_bytes(rows, &weights, inputs + 1, width, finish, &mut output);
            }
            Input::Dense(input) => {
                let panels = weights.chunks_exact((inputs + 1) * width);
                for (panel, output) in panels.zip(output.chunks_exact_mut(rows * width)) {
                    let (w, b) = panel.split_at(inputs * width);
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
            let panels = weight.chunks_exact(inputs * width).zip(output.chunks_exact_mut(rows * width));
            for (panel, (w, output)) in panels.enumerate() {
                let bias = bias.as_ref().map(|bias| Finish::Bias(&bias[panel * width..(panel + 1) * width]));
                let finish = bias.unwrap_or(Finish::None);
                match input {
                    Input::Dense(input) => {
                        self.kernels.matmul_panel(input, w, width, Start::Zero, finish, output)
                    }
                    Input::Sparse { rows, .. } => {
                        self.kernels.matmul_bytes(rows, w, inputs, width, finish, output)
                    }
                }
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
        if let Features::Sparse { rows, columns, .. } = &mut self.features {
            transpose_bytes(rows, self.shared.rows, self.model.inputs().columns, columns);
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
            for (n, node) in slot.nodes.iter().enumerate() {
                let mut gradient = self.gradient(slot, n, block..block + 1);
                self.weight_gradient(&input, node, &self.logits, width, &mut gradient, inputs);
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
                self.weight_gradient(&input, node, &delta, width, &mut gradient, inputs + 1);
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

    /// dW `[panels][gradient_rows][width]` = tree over the node's micro-batches of inputᵀ · d `[panels][rows][width]`.
    fn weight_gradient(
        &self,
        input: &Input,
        node: &NodeRows,
        d: &[f32],
        width: usize,
        gradient: &mut [f32],
        gradient_rows: usize,
    ) {
        let rows = self.shared.rows;
        match input {
            Input::Sparse { columns, .. } => {
                let (columns, at) = (columns.columns(node.rows.clone()), (rows, node.rows.start));
                self.kernels.matmul_tn_bytes(columns, &node.ends, d, at, width, gradient, gradient_rows);
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

    /// Lends what goes into layer `index`.
    fn with_input(&self, index: usize, work: impl FnOnce(Input)) {
        let (rows, inputs) = (self.shared.rows, self.model.layers()[index].inputs);
        match index.checked_sub(1) {
            None => work(self.features()),
            Some(before) => {
                let hidden = self.shared.hidden[before].read_all();
                work(Input::Dense(Panels::new(&hidden, rows, inputs.columns, inputs.width)));
            }
        }
    }

    /// Lends a slice of what goes into the last layer.
    fn with_last_input(&self, slice: usize, work: impl FnOnce(Input)) {
        let (rows, inputs) = (self.shared.rows, self.model.last().inputs);
        let columns = inputs.columns_of(slice);
        match (self.shared.hidden.last(), self.features()) {
            (Some(hidden), _) => {
                let hidden = hidden.read(slice..slice + 1);
                work(Input::Dense(Panels::new(&hidden, rows, columns.len(), inputs.width)));
            }
            (None, Input::Dense(features)) => work(Input::Dense(features.panels(inputs.panels_of(slice)))),
            (None, Input::Sparse { rows, columns: all }) => {
                work(Input::Sparse { rows: rows.columns(columns.clone()), columns: all.row_range(columns) });
            }
        }
    }

    fn features(&self) -> Input<'_> {
        let (count, inputs) = (self.shared.rows, self.model.inputs());
        match &self.features {
            Features::Dense(features) => {
                Input::Dense(Panels::new(features, count, inputs.columns, inputs.width))
            }
            Features::Sparse { rows, columns, values } => Input::Sparse {
                rows: Bytes::new(rows, values, count, inputs.columns),
                columns: Bytes::new(columns, values, inputs.columns, count),
            },
        }
    }
}

#[cfg(test)]
mod tests;
