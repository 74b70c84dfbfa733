//! Curves over steps, as a figure: the curves in SVG, which stretches, and the labels beside it in HTML, which does not.

use super::curve::{Drawn, Point, thinned};
use super::page::table;
use super::scale::{Scale, short};
use muster::page::escape;
use std::fmt::Write;

/// More points than this nobody sees.
const COLUMNS: usize = 400;
/// Width and height of the SVG's own coordinates.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 400.0;
/// Rows of the table below a chart.
const TABLE_ROWS: usize = 20;
/// Colours of the style sheet.
pub const COLOURS: usize = 6;

/// One of a chart's lines.
#[derive(Clone)]
pub struct Series {
    name: String,
    colour: usize,
    points: Vec<Drawn>,
    /// Single values, joined by a dashed line, rather than a curve with a band around it.
    is_dots: bool,
}

impl Series {
    /// A curve with the range of what it is the mean of.
    pub fn curve(name: String, colour: usize, points: Vec<Point>) -> Series {
        Series { name, colour, points: thinned(&points, COLUMNS), is_dots: false }
    }

    /// Single values.
    pub fn dots(name: String, colour: usize, points: Vec<Point>) -> Series {
        Series { name, colour, points: thinned(&points, COLUMNS), is_dots: true }
    }

    fn class(&self) -> String {
        format!("c{}", self.colour % COLOURS)
    }
}

/// Curves over the same steps.
pub struct Chart {
    /// Its name.
    pub title: &'static str,
    /// What is shown.
    pub unit: &'static str,
    /// The lines.
    pub series: Vec<Series>,
    /// Whether the upright axis goes by powers of ten.
    pub is_log: bool,
    /// Where the upright axis ends, if that is known.
    pub top: Option<f64>,
}

impl Chart {
    /// As HTML, with the given identifier; none if there is no point.
    pub fn figure(&self, id: &str) -> Option<String> {
        let series: Vec<&Series> = self.series.iter().filter(|series| !series.points.is_empty()).collect();
        let (x, y) = self.scales(&series)?;
        let mut svg = String::new();
        for tick in y.ticks() {
            let at = HEIGHT * (1.0 - y.at(tick));
            let _ = write!(svg, r#"<path class="rule" d="M0 {at:.1}H{WIDTH}"/>"#);
        }
        series.iter().for_each(|series| draw(series, x, y, &mut svg));
        let (title, unit) = (self.title, self.unit);
        let labels = |ticks: Vec<f64>, side: &str, at: &dyn Fn(f64) -> f64| -> String {
            ticks
                .iter()
                .map(|&tick| {
                    format!(r#"<span style="{side}:{:.2}%">{}</span>"#, 100.0 * at(tick), short(tick))
                })
                .collect()
        };
        let rows = labels(y.ticks(), "top", &|tick| 1.0 - y.at(tick));
        let columns = labels(x.ticks(), "left", &|tick| x.at(tick));
        Some(format!(
            r#"<figure class="card"><figcaption><h2>{title}</h2><p>{unit}</p></figcaption><div class="plot"><div class="y" aria-hidden="true">{rows}</div><svg role="img" aria-labelledby="{id}-t {id}-d" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none"><title id="{id}-t">{title}</title><desc id="{id}-d">{}</desc>{svg}</svg><div class="x" aria-hidden="true">{columns}</div></div>{}{}</figure>"#,
            escape(&self.description(&series)),
            legend(&series),
            self.as_table(&series),
        ))
    }

    /// Axes that hold all points.
    fn scales(&self, series: &[&Series]) -> Option<(Scale, Scale)> {
        let points = || series.iter().flat_map(|series| &series.points);
        let right = points().map(|point| point.x).reduce(f64::max)?;
        let low = points().map(|point| point.low).reduce(f64::min)?;
        let mut high = points().map(|point| point.high).reduce(f64::max)?;
        if let Some(top) = self.top {
            high = high.max(top);
        }
        let low = if self.is_log { low } else { self.low_end(low, high, series) };
        Some((Scale::new(0.0, right, false), Scale::new(low, high, self.is_log)))
    }

    /// Where an axis begins that does not go by powers of ten: at 0, unless it has an end whose neighbourhood is of interest. Then what
    /// happens in the first steps may lie below.
    fn low_end(&self, low: f64, high: f64, series: &[&Series]) -> f64 {
        if self.top.is_none() {
            return low.min(0.0);
        }
        let mut means: Vec<f64> = series.iter().flat_map(|s| &s.points).map(|point| point.y).collect();
        means.sort_by(f64::total_cmp);
        let usual = means[means.len() / 20];
        (usual - (high - usual) / 4.0).max(low).max(0.0)
    }

    fn description(&self, series: &[&Series]) -> String {
        let line = |series: &&Series| {
            let (first, last) = (series.points[0], series.points[series.points.len() - 1]);
            format!(
                "{}: {} at step {:.0}, {} at step {:.0}.",
                series.name,
                short(first.y),
                first.x,
                short(last.y),
                last.x
            )
        };
        format!("{}. {}", self.unit, series.iter().map(line).collect::<Vec<_>>().join(" "))
    }

    fn as_table(&self, series: &[&Series]) -> String {
        let head = ["series", "step", "mean", "least", "greatest"].map(str::to_owned);
        let rows = series.iter().flat_map(|series| {
            let every = series.points.len().div_ceil(TABLE_ROWS);
            let kept = series.points.iter().rev().step_by(every).collect::<Vec<_>>().into_iter().rev();
            kept.map(|p| {
                vec![series.name.clone(), format!("{:.0}", p.x), short(p.y), short(p.low), short(p.high)]
            })
        });
        let caption = format!("{}: {}", self.title, self.unit);
        format!(
            "<details><summary>As a table</summary>{}</details>",
            table(&caption, &head, &rows.collect::<Vec<_>>())
        )
    }
}

fn draw(series: &Series, x: Scale, y: Scale, svg: &mut String) {
    let class = series.class();
    let place = |at: f64, value: f64| format!("{:.1} {:.1}", WIDTH * x.at(at), HEIGHT * (1.0 - y.at(value)));
    let path = |points: &mut dyn Iterator<Item = String>| points.collect::<Vec<_>>().join("L");
    let line = path(&mut series.points.iter().map(|point| place(point.x, point.y)));
    if series.is_dots {
        let dots: String =
            series.points.iter().map(|point| format!("M{}h0", place(point.x, point.y))).collect();
        let _ = write!(
            svg,
            r#"<path class="line dash {class}" d="M{line}"/><path class="dot {class}" d="{dots}"/>"#
        );
        return;
    }
    if series.points.iter().any(|point| point.low < point.high) {
        let over = series.points.iter().map(|point| place(point.x, point.high));
        let under = series.points.iter().rev().map(|point| place(point.x, point.low));
        let band = path(&mut over.chain(under));
        let _ = write!(svg, r#"<path class="band {class}" d="M{band}Z"/>"#);
    }
    let _ = write!(svg, r#"<path class="line {class}" d="M{line}"/>"#);
}

fn legend(series: &[&Series]) -> String {
    let entry = |series: &&Series| {
        let mark = if series.is_dots { "mark dots" } else { "mark" };
        format!(r#"<li><span class="{mark} {}"></span>{}</li>"#, series.class(), escape(&series.name))
    };
    format!(r#"<ul class="legend">{}</ul>"#, series.iter().map(entry).collect::<String>())
}
