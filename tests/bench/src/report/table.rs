//! Formats the report as a table, in plain text and in Markdown.

use std::fmt::Write as _;

use super::{Cell, Report, ReportRow, Round, format_figure};
use crate::proxy::Program;

/// Printed in place of a missing figure.
const NO_FIGURE: &str = "-";

/// Formats the table as plain text, followed by a description of the run and the failures.
pub fn format_text(report: &Report) -> String {
    let mut rows = vec![header_cells(report)];
    rows.extend(report.rows.iter().map(|row| row_cells(report, row)));
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
    let _ = writeln!(text, "\n{}", describe_run(report).join("\n"));
    let failures = list_failures(report);
    if !failures.is_empty() {
        let _ = writeln!(text, "\nFailed runs, for which no ratio is given:");
        for failure in failures {
            let _ = writeln!(text, "  {failure}");
        }
    }
    text
}

/// Formats the table as Markdown, preceded by a description of the run and followed by the failures.
pub fn format_markdown(report: &Report) -> String {
    let mut text = format!("{}\n\n", describe_run(report).join("  \n"));
    let header = header_cells(report);
    let rule = header.iter().enumerate().map(|(column, _)| match column {
        0 | 1 => "---",
        _ => "--:",
    });
    let rule: Vec<_> = rule.map(str::to_owned).collect();
    let rows = report.rows.iter().map(|row| row_cells(report, row));
    for row in [header, rule].into_iter().chain(rows) {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    let failures = list_failures(report);
    if !failures.is_empty() {
        let _ = writeln!(text, "\nFailed runs, for which no ratio is given:\n");
        for failure in failures {
            let _ = writeln!(text, "- {failure}");
        }
    }
    text
}

/// Returns the header: name and title of the row, one column for C tor, and two for each other program.
fn header_cells(report: &Report) -> Vec<String> {
    let mut header = vec!["row".to_owned(), "what".to_owned()];
    for program in &report.programs {
        header.push(program.name().to_owned());
        if *program != Program::CTor {
            header.push("/ C tor".to_owned());
        }
    }
    header
}

fn row_cells(report: &Report, row: &ReportRow) -> Vec<String> {
    let mut cells = vec![row.id.to_owned(), row.title.to_owned()];
    for program in &report.programs {
        let cell = row.cells.iter().find(|cell| cell.program == *program);
        cells.push(cell.map_or(NO_FIGURE.to_owned(), |cell| format_cell(row, cell)));
        if *program != Program::CTor {
            let ratio = cell.and_then(|cell| cell.ratio);
            cells.push(ratio.map_or(NO_FIGURE.to_owned(), |ratio| format!("{ratio:.2}")));
        }
    }
    cells
}

/// Formats the reply codes, the median with its unit, and the number of failed runs.
fn format_cell(row: &ReportRow, cell: &Cell) -> String {
    let mut parts = Vec::new();
    if !cell.notes.is_empty() {
        parts.push(cell.notes.join("/"));
    }
    if let Some(median) = cell.median {
        parts.push(format!("{} {}", format_figure(median), row.unit.symbol()));
    }
    if cell.failed_rounds() > 0 {
        parts.push(format!(
            "failed {}/{}",
            cell.failed_rounds(),
            cell.rounds.len()
        ));
    }
    if parts.is_empty() {
        return NO_FIGURE.to_owned();
    }
    parts.join(" ")
}

/// Describes the run, one line each: date and computer, versions, settings, warnings.
fn describe_run(report: &Report) -> Vec<String> {
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
            "medians, rounds: {} ({} for codes); {} streams for percentiles, {} s for rates, {} MB per transfer, {} starts per round for transfers, deadline {} s; relays that send {}; far and codes: links of {} ms each way, far: {} MB per transfer",
            settings.rounds,
            settings.code_rounds,
            settings.streams,
            settings.rate_seconds,
            settings.bulk_bytes / 1_000_000,
            settings.transfer_starts,
            settings.deadline_seconds,
            if settings.kist {
                "in bursts (KIST)"
            } else {
                "each cell at once"
            },
            settings.distance_ms,
            settings.far_bytes / 1_000_000,
        ),
    ];
    if report.quick {
        lines.push(
            "This is a short run to check that everything works: its figures mean nothing."
                .to_owned(),
        );
    }
    lines.extend(machine.warning());
    lines
}

/// Returns the reasons for failed runs, each reason once for each row and program.
fn list_failures(report: &Report) -> Vec<String> {
    let mut failures = Vec::new();
    for row in &report.rows {
        for cell in &row.cells {
            let mut reasons: Vec<&str> = Vec::new();
            for round in &cell.rounds {
                if let Round::Failed(reason) = round
                    && !reasons.contains(&reason.as_str())
                {
                    reasons.push(reason);
                }
            }
            for reason in reasons {
                failures.push(format!("{}, {}: {reason}", row.id, cell.program.name()));
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
    fn a_row_contains_figures_ratios_codes_and_failures() {
        let text = format_text(&example());
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
            "codes.F3 service frozen: reply 06 120 s F3 12.0 s 0.10 - -"
        );
        assert!(text.contains("bulk.exit.down.1, C tor: the proxy replied 06\n"));
        assert!(text.contains("A Processor, 2 cores, 8 GiB, Linux 6.1"));
    }

    #[test]
    fn all_markdown_rows_have_the_same_number_of_columns() {
        let text = format_markdown(&example());
        let widths: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(widths, [8; 5]);
    }
}
