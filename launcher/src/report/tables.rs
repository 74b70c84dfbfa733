//! Tables: what came out of each run, and what it was told.

use super::page::table;
use super::run::RunDirectory;
use super::scale::short;
use muster::metrics::Run;
use muster::page::section;
use std::collections::BTreeSet;

/// What came out, a column for each run.
pub fn results(runs: &[RunDirectory]) -> String {
    type Row = (&'static str, fn(&RunDirectory) -> Option<String>);
    let rows: [Row; 10] = [
        ("state", |run| Some(state(run))),
        ("test accuracy", |run| {
            let of_report = run.results.as_ref().and_then(|results| results.test_accuracy);
            let of_epoch = || run.epochs().last().and_then(|(_, epoch)| epoch.test_accuracy);
            of_report.or_else(of_epoch).map(|share| format!("{:.2} %", 100.0 * share))
        }),
        ("loss, last epoch", |run| run.epochs().last().map(|(_, epoch)| format!("{:.4}", epoch.loss))),
        ("steps", |run| Some(steps(run).to_string())),
        ("epochs", |run| Some(run.epochs().len().to_string())),
        ("seconds of training", |run| {
            run.results.as_ref().map(|results| format!("{:.2}", results.train_seconds))
        }),
        ("records a second", |run| run.results.as_ref().map(|results| short(results.images_per_second))),
        ("ranks", |run| {
            let of_metrics = run.history.runs.last().map(|run| run.world_size);
            of_metrics
                .or(run.results.as_ref().map(|results| results.world_size))
                .map(|ranks| ranks.to_string())
        }),
        ("model", |run| {
            let model = run.results.as_ref().map(|results| &results.model)?;
            Some(model.iter().map(usize::to_string).collect::<Vec<_>>().join("–"))
        }),
        ("weights", |run| {
            run.results.as_ref().map(|results| results.weights_sha256.chars().take(8).collect())
        }),
    ];
    let head: Vec<String> =
        std::iter::once("").chain(runs.iter().map(|run| run.name.as_str())).map(str::to_owned).collect();
    let row = |(name, value): &Row| {
        let cells: Vec<Option<String>> = runs.iter().map(value).collect();
        let is_known = cells.iter().any(Option::is_some);
        let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
        is_known.then(|| std::iter::once((*name).to_owned()).chain(cells).collect())
    };
    let rows: Vec<Vec<String>> = rows.iter().filter_map(row).collect();
    format!(r#"<section class="card">{}</section>"#, table("Results", &head, &rows))
}

fn steps(run: &RunDirectory) -> u64 {
    let of_report = run.results.as_ref().map_or(0, |results| results.steps);
    run.history.steps.last().map_or(0, |steps| steps.step).max(of_report)
}

fn state(run: &RunDirectory) -> String {
    match (&run.history.end, run.history.runs.last()) {
        (Some(end), _) => end.reason.clone(),
        (None, Some(begun)) => format!("runs or was killed, {} of {} steps", steps(run), begun.last_step),
        (None, None) => "ended".to_owned(),
    }
}

/// What the runs were told: first what differs between them, then all of it.
pub fn options(runs: &[RunDirectory]) -> String {
    let told: Vec<Option<&Run>> = runs.iter().map(|run| run.history.runs.last()).collect();
    let names: BTreeSet<&String> = told.iter().flatten().flat_map(|run| run.options.keys()).collect();
    if names.is_empty() {
        return String::new();
    }
    let row = |name: &&String| -> Vec<String> {
        let value = |run: &Option<&Run>| run.and_then(|run| run.options.get(*name)).cloned();
        let values = told.iter().map(|run| value(run).unwrap_or_else(|| "–".to_owned()));
        std::iter::once((*name).clone()).chain(values).collect()
    };
    let rows: Vec<Vec<String>> = names.iter().map(row).collect();
    let differs = |row: &&Vec<String>| row[2..].iter().any(|cell| *cell != row[1]);
    let differing: Vec<Vec<String>> = rows.iter().filter(differs).cloned().collect();
    let head: Vec<String> = std::iter::once("option")
        .chain(runs.iter().map(|run| run.name.as_str()))
        .map(str::to_owned)
        .collect();
    let of_differences = match (runs.len(), differing.is_empty()) {
        (1, _) => String::new(),
        (_, true) => "<p>The runs were told the same.</p>".to_owned(),
        _ => table("Options that differ", &head, &differing),
    };
    let all =
        format!("<details><summary>All options</summary>{}</details>", table("All options", &head, &rows));
    section(
        "Options",
        "What the runs were told, and what they have taken as default.",
        &(of_differences + &all),
    )
}
