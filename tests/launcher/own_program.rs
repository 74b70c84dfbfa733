//! A program of one's own through the public API: the same weights alone, on ranks and fed.

use crate::feed::used;
use muster_tests::digits::Noise;
use muster_tests::program::{launcher, run};
use std::fs;
use std::path::Path;
use std::process::Command;

const RECORDS: usize = 330;

/// The same flowers for its own reader and as parts of csv2, one of them empty.
fn flowers(directory: &Path) {
    let (mut noise, mut own, mut parts) = (Noise::new(3), String::new(), [const { String::new() }; 3]);
    for record in 0..RECORDS {
        let kind = noise.below(3);
        let measure =
            |i: usize| (noise.below(1000) as f32 - 500.0) / 400.0 + if i % 3 == kind { 1.5 } else { 0.0 };
        let measures: Vec<String> = (0..20).map(measure).map(|number| number.to_string()).collect();
        own += &format!("{} {kind}\n", measures.join(" "));
        parts[2 * (record / 200)] += &format!("{kind}|{}\n", measures.join(","));
    }
    fs::write(directory.join("flowers.txt"), own).unwrap();
    fs::create_dir(directory.join("parts")).unwrap();
    for (number, text) in parts.iter().enumerate() {
        fs::write(directory.join(format!("parts/part-{number:05}")), text).unwrap();
    }
}

#[test]
fn it_has_the_same_weights_alone_on_ranks_and_fed() {
    let directory = tempfile::tempdir().unwrap();
    flowers(directory.path());
    let program = env!("CARGO_BIN_EXE_flowers");
    let weights = |command: &mut Command| {
        let command = command.current_dir(directory.path()).env("XDG_RUNTIME_DIR", directory.path());
        let outcome = run(command.env_remove("MUSTER_KERNELS")).succeeds();
        let line = outcome.stdout.lines().find_map(|line| line.strip_prefix("weights "));
        (line.expect("it prints its weights").to_owned(), outcome)
    };
    let (alone, _) = weights(Command::new(program).arg("flowers.txt"));
    let (ranks, _) = weights(Command::new(launcher()).args(["run", "-n", "3", "--", program, "flowers.txt"]));
    let (fed, outcome) =
        weights(Command::new(launcher()).args(["run", "-n", "3", "--feed", "--", program, "parts"]));
    assert_eq!((&ranks, &fed), (&alone, &alone));
    assert_eq!(used(&outcome), 20 * RECORDS as u64);
}

#[test]
fn it_is_as_short_as_the_readme_says() {
    let source = include_str!("../own/flowers.rs");
    assert!(source.lines().count() <= 60);
    let readme = fs::read_to_string(muster_tests::program::root().join("README.md")).unwrap();
    let main = &source[source.find("fn main()").unwrap()..];
    assert!(readme.contains(main), "the README shows another program");
}
