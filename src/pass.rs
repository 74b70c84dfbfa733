//! The forward pass of a team over its rows of a batch, and the loss; `backward` is the way back.
//!
//! Every thread owns whole slices of units (see [`crate::model`]): it finds their activations, their part of the logits, their
//! gradients. With one hidden layer the threads meet once a step, when each has written its partial logits; every further
//! hidden layer adds a meeting on the way forward and one on the way back. Every output is a fixed expression of its inputs,
//! so that the results do not depend on the number of threads or rows.
//!
//! Shapes are in panels, as the kernels have them: an activation is `[panels][rows][width]`.

use crate::dataset::{Dataset, FeatureRow, Kind};
use crate::model::{Model, Slices};
use crate::team::Member;
use muster_collective::Shared;
use muster_kernels::{Aligned, ByteTiles, Finish, Kernels, Nonzeros, Panels, Start, partial_sums, prefetch};
use std::cell::RefCell;
use std::ops::Range;

mod backward;
mod way;

pub use backward::{NodeRows, Target};
pub use way::Way;

/// Where [`Way::of`] leaves tiles out.
const NO_TILES: &str = "tiles are of hidden layers";
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
    /// A piece of a gradient, on its way to where it goes.
    piece: RefCell<Aligned>,
    /// Where the micro-batches of features end that lie by columns.
    leaves: Vec<usize>,
}

/// The features of the rows of a batch.
enum Features {
    /// `[panels][rows][width]`
    Dense(Vec<f32>),
    Sparse(Box<Sparse>),
    Tiles(Box<ByteTiles>),
}

/// What is not zero of bytes with many zeros.
struct Sparse {
    /// The features that this thread needs.
    needed: Range<usize>,
    /// `[rows, needed]`
    rows: Nonzeros,
    /// Whether the gradient of their weights is found by columns, or by rows, which pays for no more than a panel of units.
    by_columns: bool,
    /// `[needed, rows]`
    transposed: Nonzeros,
    /// Room for the partial sums by rows.
    partial: RefCell<Aligned>,
}

/// What goes into a layer, or a slice of it.
enum Input<'a> {
    Dense(Panels<'a>),
    /// Some columns of those that the thread has.
    Sparse(&'a Sparse, Range<usize>),
    /// All columns, of a hidden layer.
    Tiles(&'a ByteTiles),
}

/// Loss of a run of records, and how many of them were classified rightly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Sum over the records.
    pub loss: f64,
    /// Number of records whose largest logit is that of their label.
    pub hits: u32,
}

impl<'a> Pass<'a> {
    /// A thread's part of passes of `model`, in the workspace of its team, over records of a data set of this [`Dataset::kind`].
    pub fn new((model, kernels): (&'a Model, &'a Kernels), shared: &'a Workspace, kind: Kind) -> Pass<'a> {
        let rows = shared.rows;
        let features = match Way::of((model, kernels), kind) {
            Way::Dense => Features::Dense(vec![0.0; rows * model.inputs().padded()]),
            Way::Sparse { scale } => Features::Sparse(Box::new(Sparse::new(model, rows, scale))),
            Way::Tiles { scale } => {
                Features::Tiles(Box::new(ByteTiles::with_room(rows, model.inputs().columns, scale)))
            }
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
            piece: RefCell::new(Aligned::zeros(backward::PIECE)),
            leaves: Vec::with_capacity(rows),
        }
    }

    /// Takes the given records, each of a data set, as the rows of the batch.
    ///
    /// # Panics
    /// If their number is not that of the workspace.
    pub fn load<'d>(
        &mut self,
        team: &Member,
        records: impl ExactSizeIterator<Item = (&'d Dataset, usize)> + Clone,
    ) {
        let rows = self.shared.rows;
        assert_eq!(records.len(), rows, "a batch of another number of rows than its workspace");
        let mut ahead = records.clone();
        let fetch = |(dataset, record): (&Dataset, usize)| prefetch(dataset.feature_bytes(record));
        ahead.by_ref().take(ROWS_AHEAD).for_each(fetch);
        if let Features::Sparse(sparse) = &mut self.features {
            sparse.begin(self.model, team);
        }
        for (row, (dataset, record)) in records.enumerate() {
            ahead.next().into_iter().for_each(fetch);
            match (&mut self.features, dataset.feature_row(record)) {
                (Features::Sparse(sparse), FeatureRow::U8 { bytes, .. }) => {
                    self.kernels.push_bytes(&bytes[sparse.needed.clone()], &mut sparse.rows);
                }
                (Features::Dense(features), FeatureRow::U8 { bytes, scale }) => {
                    self.kernels.pixels_to_panels(bytes, scale, features, rows, row);
                }
                (Features::Dense(features), FeatureRow::F32(numbers)) => {
                    self.kernels.row_to_panels(numbers, features, rows, row);
                }
                (Features::Tiles(tiles), FeatureRow::U8 { bytes, .. }) => tiles.set_row(row, bytes),
                (Features::Sparse(_) | Features::Tiles(_), FeatureRow::F32(_)) => {
                    unreachable!("only bytes are sparse or made tiles")
                }
            }
            self.labels[row] = dataset.label(record).unwrap_or(0);
        }
        if let Features::Tiles(tiles) = &mut self.features {
            self.kernels.tile_rows(tiles);
        }
    }

    /// Logits `[rows, classes]` of the loaded rows, for every thread of the team. `step` is another number, even or odd, than in the pass before, if
    /// there is no other meeting between them.
    pub fn forward(&mut self, team: &Member, weights: &Shared, step: u64) {
        for index in 0..self.model.hidden().len() {
            self.hidden_forward(team, weights, index);
            if index + 1 < self.model.hidden().len() {
                team.wait();
            }
        }
        let partial = &self.shared.partial_logits[step as usize % 2];
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
            Input::Sparse(sparse, columns) => {
                let rows = &sparse.rows;
                let finish = Finish::BiasRelu(weights.get(inputs * width..).unwrap_or(&[]));
                self.kernels.matmul_sparse(rows, columns, &weights, inputs + 1, width, finish, &mut output);
            }
            Input::Tiles(tiles) => {
                let finish = Finish::BiasRelu(weights.get(inputs * width..).unwrap_or(&[]));
                self.kernels.matmul_bytes(tiles, &weights, inputs + 1, width, finish, &mut output);
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
                match &input {
                    Input::Dense(input) => {
                        self.kernels.matmul_panel(*input, w, width, Start::Zero, finish, output)
                    }
                    Input::Sparse(sparse, columns) => {
                        let (rows, columns) = (&sparse.rows, columns.clone());
                        self.kernels.matmul_sparse(rows, columns, w, inputs, width, finish, output);
                    }
                    Input::Tiles(_) => unreachable!("{NO_TILES}"),
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

    /// The class of each row, after [`Pass::loss`].
    pub fn predicted(&self) -> &[u32] {
        &self.predicted
    }

    /// The loss of each row, after [`Pass::loss`].
    pub fn losses(&self) -> &[f32] {
        &self.losses
    }

    /// The probability of a class that is not the row's label, after [`Pass::loss`] with a scale of 1: it is the loss's gradient.
    pub fn probability_of_other(&self, row: usize, class: u32) -> f32 {
        let (width, class) = (self.model.classes().width, class as usize);
        self.logits[(class / width * self.shared.rows + row) * width + class % width]
    }

    /// Loss and hits of a run of rows.
    pub fn score(&self, rows: Range<usize>) -> Score {
        let hits = self.predicted[rows.clone()].iter().zip(&self.labels[rows.clone()]);
        Score {
            loss: self.losses[rows].iter().map(|&loss| f64::from(loss)).sum(),
            hits: hits.filter(|(predicted, label)| predicted == label).count() as u32,
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
            (None, Input::Sparse(sparse, _)) => {
                let first = sparse.needed.start;
                work(Input::Sparse(sparse, columns.start - first..columns.end - first));
            }
            (None, Input::Tiles(_)) => unreachable!("{NO_TILES}"),
        }
    }

    /// All features that this thread has.
    fn features(&self) -> Input<'_> {
        let (count, inputs) = (self.shared.rows, self.model.inputs());
        match &self.features {
            Features::Dense(features) => {
                Input::Dense(Panels::new(features, count, inputs.columns, inputs.width))
            }
            Features::Sparse(sparse) => Input::Sparse(sparse, 0..sparse.needed.len()),
            Features::Tiles(tiles) => Input::Tiles(tiles),
        }
    }
}

impl Sparse {
    /// Room for `rows` rows of bytes that stand for `byte * scale`.
    fn new(model: &Model, rows: usize, scale: f32) -> Sparse {
        let columns = model.inputs().columns;
        let partial = partial_sums(rows) * columns * model.layers()[0].outputs.width;
        Sparse {
            needed: 0..0,
            rows: Nonzeros::with_room(rows, columns, scale),
            by_columns: false,
            transposed: Nonzeros::with_room(columns, rows, scale),
            partial: RefCell::new(Aligned::zeros(partial)),
        }
    }

    /// Makes it ready for what a member of the team needs.
    fn begin(&mut self, model: &Model, team: &Member) {
        let outputs = model.layers()[0].outputs;
        let slices = if model.hidden().is_empty() { 0..outputs.count() } else { team.share(outputs.count()) };
        let panels: usize = slices.map(|slice| outputs.panels_of(slice).len()).sum();
        self.needed = model.features_of(team.index(), team.count());
        self.by_columns = panels > 1;
        self.rows.clear(self.needed.len());
    }
}

#[cfg(test)]
mod tests;
