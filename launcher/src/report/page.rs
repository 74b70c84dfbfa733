//! What stands on the page beside drawings: tables, remarks, figures side by side.

use muster::page::{Page, escape, wide};

/// What only these pages have.
const STYLE: &str = include_str!("style.css");

/// The page of runs of these names.
pub fn page(names: &str, body: &str) -> String {
    let title = format!("{names} – muster report");
    Page { title: &title, heading: names, about: "muster report", style: STYLE, body }.html()
}

/// What is odd about the runs; nothing where nothing is.
pub fn remarks(remarks: &[String]) -> String {
    let items: String = remarks.iter().map(|remark| format!("<li>{}</li>", escape(remark))).collect();
    if items.is_empty() { items } else { format!(r#"<ul class="card remarks">{items}</ul>"#) }
}

/// Figures side by side, where there is room.
pub fn grid(figures: &[String]) -> String {
    if figures.is_empty() {
        String::new()
    } else {
        format!(r#"<div class="grid">{}</div>"#, figures.concat())
    }
}

/// A table whose first column heads its rows; cells are text.
pub fn table(caption: &str, head: &[String], rows: &[Vec<String>]) -> String {
    let head: String = head.iter().map(|cell| format!(r#"<th scope="col">{}</th>"#, escape(cell))).collect();
    let row = |row: &Vec<String>| {
        let (first, rest) = row.split_first().expect("rows have cells");
        let rest: String = rest.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        format!(r#"<tr><th scope="row">{}</th>{rest}</tr>"#, escape(first))
    };
    let rows: String = rows.iter().map(row).collect();
    let table = format!(
        "<table><caption>{}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
        escape(caption)
    );
    wide(caption, &table)
}
