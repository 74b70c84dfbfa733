//! Inference writes each record's label and prediction, in order, whole or not at all.

use muster::storage::{HadoopConfig, Storage};
use muster_tests::digits::{self, NAMES, SIDE, TEST, idx, pictures};
use muster_tests::manifest;
use muster_tests::program::{Sandbox, run, start};
use safetensors::SafeTensors;
use std::fs;

/// So many times the test set is much beside the program itself.
const LARGE: usize = 1000;

/// The predictions of the model file, computed here in f64, record by record.
fn expected(sandbox: &Sandbox, layers: usize) -> Vec<usize> {
    let bytes = fs::read(sandbox.path("mnist_model/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: String| -> Vec<f64> {
        let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        file.tensor(&name).unwrap().data().chunks_exact(4).map(number).collect()
    };
    let layers: Vec<_> = (0..layers)
        .map(|i| (tensor(format!("layers.{i}.weight")), tensor(format!("layers.{i}.bias"))))
        .collect();
    let predict = |picture: &[u8]| {
        let mut x: Vec<f64> = picture.iter().map(|&pixel| f64::from(pixel) / 255.0).collect();
        for (i, (weight, bias)) in layers.iter().enumerate() {
            let unit = |j: usize| {
                bias[j] + x.iter().enumerate().map(|(k, x)| x * weight[k * bias.len() + j]).sum::<f64>()
            };
            let floor = if i + 1 < layers.len() { 0.0 } else { f64::NEG_INFINITY };
            x = (0..bias.len()).map(|j| unit(j).max(floor)).collect();
        }
        (0..10).max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap()
    };
    pictures(TEST, 1001).0.chunks_exact(SIDE * SIDE).map(predict).collect()
}

#[test]
fn predictions_are_those_of_the_model_file() {
    for (hidden, layers) in [("none", 1), ("64", 2), ("100,50", 3)] {
        let sandbox = Sandbox::new();
        sandbox.train(&format!("--hidden {hidden} -e 4")).succeeds();
        let outcome = run(&mut sandbox.mnist("inference --data data")).succeeds();
        let labels = pictures(TEST, 1001).1;
        let predictions = expected(&sandbox, layers);
        let lines: String = labels
            .iter()
            .zip(&predictions)
            .map(|(label, prediction)| format!("{label} {prediction}\n"))
            .collect();
        assert_eq!(fs::read_to_string(sandbox.path("predictions/part-00000")).unwrap(), lines);
        assert_eq!(fs::read(sandbox.path("predictions/_SUCCESS")).unwrap(), b"");
        assert_eq!(sandbox.files("predictions").len(), 2);
        let hits = labels
            .iter()
            .zip(&predictions)
            .filter(|(label, prediction)| usize::from(**label) == **prediction)
            .count();
        assert!(
            outcome.stdout.contains(&format!("accuracy {:.2} %", 100.0 * hits as f64 / TEST as f64)),
            "{outcome:?}"
        );
        assert_eq!(confusion(&outcome.stdout), counts(&labels, &predictions));
    }
}

/// The 10 × 10 numbers that are printed.
fn confusion(stdout: &str) -> Vec<Vec<usize>> {
    let rows = stdout.lines().skip_while(|line| !line.contains("label \\ prediction")).skip(2).take(10);
    rows.map(|row| row.split_whitespace().skip(1).map(|count| count.parse().unwrap()).collect()).collect()
}

fn counts(labels: &[u8], predictions: &[usize]) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; 10]; 10];
    labels.iter().zip(predictions).for_each(|(&label, &prediction)| counts[label as usize][prediction] += 1);
    counts
}

#[test]
fn without_labels_there_is_a_dash_and_no_accuracy() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 32 -e 1").succeeds();
    fs::remove_file(sandbox.path("data").join(NAMES[3])).unwrap();
    let outcome = run(&mut sandbox.mnist("inference --data data")).succeeds();
    let predictions = expected(&sandbox, 2);
    let lines: String = predictions.iter().map(|prediction| format!("- {prediction}\n")).collect();
    assert_eq!(fs::read_to_string(sandbox.path("predictions/part-00000")).unwrap(), lines);
    assert!(!outcome.stdout.contains("accuracy"), "{outcome:?}");
}

#[test]
fn an_output_that_is_there_is_replaced_only_on_request() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden none -e 1").succeeds();
    fs::create_dir(sandbox.path("predictions")).unwrap();
    fs::write(sandbox.path("predictions/old"), "kept").unwrap();
    run(&mut sandbox.mnist("inference --data data")).refuses(&["predictions", "--overwrite"]);
    assert_eq!(fs::read(sandbox.path("predictions/old")).unwrap(), b"kept");
    run(&mut sandbox.mnist("inference --data data --overwrite")).succeeds();
    assert_eq!(sandbox.files("predictions").len(), 2);
}

#[test]
fn a_failure_leaves_the_old_output() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden none -e 1").succeeds();
    run(&mut sandbox.mnist("inference --data data")).succeeds();
    let before = sandbox.files("predictions");
    run(&mut sandbox.mnist("inference --data nowhere --overwrite")).refuses(&["nowhere"]);
    let wide = idx(&[TEST, SIDE, 10], &vec![0; TEST * SIDE * 10]);
    fs::create_dir(sandbox.path("wide")).unwrap();
    fs::write(sandbox.path("wide").join(NAMES[2]), wide).unwrap();
    run(&mut sandbox.mnist("inference --data wide --overwrite")).refuses(&[
        "144 features",
        "120 features",
        "--model",
    ]);
    assert_eq!(sandbox.files("predictions"), before);
    let visible = fs::read_dir(sandbox.path(""))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    assert!(visible.into_iter().all(|name| !name.starts_with(".tmp-")), "nothing is left half-written");
}

#[test]
fn a_model_that_is_none() {
    let sandbox = Sandbox::new();
    run(&mut sandbox.mnist("inference --data data -m nowhere")).refuses(&["nowhere", "No such file"]);
    sandbox.train("--hidden none -e 1").succeeds();
    let model = sandbox.path("mnist_model/model.safetensors");
    let bytes = fs::read(&model).unwrap();
    for damaged in [&bytes[..bytes.len() - 1], &bytes[..4], b"", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"] {
        fs::write(&model, damaged).unwrap();
        run(&mut sandbox.mnist("inference --data data")).refuses(&["model.safetensors"]);
        assert!(!sandbox.path("predictions").exists());
    }
    fs::write(&model, &bytes).unwrap();
    run(&mut sandbox.mnist("inference --data data -m mnist_model/model.safetensors")).succeeds();
}

#[test]
fn an_output_that_cannot_be_written() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden none -e 1").succeeds();
    fs::write(sandbox.path("file"), "").unwrap();
    run(&mut sandbox.mnist("inference --data data -o file/below")).refuses(&["file/below", "--output"]);
    run(&mut sandbox.mnist("inference --data data -o new/folder/of/predictions")).succeeds();
    assert_eq!(
        digits::TEST,
        fs::read_to_string(sandbox.path("new/folder/of/predictions/part-00000")).unwrap().lines().count()
    );
}

#[test]
fn a_part_is_never_in_memory_as_a_whole() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden none -s 5").succeeds();
    run(&mut sandbox.mnist("prepare --data data -f csv2 -n 1 -o parts")).succeeds();
    let part = fs::read(sandbox.path("parts/test/part-00000")).unwrap();
    let peak = |times: usize| {
        fs::write(sandbox.path("parts/test/part-00000"), part.repeat(times)).unwrap();
        manifest::rewrite(&Storage::new(HadoopConfig::default()), sandbox.path("parts/test"));
        let mut program = start(&mut sandbox.mnist("inference -f csv2 -i parts/test --overwrite"));
        let peak = program.peak_memory();
        assert!(program.ends().status.success());
        let lines = fs::read_to_string(sandbox.path("predictions/part-00000")).unwrap();
        assert_eq!(lines.lines().count(), TEST * times);
        peak
    };
    let (small, large) = (peak(1), peak(LARGE));
    let features = (TEST * LARGE * SIDE * SIDE) as u64;
    assert!(small > 0 && large < small + features / 2, "{small} and {large} bytes, {features} of features");
}
