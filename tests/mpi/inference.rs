//! The ranks of a world share the parts of an inference, and write what one process writes.

use crate::{Mpi, mpi, said};
use muster_tests::program::{Outcome, run};
use std::fs;
use std::process::Command;

fn alone(mpi: &Mpi, arguments: &str) -> Outcome {
    let mut command = Command::new(&mpi.mnist);
    command.args(arguments.split_whitespace()).current_dir(mpi.sandbox.path("."));
    run(&mut command).succeeds()
}

fn world(mpi: &Mpi, ranks: usize, arguments: &str) -> Outcome {
    let mut command = mpi.launcher(&mpi.kind);
    command.args(["-n", &ranks.to_string()]).arg(&mpi.mnist).args(arguments.split_whitespace());
    run(&mut command)
}

#[test]
fn worlds_of_any_size_write_what_one_process_writes() {
    let Some(mpi) = mpi() else { return };
    alone(&mpi, "train --data data --hidden 32 -e 2 -m model");
    alone(&mpi, "prepare --data data --format csv2 -n 5 -o parts");
    for input in ["--data data", "--images parts/train --format csv2"] {
        let single = alone(&mpi, &format!("inference {input} -m model -o expected --overwrite"));
        let expected = mpi.sandbox.files("expected").into_values().collect::<Vec<_>>();
        for ranks in [2, 3, 7] {
            let outcome = world(&mpi, ranks, &format!("inference {input} -m model -o found --overwrite"));
            let outcome = outcome.succeeds();
            assert_eq!(
                mpi.sandbox.files("found").into_values().collect::<Vec<_>>(),
                expected,
                "{ranks} ranks"
            );
            let said = |outcome: &Outcome| {
                let lines =
                    outcome.stdout.lines().filter(|line| !line.contains("=====") && !line.contains(" in "));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(said(&outcome), said(&single), "everything is said once");
        }
    }
    assert_eq!(half_written(&mpi), Vec::<String>::new());
}

#[test]
fn an_error_of_one_rank_ends_all_and_leaves_the_old_output() {
    let Some(mpi) = mpi() else { return };
    alone(&mpi, "train --data data --hidden 32 -e 1 -m model");
    alone(&mpi, "prepare --data data --format csv2 -n 5 -o parts");
    let inference = "inference --images parts/train --format csv2 -m model -o found --overwrite";
    world(&mpi, 3, inference).succeeds();
    let before = mpi.sandbox.files("found");
    let part = mpi.sandbox.path("parts/train/part-00004");
    let text = fs::read_to_string(&part).unwrap();
    // As long as the manifest says.
    fs::write(&part, text.replacen(',', "x", 1)).unwrap();
    let outcome = world(&mpi, 3, inference);
    assert!(!outcome.status.success(), "{outcome:?}");
    assert!(said(&outcome, &["rank 1 (process ", "part-00004"]), "{outcome:?}");
    assert_eq!(mpi.sandbox.files("found"), before);
}

#[test]
fn ranks_with_different_models_are_told_apart() {
    let Some(mpi) = mpi() else { return };
    alone(&mpi, "train --data data --hidden none -e 1 -m model");
    alone(&mpi, "train --data data --hidden none -e 2 -m other");
    let mut command = mpi.launcher(&mpi.kind);
    for (at, model) in ["model", "other"].into_iter().enumerate() {
        command.args([":"].iter().take(at)).args(["-n", "1"]).arg(&mpi.mnist);
        command.args(["inference", "--data", "data", "-o", "found", "-m", model]);
    }
    let outcome = run(&mut command);
    assert!(said(&outcome, &["the model's weights is ", "on rank 0", "on rank 1"]), "{outcome:?}");
    assert!(!mpi.sandbox.path("found").exists());
}

/// Outputs that are not in their place yet.
fn half_written(mpi: &Mpi) -> Vec<String> {
    let names = fs::read_dir(mpi.sandbox.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(".found.")).collect()
}
