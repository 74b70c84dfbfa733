//! The page around what is shown: head, style, tables, remarks.

/// Everything that decides how the page looks.
const STYLE: &str = include_str!("style.css");

/// Text as HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A whole page. Its policy lets a browser load nothing.
pub fn page(name: &str, body: &str) -> String {
    let name = escape(name);
    format!(
        r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name} – muster report</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,"><style>{STYLE}</style></head>
<body><header><h1>{name}</h1><p>muster report</p></header><main>{body}</main></body></html>
"#
    )
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
    let (rows, caption): (String, String) = (rows.iter().map(row).collect(), escape(caption));
    // What is wider than a phone scrolls by itself, and can be reached by the keyboard for that.
    format!(
        r#"<div class="wide" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"#
    )
}

/// A part of the page with a heading.
pub fn section(title: &str, about: &str, body: &str) -> String {
    format!(r#"<section class="card"><h2>{}</h2><p>{}</p>{body}</section>"#, escape(title), escape(about))
}
