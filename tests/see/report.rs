//! `muster report` makes one page of what is there, and says what is not.

use muster_tests::program::{Outcome, Sandbox, launcher, run};
use std::fs;
use std::process::Command;

/// `muster report` in the sandbox.
pub fn report(sandbox: &Sandbox, arguments: &str) -> Outcome {
    let mut command = Command::new(launcher());
    command.arg("report").args(arguments.split_whitespace()).current_dir(sandbox.path(""));
    run(&mut command)
}

/// That `muster report` fails, says why in one line, and leaves no page.
fn refuses(sandbox: &Sandbox, arguments: &str, parts: &[&str]) {
    let outcome = report(sandbox, arguments);
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "no {part:?} in {outcome:?}");
    }
    assert!(!sandbox.path("report.html").exists());
}

#[test]
fn runs_stand_side_by_side() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 16 -e 2 --log-dir a/logs -m a/m").succeeds();
    sandbox.train("--hidden 16 -e 2 --log-dir b/logs -m b/m -n 3 --async --seed 7").succeeds();
    let outcome = report(&sandbox, "a/logs b/logs").succeeds();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("report.html\n", ""));
    let page = fs::read_to_string(sandbox.path("report.html")).unwrap();
    for part in [
        "a/logs",
        "b/logs",
        "Loss",
        "Throughput",
        "Where the time went",
        "Staleness",
        "Confusion matrix",
        "Most wrong",
    ] {
        assert!(page.contains(part), "no {part:?}");
    }
    let (_, differing) = page.split_once("<caption>Options that differ</caption>").expect("a table");
    let (differing, _) = differing.split_once("</table>").unwrap();
    assert!(differing.contains(">seed<") && differing.contains("<td>7</td>"), "{differing}");
    assert!(!differing.contains(">hidden<"), "{differing}");
}

#[test]
fn a_run_that_was_killed_is_shown_as_far_as_it_went() {
    let sandbox = Sandbox::new();
    sandbox.train("--hidden 16 -e 2 --log-dir logs").succeeds();
    fs::remove_file(sandbox.path("logs/report.json")).unwrap();
    let metrics = sandbox.path("logs/metrics.jsonl");
    let whole = fs::read_to_string(&metrics).unwrap();
    let cut = whole.rfind(r#"{"epoch""#).unwrap() + 20;
    fs::write(&metrics, &whole[..cut]).unwrap();
    let outcome = report(&sandbox, "logs -o page.html").succeeds();
    for part in ["the last line is cut", "no report.json: the training runs still, or did not end in order"] {
        assert!(outcome.stderr.contains(part), "no {part:?} in {outcome:?}");
        assert!(fs::read_to_string(sandbox.path("page.html")).unwrap().contains(part));
    }
    fs::write(sandbox.path("logs/report.json"), r#"{"steps": "many"}"#).unwrap();
    let outcome = report(&sandbox, "logs -o page.html").succeeds();
    assert!(outcome.stderr.contains("report.json: not a whole report"), "{outcome:?}");
}

#[test]
fn what_is_no_run_is_refused() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("empty")).unwrap();
    refuses(&sandbox, "empty", &["empty", "neither metrics.jsonl nor report.json", "--log-dir"]);
    refuses(&sandbox, "nowhere", &["nowhere", "no such directory", "check the path"]);
    fs::write(sandbox.path("empty/metrics.jsonl"), "").unwrap();
    refuses(&sandbox, "empty", &["metrics.jsonl has no whole line"]);
    fs::write(sandbox.path("empty/metrics.jsonl"), "{\"run\":{\"format\":99}}\n").unwrap();
    refuses(&sandbox, "empty", &["format 99", "newer"]);
    refuses(&sandbox, "empty/metrics.jsonl", &["it is a file", "name the directory"]);
    let outcome = report(&sandbox, "");
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
}
