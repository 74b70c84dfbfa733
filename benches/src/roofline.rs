//! The roofline plot (Williams, Waterman, Patterson 2009): what each kernel reaches, over its operations a byte, under what multiply-adds
//! and bandwidths allow. An SVG whose colours are classes of the page around it.

use std::fmt::Write;

use muster::page::escape;

use crate::report::{Figure, Group, Report, Unit};

/// Size of the plot, and of the area within its axes, in units of the SVG.
const SIZE: (f64, f64) = (720.0, 440.0);
const LEFT: f64 = 60.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 385.0;
/// The radius of a kernel's mark; width of a letter and height of a line of a roof's name, at most.
const MARK: f64 = 9.0;
const LETTER: f64 = 7.5;
const LINE: f64 = 12.0;

/// Both axes are logarithmic.
struct Axes {
    /// Floating-point operations a byte at both ends.
    x: (f64, f64),
    /// GFLOP/s at both ends.
    y: (f64, f64),
}

impl Axes {
    /// With room for these points of intensity and GFLOP/s; ends are powers of two.
    fn around(points: &[(f64, f64)]) -> Axes {
        let ends = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::MAX, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
            ((low.log2().floor() - 1.0).exp2(), (high.log2().ceil() + 1.0).exp2())
        };
        let x = ends(&mut points.iter().map(|point| point.0));
        Axes { x, y: ends(&mut points.iter().map(|point| point.1)) }
    }

    fn x(&self, intensity: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (intensity / self.x.0).log2() / (self.x.1 / self.x.0).log2()
    }

    fn y(&self, gflops: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (gflops / self.y.0).log2() / (self.y.1 / self.y.0).log2()
    }
}

/// Kernels with their numbers in the plot, which begin at 1.
pub fn kernels(report: &Report) -> impl Iterator<Item = (usize, &Figure, f64)> {
    let kernels = report.figures.iter().filter(|figure| figure.group == Group::Kernels);
    (1..).zip(kernels.filter_map(|figure| Some((figure, figure.intensity?)))).map(|(i, (f, x))| (i, f, x))
}

/// The plot; none without kernels and limits.
pub fn svg(report: &Report) -> Option<String> {
    // On one thread, as the kernels run.
    let limits = |unit| {
        let alone = |figure: &&Figure| {
            !figure.name.contains(" threads") && figure.name != crate::suite::BETWEEN_CORES
        };
        let machine = report.figures.iter().filter(|figure| figure.group == Group::Machine).filter(alone);
        machine.filter(|figure| figure.unit == unit).collect::<Vec<_>>()
    };
    let (peaks, bandwidths) = (limits(Unit::Gflops), limits(Unit::Gbytes));
    let points: Vec<(f64, f64)> = kernels(report).map(|(_, figure, x)| (x, figure.value)).collect();
    let peak = peaks.iter().map(|figure| figure.value).fold(0.0, f64::max);
    if points.is_empty() || peak == 0.0 {
        return None;
    }
    let middle = points[0].0;
    let axes = Axes::around(&[points, peaks.iter().map(|figure| (middle, figure.value)).collect()].concat());
    let mut svg = format!(
        "<svg class=\"roofline\" viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"roofline-title roofline-text\">\n\
         <title id=\"roofline-title\">Roofline of the kernels</title>\n<desc id=\"roofline-text\">{}</desc>\n",
        SIZE.0,
        SIZE.1,
        escape(&description(report))
    );
    draw_grid(&mut svg, &axes);
    for figure in bandwidths {
        draw_bandwidth(&mut svg, &axes, figure, peak);
    }
    let marks: Vec<_> = kernels(report).map(|(_, figure, x)| (axes.x(x), axes.y(figure.value))).collect();
    for figure in peaks {
        draw_peak(&mut svg, &axes, figure, &marks);
    }
    for (number, figure, intensity) in kernels(report) {
        draw_kernel(&mut svg, &axes, number, figure, intensity);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The plot in words.
fn description(report: &Report) -> String {
    let kernel = |(number, figure, intensity): (usize, &Figure, f64)| {
        let share = figure
            .limit
            .as_ref()
            .map_or(String::new(), |limit| format!(", {:.0} % of its limit", 100.0 * limit.share));
        format!(
            "{number}: {}, {:.1} GFLOP/s at {intensity:.2} operations a byte{share}",
            figure.name, figure.value
        )
    };
    kernels(report).map(kernel).collect::<Vec<_>>().join("; ")
}

fn draw_grid(svg: &mut String, axes: &Axes) {
    let powers = |(low, high): (f64, f64)| {
        (low.log2() as i32..=high.log2() as i32).map(|power| f64::from(power).exp2())
    };
    for intensity in powers(axes.x) {
        let x = axes.x(intensity);
        _ = writeln!(svg, "<line class=\"rule\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>");
        _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            BOTTOM + 18.0,
            power(intensity)
        );
    }
    for gflops in powers(axes.y) {
        let y = axes.y(gflops);
        _ = writeln!(svg, "<line class=\"rule\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>");
        _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            power(gflops)
        );
    }
    let middle = (LEFT + RIGHT) / 2.0;
    _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">operations a byte</text>",
        SIZE.1 - 14.0
    );
    let middle = (TOP + BOTTOM) / 2.0;
    _ = writeln!(
        svg,
        "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">GFLOP/s</text>"
    );
}

/// A power of two as people write it.
fn power(value: f64) -> String {
    if value < 1.0 { format!("1/{}", 1.0 / value) } else { value.to_string() }
}

/// All limits of the plot are those of one thread.
fn short(name: &str) -> &str {
    name.strip_suffix(", 1 thread").unwrap_or(name)
}

/// A rising line, up to the highest peak.
fn draw_bandwidth(svg: &mut String, axes: &Axes, figure: &Figure, peak: f64) {
    let from = axes.x.0.max(axes.y.0 / figure.value);
    let to = axes.x.1.min(peak / figure.value);
    if from >= to {
        return;
    }
    let at = |intensity: f64| (axes.x(intensity), axes.y(intensity * figure.value));
    let ((x1, y1), (x2, y2)) = (at(from), at(to));
    _ = writeln!(svg, "<line class=\"roof\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
    let (slope, name) = ((y2 - y1).atan2(x2 - x1).to_degrees(), escape(short(&figure.name)));
    let place = format!("translate({x1:.1} {y1:.1}) rotate({slope:.1}) translate(8 -5)");
    _ = writeln!(
        svg,
        "<text class=\"roof-name\" transform=\"{place}\">{name}, {:.0} GB/s</text>",
        figure.value
    );
}

/// A level line, with its name where no kernel's mark hides it.
fn draw_peak(svg: &mut String, axes: &Axes, figure: &Figure, marks: &[(f64, f64)]) {
    let y = axes.y(figure.value);
    _ = writeln!(svg, "<line class=\"roof\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>");
    let name = format!("{}, {:.0} GFLOP/s", short(&figure.name), figure.value);
    let y = y - 5.0;
    let at = place(&name, y, marks);
    let name = escape(&name);
    _ = writeln!(svg, "<text class=\"roof-name\" x=\"{at}\" y=\"{y:.1}\" text-anchor=\"end\">{name}</text>");
}

/// The right end of a text's line that ends as far to the right as marks allow, and if they are everywhere, at the right edge.
fn place(text: &str, y: f64, marks: &[(f64, f64)]) -> f64 {
    let width = LETTER * text.chars().count() as f64;
    let is_free = |&at: &f64| {
        let hides = |&(mark_x, mark_y): &(f64, f64)| {
            (at - width - MARK..at + MARK).contains(&mark_x) && (y - LINE - MARK..y + MARK).contains(&mark_y)
        };
        !marks.iter().any(hides)
    };
    let right = RIGHT - 4.0;
    let mut ends = (0..).map(|step: u32| right - 4.0 * f64::from(step)).take_while(|at| at - width >= LEFT);
    ends.find(is_free).unwrap_or(right)
}

fn draw_kernel(svg: &mut String, axes: &Axes, number: usize, figure: &Figure, intensity: f64) {
    let (x, y, name) = (axes.x(intensity), axes.y(figure.value), escape(&figure.name));
    _ = writeln!(
        svg,
        "<g><title>{number}: {name}, {:.1} GFLOP/s</title><circle class=\"kernel\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{MARK}\"/>\
         <text class=\"kernel-number\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{number}</text></g>",
        figure.value,
        y + 4.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn points_lie_where_their_figures_say() {
        let axes = Axes::around(&[(1.0, 100.0), (30.0, 80.0)]);
        assert_eq!((axes.x, axes.y), ((0.5, 64.0), (32.0, 256.0)));
        assert_eq!((axes.x(0.5), axes.x(64.0)), (LEFT, RIGHT));
        assert_eq!((axes.y(32.0), axes.y(256.0)), (BOTTOM, TOP));
        assert!((axes.y(2.0 * 32.0) - (BOTTOM - (BOTTOM - TOP) / 3.0)).abs() < 1e-9);
    }

    #[test]
    fn a_name_makes_way_for_marks() {
        let right = RIGHT - 4.0;
        let width = LETTER * 3.0;
        assert_eq!(place("FMA", 100.0, &[]), right);
        assert_eq!(place("FMA", 100.0, &[(right, 60.0), (LEFT, 100.0)]), right, "they are elsewhere");
        let at = place("FMA", 100.0, &[(right - 5.0, 95.0)]);
        assert!(at + MARK <= right - 5.0 && at > right - 5.0 - MARK - width, "{at}");
        let everywhere: Vec<_> = (0..100).map(|step| (RIGHT - 8.0 * f64::from(step), 95.0)).collect();
        assert_eq!(place("FMA", 100.0, &everywhere), right);
    }

    #[test]
    fn the_plot_is_xml_with_a_name_for_everything() {
        let svg = svg(&report()).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let root = document.root_element();
        let labels: Vec<&str> = root.attribute("aria-labelledby").unwrap().split(' ').collect();
        for label in labels {
            let named = root.children().find(|node| node.attribute("id") == Some(label)).unwrap();
            assert!(!named.text().unwrap().is_empty());
        }
        let points: Vec<_> = document.descendants().filter(|node| node.has_tag_name("circle")).collect();
        assert_eq!(points.len(), 1);
        let title = points[0].parent().unwrap().first_element_child().unwrap();
        assert_eq!(title.text(), Some("1: NN 100×128×784, 80.0 GFLOP/s"));
        assert!(
            svg.contains("FMA avx2, 100 GFLOP/s") && svg.contains("1: NN 100×128×784, 80.0 GFLOP/s at 29.00")
        );
    }

    #[test]
    fn without_kernels_there_is_no_plot() {
        let mut report = report();
        report.figures.retain(|figure| figure.group != Group::Kernels);
        assert_eq!(svg(&report), None);
    }
}
