//! From lines to values: which line counts (confmgt.c: `config_assign`; tor(1), `+Option`).
//!
//! Of an option with one value the last line counts, in whichever file. A list takes all lines of a
//! file; the lists of earlier files go when a later file names the option, unless its first line has
//! a `+`.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{MAX_LISTED, Place, TorrcError, Unknown};
use super::files::Line;
use super::lines::Mode;
use super::options::{self, Kind, Opt, Role};
use super::value;
use crate::config::access::Rule;

/// What was said of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// The option; in a list of several options the one of this line.
    pub(super) name: &'static str,
    /// Its value in its shortest form; empty is none.
    pub(super) value: String,
    /// Where it stands.
    pub(super) place: Place,
    /// How many lines of all files were read before it.
    nth: usize,
}

/// What a list holds.
#[derive(Debug, Default)]
struct List {
    said: Vec<Said>,
    /// Whether the next line takes the place of all these.
    fragile: bool,
}

/// All values that were set.
#[derive(Debug, Default)]
pub(super) struct Values {
    lists: BTreeMap<&'static str, List>,
    /// How many values were set.
    count: usize,
    /// Whole sentences, each with its place.
    pub(super) warnings: Vec<String>,
    /// The names that no option has.
    unknown: Vec<Unknown>,
}

impl Values {
    /// Takes over the lines of one file and its includes, on top of those before.
    ///
    /// # Errors
    /// [`TorrcError::Value`] for the first value that does not fit its option.
    pub(super) fn assign(&mut self, lines: Vec<Line>) -> Result<(), TorrcError> {
        let mut seen = BTreeSet::new();
        for line in lines {
            let Some(option) = self.find(&line) else {
                continue;
            };
            if option.kind == Kind::Obsolete {
                let instead = options::successor(option)
                    .map(|text| format!(": {text}"))
                    .unwrap_or_default();
                let name = option.name;
                self.warn(
                    &line.place,
                    &format!("{name} is obsolete and skipped{instead}"),
                );
                continue;
            }
            let value = checked(option, &line)?;
            if option.is_single() {
                if !line.value.is_empty() && !seen.insert(option.name) {
                    let text = format!(
                        "{} stands here again, and the last line counts",
                        option.name
                    );
                    self.warn(&line.place, &text);
                }
                self.set(option, value, line);
            } else if line.mode == Mode::Clear {
                self.lists.remove(option.list());
            } else if line.value.is_empty() {
                let text = format!("{} has no value and is skipped: write one", option.name);
                self.warn(&line.place, &text);
            } else {
                self.add(option, value, line);
            }
        }
        for list in self.lists.values_mut() {
            list.fragile = true;
        }
        Ok(())
    }

    /// The option of a line, with the warnings that its name earns; nothing if there is none.
    fn find(&mut self, line: &Line) -> Option<&'static Opt> {
        let Some(found) = options::find(&line.key) else {
            self.unknown.push(Unknown {
                place: line.place.clone(),
                name: line.key.clone(),
                nearest: match self.unknown.len() < MAX_LISTED {
                    // People write NAME=VALUE.
                    true => options::nearest(line.key.split('=').next().unwrap_or_default()),
                    false => None,
                },
            });
            return None;
        };
        if found.warn {
            let text = format!(
                "{} is short for {}: write that",
                line.key, found.option.name
            );
            self.warn(&line.place, &text);
        }
        Some(found.option)
    }

    /// Refuses names that no option has, as C tor does: a misspelt line may be the one that keeps
    /// others out, or away from relays.
    ///
    /// # Errors
    /// [`TorrcError::Unknown`] with all of them.
    pub(super) fn all_known(&mut self) -> Result<(), TorrcError> {
        match std::mem::take(&mut self.unknown) {
            unknown if unknown.is_empty() => Ok(()),
            unknown => Err(TorrcError::Unknown(unknown)),
        }
    }

    /// Replaces the value of an option that has one.
    fn set(&mut self, option: &Opt, value: String, line: Line) {
        let said = self.said(option, value, line.place);
        let list = self.lists.entry(option.list()).or_default();
        list.said = vec![said];
    }

    /// Adds a line to a list.
    fn add(&mut self, option: &Opt, value: String, line: Line) {
        let said = self.said(option, value, line.place);
        let list = self.lists.entry(option.list()).or_default();
        if list.fragile && line.mode != Mode::Append {
            list.said.clear();
        }
        list.fragile = false;
        list.said.push(said);
    }

    /// A value with its place in the order.
    fn said(&mut self, option: &Opt, value: String, place: Place) -> Said {
        self.count += 1;
        Said {
            name: option.name,
            value,
            place,
            nth: self.count,
        }
    }

    /// Adds a warning with its place.
    pub(super) fn warn(&mut self, place: &Place, text: &str) {
        self.warnings.push(format!("{place}: {text}"));
    }

    /// Warns of a rule that is left out, as C tor does: one for IPv6 about IPv4 alone.
    pub(super) fn warn_of_rule(&mut self, said: &Said, rule: &Rule) {
        let (name, text, problem) = (said.name, &rule.text, rule.without_effect());
        self.warn(
            &said.place,
            &format!("{name}: {text:?} is left out: {problem}"),
        );
    }

    /// The value of an option that has one, if a line gives it.
    pub(super) fn one(&self, name: &str) -> Option<&Said> {
        self.list(name).last()
    }

    /// The lines of an option that may have several.
    pub(super) fn list(&self, name: &str) -> &[Said] {
        self.lists.get(name).map_or(&[], |list| &list.said)
    }

    /// Whether an option is `1`; `default` if no line says.
    pub(super) fn is_on(&self, name: &str, default: bool) -> bool {
        self.one(name).map_or(default, |said| said.value == "1")
    }

    /// Everything that was said, in the order of files and lines.
    pub(super) fn all(&self) -> Vec<&Said> {
        let mut all: Vec<&Said> = self.lists.values().flat_map(|list| &list.said).collect();
        all.sort_by_key(|said| said.nth);
        all
    }
}

/// The value of a line in its shortest form.
fn checked(option: &Opt, line: &Line) -> Result<String, TorrcError> {
    let bad = |problem| TorrcError::Value {
        place: line.place.clone(),
        option: option.name,
        problem,
    };
    // The mark that the reader puts in the place of bytes which are no UTF-8.
    if option.role == Role::Served && line.value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(bad("the value is not UTF-8: write it in UTF-8".to_owned()));
    }
    value::canonical(option, &line.value).map_err(bad)
}
