//! Figures as one HTML page that refers to nothing outside of itself.

use std::fmt::Write;

use crate::compare::{Comparison, Verdict};
use crate::report::{Figure, Group, Report};
use crate::roofline;
use crate::table::{changed, machine, number, summary};

const STYLE: &str = include_str!("page.css");

/// The page, with changes since an older report.
pub fn html(report: &Report, comparison: Option<&Comparison>) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>muster bench</title>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>muster bench</h1>\n<p>{}</p>\n",
        escape(&machine(report))
    );
    if let Some(comparison) = comparison {
        _ = writeln!(page, "<p><strong>{}</strong></p>", escape(&summary(comparison)));
    }
    if let Some(plot) = roofline::svg(report) {
        page.push_str("<h2>Roofline</h2>\n<div class=\"wide\">\n");
        page.push_str(&plot);
        page.push_str("</div>\n<p class=\"soft\">Each number is a kernel of the table below, on one thread, over its operations for each byte that it reads. It cannot lie above the line ");
        page.push_str(
            "of the memory that its operands fit in, nor above the multiply-adds of its instructions.</p>\n",
        );
    }
    for group in Group::ALL {
        write_group(&mut page, report, comparison, group);
    }
    if !report.left_out.is_empty() {
        page.push_str("<h2>Left out</h2>\n<ul>\n");
        for left_out in &report.left_out {
            _ = writeln!(page, "<li>{}: {}</li>", escape(&left_out.what), escape(&left_out.why));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// The table of a group; nothing where it has no figures.
fn write_group(page: &mut String, report: &Report, comparison: Option<&Comparison>, group: Group) {
    let figures: Vec<_> =
        report.figures.iter().enumerate().filter(|(_, figure)| figure.group == group).collect();
    if figures.is_empty() {
        return;
    }
    let title = group.title();
    _ = writeln!(page, "<h2>{title}</h2>\n<div class=\"wide\">\n<table>");
    page.push_str("<caption>Medians, with half the distance of the quartiles</caption>\n<thead><tr>");
    if group == Group::Kernels {
        page.push_str("<th class=\"number\" scope=\"col\">Nr.</th>");
    }
    page.push_str("<th scope=\"col\">Figure</th><th class=\"number\" scope=\"col\">Median</th><th class=\"number\" scope=\"col\">Spread</th>");
    if group != Group::Machine {
        page.push_str("<th scope=\"col\">Share of its limit</th>");
    }
    if comparison.is_some() {
        page.push_str("<th scope=\"col\">Change</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (at, figure) in figures {
        page.push_str("<tr>");
        if group == Group::Kernels {
            let nr = roofline::kernels(report).find(|(_, kernel, _)| kernel.name == figure.name);
            _ = write!(
                page,
                "<td class=\"number\">{}</td>",
                nr.map_or(String::new(), |(nr, ..)| nr.to_string())
            );
        }
        write_figure(page, figure);
        if let Some(comparison) = comparison {
            write_change(page, comparison, at);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
}

fn write_figure(page: &mut String, figure: &Figure) {
    let (name, value) = (escape(&figure.name), number(figure.value, figure.unit));
    let (unit, spread) = (figure.unit.name(), 50.0 * figure.spread());
    _ = write!(page, "<th scope=\"row\">{name}</th><td class=\"number\">{value} {unit}</td>");
    _ = write!(page, "<td class=\"number\">± {spread:.1} %</td>");
    if figure.group == Group::Machine {
        return;
    }
    match &figure.limit {
        Some(limit) => {
            let (of, share) = (escape(&limit.of), 100.0 * limit.share);
            let bound = number(limit.value, figure.unit);
            _ = write!(
                page,
                "<td><meter max=\"100\" value=\"{share:.1}\" aria-label=\"{share:.0} % of {of}\"></meter>"
            );
            _ = write!(page, " {share:.1} % of {bound} <span class=\"soft\">({of})</span></td>");
        }
        None => page.push_str("<td></td>"),
    }
}

fn write_change(page: &mut String, comparison: &Comparison, at: usize) {
    let class = |verdict| match verdict {
        Verdict::Slower => "slower",
        Verdict::Faster => "faster",
        Verdict::Same | Verdict::WithLimit | Verdict::Elsewhere => "soft",
    };
    match comparison.changes[at] {
        Some(change) => _ = write!(page, "<td class=\"{}\">{}</td>", class(change.verdict), changed(change)),
        None => page.push_str("<td class=\"soft\">new</td>"),
    }
}

/// Text that is no markup.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_page_is_complete_in_itself_and_says_what_it_shows() {
        let comparison = Comparison::of(&report(), &report());
        let page = html(&report(), Some(&comparison));
        for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for part in [
            "<title>muster bench</title>",
            "<title id=\"roofline-title\">",
            "aria-label=\"80 % of FMA avx2\"",
            "prefers-color-scheme: dark",
            "width=device-width",
            "<th scope=\"row\">NN 100×128×784</th>",
            "within noise +0.0 %",
            "0 of 4 figures slower beyond the noise",
            "HDFS: it is not there",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }

    #[test]
    fn names_are_text_and_no_markup() {
        assert_eq!(escape("a <b> & \"c\""), "a &lt;b&gt; &amp; &quot;c&quot;");
        assert!(html(&report(), None).contains("a &lt;CPU&gt;"));
    }
}
