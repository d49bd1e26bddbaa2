//! The plot: how many times better than C tor each program is, row by row, as SVG.
//!
//! A bar to the right of the middle is better than C tor, to the left worse, whatever the row counts;
//! the scale is logarithmic, so that twice as good and half as good are bars of one length. It brings
//! its colours for light and dark backgrounds, and paints none of its own.

use std::fmt::Write as _;

use super::{Cell, Line, Report, digits};
use crate::proxy::Kind;

/// All in pixels.
const WIDTH: f64 = 936.0;
const LABELS: f64 = 306.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 64.0;
const BAR: f64 = 9.0;
const GAP: f64 = 8.0;
const FOOT: f64 = 40.0;

/// The scale reaches from this many times worse to as many times better; what is beyond is cut off.
const REACH: f64 = 16.0;

/// Lines of the scale.
const LINES: [f64; 9] = [
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

/// Colours that can be read on white, and on black.
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

/// Draws the rows that have a ratio; `None` if there are none.
pub fn svg(report: &Report) -> Option<String> {
    let others: Vec<Kind> = report
        .programs
        .iter()
        .copied()
        .filter(|program| *program != Kind::CTor)
        .collect();
    let rows: Vec<&Line> = report
        .rows
        .iter()
        .filter(|line| line.cells.iter().any(|cell| cell.ratio.is_some()))
        .collect();
    if rows.is_empty() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "some dozens")]
    let (row_count, bars) = (rows.len() as f64, others.len() as f64);
    let row_height = bars * BAR + GAP;
    let height = TOP + row_count * row_height + FOOT;
    let bottom = height - FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>onionport beside C tor</title>\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"8\" y=\"20\">Times better than C tor (bars to the right are better)</text>\n"
    );
    legend(&mut svg, &others);
    for line in LINES {
        let at = place(line);
        let class = if (line - 1.0).abs() < f64::EPSILON {
            "middle"
        } else {
            "line"
        };
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 14.0,
            factor(line)
        );
    }
    let mut y = TOP + GAP / 2.0;
    for row in rows {
        draw(&mut svg, report, row, &others, y);
        y += row_height;
    }
    let mut foot = format!(
        "{} · {}, {} cores · private network on one machine · medians, rounds: {}",
        report.date, report.machine.processor, report.machine.cores, report.settings.rounds
    );
    if report.quick {
        foot.push_str(" · a short run, which says nothing");
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"8\" y=\"{:.1}\">{}</text>\n</svg>",
        height - 8.0,
        escape(&foot)
    );
    Some(svg)
}

fn legend(svg: &mut String, programs: &[Kind]) {
    let mut x = 8.0;
    for program in programs {
        let class = class(*program);
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
    names.push(Kind::CTor.name());
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        WIDTH - RIGHT + 10.0,
        TOP - 6.0,
        names.join(" : ")
    );
}

/// One row: its title, a bar for each program, and the figures behind them.
fn draw(svg: &mut String, report: &Report, row: &Line, programs: &[Kind], top: f64) {
    let mut y = top;
    let middle = place(1.0);
    let mut figures = Vec::new();
    for program in programs {
        let cell = row.cells.iter().find(|cell| cell.program == *program);
        if let Some(ratio) = cell.and_then(|cell| cell.ratio) {
            let better = if row.unit.more_is_better() {
                ratio
            } else {
                1.0 / ratio.max(f64::MIN_POSITIVE)
            };
            let end = place(better);
            let (from, to) = if end < middle {
                (end, middle)
            } else {
                (middle, end)
            };
            let _ = writeln!(
                svg,
                "<rect class=\"{}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"1.5\"/>",
                class(*program),
                // A bar that is not seen would look like a missing one.
                (to - from).max(1.5),
                BAR - 1.0
            );
        }
        y += BAR;
    }
    for program in report
        .programs
        .iter()
        .filter(|p| **p != Kind::CTor)
        .chain([&Kind::CTor])
    {
        let cell = row.cells.iter().find(|cell| cell.program == *program);
        figures.push(cell.map_or("-".to_owned(), figure));
    }
    let line = f64::midpoint(top, y) + 4.0;
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{line:.1}\" text-anchor=\"end\">{}</text>\
         <text class=\"small\" x=\"{:.1}\" y=\"{line:.1}\">{} {}</text>",
        LABELS - 8.0,
        escape(row.title),
        WIDTH - RIGHT + 10.0,
        figures.join(" : "),
        row.unit.word()
    );
}

/// The median, behind the codes that came with it.
fn figure(cell: &Cell) -> String {
    let median = cell.median.map_or("-".to_owned(), digits);
    if cell.notes.is_empty() {
        return median;
    }
    format!("{} {median}", cell.notes.join("/"))
}

/// Where a factor stands on the scale.
fn place(factor: f64) -> f64 {
    let factor = factor.clamp(1.0 / REACH, REACH);
    let width = WIDTH - LABELS - RIGHT;
    LABELS + width * (factor.log2() / REACH.log2() + 1.0) / 2.0
}

/// A factor of the scale, in words.
fn factor(line: f64) -> String {
    if line < 1.0 {
        format!("1/{:.0}", 1.0 / line)
    } else {
        format!("{line:.0}×")
    }
}

fn class(program: Kind) -> &'static str {
    match program {
        Kind::Onionport => "onionport",
        Kind::Before => "before",
        Kind::Arti => "arti",
        Kind::CTor => "ctor",
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
        let drawn = svg(&example()).expect("a plot");
        assert!(drawn.contains(">new stream, exit, p50<"));
        assert!(!drawn.contains(">download, exit, 1 stream<"));
        // One in the legend, and one for each of two rows.
        assert_eq!(drawn.matches("<rect class=\"onionport\"").count(), 3);
    }

    #[test]
    fn better_is_to_the_right_and_the_scale_has_an_end() {
        assert!(place(2.0) > place(1.0));
        assert!(place(0.5) < place(1.0));
        assert!((place(1000.0) - (WIDTH - RIGHT)).abs() < 1e-9);
        assert!((place(0.0) - LABELS).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let mut report = example();
        report.rows.clear();
        assert_eq!(svg(&report), None);
    }
}
