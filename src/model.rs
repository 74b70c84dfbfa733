//! A dense model: its layers, and where each parameter lies in one flat f32 buffer.
//!
//! Weights lie in panels of 32 output columns, as the kernels read them. Panels are grouped into *slices*, the unit that a thread
//! owns: the parameters of a slice are one block of the buffer. Hidden layers are cut into slices of units; the last layer
//! is cut along its inputs, into the slices of the layer before it, so that a thread finds its part of the logits from its own
//! units and only partial logits cross between threads:
//!
//! ```text
//! hidden layer, slice q:  panel [inputs + 1, 32] | panel …    W, and as its last row the bias
//! last layer, slice q:    W [the slice's inputs, classes] in panels over the classes
//! last block:             bias of the classes
//! ```
//! Padding columns are zero and stay zero under every update rule.

use crate::batch::share;
use crate::random::{Purpose, Random};
use muster_collective::Shared;
use muster_kernels::panel_width;
use std::ops::Range;

/// The most slices of a layer, and with it the most threads of a rank that have work.
const SLICES_MAX: usize = 16;
/// Columns of a slice of input features at least: below, what a thread does for a few classes is less than what it costs to meet.
const FEATURES_MIN: usize = 192;

/// Activations or parameters along one dimension, cut into slices of whole panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Real columns: features or units.
    pub columns: usize,
    /// Columns of a panel: 32, or 16 where there are no more than 16 columns.
    pub width: usize,
    /// Number of slices.
    count: usize,
}

impl Slices {
    /// The slices of a dimension of `columns` columns, each of about `least` of them at least.
    fn new(columns: usize, least: usize) -> Slices {
        let width = panel_width(columns);
        let most = columns.div_ceil(width).min(SLICES_MAX);
        Slices { columns, width, count: (columns / least).clamp(1, most) }
    }

    /// Number of slices.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Number of panels of all slices.
    pub fn panels(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// The panels of a slice.
    pub fn panels_of(&self, slice: usize) -> Range<usize> {
        share(self.panels(), slice, self.count)
    }

    /// The real columns of a slice.
    pub fn columns_of(&self, slice: usize) -> Range<usize> {
        let panels = self.panels_of(slice);
        panels.start * self.width..(panels.end * self.width).min(self.columns)
    }

    /// Columns of all panels, padding included.
    pub fn padded(&self) -> usize {
        self.panels() * self.width
    }
}

/// One fully connected layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What comes in.
    pub inputs: Slices,
    /// What goes out.
    pub outputs: Slices,
    /// Its first block in the flat buffer.
    first_block: usize,
}

/// The parameters of one layer, or anything of their shape, in the field's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensors {
    /// `[inputs, outputs]`, row-major.
    pub weight: Vec<f32>,
    /// `[outputs]`
    pub bias: Vec<f32>,
}

/// A multi-layer perceptron: ReLU between layers, softmax at the end. Without hidden layers it is softmax regression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    layers: Vec<Layer>,
}

impl Model {
    /// A model of these widths: inputs, hidden units of each layer, classes.
    ///
    /// # Panics
    /// If there are fewer than two widths, or one is 0.
    pub fn new(widths: &[usize]) -> Model {
        assert!(
            widths.len() >= 2 && !widths.contains(&0),
            "a model needs inputs and classes, not {widths:?}"
        );
        let least = |index: usize| if index == 0 { FEATURES_MIN } else { 1 };
        let slices: Vec<Slices> =
            widths.iter().enumerate().map(|(i, &columns)| Slices::new(columns, least(i))).collect();
        let mut first_block = 0;
        let layers = slices.windows(2).map(|pair| {
            let layer = Layer { inputs: pair[0], outputs: pair[1], first_block };
            first_block += layer.outputs.count();
            layer
        });
        Model { layers: layers.collect() }
    }

    /// Inputs, hidden units of each layer, classes.
    pub fn widths(&self) -> Vec<usize> {
        let inputs = std::iter::once(self.inputs().columns);
        inputs.chain(self.layers.iter().map(|layer| layer.outputs.columns)).collect()
    }

    /// Its layers, in the order of data.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The hidden layers.
    pub fn hidden(&self) -> &[Layer] {
        &self.layers[..self.layers.len() - 1]
    }

    /// The layer that gives the logits.
    pub fn last(&self) -> &Layer {
        &self.layers[self.layers.len() - 1]
    }

    /// The slices of the input features.
    pub fn inputs(&self) -> Slices {
        self.layers[0].inputs
    }

    /// The slices of the classes.
    pub fn classes(&self) -> Slices {
        self.last().outputs
    }

    /// Number of parameters, padding not counted.
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(|layer| (layer.inputs.columns + 1) * layer.outputs.columns).sum()
    }

    /// Lengths of the blocks of the flat buffer, in floats.
    pub fn block_lengths(&self) -> Vec<usize> {
        let hidden = self.hidden().iter().flat_map(|layer| {
            let panel = (layer.inputs.columns + 1) * layer.outputs.width;
            (0..layer.outputs.count()).map(move |q| layer.outputs.panels_of(q).len() * panel)
        });
        let (last, classes) = (self.last(), self.classes().padded());
        let rows = (0..last.inputs.count()).map(|q| last.inputs.columns_of(q).len() * classes);
        hidden.chain(rows).chain([classes]).collect()
    }

    /// The block of a hidden layer's slice of units.
    pub fn hidden_block(&self, layer: usize, slice: usize) -> usize {
        self.layers[layer].first_block + slice
    }

    /// The blocks of some slices of a hidden layer, which follow one another.
    pub fn hidden_blocks(&self, layer: usize, slices: Range<usize>) -> Range<usize> {
        self.hidden_block(layer, slices.start)..self.hidden_block(layer, slices.end)
    }

    /// The block of the last layer's slice of inputs.
    pub fn last_block(&self, slice: usize) -> usize {
        self.last().first_block + slice
    }

    /// The block of the last layer's bias.
    pub fn bias_block(&self) -> usize {
        self.last_block(self.last().inputs.count())
    }

    /// The blocks of a layer's weights and biases.
    pub fn layer_blocks(&self, layer: usize) -> Range<usize> {
        let end = self.layers.get(layer + 1).map_or(self.bias_block() + 1, |next| next.first_block);
        self.layers[layer].first_block..end
    }

    /// Floats of a layer's blocks that are no parameters and always 0.
    pub fn padding(&self, layer: usize) -> usize {
        let Layer { inputs, outputs, .. } = self.layers[layer];
        self.block_lengths()[self.layer_blocks(layer)].iter().sum::<usize>()
            - (inputs.columns + 1) * outputs.columns
    }

    /// The features that a member of a team needs: all of them for its units of a hidden layer, else those of its slices.
    pub fn features_of(&self, member: usize, members: usize) -> Range<usize> {
        if !self.hidden().is_empty() {
            return 0..self.inputs().columns;
        }
        let slices = share(self.inputs().count(), member, members);
        if slices.is_empty() {
            return 0..0;
        }
        self.inputs().columns_of(slices.start).start..self.inputs().columns_of(slices.end - 1).end
    }

    /// Initial weights: a normal distribution of deviation 1/√inputs, truncated at two deviations; biases 0.
    pub fn initial(&self, seed: u64) -> Vec<Tensors> {
        let layer = |(index, layer): (usize, &Layer)| {
            let (inputs, outputs) = (layer.inputs.columns, layer.outputs.columns);
            let deviation = 1.0 / (inputs as f64).sqrt();
            let mut random = Random::new(seed, Purpose::Weights, index as u64, 0);
            let weight = (0..inputs * outputs).map(|_| (random.truncated_normal() * deviation) as f32);
            Tensors { weight: weight.collect(), bias: vec![0.0; outputs] }
        };
        self.layers.iter().enumerate().map(layer).collect()
    }

    /// Tensors that hold `value` everywhere, such as fresh optimizer slots.
    pub fn filled(&self, value: f32) -> Vec<Tensors> {
        let layer = |layer: &Layer| {
            let (inputs, outputs) = (layer.inputs.columns, layer.outputs.columns);
            Tensors { weight: vec![value; inputs * outputs], bias: vec![value; outputs] }
        };
        self.layers.iter().map(layer).collect()
    }

    /// A flat buffer of this model's shape, all zero.
    pub fn buffer(&self) -> Shared {
        Shared::new(self.block_lengths())
    }

    /// Writes tensors into a flat buffer. Padding becomes zero.
    pub fn import(&self, tensors: &[Tensors], buffer: &Shared) {
        buffer.write_all().fill(0.0);
        self.for_each_run(|layer, part, run, block, at| {
            let source = tensors[layer].of(part);
            buffer.write(block..block + 1)[at..at + run.len()].copy_from_slice(&source[run]);
        });
    }

    /// Reads the tensors out of a flat buffer.
    pub fn export(&self, buffer: &Shared) -> Vec<Tensors> {
        let mut tensors = self.filled(0.0);
        self.for_each_run(|layer, part, run, block, at| {
            let length = run.len();
            tensors[layer].of_mut(part)[run].copy_from_slice(&buffer.read(block..block + 1)[at..at + length]);
        });
        tensors
    }

    /// Calls `run(layer, part, range in the tensor, block, position in the block)` for every run of parameters that is contiguous in
    /// both.
    fn for_each_run(&self, mut run: impl FnMut(usize, Part, Range<usize>, usize, usize)) {
        for (index, layer) in self.hidden().iter().enumerate() {
            let (inputs, outputs) = (layer.inputs.columns, layer.outputs);
            for slice in 0..outputs.count() {
                let (block, panels) = (self.hidden_block(index, slice), outputs.panels_of(slice));
                for (panel, columns) in panels.map(|p| outputs.panel_columns(p)).enumerate() {
                    let at = |row: usize| (panel * (inputs + 1) + row) * outputs.width;
                    for row in 0..inputs {
                        let from = row * outputs.columns;
                        run(index, Part::Weight, from + columns.start..from + columns.end, block, at(row));
                    }
                    run(index, Part::Bias, columns, block, at(inputs));
                }
            }
        }
        let (index, last, classes) = (self.layers.len() - 1, self.last(), self.classes());
        for slice in 0..last.inputs.count() {
            let rows = last.inputs.columns_of(slice);
            for panel in 0..classes.panels() {
                let columns = classes.panel_columns(panel);
                for (i, row) in rows.clone().enumerate() {
                    let from = row * classes.columns;
                    let at = (panel * rows.len() + i) * classes.width;
                    run(
                        index,
                        Part::Weight,
                        from + columns.start..from + columns.end,
                        self.last_block(slice),
                        at,
                    );
                }
            }
        }
        run(index, Part::Bias, 0..classes.columns, self.bias_block(), 0);
    }
}

impl Slices {
    /// The real columns of one panel.
    fn panel_columns(&self, panel: usize) -> Range<usize> {
        panel * self.width..((panel + 1) * self.width).min(self.columns)
    }
}

/// One of a layer's two tensors.
#[derive(Clone, Copy)]
enum Part {
    Weight,
    Bias,
}

impl Tensors {
    fn of(&self, part: Part) -> &[f32] {
        match part {
            Part::Weight => &self.weight,
            Part::Bias => &self.bias,
        }
    }

    fn of_mut(&mut self, part: Part) -> &mut [f32] {
        match part {
            Part::Weight => &mut self.weight,
            Part::Bias => &mut self.bias,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn export_gives_back_what_was_imported(widths in prop::collection::vec(1usize..90, 2..5), seed: u64) {
            let model = Model::new(&widths);
            prop_assert_eq!(model.widths(), widths);
            let mut tensors = model.initial(seed);
            for layer in &mut tensors {
                layer.bias.iter_mut().enumerate().for_each(|(i, b)| *b = i as f32 + 1.0);
            }
            let buffer = model.buffer();
            buffer.write_all().fill(f32::NAN);
            model.import(&tensors, &buffer);
            let values = buffer.read_all().iter().filter(|v| **v != 0.0).count();
            prop_assert_eq!(values, tensors.iter().map(|t| t.weight.iter().chain(&t.bias).filter(|v| **v != 0.0).count()).sum::<usize>());
            prop_assert_eq!(model.export(&buffer), tensors);
        }

        #[test]
        fn layers_have_few_slices(widths in prop::collection::vec(1usize..2000, 2..5)) {
            prop_assert!(Model::new(&widths).layers().iter().all(|layer| layer.outputs.count() <= SLICES_MAX));
        }
    }

    #[test]
    fn blocks_of_a_small_perceptron() {
        let model = Model::new(&[784, 128, 10]);
        assert_eq!(model.parameters(), 101_770);
        assert_eq!(model.block_lengths(), [785 * 32, 785 * 32, 785 * 32, 785 * 32, 512, 512, 512, 512, 16]);
    }

    #[test]
    fn a_wide_input_of_a_softmax_regression_is_cut_into_few_slices() {
        let model = Model::new(&[784, 10]);
        assert_eq!(model.last().inputs.count(), 4);
        assert_eq!(model.block_lengths().iter().sum::<usize>(), 785 * 16);
    }
}
