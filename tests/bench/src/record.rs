//! What was measured, run by run.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::options::Picked;
use crate::proxy::Kind;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// In the unit of the row.
    pub value: f64,
    /// What else has to be told with it: the code that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How one run of a row ended: with a figure, or with the reason why there is none.
pub type Outcome = Result<Figure, String>;

/// The figures of one group with one program in one round, as they are made.
#[derive(Debug)]
pub struct Sheet<'a> {
    picked: &'a Picked,
    outcomes: Vec<(&'static str, Outcome)>,
}

impl<'a> Sheet<'a> {
    /// An empty one that takes the rows which are wanted.
    pub fn new(picked: &'a Picked) -> Self {
        Sheet {
            picked,
            outcomes: Vec::new(),
        }
    }

    /// Whether a row is wanted.
    pub fn wants(&self, id: &str) -> bool {
        self.picked.wants(id)
    }

    /// Whether a row whose name begins so is wanted.
    pub fn wants_any(&self, beginning: &str) -> bool {
        self.picked.wants_any(beginning)
    }

    /// Notes a figure. A row that is not wanted, or that has an outcome already, is left.
    pub fn put(&mut self, id: &'static str, value: f64) {
        self.add(id, Ok(Figure { value, note: None }));
    }

    /// The same with something to be told with it.
    pub fn put_with(&mut self, id: &'static str, value: f64, note: String) {
        let note = Some(note);
        self.add(id, Ok(Figure { value, note }));
    }

    /// Notes that a row failed in this run, and why.
    pub fn fail(&mut self, id: &'static str, why: &anyhow::Error) {
        self.add(id, Err(format!("{why:#}")));
    }

    /// Notes that all rows below a name failed, but those that have an outcome already.
    pub fn fail_all(&mut self, beginning: &str, why: &anyhow::Error) {
        for row in crate::catalog::ROWS {
            let rest = row.id.strip_prefix(beginning);
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
                self.fail(row.id, why);
            }
        }
    }

    fn add(&mut self, id: &'static str, outcome: Outcome) {
        let known = self.outcomes.iter().any(|(other, _)| *other == id);
        if self.picked.wants(id) && !known {
            self.outcomes.push((id, outcome));
        }
    }

    /// What it holds.
    pub fn outcomes(self) -> Vec<(&'static str, Outcome)> {
        self.outcomes
    }
}

/// All runs: by row, then by program, one outcome for each round.
#[derive(Clone, Debug, Default)]
pub struct Record(BTreeMap<(&'static str, Kind), Vec<Outcome>>);

impl Record {
    /// Takes in a sheet.
    pub fn add(&mut self, kind: Kind, sheet: Sheet<'_>) {
        for (id, outcome) in sheet.outcomes() {
            self.0.entry((id, kind)).or_default().push(outcome);
        }
    }

    /// The outcomes of a row with a program.
    pub fn of(&self, id: &'static str, kind: Kind) -> &[Outcome] {
        self.0.get(&(id, kind)).map_or(&[], Vec::as_slice)
    }

    /// Whether nothing was measured at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
