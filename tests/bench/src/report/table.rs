//! The table, for a terminal and as Markdown.

use std::fmt::Write as _;

use super::{Cell, Line, Report, Round, digits};
use crate::proxy::Kind;

/// What stands for a figure that nobody took.
const NOTHING: &str = "-";

/// The table as plain text, with what has to be known beside it.
pub fn plain(report: &Report) -> String {
    let mut rows = vec![header(report)];
    rows.extend(report.rows.iter().map(|line| cells(report, line)));
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let lengths = rows.iter().filter_map(|row| row.get(column));
        lengths
            .map(|text| text.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let width = *width;
            let _ = match column {
                0 | 1 => write!(line, "{cell:width$}  "),
                _ => write!(line, "{cell:>width$}  "),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(text, "\n{}", circumstances(report).join("\n"));
    let failures = failures(report);
    if !failures.is_empty() {
        let _ = writeln!(text, "\nFailed runs, for which no ratio is given:");
        for failure in failures {
            let _ = writeln!(text, "  {failure}");
        }
    }
    text
}

/// The same as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("{}\n\n", circumstances(report).join("  \n"));
    let header = header(report);
    let rule = header.iter().enumerate().map(|(column, _)| match column {
        0 | 1 => "---",
        _ => "--:",
    });
    let rule: Vec<_> = rule.map(str::to_owned).collect();
    let rows = report.rows.iter().map(|line| cells(report, line));
    for row in [header, rule].into_iter().chain(rows) {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    let failures = failures(report);
    if !failures.is_empty() {
        let _ = writeln!(text, "\nFailed runs, for which no ratio is given:\n");
        for failure in failures {
            let _ = writeln!(text, "- {failure}");
        }
    }
    text
}

/// Two columns say what a row is, C tor has one, all others two.
fn header(report: &Report) -> Vec<String> {
    let mut header = vec!["row".to_owned(), "what".to_owned()];
    for program in &report.programs {
        header.push(program.name().to_owned());
        if *program != Kind::CTor {
            header.push("/ C tor".to_owned());
        }
    }
    header
}

fn cells(report: &Report, line: &Line) -> Vec<String> {
    let mut cells = vec![line.id.to_owned(), line.title.to_owned()];
    for program in &report.programs {
        let cell = line.cells.iter().find(|cell| cell.program == *program);
        cells.push(cell.map_or(NOTHING.to_owned(), |cell| figure(line, cell)));
        if *program != Kind::CTor {
            let ratio = cell.and_then(|cell| cell.ratio);
            cells.push(ratio.map_or(NOTHING.to_owned(), |ratio| format!("{ratio:.2}")));
        }
    }
    cells
}

/// A figure with its unit, the codes that came with it, and how many runs failed.
fn figure(line: &Line, cell: &Cell) -> String {
    let mut parts = Vec::new();
    if !cell.notes.is_empty() {
        parts.push(cell.notes.join("/"));
    }
    if let Some(median) = cell.median {
        parts.push(format!("{} {}", digits(median), line.unit.word()));
    }
    if cell.failed() > 0 {
        parts.push(format!("failed {}/{}", cell.failed(), cell.rounds.len()));
    }
    if parts.is_empty() {
        return NOTHING.to_owned();
    }
    parts.join(" ")
}

/// Where, when, with what and how it was measured.
fn circumstances(report: &Report) -> Vec<String> {
    let machine = &report.machine;
    let settings = &report.settings;
    let mut lines = vec![
        format!(
            "{}: {}, {} cores, {:.0} GiB, Linux {}",
            report.date, machine.processor, machine.cores, machine.memory_gib, machine.kernel
        ),
        report
            .versions
            .iter()
            .map(|(name, version)| format!("{name}: {version}"))
            .collect::<Vec<_>>()
            .join("; "),
        format!(
            "medians, rounds: {} ({} for codes); {} streams for percentiles, {} s for rates, {} MB a transfer, {} starts a round for transfers, deadline {} s; relays that send {}; far and codes: links of {} ms each way, far: {} MB a transfer",
            settings.rounds,
            settings.code_rounds,
            settings.streams,
            settings.rate_seconds,
            settings.bulk_bytes / 1_000_000,
            settings.transfer_starts,
            settings.deadline_seconds,
            if settings.kist {
                "in runs (KIST)"
            } else {
                "each cell at once"
            },
            settings.distance_ms,
            settings.far_bytes / 1_000_000,
        ),
    ];
    if report.quick {
        lines.push("A short run to try the harness: its figures say nothing.".to_owned());
    }
    lines.extend(machine.warning());
    lines
}

/// Each reason for which a run failed, once for each row and program.
fn failures(report: &Report) -> Vec<String> {
    let mut failures = Vec::new();
    for line in &report.rows {
        for cell in &line.cells {
            let mut reasons: Vec<&str> = Vec::new();
            for round in &cell.rounds {
                if let Round::Failed(why) = round
                    && !reasons.contains(&why.as_str())
                {
                    reasons.push(why);
                }
            }
            for why in reasons {
                failures.push(format!("{}, {}: {why}", line.id, cell.program.name()));
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn a_row_shows_figures_ratios_codes_and_failures() {
        let text = plain(&example());
        let line = |id: &str| {
            let found = text.lines().find(|line| line.starts_with(id));
            let words = found.expect("the row").split_whitespace();
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line("stream.exit.p50"),
            "stream.exit.p50 new stream, exit, p50 20.0 ms 10.0 ms 0.50 50.0 ms failed 1/2 -"
        );
        assert_eq!(
            line("bulk.exit.down.1"),
            "bulk.exit.down.1 download, exit, 1 stream failed 2/2 7.25 MB/s - - -"
        );
        assert_eq!(
            line("codes.F3"),
            "codes.F3 service frozen: answer 06 120 s F3 12.0 s 0.10 - -"
        );
        assert!(text.contains("bulk.exit.down.1, C tor: the proxy said 06\n"));
        assert!(text.contains("A Processor, 2 cores, 8 GiB, Linux 6.1"));
    }

    #[test]
    fn markdown_has_as_many_columns_in_every_line() {
        let text = markdown(&example());
        let widths: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(widths, [8; 5]);
    }
}
