//! Directories of parts: written from IDX, read back, trained on to the same weights, classified part for part.

use muster::storage::{HadoopConfig, Storage};
use muster_tests::digits::{TEST, TRAIN, pictures};
use muster_tests::manifest;
use muster_tests::program::{Outcome, Sandbox, run};
use std::fs;

const FORMATS: [&str; 5] = ["csv", "csv2", "pickle", "tf", "tfr"];

/// The options that name the parts of a set below `parts/`.
fn named(format: &str, set: &str, prefix: &str) -> String {
    match format {
        "csv" | "pickle" => {
            format!("--{prefix}images parts/{set}/images --{prefix}labels parts/{set}/labels")
        }
        _ => format!("--{prefix}images parts/{set}"),
    }
}

fn prepare(sandbox: &Sandbox, options: &str) -> Outcome {
    run(&mut sandbox.mnist(&format!("prepare --output parts {options}")))
}

/// A sandbox with parts made of its digits.
fn prepared(format: &str, parts: usize) -> Sandbox {
    let sandbox = Sandbox::new();
    prepare(&sandbox, &format!("--data data -f {format} -n {parts}")).succeeds();
    sandbox
}

#[test]
fn every_format_trains_to_the_weights_of_the_idx_files() {
    let options = "--hidden 20 -e 2 --threads 1 --cluster-size 2 --report r.json";
    let expected = {
        let sandbox = Sandbox::new();
        sandbox.train(options).succeeds();
        sandbox.json("r.json")
    };
    for (format, readers) in FORMATS.into_iter().zip(["", "-r 1", "-r 2", "-r 7", ""]) {
        let sandbox = prepared(format, 4);
        let data = format!("{} {}", named(format, "train", ""), named(format, "test", "test-"));
        for cache in ["", "--cache-mib 0"] {
            let train = format!("train {options} -f {format} {data} {readers} {cache} --no-resume");
            run(&mut sandbox.mnist(&train)).succeeds();
            let report = sandbox.json("r.json");
            for value in ["weights_sha256", "dataset_sha256", "test_accuracy", "records"] {
                assert_eq!(report[value], expected[value], "{format} {cache}: {value}");
            }
        }
    }
}

#[test]
fn a_training_goes_on_with_the_same_digits_in_another_format() {
    let sandbox = prepared("csv2", 3);
    let whole = sandbox.hash("--hidden 20 -e 3 -m whole");
    sandbox.train("--hidden 20 -e 2").succeeds();
    run(&mut sandbox.mnist("train --hidden 20 -e 3 -f csv2 -i parts/train --report r.json")).succeeds();
    assert_eq!(sandbox.json("r.json")["weights_sha256"], whole.as_str());
}

#[test]
fn inference_writes_a_part_for_a_part() {
    for format in FORMATS {
        let sandbox = prepared(format, 3);
        sandbox.train("--hidden 20 -e 2").succeeds();
        let expected = run(&mut sandbox.mnist("inference --data data -o of-idx")).succeeds();
        let parts = run(&mut sandbox.mnist(&format!("inference -f {format} {}", named(format, "test", ""))));
        let accuracy = |outcome: &Outcome| {
            let lines = outcome.stdout.lines().map(str::to_owned);
            lines.skip_while(|line| !line.starts_with("accuracy")).take(12).collect::<Vec<_>>()
        };
        assert_eq!(accuracy(&parts.succeeds()), accuracy(&expected));
        let part =
            |number| fs::read_to_string(sandbox.path(&format!("predictions/part-0000{number}"))).unwrap();
        let [first, second, third] = [0, 1, 2].map(part);
        assert_eq!([&first, &second, &third].map(|part| part.lines().count()), [40; 3]);
        let whole = fs::read_to_string(sandbox.path("of-idx/part-00000")).unwrap();
        assert_eq!([first, second, third].concat(), whole, "{format}");
        assert!(sandbox.path("predictions/_SUCCESS").exists());
        assert_eq!(sandbox.files("predictions").len(), 4);
    }
}

#[test]
fn inference_without_labels_and_with_empty_parts() {
    for format in ["csv", "pickle"] {
        let sandbox = prepared(format, 200);
        sandbox.train("--hidden none -e 1").succeeds();
        let outcome =
            run(&mut sandbox.mnist(&format!("inference -f {format} -i parts/test/images -r 3"))).succeeds();
        assert!(!outcome.stdout.contains("accuracy"), "{outcome:?}");
        assert!(outcome.stdout.contains("120 predictions in predictions"), "{outcome:?}");
        let files = sandbox.files("predictions");
        assert_eq!(files.len(), 201);
        let lines: Vec<String> = files
            .into_values()
            .flat_map(|part| String::from_utf8(part).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        assert!(lines.len() == TEST && lines.iter().all(|line| line.starts_with("- ")), "{lines:?}");
    }
}

#[test]
fn the_layout_is_that_of_spark() {
    let sandbox = prepared("csv", 2);
    let names: Vec<String> = sandbox
        .files("parts")
        .into_keys()
        .map(|path| path.strip_prefix(sandbox.path("parts")).unwrap().display().to_string())
        .collect();
    let mut expected = Vec::new();
    for dir in ["test/images", "test/labels", "train/images", "train/labels"] {
        expected.extend(
            ["_SUCCESS", "_manifest.json", "part-00000", "part-00001"].map(|name| format!("{dir}/{name}")),
        );
    }
    assert_eq!(names, expected);
    let (pixels, labels) = pictures(TRAIN, 1);
    let line =
        |path: &str| fs::read_to_string(sandbox.path(path)).unwrap().lines().next().unwrap().to_owned();
    let picture: Vec<String> = pixels[..144].iter().map(u8::to_string).collect();
    assert_eq!(line("parts/train/images/part-00000"), picture.join(","));
    let one_hot: Vec<&str> = (0..10).map(|class| if class == labels[0] { "1.0" } else { "0.0" }).collect();
    assert_eq!(line("parts/train/labels/part-00000"), one_hot.join(","));
    let manifest = sandbox.json("parts/train/images/_manifest.json");
    assert_eq!((&manifest["rows"], &manifest["shape"]), (&330.into(), &serde_json::json!([12, 12])));
}

#[test]
fn reading_shows_counts_and_ten_records() {
    let (pixels, labels) = pictures(TRAIN, 1);
    let sample = |record: usize| {
        let picture: Vec<String> = pixels[144 * record..][..144].iter().map(u8::to_string).collect();
        format!("{}|{}", labels[record], picture.join(","))
    };
    for format in FORMATS {
        let sandbox = prepared(format, 3);
        let outcome = prepare(&sandbox, &format!("--read --verify -f {format}")).succeeds();
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines[0], "parts/train: 330 images, 330 labels, 330 records in 3 parts");
        assert_eq!(lines[1..11], (0..10).map(sample).collect::<Vec<_>>(), "{format}");
        assert_eq!(lines[11], "parts/test: 120 images, 120 labels, 120 records in 3 parts");
        assert_eq!((lines.len(), outcome.stderr.as_str()), (22, ""));
    }
}

#[test]
fn verification_finds_a_changed_digit() {
    for format in FORMATS {
        let sandbox = Sandbox::new();
        let outcome = prepare(&sandbox, &format!("--data data -f {format} -v")).succeeds();
        assert_eq!(outcome.stdout.matches("every record came back as it was written").count(), 2);
        let name = match format {
            "csv" | "pickle" => "parts/test/images/part-00004",
            "csv2" => "parts/test/part-00004",
            _ => "parts/test/part-r-00004",
        };
        let mut bytes = fs::read(sandbox.path(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(sandbox.path(name), bytes).unwrap();
        prepare(&sandbox, &format!("-r -v -f {format}")).fails(&[name, "SHA-256"]);
    }
}

#[test]
fn what_is_there_is_replaced_only_on_request() {
    let sandbox = prepared("csv", 2);
    let before = sandbox.files("parts");
    prepare(&sandbox, "--data data -f tfr").refuses(&["parts", "there already", "--overwrite"]);
    prepare(&sandbox, "--data nowhere -f tfr --overwrite").refuses(&["nowhere"]);
    assert_eq!(sandbox.files("parts"), before);
    prepare(&sandbox, "--data data -f tfr -n 1 --overwrite").succeeds();
    assert_eq!(sandbox.files("parts").len(), 6);
    let hidden = fs::read_dir(sandbox.path(""))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    assert_eq!(hidden.filter(|name| name.starts_with('.')).count(), 0, "nothing is left half-written");
}

#[test]
fn what_does_not_fit_together_is_said() {
    let sandbox = prepared("csv", 2);
    let train = |options: &str| run(&mut sandbox.mnist(&format!("train --hidden none -s 2 {options}")));
    train("-i nowhere -l parts/train/labels").refuses(&["nowhere", "check the path"]);
    train("-i parts/train -l parts/train/labels").refuses(&["parts/train holds no part-* files"]);
    train("-i parts/train/images -l parts/test/labels")
        .refuses(&["do not pair", "parts/test/labels/part-00000"]);
    train("-i parts/train/images").refuses(&["parts/train/images/part-00000: line 1", "144"]);
    train("-i parts/train/images -f pickle").refuses(&["--labels"]);
    train("-i parts/train/images -l parts/train/labels -f csv2").refuses(&["leave --labels out"]);
    train("-i parts/train/images -l parts/train/labels -f tfr").refuses(&["leave --labels out"]);
    prepare(&sandbox, "-r -f csv2").fails(&["leave --labels out"]);
    run(&mut sandbox.mnist("prepare -r -o nothing")).refuses(&["nothing holds neither train nor test"]);
    assert!(!sandbox.path("mnist_model").exists());
}

#[test]
fn options_that_need_each_other() {
    let sandbox = Sandbox::new();
    for options in [
        "train --data data -i parts",
        "train -l labels",
        "train -f csv",
        "train -r 2",
        "train --test-images parts",
        "train -i parts --test-labels labels",
        "inference -f tfr",
        "inference -i parts --format soup",
        "inference -i parts --readers 0",
        "prepare -n 0",
        "prepare --read --overwrite",
    ] {
        assert_eq!(run(&mut sandbox.mnist(options)).status.code(), Some(2), "{options}");
    }
}

/// What is done to the bytes of a part.
type Damage = fn(&mut Vec<u8>);

/// Damaged parts of every kind: the message names the file, the place in it and what belongs there.
#[test]
fn damaged_parts() {
    let cases: [(&str, &str, Damage, &[&str]); 6] = [
        (
            "csv",
            "parts/train/images/part-00001",
            |part| part.splice(0..0, *b"1,2,3\n").for_each(drop),
            &["line 1", "144"],
        ),
        (
            "csv",
            "parts/train/labels/part-00001",
            |part| part.truncate(part.len() - 40),
            &["do not pair", "labels end after"],
        ),
        ("csv2", "parts/train/part-00001", |part| part[0] = b':', &["line 1", "label"]),
        (
            "csv2",
            "parts/train/part-00001",
            |part| part.splice(2..2, *b"999").for_each(drop),
            &["line 1", "255"],
        ),
        ("tfr", "parts/train/part-r-00001", |part| part[20] ^= 1, &["record 1", "checksum"]),
        (
            "pickle",
            "parts/train/images/part-00001",
            |part| part.truncate(part.len() / 2),
            &["value 1", "ends after"],
        ),
    ];
    for (format, path, damage, parts) in cases {
        let sandbox = prepared(format, 2);
        let mut bytes = fs::read(sandbox.path(path)).unwrap();
        damage(&mut bytes);
        fs::write(sandbox.path(path), bytes).unwrap();
        manifest::rewrite(&Storage::new(HadoopConfig::default()), sandbox.path(path).parent().unwrap());
        let data = named(format, "train", "");
        let outcome = run(&mut sandbox.mnist(&format!("train --hidden none -s 2 -f {format} {data}")));
        outcome.refuses(parts).refuses(&[path]);
    }
}

#[test]
fn the_csv_of_tfos_2_has_the_label_first() {
    let sandbox = prepared("csv2", 2);
    fs::create_dir(sandbox.path("csv")).unwrap();
    for part in ["part-00000", "part-00001"] {
        let lines = fs::read_to_string(sandbox.path("parts/train").join(part)).unwrap();
        fs::write(sandbox.path("csv").join(part), lines.replace('|', ",")).unwrap();
    }
    fs::copy(sandbox.path("parts/train/_manifest.json"), sandbox.path("csv/_manifest.json")).unwrap();
    let expected = sandbox.hash("--hidden none -e 1 -m of-idx");
    run(&mut sandbox.mnist("train --hidden none -e 1 -i csv --report r.json")).succeeds();
    assert_eq!(sandbox.json("r.json")["weights_sha256"], expected.as_str());
}

#[test]
fn the_doctor_looks_at_paths() {
    let sandbox = Sandbox::new();
    let outcome = run(&mut sandbox.mnist("doctor data new/model")).succeeds();
    assert!(
        outcome.stdout.contains("data: files in it can be written, read, renamed and deleted"),
        "{outcome:?}"
    );
    let outcome = run(&mut sandbox.mnist("doctor s3://bucket/x"));
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stdout.contains("WRONG") && outcome.stdout.contains("hdfs://"), "{outcome:?}");
}
