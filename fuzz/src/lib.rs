//! What reads bytes that may have been damaged or written by somebody else, as functions that must come back whatever the bytes are.
//!
//! # Layout
//! - [`targets`]: all of them, by name; a new one is one line there
//! - `mutations`: the test that runs each for some seconds
//! - `any.rs`: the binary for libFuzzer, `seeds.rs`: the one that writes its corpora (`make soak`)

#[cfg(test)]
mod mutations;

use std::path::Path;

use muster::checkpoint::{self, Checkpoint, Identity};
use muster::format;
use muster::optimizer::Optimizer;
use muster::parts::manifest::Manifest;
use muster::train::Recipe;
use muster_launcher::fuzz as launcher;

/// One function of bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also that of its corpus.
    pub name: &'static str,
    /// Panics when what it promises does not hold.
    pub run: fn(&[u8]),
    /// What mutations begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub fn targets() -> Vec<Target> {
    let formats = format::fuzz::TARGETS.map(|(name, run)| Target { name, run, seeds: format::fuzz::seeds });
    let others = [
        Target { name: "manifest", run: manifest, seeds: manifests },
        Target { name: "model", run: model, seeds: models },
        Target { name: "checkpoint", run: checkpoint, seeds: checkpoints },
        Target { name: "control", run: control, seeds: launcher::control_seeds },
        Target { name: "data", run: frame, seeds: launcher::data_seeds },
        Target { name: "connection", run: connection, seeds: launcher::data_seeds },
    ];
    formats.into_iter().chain(others).collect()
}

fn control(data: &[u8]) {
    launcher::control(data);
}

fn frame(data: &[u8]) {
    launcher::data(data);
}

fn connection(data: &[u8]) {
    assert_eq!(launcher::connection(data), 0, "a frame from somebody without the key");
}

fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data) {
        assert!(manifest.shape.iter().product::<usize>() > 0);
    }
}

fn manifests() -> Vec<Vec<u8>> {
    let text =
        r#"{"rows":3,"shape":[2,3],"parts":[{"name":"part-00000","rows":3,"bytes":42,"sha256":"00ff"}]}"#;
    let endless = text.replace("[2,3]", "[4294967296,4294967296]").replace(":42", ":18446744073709551615");
    vec![text.into(), endless.into(), text.replace("[2,3]", "[]").into()]
}

fn model(data: &[u8]) {
    if let Ok((model, weights)) = checkpoint::decode_model(data, Path::new("")) {
        assert_eq!(weights.len() + 1, model.widths().len());
    }
}

fn models() -> Vec<Vec<u8>> {
    starts().iter().map(checkpoint::encode_model).collect()
}

/// The length of the model file in four bytes, that file, the file of the state.
fn checkpoint(data: &[u8]) {
    let Some((length, files)) = data.split_first_chunk() else { return };
    let Some((model, state)) = files.split_at_checked(u32::from_le_bytes(*length) as usize) else { return };
    if let Ok(decoded) = checkpoint::decode(model, state, Path::new("")) {
        let (model, state) = (checkpoint::encode_model(&decoded), checkpoint::encode_state(&decoded));
        let again = checkpoint::decode(&model, &state, Path::new("")).expect("what was written can be read");
        // NaN is not equal to itself, its bits are.
        assert_eq!((model, state), (checkpoint::encode_model(&again), checkpoint::encode_state(&again)));
    }
}

fn checkpoints() -> Vec<Vec<u8>> {
    let both = |start: &Checkpoint| {
        let (model, state) = (checkpoint::encode_model(start), checkpoint::encode_state(start));
        [(model.len() as u32).to_le_bytes().to_vec(), model, state].concat()
    };
    starts().iter().map(both).collect()
}

fn starts() -> [Checkpoint; 2] {
    [Optimizer::Momentum { momentum: 0.9 }, Optimizer::Sgd].map(|optimizer| {
        Checkpoint::start(Identity {
            widths: vec![3, 2, 2],
            recipe: Recipe::of(optimizer),
            data_sha256: "0".repeat(64),
            arithmetic: "chain-fma".to_owned(),
        })
    })
}
