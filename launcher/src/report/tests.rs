//! A page is whole and small, whatever the runs are like.

use super::*;
use muster::cluster::RankTimes;
use muster::metrics::{FILE, Line, Missed, REPORT_FILE, Run, Steps};
use muster::mistakes::Mistake;
use muster::storage::HadoopConfig;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn storage() -> Storage {
    Storage::new(HadoopConfig::default())
}

/// The metrics of a training of so many steps, with a line for each.
fn metrics(steps: u64) -> Vec<u8> {
    let options = [("data", "<a&b>"), ("seed", "1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let run = Run { format: 1, last_step: steps, options: options.into(), ..Run::default() };
    let line = |step: u64| {
        Line::Steps(Steps {
            step,
            rows: 100,
            loss: 2.0 / (1.0 + step as f32 / 1000.0) + (step * 7919 % 100) as f32 / 1000.0,
            accuracy: 1.0 - 1.0 / (2.0 + step as f32 / 500.0),
            images_per_second: 1e6 + (step % 1000) as f32,
            seconds: 1e-4,
            compute: 8e-5,
            staleness: Some(Missed { mean: (step % 5) as f32, max: 5 }),
            ..Steps::default()
        })
    };
    let mut content = Vec::new();
    for line in std::iter::once(Line::Run(run)).chain((1..=steps).map(line)) {
        serde_json::to_writer(&mut content, &line).unwrap();
        content.push(b'\n');
    }
    content
}

/// The report of as many ranks and mistakes as there may be.
fn results(ranks: usize) -> String {
    let rank = |rank| RankTimes { rank, compute: 1.0, waiting: vec![0.5; 2], ..RankTimes::default() };
    let mistake = |record| Mistake {
        record,
        label: 4,
        prediction: 9,
        probability: 0.99,
        label_probability: 0.001,
        shape: vec![28, 28],
        pixels: (0..784).map(|pixel| format!("{:02x}", (pixel * 31 + record) % 256)).collect(),
    };
    serde_json::json!({
        "steps": 100_000,
        "ranks": (0..ranks).map(rank).collect::<Vec<_>>(),
        "staleness": { "0": 10, "3": 1, "700": 2 },
        "confusion": [[5, 1], [0, 6]],
        "mistakes": (0..24).map(mistake).collect::<Vec<_>>(),
        "weights_sha256": "0123456789abcdef",
    })
    .to_string()
}

fn directory(within: &Path, name: &str, metrics: Option<&[u8]>, results: Option<&str>) -> PathBuf {
    let path = within.join(name);
    fs::create_dir(&path).unwrap();
    metrics.iter().for_each(|content| fs::write(path.join(FILE), content).unwrap());
    results.iter().for_each(|content| fs::write(path.join(REPORT_FILE), content).unwrap());
    path
}

#[test]
fn a_long_run_is_a_small_page_soon() {
    let root = tempfile::tempdir().unwrap();
    let path = directory(root.path(), "long", Some(&metrics(100_000)), Some(&results(1024)));
    let begin = Instant::now();
    let Report { html, remarks } = report(&storage(), &[path]).unwrap();
    // A second in a release; this is neither a release nor a quiet machine.
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert!(html.len() < 1 << 20, "{} bytes", html.len());
    assert!(remarks.is_empty(), "{remarks:?}");
    assert!(html.contains("960 more ranks") && html.contains("&lt;a&amp;b&gt;") && !html.contains("<a&b>"));
    assert!(html.contains("513 to 700"), "staleness is grouped");
    assert_eq!(html.matches("taken for a 9, with 99.0 % certainty").count(), 24);
}

#[test]
fn a_page_refers_to_nothing_else_and_names_its_pictures() {
    let root = tempfile::tempdir().unwrap();
    let paths =
        [1, 2].map(|run| directory(root.path(), &run.to_string(), Some(&metrics(300)), Some(&results(3))));
    let Report { html, .. } = report(&storage(), &paths).unwrap();
    for foreign in ["http:", "https:", "url(", "src=", "<script", "<link rel=\"stylesheet"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert_eq!(html.matches("<svg").count(), html.matches("<svg role=\"img\" aria-labelledby=").count());
    assert!(html.contains("The runs were told the same."));
    is_well_nested(&html);
}

/// Every element that is opened is closed, in order.
fn is_well_nested(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(2).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        match (tag.starts_with('/'), tag.ends_with('/') || ["meta", "link"].contains(&name)) {
            (true, _) => assert_eq!(open.pop(), Some(name), "{tag}"),
            (false, false) => open.push(name),
            (false, true) => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn runs_are_called_what_tells_them_apart() {
    let named = |paths: &[&str]| {
        let directory =
            |path: &&str| RunDirectory { directory: (*path).to_owned(), ..RunDirectory::default() };
        let mut runs: Vec<RunDirectory> = paths.iter().map(directory).collect();
        run::name_apart(&mut runs);
        runs.into_iter().map(|run| run.name).collect::<Vec<_>>()
    };
    assert_eq!(named(&["/runs/a", "./b/"]), ["a", "b"]);
    assert_eq!(named(&["/runs/a/logs", "/runs/b/logs"]), ["a/logs", "b/logs"]);
    assert_eq!(named(&["logs", "logs"]), ["logs", "logs"]);
    assert_eq!(named(&["."]), ["run 1"]);
}

#[test]
fn half_a_run_is_half_a_page() {
    let root = tempfile::tempdir().unwrap();
    let only_metrics = directory(root.path(), "metrics", Some(&metrics(50)), None);
    let only_results = directory(root.path(), "results", None, Some(&results(1)));
    let damaged = directory(root.path(), "damaged", Some(&metrics(50)), Some("{\"steps\":"));
    let behind = directory(root.path(), "behind", Some(&metrics(50)), Some("{\"steps\": 20}"));
    for (path, remark, part) in [
        (only_metrics, "no report.json", "runs or was killed, 50 of 50 steps"),
        (only_results, "no metrics.jsonl", "Most wrong"),
        (damaged, "not a whole report", "Rank 0 only"),
        (behind, "report.json is that of step 20, the metrics go on to step 50", "Loss"),
    ] {
        let Report { html, remarks } = report(&storage(), &[path]).unwrap();
        assert!(remarks.iter().any(|text| text.contains(remark)), "no {remark:?} in {remarks:?}");
        assert!(html.contains(part) && html.contains(remark), "{part}");
    }
}

#[test]
fn pictures_that_are_none_are_left_out() {
    let root = tempfile::tempdir().unwrap();
    let wrong = results(1).replace("[28,28]", "[28,27]");
    let path = directory(root.path(), "wrong", None, Some(&wrong));
    let Report { html, .. } = report(&storage(), &[path]).unwrap();
    assert!(!html.contains("Most wrong") && html.contains("Confusion matrix"));
}
