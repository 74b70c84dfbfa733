//! Bars: where the time of each rank went, and how stale gradients were.

use super::chart::COLOURS;
use super::page::table;
use super::run::RunDirectory;
use super::scale::short;
use muster::cluster::RankTimes;
use muster::page::{escape, section};
use std::collections::BTreeMap;
use std::fmt::Write;

/// More ranks than this are not drawn.
const RANKS: usize = 64;

/// What a rank's time is divided into, in the order of the bars, with the classes of the style sheet.
const PARTS: [(&str, &str); 4] =
    [("compute", "c0"), ("communication", "c1"), ("waiting", "c2"), ("reading", "c3")];

/// Seconds of each of the [`PARTS`].
fn parts(times: &RankTimes) -> [f64; 4] {
    [times.compute, times.communication, times.waiting.iter().sum(), times.reading]
        .map(|seconds| seconds.max(0.0))
}

/// Where the time of each rank went, for each run; nothing where nobody knows.
pub fn times(runs: &[RunDirectory]) -> String {
    let of_runs = runs.iter().enumerate().map(|(at, run)| times_of(run, at)).collect::<String>();
    if of_runs.is_empty() {
        return of_runs;
    }
    let legend: String = PARTS
        .iter()
        .map(|(name, class)| format!(r#"<li><span class="mark {class}"></span>{name}</li>"#))
        .collect();
    let body = format!(r#"<ul class="legend">{legend}</ul><div class="grid">{of_runs}</div>"#);
    section("Where the time went", "Seconds of each rank. Rank 0 of several is the parameter server.", &body)
}

fn times_of(run: &RunDirectory, at: usize) -> String {
    let (ranks, about) = ranks(run);
    let longest = ranks.iter().map(|times| parts(times).iter().sum::<f64>()).fold(0.0, f64::max);
    if longest <= 0.0 {
        return String::new();
    }
    let (shown, name) = (&ranks[..ranks.len().min(RANKS)], escape(&run.name));
    let bars: String =
        shown.iter().map(|times| bar(times, longest, &format!("time-{at}-{}", times.rank))).collect();
    let more = match ranks.len() - shown.len() {
        0 => String::new(),
        more => format!("<p>{more} more ranks are in the report only.</p>"),
    };
    let head =
        ["rank", "compute", "communication", "waiting", "reading", "waited most for"].map(str::to_owned);
    let row = |times: &RankTimes| {
        let most = times
            .longest_wait()
            .map_or("–".to_owned(), |(rank, seconds)| format!("rank {rank} ({seconds:.2} s)"));
        let seconds = parts(times).map(|seconds| format!("{seconds:.3}"));
        [vec![times.rank.to_string()], seconds.to_vec(), vec![most]].concat()
    };
    let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
    let table = table(&format!("Seconds of each rank, {}", run.name), &head, &rows);
    let alone = match ranks[0].alone {
        0 => String::new(),
        steps => format!(" Rank 0 computed {steps} steps by itself."),
    };
    format!(
        r#"<figure><figcaption><h3>{name}</h3><p>{about}{alone}</p></figcaption><div class="bars">{bars}</div>{more}<details><summary>As a table</summary>{table}</details></figure>"#
    )
}

/// The ranks of the report; without one, what the metrics know of rank 0.
fn ranks(run: &RunDirectory) -> (Vec<RankTimes>, &'static str) {
    if let Some(results) = run.results.as_ref().filter(|results| !results.ranks.is_empty()) {
        return (results.ranks.clone(), "All ranks, of the last run.");
    }
    let sum = |value: fn(&muster::metrics::Steps) -> f32| {
        run.history.steps.iter().map(|steps| f64::from(value(steps))).sum()
    };
    let rank = RankTimes {
        compute: sum(|steps| steps.compute),
        communication: sum(|steps| steps.communication),
        waiting: vec![sum(|steps| steps.waiting)],
        reading: run.history.runs.iter().map(|run| run.reading).sum::<f64>() + sum(|steps| steps.reading),
        ..RankTimes::default()
    };
    (vec![rank], "Rank 0 only: there is no report.")
}

fn bar(times: &RankTimes, longest: f64, id: &str) -> String {
    let (mut rects, mut at) = (String::new(), 0.0);
    for (seconds, (name, class)) in parts(times).into_iter().zip(PARTS) {
        let width = 1000.0 * seconds / longest;
        if width >= 0.05 {
            let _ = write!(
                rects,
                r#"<rect class="fill {class}" x="{at:.1}" width="{width:.1}" height="20"><title>{name}: {seconds:.3} s</title></rect>"#
            );
        }
        at += width;
    }
    let rank = times.rank;
    let said: Vec<String> =
        parts(times).iter().zip(PARTS).map(|(seconds, (name, _))| format!("{name} {seconds:.2} s")).collect();
    format!(
        r#"<span aria-hidden="true">rank {rank}</span><svg role="img" aria-labelledby="{id}" viewBox="0 0 1000 20" preserveAspectRatio="none"><title id="{id}">Rank {rank}: {}</title>{rects}</svg>"#,
        said.join(", ")
    )
}

/// Counts by missed updates: each number up to 8, then powers of two, empty ones at the end left out.
fn grouped(staleness: &BTreeMap<u64, u64>) -> Vec<(String, u64)> {
    let last = staleness.keys().last().copied().unwrap_or(0);
    let (mut groups, mut low) = (Vec::new(), 0u64);
    loop {
        let high = if low <= 8 { low } else { (low - 1).saturating_mul(2).min(last) };
        let name = if low == high { low.to_string() } else { format!("{low} to {high}") };
        let counts = staleness.range(low..=high).map(|(_, &count)| count);
        groups.push((name, counts.fold(0, u64::saturating_add)));
        if high >= last {
            return groups;
        }
        low = high + 1;
    }
}

/// How many gradients of asynchronous training have missed how many updates; nothing for synchronous training.
pub fn staleness(runs: &[RunDirectory]) -> String {
    let of_run = |(at, run): (usize, &RunDirectory)| {
        let counts = grouped(&run.results.as_ref()?.staleness);
        let most = counts.iter().map(|(_, count)| *count).max().filter(|&most| most > 0)?;
        let bar = |(index, (missed, count)): (usize, &(String, u64))| {
            let (width, id) = (1000.0 * *count as f64 / most as f64, format!("stale-{at}-{index}"));
            format!(
                r#"<span aria-hidden="true">{missed}</span><svg role="img" aria-labelledby="{id}" viewBox="0 0 1000 20" preserveAspectRatio="none"><title id="{id}">{count} gradients missed {missed} updates</title><rect class="fill c{}" width="{width:.1}" height="20"/></svg><span aria-hidden="true">{}</span>"#,
                at % COLOURS,
                short(*count as f64)
            )
        };
        let bars: String = counts.iter().enumerate().map(bar).collect();
        Some(format!(
            r#"<figure><figcaption><h3>{}</h3></figcaption><div class="bars counted">{bars}</div></figure>"#,
            escape(&run.name)
        ))
    };
    let figures: String = runs.iter().enumerate().filter_map(of_run).collect();
    if figures.is_empty() {
        return figures;
    }
    let about =
        "How many updates a gradient had missed when it was applied, and how many gradients that were.";
    section("Staleness", about, &format!(r#"<div class="grid">{figures}</div>"#))
}
