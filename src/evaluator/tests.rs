//! Every checkpoint is evaluated once, whatever happens to the directory meanwhile.

use super::*;
use crate::checkpoint::{Checkpoint, Identity};
use crate::dataset::{Dataset, Features};
use crate::inference::predict;
use crate::metrics::EVALUATIONS_FILE;
use crate::optimizer::Optimizer;
use crate::storage::HadoopConfig;
use crate::store::Store;
use crate::train::Recipe;
use std::fs;
use std::sync::Arc;

const WIDTHS: [usize; 3] = [6, 5, 3];

/// 300 records of six numbers, whose labels mean nothing.
fn records() -> Dataset {
    let numbers = (0..1800).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let data = Dataset::from_features(Path::new("noise"), Features::F32(numbers), &[6], 3).unwrap();
    data.with_labels(Path::new("noise"), (0..300).map(|i| (i * i) % 3).collect()).unwrap()
}

fn checkpoint(seed: u64, steps: u64) -> Checkpoint {
    let recipe = Recipe { seed, ..Recipe::of(Optimizer::Sgd) };
    let identity =
        Identity { widths: WIDTHS.to_vec(), recipe, data_sha256: String::new(), arithmetic: String::new() };
    let mut checkpoint = Checkpoint::start(identity);
    checkpoint.progress.steps = steps;
    checkpoint
}

/// A place for models and logs, and what is evaluated on.
struct Scene {
    directory: tempfile::TempDir,
    storage: Arc<Storage>,
    model: Model,
    test: Records,
}

impl Scene {
    fn new() -> Scene {
        let storage = Arc::new(Storage::new(HadoopConfig::default()));
        let (directory, model) = (tempfile::tempdir().unwrap(), Model::new(&WIDTHS));
        Scene { directory, storage, model, test: records().into() }
    }

    fn store(&self) -> Store {
        Store::open(self.storage.clone(), self.directory.path(), 2).unwrap()
    }

    fn evaluator(&self) -> Evaluator<'_> {
        let kernels = Kernels::select().unwrap();
        Evaluator::new((&self.storage, self.directory.path()), (&self.model, kernels), &self.test, 2)
    }

    fn log(&self) -> EvaluationLog {
        EvaluationLog::open(&self.storage, &self.directory.path().join("logs")).unwrap()
    }
}

fn look(evaluator: &mut Evaluator, again: bool) -> Vec<Evaluated> {
    let mut all = Vec::new();
    evaluator.look(again, &mut |evaluated| all.push(evaluated.clone())).unwrap();
    all
}

fn steps(evaluated: &[Evaluated]) -> Vec<u64> {
    evaluated.iter().map(|evaluated| evaluated.step).collect()
}

#[test]
fn each_checkpoint_is_evaluated_once_and_rightly() {
    let scene = Scene::new();
    let mut evaluator = scene.evaluator();
    assert!(look(&mut evaluator, false).is_empty(), "there is not even a directory of checkpoints");
    let store = scene.store();
    store.save(&checkpoint(1, 10)).unwrap();
    store.save(&checkpoint(2, 20)).unwrap();
    let found = look(&mut evaluator, false);
    assert_eq!(steps(&found), [10, 20]);
    let (data, kernels) = (records(), Kernels::select().unwrap());
    for (seed, found) in [1, 2].into_iter().zip(&found) {
        let weights = checkpoint(seed, 0).weights;
        assert_eq!(found.weights_sha256, checkpoint::sha256(&weights));
        let predictions = predict(&scene.model, kernels, &weights, &data);
        let right = predictions.iter().zip(data.labels().unwrap()).filter(|(a, b)| a == b).count();
        assert_eq!((found.records, found.accuracy), (300, right as f64 / 300.0));
        // Weights that know nothing give each of three classes about a third.
        assert!((found.loss - 3f64.ln()).abs() < 0.5, "{}", found.loss);
    }
    store.save(&checkpoint(3, 30)).unwrap();
    assert_eq!(steps(&look(&mut evaluator, false)), [30], "10 is gone by now");
    assert!(look(&mut evaluator, true).is_empty(), "all are known");
}

#[test]
fn a_training_that_begins_anew_is_evaluated_anew() {
    let scene = Scene::new();
    let (store, mut evaluator) = (scene.store(), scene.evaluator());
    store.save(&checkpoint(1, 10)).unwrap();
    let first = look(&mut evaluator, false);
    store.save(&checkpoint(2, 10)).unwrap();
    assert!(look(&mut evaluator, false).is_empty(), "a step that is known is not read again and again");
    let second = look(&mut evaluator, true);
    assert_eq!(steps(&second), [10]);
    assert_ne!(first[0].weights_sha256, second[0].weights_sha256);
    // Of another shape: it is about to be set aside.
    let mut other = checkpoint(3, 40);
    other.identity.widths = vec![6, 3];
    store.save(&Checkpoint { progress: other.progress, ..Checkpoint::start(other.identity) }).unwrap();
    assert!(look(&mut evaluator, true).is_empty());
}

#[test]
fn what_the_log_has_is_not_evaluated_again() {
    let scene = Scene::new();
    let store = scene.store();
    store.save(&checkpoint(1, 10)).unwrap();
    let first = look(&mut scene.evaluator().with_log(scene.log()), false);
    store.save(&checkpoint(2, 20)).unwrap();
    let second = look(&mut scene.evaluator().with_log(scene.log()), false);
    assert_eq!((steps(&first), steps(&second)), (vec![10], vec![20]));
    let lines = fs::read(scene.directory.path().join("logs").join(EVALUATIONS_FILE)).unwrap();
    let digests = |all: &[Evaluated]| all.iter().map(|e| e.weights_sha256.clone()).collect::<Vec<_>>();
    assert_eq!(digests(&Evaluated::parse(&lines)), digests(&[first, second].concat()));
    let cut = &lines[..lines.len() - 9];
    assert_eq!(steps(&Evaluated::parse(cut)), [10], "a line that is being written is left out");
}

#[test]
fn a_damaged_checkpoint_is_an_error_that_names_it() {
    let scene = Scene::new();
    let path = scene.store().save(&checkpoint(1, 10)).unwrap().join(store::MODEL_FILE);
    fs::write(&path, "nonsense").unwrap();
    let error = scene.evaluator().look(false, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("step-0000000010"), "{error}");
}
