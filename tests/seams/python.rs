//! Python's `safetensors` reads what we write, and finds the hash that we print.

use muster_tests::machine::{absent, under_ci};
use muster_tests::program::{Sandbox, root, run};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// Prints the names and shapes, the hash of the weights made of them, and the accuracy on the test digits.
const SCRIPT: &str = r#"
import hashlib, struct, sys
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file
model, state, images, labels = sys.argv[1:]
tensors = load_file(model)
layers = len(tensors) // 2
names = [f"layers.{i}.{part}" for i in range(layers) for part in ("weight", "bias")]
assert sorted(names) == sorted(tensors), sorted(tensors)
assert all(tensor.dtype == np.float32 for tensor in tensors.values())
print("shapes", [list(tensors[name].shape) for name in names])
print("sha256", hashlib.sha256(b"".join(tensors[name].astype("<f4").tobytes() for name in names)).hexdigest())
with safe_open(state, "np") as file:
    print("slots", sorted(file.keys()))
pixels = open(images, "rb").read()
count, rows, columns = struct.unpack(">3I", pixels[4:16])
x = np.frombuffer(pixels, np.uint8, offset=16).reshape(count, rows * columns).astype(np.float32) / 255
for i in range(layers):
    x = x @ tensors[f"layers.{i}.weight"] + tensors[f"layers.{i}.bias"]
    x = np.maximum(x, 0) if i + 1 < layers else x
truth = np.frombuffer(open(labels, "rb").read(), np.uint8, offset=8)
print("hits", int((x.argmax(1) == truth).sum()))
"#;

/// The Python that `MUSTER_PYTHON` names, else that of an environment under the target directory with `safetensors` in it; none where
/// it cannot be made.
pub fn python() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("MUSTER_PYTHON") {
        return Some(python.into());
    }
    static MADE: LazyLock<Option<PathBuf>> = LazyLock::new(make);
    MADE.clone()
}

fn make() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    let environment = root().join(target).join("python");
    let python = environment.join("bin/python");
    let works = |program: &PathBuf| {
        let imports = Command::new(program).args(["-c", "import safetensors.numpy"]).output();
        imports.is_ok_and(|output| output.status.success())
    };
    if !works(&python) {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).output();
        let install = ["-m", "pip", "install", "--quiet", "safetensors", "numpy"];
        let installed = made.and_then(|_| Command::new(&python).args(install).output());
        assert!(!under_ci() || works(&python), "CI needs python3 with venv, and PyPI: {installed:?}");
    }
    works(&python).then_some(python)
}

#[test]
fn safetensors_reads_model_and_state() {
    let Some(python) = python() else {
        return absent("python3 with venv and PyPI: reading the model with Python's safetensors");
    };
    let sandbox = Sandbox::new();
    let report = sandbox.report("--hidden 100,50 -e 4 --optimizer adam");
    let names = [
        "mnist_model/model.safetensors",
        "mnist_model/checkpoints/step-0000000016/state.safetensors",
        "data/t10k-images-idx3-ubyte",
        "data/t10k-labels-idx1-ubyte",
    ];
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT]).args(names.map(|name| sandbox.path(name)));
    let outcome = run(&mut command).succeeds();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[0], "shapes [[144, 100], [100], [100, 50], [50], [50, 10], [10]]");
    assert_eq!(lines[1], format!("sha256 {}", report["weights_sha256"].as_str().unwrap()));
    assert!(lines[2].contains("'m.layers.0.weight'") && lines[2].contains("'v.layers.2.bias'"), "{lines:?}");
    let hits = (report["test_accuracy"].as_f64().unwrap() * 120.0).round();
    assert_eq!(lines[3], format!("hits {hits}"));
}
