//! Checkpoints: what a training needs to go on as if it had never stopped, as two safetensors files.
//!
//! The model is `layers.{i}.weight` `[in, out]` and `layers.{i}.bias` `[out]`, f32. The state holds the optimizer's slots in the
//! same shapes, named `{slot}.layers.{i}.weight`, and JSON in its header: what the training is, how far it has come, and the
//! SHA-256 of both files' tensors, because a safetensors file alone does not tell whether its numbers are damaged.

use crate::conductor::Epoch;
use crate::error::Error;
use crate::model::{Model, Tensors};
use crate::train::{Job, Recipe, State};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// The key of our JSON in the header of `state.safetensors`.
const HEADER: &str = "muster";

/// Of the JSON in the header.
const VERSION: u32 = 1;

/// How far a training has come, over all of its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done. Epoch and data cursor follow from it, as does the state of the random numbers, which are counted, not kept.
    pub steps: u64,
    /// Sum of the losses in the present epoch so far.
    pub epoch_loss: f64,
    /// Rightly classified records in it.
    pub epoch_hits: u64,
    /// Seconds spent on it.
    pub epoch_seconds: f64,
    /// The epochs that are complete.
    pub epochs: Vec<Epoch>,
}

/// What the bits of a training depend on. A checkpoint goes on only under the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Inputs, hidden units, classes.
    pub widths: Vec<usize>,
    /// How it is trained.
    pub recipe: Recipe,
    /// Digest of the training data. That of the test data is not part of it: evaluation does not change weights.
    pub data_sha256: String,
    /// In which order and with which rounding sums are made; see [`crate::pass::Way::arithmetic`].
    pub arithmetic: String,
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What it belongs to.
    pub identity: Identity,
    /// How far it has come.
    pub progress: Progress,
    /// The weights.
    pub weights: Vec<Tensors>,
    /// The optimizer's slots.
    pub slots: Vec<Vec<Tensors>>,
}

/// What stands in the header of `state.safetensors`.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    weights_sha256: String,
    slots_sha256: Vec<String>,
    #[serde(flatten)]
    identity: Identity,
    progress: Progress,
}

impl Identity {
    /// Where `other` is another training, each as `name: value here, not value there`. The arithmetic is left out: with another one the
    /// training goes on, only to other bits.
    pub fn differences(&self, other: &Identity) -> Vec<String> {
        self.fields()
            .zip(other.fields())
            .filter(|(here, there)| here != there)
            .map(|((name, here), (_, there))| format!("{name}: {here}, not {there}"))
            .collect()
    }

    /// All of it but the arithmetic, by name, as JSON; the recipe's parts one by one.
    pub fn fields(&self) -> impl Iterator<Item = (String, String)> + use<> {
        // Through text, which writes an f32 as 0.9 and not as 0.8999999761581421.
        let json = serde_json::to_string(self).expect("plain data becomes JSON");
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&json).expect("a struct is an object");
        let recipe = fields.remove("recipe");
        fields.remove("arithmetic");
        let recipe = recipe.and_then(|recipe| recipe.as_object().cloned()).into_iter().flatten();
        fields.into_iter().chain(recipe).map(|(name, value)| (name, value.to_string()))
    }
}

impl Checkpoint {
    /// The beginning of a training.
    pub fn start(identity: Identity) -> Checkpoint {
        let model = Model::new(&identity.widths);
        let Recipe { seed, optimizer, .. } = identity.recipe;
        let slot = |_: &&str| model.filled(optimizer.initial());
        Checkpoint {
            progress: Progress::default(),
            weights: model.initial(seed),
            slots: optimizer.slots().iter().map(slot).collect(),
            identity,
        }
    }
}

impl State {
    /// A copy to be saved.
    pub(crate) fn checkpoint(&self, job: &Job, progress: Progress) -> Checkpoint {
        Checkpoint {
            identity: job.identity(),
            progress,
            weights: job.model.export(&self.weights),
            slots: self.slots.iter().map(|slot| job.model.export(slot)).collect(),
        }
    }
}

/// SHA-256 of the tensors' little-endian bytes in the order of layers, weight before bias.
pub fn sha256(tensors: &[Tensors]) -> String {
    let mut hasher = Sha256::new();
    for layer in tensors {
        hasher.update(little_endian(&layer.weight));
        hasher.update(little_endian(&layer.bias));
    }
    crate::dataset::hex(&hasher.finalize())
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The model file of a checkpoint.
pub fn encode_model(checkpoint: &Checkpoint) -> Vec<u8> {
    let header = HashMap::from([("format".to_owned(), "muster".to_owned())]);
    encode(named("", &checkpoint.weights), header)
}

/// The state file of a checkpoint.
pub fn encode_state(checkpoint: &Checkpoint) -> Vec<u8> {
    let Checkpoint { identity, progress, weights, slots } = checkpoint;
    let header = Header {
        version: VERSION,
        weights_sha256: sha256(weights),
        slots_sha256: slots.iter().map(|slot| sha256(slot)).collect(),
        identity: identity.clone(),
        progress: progress.clone(),
    };
    let json = serde_json::to_string(&header).expect("plain data becomes JSON");
    let names = identity.recipe.optimizer.slots().iter().map(|name| format!("{name}."));
    let tensors = names.zip(slots).flat_map(|(name, slot)| named(&name, slot)).collect();
    encode(tensors, HashMap::from([(HEADER.to_owned(), json)]))
}

type Named<'a> = Vec<(String, Vec<usize>, &'a [f32])>;

fn named<'a>(prefix: &str, tensors: &'a [Tensors]) -> Named<'a> {
    let layer = |(i, layer): (usize, &'a Tensors)| {
        let outputs = layer.bias.len();
        let weight = (
            format!("{prefix}layers.{i}.weight"),
            vec![layer.weight.len() / outputs, outputs],
            &layer.weight[..],
        );
        [weight, (format!("{prefix}layers.{i}.bias"), vec![outputs], &layer.bias[..])]
    };
    tensors.iter().enumerate().flat_map(layer).collect()
}

fn encode(tensors: Named, header: HashMap<String, String>) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, _, values)| little_endian(values)).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as the shape has"))
    });
    safetensors::serialize(views, Some(header)).expect("names are distinct")
}

/// Reads a model file: its shape and weights.
///
/// # Errors
/// [`Error::Model`] if it is no safetensors file of such a model.
pub fn decode_model(bytes: &[u8], path: &Path) -> Result<(Model, Vec<Tensors>), Error> {
    let damaged = |found: String| Error::Model { path: path.to_owned(), found };
    let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(error.to_string()))?;
    let mut widths = Vec::new();
    for i in 0.. {
        let Ok(weight) = file.tensor(&format!("layers.{i}.weight")) else { break };
        let &[inputs, outputs] = weight.shape() else {
            return Err(damaged(format!("layers.{i}.weight has the shape {:?}", weight.shape())));
        };
        if inputs * outputs == 0 || widths.last().is_some_and(|&width| width != inputs) {
            return Err(damaged(format!(
                "layers.{i}.weight [{inputs}, {outputs}] does not fit the layer before it"
            )));
        }
        widths.extend(widths.is_empty().then_some(inputs));
        widths.push(outputs);
    }
    if widths.is_empty() {
        return Err(damaged("no tensor layers.0.weight".to_owned()));
    }
    let model = Model::new(&widths);
    let tensors = tensors(&file, "", &model).map_err(damaged)?;
    Ok((model, tensors))
}

/// Reads both files of a checkpoint, from `directory`.
///
/// # Errors
/// [`Error::Model`] if one of them is damaged or they do not belong together.
pub fn decode(model: &[u8], state: &[u8], directory: &Path) -> Result<Checkpoint, Error> {
    let path = directory.join("state.safetensors");
    let damaged = |found: String| Error::Model { path: path.clone(), found };
    let (model, weights) = decode_model(model, &directory.join("model.safetensors"))?;
    let (_, metadata) = SafeTensors::read_metadata(state).map_err(|error| damaged(error.to_string()))?;
    let json = metadata.metadata().as_ref().and_then(|header| header.get(HEADER));
    let json = json.ok_or_else(|| damaged("no entry of muster in its header".to_owned()))?;
    let header: Header = serde_json::from_str(json).map_err(|error| damaged(error.to_string()))?;
    if header.version != VERSION {
        return Err(damaged(format!("format version {}; this program knows {VERSION}", header.version)));
    }
    let file = SafeTensors::deserialize(state).map_err(|error| damaged(error.to_string()))?;
    let names = header.identity.recipe.optimizer.slots();
    let slots = names.iter().map(|name| tensors(&file, &format!("{name}."), &model));
    let slots = slots.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    if header.weights_sha256 != sha256(&weights) {
        return Err(Error::Model {
            path: directory.join("model.safetensors"),
            found: "numbers whose SHA-256 is not that in state.safetensors".to_owned(),
        });
    }
    if header.slots_sha256 != slots.iter().map(|slot| sha256(slot)).collect::<Vec<_>>() {
        return Err(damaged("slots whose SHA-256 is not that in the header".to_owned()));
    }
    Ok(Checkpoint { identity: header.identity, progress: header.progress, weights, slots })
}

fn tensors(file: &SafeTensors, prefix: &str, model: &Model) -> Result<Vec<Tensors>, String> {
    let values = |name: String, shape: &[usize]| {
        let tensor = file.tensor(&name).map_err(|_| format!("no tensor {name}"))?;
        if tensor.shape() != shape || tensor.dtype() != Dtype::F32 {
            return Err(format!("{name} is {:?} {:?}, not F32 {shape:?}", tensor.dtype(), tensor.shape()));
        }
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        Ok(tensor.data().chunks_exact(4).map(number).collect())
    };
    let layer = |(i, pair): (usize, &[usize])| {
        Ok(Tensors {
            weight: values(format!("{prefix}layers.{i}.weight"), pair)?,
            bias: values(format!("{prefix}layers.{i}.bias"), &pair[1..])?,
        })
    };
    model.widths().windows(2).enumerate().map(layer).collect()
}
