//! Draws the report as an SVG plot: how many times better than C tor each program is, row by row.
//!
//! A bar to the right of the middle is better than C tor, a bar to the left is worse, for times as for
//! speeds. The scale is logarithmic, so that twice as good and half as good have bars of equal length.
//! The background is transparent, and the colours adapt to light and dark mode.

use std::fmt::Write as _;

use super::{Cell, Report, ReportRow, format_figure};
use crate::proxy::Program;

// All lengths are in pixels.

/// The width of the plot.
const WIDTH: f64 = 936.0;

/// The width of the column of titles.
const TITLES: f64 = 306.0;

/// The width of the column of figures.
const FIGURES: f64 = 200.0;

/// The height of heading and legend.
const TOP: f64 = 64.0;

/// The height of a bar, with the space below it.
const BAR: f64 = 9.0;

/// The space between two rows.
const GAP: f64 = 8.0;

/// The height of the scale's labels and the footer.
const FOOT: f64 = 40.0;

/// The scale ends at this factor in both directions. Longer bars are cut off.
const MAX_FACTOR: f64 = 16.0;

/// The factors at which the scale has a line.
const GRID: [f64; 9] = [
    1.0 / 16.0,
    1.0 / 8.0,
    1.0 / 4.0,
    1.0 / 2.0,
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
];

/// The style sheet, with readable colours for light and dark backgrounds.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}\
.title{font-size:15px;font-weight:600}\
.small{font-size:11px;fill:#57606a}\
.line{stroke:#d0d7de;stroke-width:1}\
.middle{stroke:#57606a;stroke-width:1.5}\
.onionport{fill:#7d4698}.before{fill:#bf8fd4}.arti{fill:#b8860b}\
@media (prefers-color-scheme:dark){\
text{fill:#e6edf3}.small{fill:#9198a1}.line{stroke:#3d444d}.middle{stroke:#9198a1}\
.onionport{fill:#b98ad0}.before{fill:#70517e}.arti{fill:#d9a520}}";

/// Draws the rows that have a ratio, or returns `None` if there are none.
pub fn draw_svg(report: &Report) -> Option<String> {
    let others: Vec<Program> = report
        .programs
        .iter()
        .copied()
        .filter(|program| *program != Program::CTor)
        .collect();
    let rows: Vec<&ReportRow> = report
        .rows
        .iter()
        .filter(|row| row.cells.iter().any(|cell| cell.ratio.is_some()))
        .collect();
    if rows.is_empty() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "less than a hundred")]
    let (row_count, bars) = (rows.len() as f64, others.len() as f64);
    let row_height = bars * BAR + GAP;
    let height = TOP + row_count * row_height + FOOT;
    let bottom = height - FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>onionport compared with C tor</title>\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"8\" y=\"20\">Times better than C tor (bars to the right are better)</text>\n"
    );
    draw_legend(&mut svg, &others);
    for factor in GRID {
        let x = x_position(factor);
        let class = if (factor - 1.0).abs() < f64::EPSILON {
            "middle"
        } else {
            "line"
        };
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 14.0,
            format_factor(factor)
        );
    }
    let mut y = TOP + GAP / 2.0;
    for row in rows {
        draw_row(&mut svg, report, row, &others, y);
        y += row_height;
    }
    let mut footer = format!(
        "{} · {}, {} cores · private network on one machine · medians, rounds: {}",
        report.date, report.machine.processor, report.machine.cores, report.settings.rounds
    );
    if report.quick {
        footer.push_str(" · short run, figures mean nothing");
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"8\" y=\"{:.1}\">{}</text>\n</svg>",
        height - 8.0,
        escape(&footer)
    );
    Some(svg)
}

fn draw_legend(svg: &mut String, programs: &[Program]) {
    let mut x = 8.0;
    for program in programs {
        let class = css_class(*program);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"33\" width=\"12\" height=\"12\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"43\">{}</text>",
            x + 18.0,
            program.name()
        );
        x += 150.0;
    }
    let mut names: Vec<_> = programs.iter().map(|program| program.name()).collect();
    names.push(Program::CTor.name());
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        WIDTH - FIGURES + 10.0,
        TOP - 6.0,
        names.join(" : ")
    );
}

/// Draws one row: its title, a bar for each program, and their figures.
fn draw_row(svg: &mut String, report: &Report, row: &ReportRow, programs: &[Program], top: f64) {
    let mut y = top;
    let middle = x_position(1.0);
    let mut figures = Vec::new();
    for program in programs {
        let cell = row.cells.iter().find(|cell| cell.program == *program);
        if let Some(ratio) = cell.and_then(|cell| cell.ratio) {
            let better = if row.unit.is_higher_better() {
                ratio
            } else {
                1.0 / ratio.max(f64::MIN_POSITIVE)
            };
            let end = x_position(better);
            let (from, to) = if end < middle {
                (end, middle)
            } else {
                (middle, end)
            };
            let _ = writeln!(
                svg,
                "<rect class=\"{}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\"/>",
                css_class(*program),
                // A minimum width, so that a very short bar does not look like a missing one.
                (to - from).max(1.5),
                BAR - 1.0
            );
        }
        y += BAR;
    }
    for program in report
        .programs
        .iter()
        .filter(|p| **p != Program::CTor)
        .chain([&Program::CTor])
    {
        let cell = row.cells.iter().find(|cell| cell.program == *program);
        figures.push(cell.map_or("-".to_owned(), format_cell));
    }
    let baseline = f64::midpoint(top, y) + 4.0;
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\">{}</text>\
         <text class=\"small\" x=\"{:.1}\" y=\"{baseline:.1}\">{} {}</text>",
        TITLES - 8.0,
        escape(row.title),
        WIDTH - FIGURES + 10.0,
        figures.join(" : "),
        row.unit.symbol()
    );
}

/// Formats the reply codes and the median.
fn format_cell(cell: &Cell) -> String {
    let median = cell.median.map_or("-".to_owned(), format_figure);
    if cell.notes.is_empty() {
        return median;
    }
    format!("{} {median}", cell.notes.join("/"))
}

/// Returns the horizontal position of a factor on the scale.
fn x_position(factor: f64) -> f64 {
    let factor = factor.clamp(1.0 / MAX_FACTOR, MAX_FACTOR);
    let width = WIDTH - TITLES - FIGURES;
    TITLES + width * (factor.log2() / MAX_FACTOR.log2() + 1.0) / 2.0
}

/// Formats a factor of the scale.
fn format_factor(factor: f64) -> String {
    if factor < 1.0 {
        format!("1/{:.0}", 1.0 / factor)
    } else {
        format!("{factor:.0}×")
    }
}

fn css_class(program: Program) -> &'static str {
    match program {
        Program::Onionport => "onionport",
        Program::Before => "before",
        Program::Arti => "arti",
        Program::CTor => "ctor",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn only_rows_with_a_ratio_are_drawn() {
        let drawn = draw_svg(&example()).expect("a plot");
        assert!(drawn.contains(">new stream, exit, p50<"));
        assert!(!drawn.contains(">download, exit, 1 stream<"));
        // One in the legend, and one in each of two rows.
        assert_eq!(drawn.matches("<rect class=\"onionport\"").count(), 3);
    }

    #[test]
    fn better_factors_are_further_right_and_the_scale_is_limited() {
        assert!(x_position(2.0) > x_position(1.0));
        assert!(x_position(0.5) < x_position(1.0));
        assert!((x_position(1000.0) - (WIDTH - FIGURES)).abs() < 1e-9);
        assert!((x_position(0.0) - TITLES).abs() < 1e-9);
    }

    #[test]
    fn a_report_without_rows_has_no_plot() {
        let mut report = example();
        report.rows.clear();
        assert_eq!(draw_svg(&report), None);
    }
}
