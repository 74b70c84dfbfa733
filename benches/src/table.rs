//! Figures on a terminal.

use std::fmt::Write;

use crate::compare::{Change, Comparison, Verdict};
use crate::machine::size;
use crate::report::{Figure, Group, Report, Unit};

/// The whole report as text, with changes since an older one.
pub fn text(report: &Report, comparison: Option<&Comparison>) -> String {
    let mut text = format!("{}\n", machine(report));
    report_differences(&mut text, comparison);
    for group in Group::ALL {
        let figures = report.figures.iter().enumerate().filter(|(_, figure)| figure.group == group);
        for (row, (at, figure)) in figures.enumerate() {
            if row == 0 {
                _ = writeln!(text, "\n{}", group.title());
            }
            let change = comparison.and_then(|comparison| comparison.changes[at]);
            _ = writeln!(text, "{}", line(figure, change).trim_end());
        }
    }
    if !report.left_out.is_empty() {
        _ = writeln!(text, "\nLeft out");
    }
    for left_out in &report.left_out {
        _ = writeln!(text, "  {}: {}", left_out.what, left_out.why);
    }
    if let Some(comparison) = comparison {
        _ = writeln!(text, "\n{}", summary(comparison));
    }
    text
}

/// What was measured by what, in one line.
pub fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let caches: Vec<String> = machine.caches.iter().map(|&bytes| size(bytes)).collect();
    let caches = if caches.is_empty() { "of unknown size".to_owned() } else { caches.join(" + ") };
    let build = if report.build == "release" { "" } else { ", a build without optimization" };
    format!(
        "muster {}{build} on {}, {} cores, caches {caches}, kernels {}, {:.0} s",
        report.muster, machine.cpu, machine.cores, machine.backend, report.seconds
    )
}

/// What a comparison comes to, in one line.
pub fn summary(comparison: &Comparison) -> String {
    if !comparison.differences.is_empty() {
        return format!(
            "The older figures are of another machine or build ({}): ratios are shown, nothing is marked.",
            comparison.differences.join("; ")
        );
    }
    let (slower, faster) = (comparison.count(Verdict::Slower), comparison.count(Verdict::Faster));
    let known = comparison.changes.iter().flatten().count();
    let mut text = format!("{slower} of {known} figures slower beyond the noise, {faster} faster.");
    let with_limit = comparison.count(Verdict::WithLimit);
    if with_limit > 0 {
        _ = write!(text, " {with_limit} changed with their limits: the machine did, or who else uses it.");
    }
    let new = comparison.changes.len() - known;
    if new > 0 {
        _ = write!(text, " {new} are new.");
    }
    if !comparison.gone.is_empty() {
        _ = write!(text, " Not measured any more: {}.", comparison.gone.join("; "));
    }
    text
}

/// A value with as many digits as its spread leaves.
pub fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Records => format!("{value:.0}"),
        Unit::Seconds => format!("{value:.3}"),
        _ if value < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

/// How a figure has changed, in words.
pub fn changed(change: Change) -> String {
    let percent = 100.0 * (change.ratio - 1.0);
    match change.verdict {
        Verdict::Slower => format!("SLOWER {percent:+.1} %"),
        Verdict::Faster => format!("faster {percent:+.1} %"),
        Verdict::WithLimit => format!("with its limit {percent:+.1} %"),
        Verdict::Same => format!("within noise {percent:+.1} %"),
        Verdict::Elsewhere => format!("× {:.2}", change.ratio),
    }
}

fn report_differences(text: &mut String, comparison: Option<&Comparison>) {
    if let Some(comparison) = comparison.filter(|comparison| !comparison.differences.is_empty()) {
        _ = writeln!(text, "{}", summary(comparison));
    }
}

fn line(figure: &Figure, change: Option<Change>) -> String {
    let value = number(figure.value, figure.unit);
    let spread = format!("± {:.1} %", 50.0 * figure.spread());
    let limit = figure.limit.as_ref().map_or(String::new(), |limit| {
        format!("{:5.1} % of {} ({})", 100.0 * limit.share, number(limit.value, figure.unit), limit.of)
    });
    let change = change.map_or(String::new(), changed);
    format!("  {:36} {value:>10} {:9} {spread:>9}  {limit:52} {change}", figure.name, figure.unit.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_line_has_figure_spread_limit_and_change() {
        let mut slow = report();
        let figure = &mut slow.figures[2];
        (figure.low, figure.value, figure.high) = (39.6, 40.0, 40.4);
        figure.limit.as_mut().unwrap().share = 0.4;
        let comparison = Comparison::of(&slow, &report());
        let text = text(&slow, Some(&comparison));
        let line = text.lines().find(|line| line.contains("NN 100×128×784")).unwrap();
        for part in ["40.0 GFLOP/s", "± 1.0 %", "40.0 % of 100.0 (FMA avx2)", "SLOWER -50.0 %"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(text.contains("1 of 4 figures slower beyond the noise, 0 faster."), "{text}");
        assert!(text.contains("HDFS: it is not there"), "{text}");
    }

    #[test]
    fn another_machine_is_told_at_both_ends() {
        let mut other = report();
        other.machine.backend = "avx512".into();
        let text = text(&report(), Some(&Comparison::of(&report(), &other)));
        assert_eq!(text.matches("kernels avx512 instead of avx2").count(), 2, "{text}");
        assert!(text.contains("× 1.00") && !text.contains("SLOWER"), "{text}");
    }
}
