//! The report of a run: medians, ratios to C tor, and its output formats.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::catalog::{ROWS, Row, Unit};
use crate::machine::Machine;
use crate::options::{RowFilter, Settings};
use crate::proxy::Program;
use crate::results::{Outcome, Results};
use crate::stats::median;

pub mod markers;
pub mod plot;
pub mod table;

/// The report of a run. `results.json` contains all of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The date on which the run began, in UTC.
    pub date: String,
    /// The computer.
    pub machine: Machine,
    /// The versions of the programs, and the commit.
    pub versions: BTreeMap<String, String>,
    /// Whether it was a short run, whose figures mean nothing.
    pub quick: bool,
    /// The size of each measurement.
    pub settings: Settings,
    /// The programs, in the order of the table's columns.
    pub programs: Vec<Program>,
    /// The rows that were measured.
    pub rows: Vec<ReportRow>,
}

impl Report {
    /// Returns the rows in which a run of the program failed, or in which it sent a code other than
    /// the row's.
    pub fn failed_rows(&self, program: Program) -> Vec<&'static str> {
        let failed = |row: &&ReportRow| {
            let code = row.id.strip_prefix("codes.");
            let cell = row.cells.iter().find(|cell| cell.program == program);
            cell.is_some_and(|cell| {
                cell.complete_median().is_none() || code.is_some_and(|code| cell.notes != [code])
            })
        };
        self.rows.iter().filter(failed).map(|row| row.id).collect()
    }
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct ReportRow {
    /// The row's name.
    pub id: &'static str,
    /// The row's title.
    pub title: &'static str,
    /// The unit of all its figures.
    pub unit: Unit,
    /// The results of each program.
    pub cells: Vec<Cell>,
}

/// The results of one program in one row.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The program.
    pub program: Program,
    /// The median of the rounds that did not fail.
    pub median: Option<f64>,
    /// The median divided by C tor's; none if a run of either failed.
    pub ratio: Option<f64>,
    /// The distinct reply codes, for rows that measure codes.
    pub notes: Vec<String>,
    /// The result of each round.
    pub rounds: Vec<Round>,
}

/// The result of one round.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Round {
    /// The figure.
    Value(f64),
    /// Why the run failed.
    Failed(String),
}

impl Cell {
    fn new(program: Program, outcomes: &[Outcome]) -> Cell {
        let figures: Vec<f64> = outcomes
            .iter()
            .flatten()
            .map(|figure| figure.value)
            .collect();
        let mut notes: Vec<String> = outcomes
            .iter()
            .flatten()
            .filter_map(|figure| figure.note.as_deref())
            .flat_map(|note| note.split('/').map(str::to_owned))
            .collect();
        notes.sort();
        notes.dedup();
        Cell {
            program,
            median: median(&figures),
            ratio: None,
            notes,
            rounds: outcomes
                .iter()
                .map(|outcome| match outcome {
                    Ok(figure) => Round::Value(figure.value),
                    Err(why) => Round::Failed(why.clone()),
                })
                .collect(),
        }
    }

    /// Returns the number of failed rounds.
    pub fn failed_rounds(&self) -> usize {
        self.rounds
            .iter()
            .filter(|round| matches!(round, Round::Failed(_)))
            .count()
    }

    /// Returns the median if no round failed.
    fn complete_median(&self) -> Option<f64> {
        self.median.filter(|_| self.failed_rounds() == 0)
    }
}

impl ReportRow {
    /// Collects the results of a row, or returns `None` if it was not measured.
    fn new(row: &Row, programs: &[Program], results: &Results) -> Option<ReportRow> {
        let mut cells: Vec<Cell> = programs
            .iter()
            .map(|&program| Cell::new(program, results.get(row.id, program)))
            .collect();
        if cells.iter().all(|cell| cell.rounds.is_empty()) {
            return None;
        }
        let base = cells.iter().find(|cell| cell.program == Program::CTor);
        let base = base
            .and_then(Cell::complete_median)
            .filter(|base| *base > 0.0);
        for cell in &mut cells {
            if cell.program != Program::CTor {
                cell.ratio = cell
                    .complete_median()
                    .zip(base)
                    .map(|(own, base)| own / base);
            }
        }
        Some(ReportRow {
            id: row.id,
            title: row.title,
            unit: row.unit,
            cells,
        })
    }
}

/// Collects the results of all measured rows, in the order of the catalogue.
pub fn collect_rows(programs: &[Program], filter: &RowFilter, results: &Results) -> Vec<ReportRow> {
    ROWS.iter()
        .filter(|row| filter.includes(row.id))
        .filter_map(|row| ReportRow::new(row, programs, results))
        .collect()
}

/// Formats a figure with about three significant digits.
pub fn format_figure(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 0.01 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::options::Options;
    use crate::results::RunResults;

    /// A report of two rounds, in which arti failed once and C tor failed in one row both times.
    pub(crate) fn example() -> Report {
        let options = Options::parse_from(["bench"]);
        let filter = options.row_filter().expect("all rows");
        let mut results = Results::default();
        for (round, error) in [(1.0, None), (3.0, Some("broken"))] {
            let mut run = RunResults::new(&filter);
            run.add("stream.exit.p50", 10.0 * round);
            run.add_failure("bulk.exit.down.1", &anyhow::anyhow!("the proxy replied 06"));
            run.add_with_note("codes.F3", 120.0, "06".into());
            results.add(Program::CTor, run);
            let mut run = RunResults::new(&filter);
            run.add("stream.exit.p50", 5.0 * round);
            run.add("bulk.exit.down.1", 7.25);
            run.add_with_note("codes.F3", 12.0, "F3".into());
            results.add(Program::Onionport, run);
            let mut run = RunResults::new(&filter);
            match error {
                Some(error) => run.add_failure("stream.exit.p50", &anyhow::anyhow!(error)),
                None => run.add("stream.exit.p50", 50.0),
            }
            results.add(Program::Arti, run);
        }
        let programs = vec![Program::CTor, Program::Onionport, Program::Arti];
        Report {
            date: "2026-11-23".into(),
            machine: Machine {
                processor: "A Processor".into(),
                cores: 2,
                memory_gib: 8.0,
                kernel: "6.1".into(),
                load_before: 0.1,
            },
            versions: BTreeMap::from([("C tor".into(), "Tor version 0".into())]),
            quick: false,
            settings: options.settings(),
            rows: collect_rows(&programs, &filter, &results),
            programs,
        }
    }

    fn cell(report: &Report, id: &str, program: Program) -> Cell {
        let row = report.rows.iter().find(|row| row.id == id);
        let cells = &row.expect("the row").cells;
        let cell = cells.iter().find(|cell| cell.program == program);
        cell.expect("the program").clone()
    }

    #[test]
    fn the_ratio_divides_the_medians() {
        let cell = cell(&example(), "stream.exit.p50", Program::Onionport);
        assert_eq!((cell.median, cell.ratio), (Some(10.0), Some(0.5)));
    }

    #[test]
    fn there_is_no_ratio_if_a_run_of_either_program_failed() {
        let report = example();
        let arti = cell(&report, "stream.exit.p50", Program::Arti);
        assert_eq!(
            (arti.median, arti.ratio, arti.failed_rounds()),
            (Some(50.0), None, 1)
        );
        let onionport = cell(&report, "bulk.exit.down.1", Program::Onionport);
        assert_eq!((onionport.median, onionport.ratio), (Some(7.25), None));
    }

    #[test]
    fn a_row_fails_if_a_run_fails_or_the_code_is_wrong() {
        let report = example();
        assert!(report.failed_rows(Program::Onionport).is_empty());
        assert_eq!(
            report.failed_rows(Program::CTor),
            ["bulk.exit.down.1", "codes.F3"]
        );
        // A row fails for a program without a run if another program was measured.
        assert_eq!(
            report.failed_rows(Program::Arti),
            ["stream.exit.p50", "bulk.exit.down.1", "codes.F3"]
        );
    }

    #[test]
    fn rows_that_were_not_measured_are_left_out() {
        let ids: Vec<_> = example().rows.iter().map(|row| row.id).collect();
        assert_eq!(ids, ["stream.exit.p50", "bulk.exit.down.1", "codes.F3"]);
    }

    #[test]
    fn figures_have_about_three_significant_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.0012, "0.0012"),
            (0.456, "0.46"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (1234.5, "1234"),
        ] {
            assert_eq!(format_figure(value), text);
        }
    }
}
