//! What is written is what happened, and what is read is what was written, whatever happens to the files.

use super::*;
use crate::conductor::{Event, Step};
use crate::format::tfrecord::Reader;
use crate::pass::Score;
use crate::storage::{HadoopConfig, Storage};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn storage() -> Arc<Storage> {
    Arc::new(Storage::new(HadoopConfig::default()))
}

fn run(first_step: u64, last_step: u64, every: u64) -> Run {
    let options = BTreeMap::from([("seed".to_owned(), "1".to_owned())]);
    Run { first_step, last_step, steps_per_epoch: 10, every, options, ..Run::default() }
}

/// A step of 10 records, each with a loss of the step's number, half of them right; it takes a second, a quarter of it waiting, an eighth reading.
fn step(steps: u64, first: u64) -> Event<'static> {
    let since = (steps - first) as f64;
    Event::Step(Step {
        steps,
        epoch: (steps - 1) / 10 + 1,
        rows: 10,
        score: Score { loss: 10.0 * steps as f64, hits: 5 },
        learning_rate: 0.1,
        seconds: since,
        communication: 0.0,
        waiting: since / 4.0,
        reading: since / 8.0,
        staleness: steps.is_multiple_of(2).then_some(steps),
    })
}

fn record(directory: &Path, run: Run, end: Option<&str>) {
    let (first, last) = (run.first_step, run.last_step);
    let mut recorder = Recorder::begin(&storage(), directory, run).unwrap();
    (first + 1..=last).for_each(|steps| recorder.observe(&step(steps, first)));
    assert_eq!(recorder.warning(), None);
    if let Some(reason) = end {
        assert_eq!(recorder.end(reason, &[]), None);
    }
}

fn history(directory: &Path) -> History {
    History::parse(&fs::read(directory.join(FILE)).unwrap(), Path::new(FILE)).unwrap()
}

#[test]
fn lines_are_means_over_their_steps() {
    let directory = tempfile::tempdir().unwrap();
    record(directory.path(), run(0, 14, 4), Some("finished"));
    let history = history(directory.path());
    // Every fourth, the end of the epoch, the end of all.
    assert_eq!(history.steps.iter().map(|s| s.step).collect::<Vec<_>>(), [4, 8, 10, 12, 14]);
    let second = history.steps[1];
    assert_eq!((second.rows, second.loss, second.accuracy, second.epoch), (40, 6.5, 0.5, 1));
    assert_eq!(
        (second.seconds, second.compute, second.waiting, second.reading, second.images_per_second),
        (4.0, 2.5, 1.0, 0.5, 10.0)
    );
    assert_eq!(second.staleness, Some(Missed { mean: 3.5, max: 8 }));
    assert_eq!(history.end.as_ref().map(|end| (end.step, end.reason.as_str())), Some((14, "finished")));
    assert_eq!((history.runs[0].format, history.runs[0].options["seed"].as_str()), (FORMAT, "1"));
    assert!(history.remarks.is_empty());
}

#[test]
fn a_training_that_goes_on_replaces_what_it_does_again() {
    let directory = tempfile::tempdir().unwrap();
    record(directory.path(), run(0, 17, 5), None);
    assert_eq!(history(directory.path()).end, None);
    // It was killed while it wrote, and goes on from a checkpoint before.
    let path = directory.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], br#"{"steps":{"step":1"#].concat()).unwrap();
    assert!(history(directory.path()).remarks[0].contains("the last line is cut"));
    record(directory.path(), run(12, 20, 5), Some("finished"));
    let history = history(directory.path());
    assert_eq!(history.steps.iter().map(|s| s.step).collect::<Vec<_>>(), [5, 10, 15, 20]);
    assert_eq!(history.steps[2].rows, 30, "steps 13 to 15");
    assert_eq!((history.runs.len(), history.remarks.len()), (2, 0));
    assert!(history.end.is_some());
}

#[test]
fn event_files_are_whole_records() {
    let directory = tempfile::tempdir().unwrap();
    record(directory.path(), run(0, 10, 5), Some("finished"));
    let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let events = files.filter(|path| path.to_string_lossy().contains("tfevents")).collect::<Vec<_>>();
    let content = fs::read(&events[0]).unwrap();
    let (mut reader, mut count) = (Reader::new(&content[..]), 0);
    while reader.next_record().unwrap().is_some() {
        count += 1;
    }
    // Version, start, options, two of scalars, the end.
    assert_eq!((events.len(), count), (1, 6));
}

#[test]
fn what_is_damaged_is_left_out_and_what_is_newer_refused() {
    let parse = |text: &str| History::parse(text.as_bytes(), Path::new("dir/metrics.jsonl"));
    let steps = r#"{"steps":{"step":5,"epoch":1,"time":0,"rows":1,"loss":1,"accuracy":1,"learning_rate":1,"images_per_second":1,"seconds":1,"compute":1,"communication":0,"waiting":0,"new":[1]}}"#;
    let found = parse(&format!("nonsense\n{steps}\n{{\"later\":{{}}}}\n\n{steps}\n")).unwrap();
    assert_eq!(found.steps.len(), 2, "a field that is not known does no harm");
    assert_eq!(found.remarks, ["dir/metrics.jsonl: 3 damaged lines are left out, the first is line 1"]);
    assert_eq!(parse("").unwrap(), History::default());
    let error = parse(&format!("{steps}\n{{\"run\":{{\"format\":2,\"of\":\"tomorrow\"}}}}\n"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("dir/metrics.jsonl: line 2 is of format 2") && error.contains("newer"),
        "{error}"
    );
}

#[test]
fn a_place_where_nothing_can_be_written_is_found_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let Err(error) = Recorder::begin(&storage(), &file, run(0, 1, 1)) else { panic!("it is a file") };
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn a_directory_that_vanishes_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    let mut recorder = Recorder::begin(&storage(), &logs, run(0, 10, 1)).unwrap();
    fs::remove_dir_all(&logs).unwrap();
    recorder.observe(&step(1, 0));
    let warning = recorder.end("finished", &[]).expect("a warning");
    assert!(
        warning.starts_with("no metrics: cannot write ") && warning.ends_with("training goes on"),
        "{warning}"
    );
    assert!(!logs.exists());
}
