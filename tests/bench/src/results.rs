//! The results of all runs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::options::{RowFilter, is_below};
use crate::proxy::Program;

/// One measured figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The value, in the unit of the row.
    pub value: f64,
    /// The reply code, for the rows that measure one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The result of one run of a row: a figure, or why it failed.
pub type Outcome = Result<Figure, String>;

/// The outcomes of one group of rows, for one program in one round.
#[derive(Debug)]
pub struct RunResults<'a> {
    filter: &'a RowFilter,
    outcomes: Vec<(&'static str, Outcome)>,
}

impl<'a> RunResults<'a> {
    /// Creates an empty set of results that ignores rows which `filter` excludes.
    pub fn new(filter: &'a RowFilter) -> Self {
        RunResults {
            filter,
            outcomes: Vec::new(),
        }
    }

    /// Whether the row is to be measured.
    pub fn includes(&self, id: &str) -> bool {
        self.filter.includes(id)
    }

    /// Whether any row with this name or below it is to be measured.
    pub fn includes_any(&self, name: &str) -> bool {
        self.filter.includes_any(name)
    }

    /// Adds a figure, unless the row is excluded or already has an outcome.
    pub fn add(&mut self, id: &'static str, value: f64) {
        self.insert(id, Ok(Figure { value, note: None }));
    }

    /// Adds a figure with a note, under the same conditions as [`add`](Self::add).
    pub fn add_with_note(&mut self, id: &'static str, value: f64, note: String) {
        let note = Some(note);
        self.insert(id, Ok(Figure { value, note }));
    }

    /// Adds a failure, under the same conditions as [`add`](Self::add).
    pub fn add_failure(&mut self, id: &'static str, error: &anyhow::Error) {
        self.insert(id, Err(format!("{error:#}")));
    }

    /// Adds the figure or the failure, under the same conditions as [`add`](Self::add).
    pub fn add_outcome(&mut self, id: &'static str, measured: anyhow::Result<f64>) {
        match measured {
            Ok(value) => self.add(id, value),
            Err(error) => self.add_failure(id, &error),
        }
    }

    /// Adds a failure of all rows with this name or below it that have no outcome yet.
    pub fn add_failures(&mut self, name: &str, error: &anyhow::Error) {
        for row in crate::catalog::ROWS {
            if is_below(name, row.id) {
                self.add_failure(row.id, error);
            }
        }
    }

    fn insert(&mut self, id: &'static str, outcome: Outcome) {
        let known = self.outcomes.iter().any(|(other, _)| *other == id);
        if self.filter.includes(id) && !known {
            self.outcomes.push((id, outcome));
        }
    }
}

/// The outcomes of all runs, one for each row, program and round.
#[derive(Clone, Debug, Default)]
pub struct Results(BTreeMap<(&'static str, Program), Vec<Outcome>>);

impl Results {
    /// Adds the results of one run.
    pub fn add(&mut self, program: Program, run: RunResults<'_>) {
        for (id, outcome) in run.outcomes {
            self.0.entry((id, program)).or_default().push(outcome);
        }
    }

    /// Returns the outcomes of a row for a program, in the order of the rounds.
    pub fn get(&self, id: &'static str, program: Program) -> &[Outcome] {
        self.0.get(&(id, program)).map_or(&[], Vec::as_slice)
    }
}
