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
use muster_launcher::report::of_runs;
use muster_launcher::report::run::{Files, RunDirectory};

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
        Target { name: "report", run: report, seeds: reports },
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

/// The three files of a run's directory, with a zero between them.
fn report(data: &[u8]) {
    let mut files = data.splitn(3, |&byte| byte == 0).map(<[u8]>::to_vec);
    let (metrics, results, evaluations) = (files.next(), files.next(), files.next());
    if let Ok(run) = RunDirectory::of(Path::new("run"), &Files { metrics, results, evaluations }) {
        let page = of_runs(vec![run]).html;
        assert!(page.ends_with("</html>\n"));
    }
}

fn reports() -> Vec<Vec<u8>> {
    let metrics = r#"{"run":{"format":1,"version":"1","time":1.5,"first_step":0,"last_step":9,"steps_per_epoch":2,"every":1,"world_size":2,"reading":0.5,"options":{"seed":"<1>"}}}
{"steps":{"step":1,"epoch":1,"time":2.5,"rows":100,"loss":2.5,"accuracy":0.5,"learning_rate":0.1,"images_per_second":1e6,"seconds":0.1,"compute":0.1,"communication":0.0,"waiting":0.0,"staleness":{"mean":1.5,"max":2}}}
{"steps":{"step":2,"epoch":1,"time":3.5,"rows":100,"loss":1e-7,"accuracy":0.75,"learning_rate":0.1,"images_per_second":1e5,"seconds":0.1,"compute":0.0,"communication":0.1,"waiting":0.0}}
{"epoch":{"step":2,"time":4.5,"epoch":1,"loss":0.5,"train_accuracy":0.9,"test_loss":0.5,"test_accuracy":0.8,"seconds":1.5}}
{"end":{"step":2,"time":5.5,"reason":"finished"}}
"#;
    let results = r#"{"model":[4,2],"world_size":2,"steps":2,"staleness":{"0":3,"7":1,"18446744073709551615":1},"confusion":[[5,1],[0,6]],
        "ranks":[{"rank":0,"threads":1,"compute":0.5,"communication":0.25,"waiting":[0.0,0.125],"reading":0.5}],
        "epochs":[{"epoch":1,"loss":0.5,"train_accuracy":0.9,"test_loss":0.5,"test_accuracy":0.8,"seconds":1.5}],
        "mistakes":[{"record":7,"label":1,"prediction":0,"probability":0.9,"label_probability":0.1,"shape":[2,2],"pixels":"00ff8001"}],
        "test_accuracy":0.9,"train_seconds":1.5,"images_per_second":133.3,"weights_sha256":"00ff"}"#;
    let evaluations =
        r#"{"step":2,"time":6.5,"weights_sha256":"00ff","records":12,"loss":0.5,"accuracy":0.8}"#;
    let seed = |files: [&str; 3]| files.join("\0").into_bytes();
    vec![seed([metrics, results, evaluations]), seed([metrics, "", ""]), seed(["", results, ""])]
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
