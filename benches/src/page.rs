//! Figures as one HTML page that refers to nothing outside of itself.

use std::fmt::Write;

use muster::page::{Page, escape, section, wide};

use crate::compare::{Comparison, Verdict};
use crate::report::{Figure, Group, Report};
use crate::roofline;
use crate::table::{changed, machine, number, summary};

/// What only this page has.
const STYLE: &str = include_str!("page.css");

/// What stands below the plot.
const ROOFLINE: &str = "Each number is a kernel of the table below, on one thread, over its operations for each byte that it reads. It \
    cannot lie above the line of the memory that its operands fit in, nor above the multiply-adds of its instructions.";

/// The page, with changes since an older report.
pub fn html(report: &Report, comparison: Option<&Comparison>) -> String {
    let mut body = String::new();
    if let Some(comparison) = comparison {
        _ = write!(body, r#"<p class="card"><strong>{}</strong></p>"#, escape(&summary(comparison)));
    }
    if let Some(plot) = roofline::svg(report) {
        body.push_str(&section("Roofline", ROOFLINE, &wide("Roofline", &plot)));
    }
    body.extend(Group::ALL.map(|group| of_group(report, comparison, group)));
    if !report.left_out.is_empty() {
        let left_out = report.left_out.iter();
        let items: String =
            left_out.map(|left| format!("<li>{}: {}</li>", escape(&left.what), escape(&left.why))).collect();
        body.push_str(&section("Left out", "What could not be measured.", &format!("<ul>{items}</ul>")));
    }
    let name = "muster bench";
    Page { title: name, heading: name, about: &machine(report), style: STYLE, body: &body }.html()
}

/// The table of a group; nothing where it has no figures.
fn of_group(report: &Report, comparison: Option<&Comparison>, group: Group) -> String {
    let figures: Vec<_> =
        report.figures.iter().enumerate().filter(|(_, figure)| figure.group == group).collect();
    if figures.is_empty() {
        return String::new();
    }
    let mut head = vec![(group == Group::Kernels, "left", "Nr."), (true, "left", "Figure")];
    head.extend([(true, "", "Median"), (true, "", "Spread")]);
    head.extend([
        (group != Group::Machine, "left", "Share of its limit"),
        (comparison.is_some(), "left", "Change"),
    ]);
    let head = head.into_iter().filter(|(is_there, ..)| *is_there);
    let mut table = String::from("<table><thead><tr>");
    head.for_each(|(_, class, name)| _ = write!(table, r#"<th scope="col" class="{class}">{name}</th>"#));
    table.push_str("</tr></thead><tbody>");
    for (at, figure) in figures {
        table.push_str("<tr>");
        if group == Group::Kernels {
            let nr = roofline::kernels(report).find(|(_, kernel, _)| kernel.name == figure.name);
            _ = write!(table, "<td>{}</td>", nr.map_or(String::new(), |(nr, ..)| nr.to_string()));
        }
        write_figure(&mut table, figure);
        if let Some(comparison) = comparison {
            write_change(&mut table, comparison, at);
        }
        table.push_str("</tr>");
    }
    table.push_str("</tbody></table>");
    section(group.title(), "Medians, with half the distance of the quartiles.", &wide(group.title(), &table))
}

fn write_figure(page: &mut String, figure: &Figure) {
    let (name, value) = (escape(&figure.name), number(figure.value, figure.unit));
    let (unit, spread) = (figure.unit.name(), 50.0 * figure.spread());
    _ = write!(page, r#"<th scope="row">{name}</th><td>{value} {unit}</td><td>± {spread:.1} %</td>"#);
    if figure.group == Group::Machine {
        return;
    }
    page.push_str(r#"<td class="left">"#);
    if let Some(limit) = &figure.limit {
        let (of, share) = (escape(&limit.of), 100.0 * limit.share);
        let bound = number(limit.value, figure.unit);
        _ = write!(
            page,
            r#"<meter max="100" value="{share:.1}" aria-label="{share:.0} % of {of}"></meter> {share:.1} % of {bound} <span class="soft">({of})</span>"#
        );
    }
    page.push_str("</td>");
}

fn write_change(page: &mut String, comparison: &Comparison, at: usize) {
    let (class, text) = match comparison.changes[at] {
        Some(change) => {
            let class = match change.verdict {
                Verdict::Slower => "slower",
                Verdict::Faster => "faster",
                Verdict::Same | Verdict::WithLimit | Verdict::Elsewhere => "soft",
            };
            (class, changed(change))
        }
        None => ("soft", "new".to_owned()),
    };
    _ = write!(page, r#"<td class="left {class}">{text}</td>"#);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_page_is_complete_in_itself_and_says_what_it_shows() {
        let comparison = Comparison::of(&report(), &report());
        let page = html(&report(), Some(&comparison));
        for outside in ["http:", "https:", "//", "src=", "<link rel=\"stylesheet", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for part in [
            "<title>muster bench</title>",
            "<title id=\"roofline-title\">",
            "aria-label=\"80 % of FMA avx2\"",
            "prefers-color-scheme:dark",
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
        assert!(html(&report(), None).contains("a &lt;CPU&gt;"));
    }
}
