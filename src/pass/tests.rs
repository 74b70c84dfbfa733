//! The pass against a naive one in f64.

use super::*;
use crate::batch::{leaf_rows, share};
use crate::dataset::Features;
use crate::gradient::Share;
use crate::model::Tensors;
use crate::team;
use muster_collective::tree;
use proptest::prelude::*;
use std::path::Path;

/// Gradients of a weight and a bias.
type Gradient = (Vec<f64>, Vec<f64>);

/// Loss and gradients of a whole batch, as the formulas have them.
fn naive(widths: &[usize], weights: &[Tensors], inputs: &[f32], labels: &[u32]) -> (f64, Vec<Gradient>) {
    let rows = labels.len();
    let mut activations = vec![inputs.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>()];
    for (i, layer) in weights.iter().enumerate() {
        let (k, n) = (widths[i], widths[i + 1]);
        let mut output = vec![0.0; rows * n];
        for (row, output) in output.chunks_mut(n).enumerate() {
            for (j, output) in output.iter_mut().enumerate() {
                let sum: f64 =
                    (0..k).map(|p| activations[i][row * k + p] * f64::from(layer.weight[p * n + j])).sum();
                *output = sum + f64::from(layer.bias[j]);
                if i + 1 < weights.len() {
                    *output = output.max(0.0);
                }
            }
        }
        activations.push(output);
    }
    let classes = widths[widths.len() - 1];
    let mut delta = activations.pop().unwrap();
    let mut loss = 0.0;
    for (logits, &label) in delta.chunks_mut(classes).zip(labels) {
        let sum: f64 = logits.iter().map(|z| z.exp()).sum();
        loss += sum.ln() - logits[label as usize];
        logits.iter_mut().for_each(|z| *z = z.exp() / sum);
        logits[label as usize] -= 1.0;
    }
    let mut gradients = Vec::new();
    for (i, layer) in weights.iter().enumerate().rev() {
        let (k, n) = (widths[i], widths[i + 1]);
        let input = activations.pop().unwrap();
        let dot =
            |p: usize, j: usize| (0..rows).map(|row| input[row * k + p] * delta[row * n + j]).sum::<f64>();
        let weight = (0..k * n).map(|at| dot(at / n, at % n)).collect();
        let bias = (0..n).map(|j| (0..rows).map(|row| delta[row * n + j]).sum()).collect();
        gradients.push((weight, bias));
        let back = |row: usize, p: usize| -> f64 {
            let sum: f64 = (0..n).map(|j| delta[row * n + j] * f64::from(layer.weight[p * n + j])).sum();
            if input[row * k + p] > 0.0 { sum } else { 0.0 }
        };
        delta = (0..rows * k).map(|at| back(at / k, at % k)).collect();
    }
    gradients.reverse();
    (loss, gradients)
}

/// What a team and the tree make of the same batch, in micro-batches of at most `leaf` rows, for `workers` workers of `threads` threads.
fn computed(
    model: &Model,
    kernels: &Kernels,
    weights: &[Tensors],
    data: &Dataset,
    leaf: usize,
    (workers, threads): (usize, usize),
) -> (f64, Vec<Tensors>) {
    let (rows, leaves) = (data.len(), data.len().div_ceil(leaf));
    let buffer = model.buffer();
    model.import(weights, &buffer);
    let blocks = model.block_lengths();
    let (mut loss, mut parts) = (0.0, Vec::new());
    for worker in 0..workers {
        let part = Share::new(rows, leaves, worker, workers);
        let slot = Shared::new((0..part.nodes.len()).flat_map(|_| blocks.clone()));
        let own = share(leaves, worker, workers);
        let records = leaf_rows(rows, leaves, own.start.min(leaves - 1)).start;
        let count: usize = part.nodes.iter().map(NodeRows::len).sum();
        if count == 0 {
            continue;
        }
        let workspace = Workspace::new(model, count);
        let losses = team::run(threads, |member| {
            let mut pass = Pass::new((model, kernels), &workspace, data.kind());
            pass.load(member, (records..records + count).map(|record| (data, record)));
            pass.forward(member, &buffer, 0);
            pass.loss(1.0, 0.0);
            pass.backward(member, &buffer, &part.nodes, Target::Slot(&slot));
            pass.score(0..count).loss
        });
        loss += losses[0];
        parts.extend(
            part.nodes
                .iter()
                .enumerate()
                .map(|(n, rows)| (rows.node, slot.read(n * blocks.len()..(n + 1) * blocks.len()).to_vec())),
        );
    }
    let sum = model.buffer();
    {
        let mut sum = sum.write_all();
        let mut summer = tree::Summer::new(leaves);
        for start in (0..sum.len()).step_by(tree::CHUNK) {
            let chunk = start..(start + tree::CHUNK).min(sum.len());
            let nodes = parts.iter().map(|(node, _)| *node);
            let part = |i: usize| &parts[i].1[chunk.clone()];
            let add = |sum: &mut [f32], a: &[f32], b: &[f32]| kernels.add(sum, a, b);
            let total = summer.sum(nodes, part, add, |a, b| kernels.add_assign(a, b));
            sum[chunk.clone()].copy_from_slice(total);
        }
    }
    (loss, model.export(&sum))
}

/// What a byte stands for.
const SCALE: f32 = 1.0 / 255.0;

/// Records of bytes, a third of which are 0, with their numbers and labels.
fn bytes(rows: usize, widths: &[usize], seed: u64) -> (Vec<f32>, Vec<u32>, Dataset) {
    let (numbers, labels, _) = dataset(rows, widths, seed);
    let bytes: Vec<u8> =
        numbers.iter().map(|x| if x.abs() < 0.43 { 0 } else { (127.0 * x.abs()) as u8 }).collect();
    let inputs = bytes.iter().map(|&byte| f32::from(byte) * SCALE).collect();
    let features = Features::U8 { bytes: bytes.into(), scale: SCALE };
    (inputs, labels.clone(), labelled(features, widths, labels))
}

fn dataset(rows: usize, widths: &[usize], seed: u64) -> (Vec<f32>, Vec<u32>, Dataset) {
    let (width, classes) = (widths[0], widths[widths.len() - 1]);
    let mut random = crate::random::Random::new(seed, crate::random::Purpose::Weights, 0, 0);
    let inputs: Vec<f32> = (0..rows * width).map(|_| random.truncated_normal() as f32).collect();
    let labels: Vec<u32> = (0..rows).map(|_| random.below(classes) as u32).collect();
    let dataset = labelled(Features::F32(inputs.clone()), widths, labels.clone());
    (inputs, labels, dataset)
}

fn labelled(features: Features, widths: &[usize], labels: Vec<u32>) -> Dataset {
    let dataset = Dataset::from_features(Path::new("x"), features, &widths[..1], widths[widths.len() - 1]);
    dataset.unwrap().with_labels(Path::new("y"), labels).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn gradients_are_those_of_the_formulas_and_the_same_bits_for_any_team(
        widths in prop::collection::vec(1usize..75, 2..5),
        rows in 1usize..40,
        workers in 2usize..5,
        threads in 2usize..4,
        seed: u64,
    ) {
        are_those_of_the_formulas(Kernels::select().unwrap(), &widths, dataset(rows, &widths, seed), (7, workers, threads), seed)?;
    }

    #[test]
    fn gradients_of_bytes_by_tiles_are_those_of_the_formulas_and_the_same_bits_for_any_team(
        widths in prop::collection::vec(1usize..75, 3..5),
        rows in 1usize..40,
        workers in 2usize..5,
        threads in 2usize..4,
        seed: u64,
    ) {
        let (model, kernels) = (Model::new(&widths), muster_kernels::with_modelled_tiles());
        let (inputs, labels, data) = bytes(rows, &widths, seed);
        prop_assert_eq!(Way::of((&model, kernels), data.kind()), Way::Tiles { scale: SCALE });
        are_those_of_the_formulas(kernels, &widths, (inputs, labels, data), (7, workers, threads), seed)?;
    }
}

/// Gradients of one worker of one thread against the formulas, and the bits of `workers` workers of `threads` threads against that one's.
fn are_those_of_the_formulas(
    kernels: &Kernels,
    widths: &[usize],
    (inputs, labels, data): (Vec<f32>, Vec<u32>, Dataset),
    (leaf, workers, threads): (usize, usize, usize),
    seed: u64,
) -> Result<(), TestCaseError> {
    let (rows, model) = (data.len(), Model::new(widths));
    let weights = model.initial(seed);
    let (loss, gradients) = computed(&model, kernels, &weights, &data, leaf, (1, 1));
    // With one class the loss is nothing but rounding.
    let (naive_loss, naive) = naive(widths, &weights, &inputs, &labels);
    approx::assert_relative_eq!(loss, naive_loss, max_relative = 1e-4, epsilon = 1e-12);
    for (layer, (weight, bias)) in gradients.iter().zip(&naive) {
        for (a, b) in layer.weight.iter().zip(weight).chain(layer.bias.iter().zip(bias)) {
            approx::assert_abs_diff_eq!(f64::from(*a), *b, epsilon = 2e-4 * rows as f64);
        }
    }
    let (_, shared) = computed(&model, kernels, &weights, &data, leaf, (workers, threads));
    for (one, many) in gradients.iter().zip(&shared) {
        let bits = |tensors: &Tensors| {
            tensors.weight.iter().chain(&tensors.bias).map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        prop_assert_eq!(bits(one), bits(many));
    }
    Ok(())
}

/// More features than a piece of a gradient has, and more rows of a micro-batch than a tile.
#[test]
fn tiles_of_wide_records_and_long_micro_batches() {
    let kernels = muster_kernels::with_modelled_tiles();
    let widths = [1100, 40, 3];
    are_those_of_the_formulas(kernels, &widths, bytes(70, &widths, 1), (35, 2, 2), 1).unwrap();
}
