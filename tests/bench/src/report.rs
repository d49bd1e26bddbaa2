//! What the runs come to: medians, ratios to C tor, and the forms in which they are shown.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::catalog::{ROWS, Unit};
use crate::machine::Machine;
use crate::options::{Amounts, Picked};
use crate::proxy::Kind;
use crate::record::{Outcome, Record};
use crate::stats::median;

pub mod markers;
pub mod plot;
pub mod table;

/// All there is to tell of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The day on which it began.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// Of what.
    pub versions: BTreeMap<String, String>,
    /// Whether it was a short run, whose figures say nothing.
    pub quick: bool,
    /// How much of everything was done.
    pub settings: Amounts,
    /// The programs, in the order of the table's columns.
    pub programs: Vec<Kind>,
    /// The rows that were wanted.
    pub rows: Vec<Line>,
}

impl Report {
    /// The rows in which a run of a program failed, or in which it sent another code than that of the row.
    pub fn failed_rows(&self, program: Kind) -> Vec<&'static str> {
        let failed = |line: &&Line| {
            let code = line.id.strip_prefix("codes.");
            let cell = line.cells.iter().find(|cell| cell.program == program);
            cell.is_some_and(|cell| {
                cell.sound().is_none() || code.is_some_and(|code| cell.notes != [code])
            })
        };
        self.rows
            .iter()
            .filter(failed)
            .map(|line| line.id)
            .collect()
    }
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The row's name.
    pub id: &'static str,
    /// The row's title.
    pub title: &'static str,
    /// The unit of all its figures.
    pub unit: Unit,
    /// What each program came to.
    pub cells: Vec<Cell>,
}

/// What one program came to in one row.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Which program.
    pub program: Kind,
    /// The median of the rounds that did not fail.
    pub median: Option<f64>,
    /// The median divided by C tor's; none if a run of either failed.
    pub ratio: Option<f64>,
    /// What was told with the figures, all that differs.
    pub notes: Vec<String>,
    /// Every round.
    pub rounds: Vec<Round>,
}

/// One round.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Round {
    /// The figure.
    Value(f64),
    /// Why there is none.
    Failed(String),
}

impl Cell {
    fn new(program: Kind, outcomes: &[Outcome]) -> Cell {
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

    /// How many rounds failed.
    pub fn failed(&self) -> usize {
        self.rounds
            .iter()
            .filter(|round| matches!(round, Round::Failed(_)))
            .count()
    }

    /// The median, if every round has a figure.
    fn sound(&self) -> Option<f64> {
        self.median.filter(|_| self.failed() == 0)
    }
}

impl Line {
    /// The line of a row; none if it was not measured.
    fn new(row: &crate::catalog::Row, programs: &[Kind], record: &Record) -> Option<Line> {
        let mut cells: Vec<Cell> = programs
            .iter()
            .map(|&program| Cell::new(program, record.of(row.id, program)))
            .collect();
        if cells.iter().all(|cell| cell.rounds.is_empty()) {
            return None;
        }
        let base = cells.iter().find(|cell| cell.program == Kind::CTor);
        let base = base.and_then(Cell::sound).filter(|base| *base > 0.0);
        for cell in &mut cells {
            if cell.program != Kind::CTor {
                cell.ratio = cell.sound().zip(base).map(|(own, base)| own / base);
            }
        }
        Some(Line {
            id: row.id,
            title: row.title,
            unit: row.unit,
            cells,
        })
    }
}

/// The rows of a record, in the order of the catalogue.
pub fn lines(programs: &[Kind], picked: &Picked, record: &Record) -> Vec<Line> {
    ROWS.iter()
        .filter(|row| picked.wants(row.id))
        .filter_map(|row| Line::new(row, programs, record))
        .collect()
}

/// A figure with as many digits as it is worth: three.
pub fn digits(value: f64) -> String {
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
    use crate::record::Sheet;

    /// A record of two rounds in which arti failed once, and C tor always at one row.
    pub(crate) fn example() -> Report {
        let options = Options::parse_from(["bench"]);
        let picked = options.picked().expect("all");
        let mut record = Record::default();
        for (round, why) in [(1.0, None), (3.0, Some("it broke"))] {
            let mut sheet = Sheet::new(&picked);
            sheet.put("stream.exit.p50", 10.0 * round);
            sheet.fail("bulk.exit.down.1", &anyhow::anyhow!("the proxy said 06"));
            sheet.put_with("codes.F3", 120.0, "06".into());
            record.add(Kind::CTor, sheet);
            let mut sheet = Sheet::new(&picked);
            sheet.put("stream.exit.p50", 5.0 * round);
            sheet.put("bulk.exit.down.1", 7.25);
            sheet.put_with("codes.F3", 12.0, "F3".into());
            record.add(Kind::Onionport, sheet);
            let mut sheet = Sheet::new(&picked);
            match why {
                Some(why) => sheet.fail("stream.exit.p50", &anyhow::anyhow!(why)),
                None => sheet.put("stream.exit.p50", 50.0),
            }
            record.add(Kind::Arti, sheet);
        }
        let programs = vec![Kind::CTor, Kind::Onionport, Kind::Arti];
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
            settings: options.amounts(),
            rows: lines(&programs, &picked, &record),
            programs,
        }
    }

    fn cell(report: &Report, id: &str, program: Kind) -> Cell {
        let line = report.rows.iter().find(|line| line.id == id);
        let cells = &line.expect("the row").cells;
        let cell = cells.iter().find(|cell| cell.program == program);
        cell.expect("the program").clone()
    }

    #[test]
    fn a_ratio_is_that_of_the_medians() {
        let cell = cell(&example(), "stream.exit.p50", Kind::Onionport);
        assert_eq!((cell.median, cell.ratio), (Some(10.0), Some(0.5)));
    }

    #[test]
    fn there_is_no_ratio_when_a_run_of_either_side_failed() {
        let report = example();
        let arti = cell(&report, "stream.exit.p50", Kind::Arti);
        assert_eq!(
            (arti.median, arti.ratio, arti.failed()),
            (Some(50.0), None, 1)
        );
        let ours = cell(&report, "bulk.exit.down.1", Kind::Onionport);
        assert_eq!((ours.median, ours.ratio), (Some(7.25), None));
    }

    #[test]
    fn a_failed_run_and_a_wrong_code_are_failures_of_the_row() {
        let report = example();
        assert!(report.failed_rows(Kind::Onionport).is_empty());
        assert_eq!(
            report.failed_rows(Kind::CTor),
            ["bulk.exit.down.1", "codes.F3"]
        );
        // Rows without any run of a program are failures too, but for those that nobody measured.
        assert_eq!(
            report.failed_rows(Kind::Arti),
            ["stream.exit.p50", "bulk.exit.down.1", "codes.F3"]
        );
    }

    #[test]
    fn rows_that_nobody_measured_are_left_out() {
        let ids: Vec<_> = example().rows.iter().map(|line| line.id).collect();
        assert_eq!(ids, ["stream.exit.p50", "bulk.exit.down.1", "codes.F3"]);
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (0.0, "0.00"),
            (0.0012, "0.0012"),
            (0.456, "0.46"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (1234.5, "1234"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
