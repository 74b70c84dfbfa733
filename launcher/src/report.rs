//! `muster report`: the directories of runs become one page of HTML, which needs nothing but itself.
//!
//! # Layout
//! - [`run`]: what a directory holds; [`page`]: tables and remarks; the page around them is [`muster::page`].
//! - [`curve`]: many points become few; [`scale`]: axes and numbers; [`chart`]: curves; [`bars`]: where the time went, staleness.
//! - [`mistakes`]: confusion matrix and digits; [`tables`]: results and options.

pub mod bars;
pub mod chart;
pub mod curve;
pub mod mistakes;
pub mod page;
pub mod run;
pub mod scale;
pub mod tables;

use crate::error::Error;
use chart::{Chart, Series};
use curve::Point;
use muster::metrics::{Evaluated, Steps};
use muster::storage::Storage;
use run::RunDirectory;
use std::path::PathBuf;

/// A page and what is odd about what it was made of.
pub struct Report {
    /// The page.
    pub html: String,
    /// Sentences, which the page has too.
    pub remarks: Vec<String>,
}

/// The page of some runs' directories.
///
/// # Errors
/// If one of them holds no run, or one of a newer version.
pub fn report(storage: &Storage, directories: &[PathBuf]) -> Result<Report, Error> {
    let runs = directories.iter().map(|directory| RunDirectory::read(storage, directory));
    Ok(of_runs(runs.collect::<Result<Vec<_>, _>>()?))
}

/// The page of some runs.
pub fn of_runs(mut runs: Vec<RunDirectory>) -> Report {
    run::name_apart(&mut runs);
    let remarks: Vec<String> = runs.iter().flat_map(|run| run.remarks.clone()).collect();
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let body = [
        page::remarks(&remarks),
        tables::results(&runs),
        page::grid(&charts(&runs)),
        bars::times(&runs),
        bars::staleness(&runs),
        mistakes::confusion(&runs),
        mistakes::digits(&runs),
        tables::options(&runs),
    ];
    Report { html: page::page(&names.join(", "), &body.concat()), remarks }
}

/// Curves over the steps; those for which there are no points are left out.
fn charts(runs: &[RunDirectory]) -> Vec<String> {
    let steps = |value: fn(&Steps) -> f64| {
        let points = move |run: &RunDirectory| {
            run.history.steps.iter().map(|steps| Point { x: steps.step as f64, y: value(steps) }).collect()
        };
        move |(at, run): (usize, &RunDirectory)| Series::curve(run.series_name("training"), at, points(run))
    };
    let test = |value: fn(&muster::conductor::Epoch) -> Option<f64>| {
        move |(at, run): (usize, &RunDirectory)| {
            let points = run.epochs().into_iter();
            let points = points.filter_map(|(step, epoch)| Some(Point { x: step as f64, y: value(epoch)? }));
            // A run has one colour, unless it is the only one.
            let colour = if run.is_alone { 1 } else { at };
            Series::dots(run.series_name("test"), colour, points.collect())
        }
    };
    let evaluator = |value: fn(&Evaluated) -> f64| {
        move |(at, run): (usize, &RunDirectory)| {
            let points = run.evaluations.iter().map(|e| Point { x: e.step as f64, y: value(e) }).collect();
            let colour = if run.is_alone { 2 } else { at };
            Series::dots(run.series_name("evaluator"), colour, points)
        }
    };
    let of = |series: &dyn Fn((usize, &RunDirectory)) -> Series| {
        runs.iter().enumerate().map(series).collect::<Vec<_>>()
    };
    let charts = [
        Chart {
            title: "Loss",
            unit: "mean over the records, by step",
            series: [of(&steps(|s| s.loss.into())), of(&test(|e| e.test_loss)), of(&evaluator(|e| e.loss))]
                .concat(),
            is_log: true,
            top: None,
        },
        Chart {
            title: "Accuracy",
            unit: "share of the records classified rightly, by step",
            series: [
                of(&steps(|s| s.accuracy.into())),
                of(&test(|e| e.test_accuracy)),
                of(&evaluator(|e| e.accuracy)),
            ]
            .concat(),
            is_log: false,
            top: Some(1.0),
        },
        Chart {
            title: "Throughput",
            unit: "records in a second of training, by step",
            series: of(&steps(|s| s.images_per_second.into())),
            is_log: false,
            top: None,
        },
        Chart {
            title: "Staleness by step",
            unit: "updates that gradients have missed, on average",
            series: of(&steps(|s| s.staleness.map_or(f64::NAN, |missed| missed.mean.into()))),
            is_log: false,
            top: None,
        },
    ];
    charts.iter().enumerate().filter_map(|(at, chart)| chart.figure(&format!("chart-{at}"))).collect()
}

#[cfg(test)]
mod tests;
