//! What the models get wrong: confusion matrices, and the digits themselves.

use super::run::RunDirectory;
use muster::mistakes::Mistake;
use muster::page::{escape, section, wide};
use std::fmt::Write;

/// Shades in which a picture is drawn, black left out.
const SHADES: u8 = 8;
/// The longest side of a picture that is drawn, in pixels.
const SIDE_MAX: usize = 128;

/// How often records of each class were given each class; nothing without a test set.
pub fn confusion(runs: &[RunDirectory]) -> String {
    let tables: String = runs.iter().filter_map(matrix).collect();
    if tables.is_empty() {
        return tables;
    }
    let about = "Test records by label (rows) and prediction (columns). The stronger the red of a cell, the more mistakes.";
    section("Confusion matrix", about, &format!(r#"<div class="grid">{tables}</div>"#))
}

fn matrix(run: &RunDirectory) -> Option<String> {
    let rows = &run.results.as_ref()?.confusion;
    let classes = rows.len();
    if classes == 0 || rows.iter().any(|row| row.len() != classes) {
        return None;
    }
    let cells = || {
        rows.iter()
            .enumerate()
            .flat_map(|(y, row)| row.iter().enumerate().map(move |(x, &count)| (x, y, count)))
    };
    let most = cells().filter(|(x, y, _)| x != y).map(|(.., count)| count).max().unwrap_or(0).max(1);
    let head: String = (0..classes).map(|class| format!(r#"<th scope="col">{class}</th>"#)).collect();
    let mut body = String::new();
    for (label, row) in rows.iter().enumerate() {
        let _ = write!(body, r#"<tr><th scope="row">{label}</th>"#);
        for (prediction, &count) in row.iter().enumerate() {
            let _ = match (label == prediction, count) {
                (true, _) => write!(body, r#"<td class="right">{count}</td>"#),
                (false, 0) => write!(body, r#"<td class="none">0</td>"#),
                (false, _) => {
                    write!(
                        body,
                        r#"<td style="--share:{:.0}%">{count}</td>"#,
                        12.0 + 68.0 * count as f64 / most as f64
                    )
                }
            };
        }
        body.push_str("</tr>");
    }
    let name = escape(&run.name);
    let table = format!(
        r#"<table class="matrix"><caption>{name}: label ↓, prediction →</caption><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"#
    );
    Some(wide(&format!("Confusion matrix of {}", run.name), &table))
}

/// The digits that are most wrong; nothing where there are none.
pub fn digits(runs: &[RunDirectory]) -> String {
    let of_run = |(at, run): (usize, &RunDirectory)| {
        let mistakes = run.results.as_ref()?.mistakes.iter().enumerate();
        let pictures: String = mistakes
            .filter_map(|(index, mistake)| picture(mistake, &format!("digit-{at}-{index}")))
            .collect();
        let name = if run.is_alone { String::new() } else { format!("<h3>{}</h3>", escape(&run.name)) };
        (!pictures.is_empty()).then(|| format!(r#"{name}<div class="digits">{pictures}</div>"#))
    };
    let galleries: String = runs.iter().enumerate().filter_map(of_run).collect();
    if galleries.is_empty() {
        return galleries;
    }
    let about =
        "The test records whose label the model finds least likely: what they are → what they are taken for.";
    section("Most wrong", about, &galleries)
}

/// A record as a picture; none if it is not one.
fn picture(mistake: &Mistake, id: &str) -> Option<String> {
    let pixels = mistake.bytes()?;
    let (rows, columns) = mistake.rows_and_columns();
    if rows == 0 || columns == 0 || rows.max(columns) > SIDE_MAX {
        return None;
    }
    let shades: String = (1..=SHADES)
        .map(|shade| {
            let path = runs_of(&pixels, columns, |pixel| {
                (u16::from(pixel) * u16::from(SHADES)).div_ceil(255) == u16::from(shade)
            });
            let opacity = f32::from(shade) / f32::from(SHADES);
            if path.is_empty() { path } else { format!(r#"<path fill-opacity="{opacity:.2}" d="{path}"/>"#) }
        })
        .collect();
    let Mistake { record, label, prediction, probability, .. } = mistake;
    let percent = 100.0 * probability;
    Some(format!(
        r#"<figure><svg role="img" aria-labelledby="{id}" viewBox="0 0 {columns} {rows}" shape-rendering="crispEdges"><title id="{id}">Test record {record}: a {label} taken for a {prediction}, with {percent:.1} % certainty</title>{shades}</svg><figcaption>{label} → {prediction}<small>{percent:.0} %</small></figcaption></figure>"#
    ))
}

/// The pixels that are wanted, as a path of runs along their rows.
fn runs_of(pixels: &[u8], columns: usize, is_wanted: impl Fn(u8) -> bool) -> String {
    let mut path = String::new();
    for (y, row) in pixels.chunks_exact(columns).enumerate() {
        let mut x = 0;
        while x < columns {
            let length = row[x..].iter().take_while(|&&pixel| is_wanted(pixel)).count();
            if length > 0 {
                let _ = write!(path, "M{x} {y}h{length}v1h-{length}z");
            }
            x += length.max(1);
        }
    }
    path
}
