//! Decides which lines take effect (confmgt.c: `config_assign`; tor(1), `+Option`).
//!
//! For an option with a single value the last line of all files counts. A list takes all lines of one
//! file; a later file that names the option replaces the list, unless its first line has a `+`.

use std::collections::{BTreeMap, BTreeSet};

use super::assigned::Assigned;
use super::error::{FilePosition, MAX_LISTED, TorrcError, UnknownOption};
use super::files::TorrcLine;
use super::lines::AssignMode;
use super::options::{self, OptionKind, OptionRole, OptionSpec};
use super::value;
use crate::config::access::Rule;

/// The values of one option, or of options that share a list.
#[derive(Debug, Default)]
struct ValueList {
    assigned: Vec<Assigned>,
    /// Whether the next line without a `+` replaces all values (C tor: `config_line_t.fragile`).
    fragile: bool,
}

/// The values of all options that a line sets.
#[derive(Debug, Default)]
pub(super) struct Values {
    lists: BTreeMap<&'static str, ValueList>,
    /// How many values were assigned, replaced ones included.
    count: usize,
    /// Log messages, each with its position.
    pub(super) warnings: Vec<String>,
    /// The names that no option has.
    unknown: Vec<UnknownOption>,
}

impl Values {
    /// Applies the lines of one file and its includes on top of earlier files.
    ///
    /// # Errors
    /// [`TorrcError::Value`] for the first value that its option does not allow.
    pub(super) fn assign(&mut self, lines: Vec<TorrcLine>) -> Result<(), TorrcError> {
        let mut seen = BTreeSet::new();
        for line in lines {
            let Some(option) = self.find_option(&line) else {
                continue;
            };
            if option.kind == OptionKind::Obsolete {
                let successor = options::successor(option)
                    .map(|text| format!("; {text}"))
                    .unwrap_or_default();
                self.warn(
                    &line.position,
                    option.name,
                    &format!("ignored obsolete option{successor}"),
                );
                continue;
            }
            let value = check_value(option, &line)?;
            if option.is_single() {
                if !line.value.is_empty() && !seen.insert(option.name) {
                    self.warn(
                        &line.position,
                        option.name,
                        "set more than once; the last line counts",
                    );
                }
                self.set(option, value, line);
            } else if line.mode == AssignMode::Clear {
                self.lists.remove(option.list());
            } else if line.value.is_empty() {
                self.warn(
                    &line.position,
                    option.name,
                    "ignored line without a value; write one",
                );
            } else {
                self.add(option, value, line);
            }
        }
        for list in self.lists.values_mut() {
            list.fragile = true;
        }
        Ok(())
    }

    /// Returns the option of a line, and warns of a shortened name. Records a name that no option has.
    fn find_option(&mut self, line: &TorrcLine) -> Option<&'static OptionSpec> {
        let Some(found) = options::find(&line.key) else {
            self.unknown.push(UnknownOption {
                position: line.position.clone(),
                name: line.key.clone(),
                nearest: match self.unknown.len() < MAX_LISTED {
                    // Users write NAME=VALUE.
                    true => options::nearest(line.key.split('=').next().unwrap_or_default()),
                    false => None,
                },
            });
            return None;
        };
        if found.warn {
            let text = format!("short for {}; write the full name", found.option.name);
            self.warn(&line.position, &line.key, &text);
        }
        Some(found.option)
    }

    /// Refuses unknown names, as C tor does: a misspelt line may be the one that restricts clients or
    /// excludes relays.
    ///
    /// # Errors
    /// [`TorrcError::Unknown`] with all of them.
    pub(super) fn refuse_unknown(&mut self) -> Result<(), TorrcError> {
        match std::mem::take(&mut self.unknown) {
            unknown if unknown.is_empty() => Ok(()),
            unknown => Err(TorrcError::Unknown(unknown)),
        }
    }

    /// Replaces the value of an option with a single value.
    fn set(&mut self, option: &OptionSpec, value: String, line: TorrcLine) {
        let assigned = self.build(option, value, line.position);
        let list = self.lists.entry(option.list()).or_default();
        list.assigned = vec![assigned];
    }

    /// Adds a value to a list.
    fn add(&mut self, option: &OptionSpec, value: String, line: TorrcLine) {
        let assigned = self.build(option, value, line.position);
        let list = self.lists.entry(option.list()).or_default();
        if list.fragile && line.mode != AssignMode::Append {
            list.assigned.clear();
        }
        list.fragile = false;
        list.assigned.push(assigned);
    }

    /// Builds a value with the next rank.
    fn build(&mut self, option: &OptionSpec, value: String, position: FilePosition) -> Assigned {
        self.count += 1;
        Assigned {
            name: option.name,
            value,
            position,
            rank: self.count,
        }
    }

    /// Adds a warning about an option.
    pub(super) fn warn(&mut self, position: &FilePosition, option: &str, text: &str) {
        self.warnings.push(format!("{position}: {option}: {text}"));
    }

    /// Warns of a rule that C tor ignores as well: one for IPv6 with only IPv4 addresses.
    pub(super) fn warn_ineffective(&mut self, assigned: &Assigned, rule: &Rule) {
        let (text, problem) = (&rule.text, rule.ineffective_message());
        self.warn(
            &assigned.position,
            assigned.name,
            &format!("ignored rule {text:?}: {problem}"),
        );
    }

    /// Returns the value of an option with a single value, if a line sets it.
    pub(super) fn get(&self, name: &str) -> Option<&Assigned> {
        self.list(name).last()
    }

    /// Returns the values of an option with a list.
    pub(super) fn list(&self, name: &str) -> &[Assigned] {
        self.lists.get(name).map_or(&[], |list| &list.assigned)
    }

    /// Whether an option is `1`, or `default` if no line sets it.
    pub(super) fn is_on(&self, name: &str, default: bool) -> bool {
        self.get(name)
            .map_or(default, |assigned| assigned.value == "1")
    }

    /// Returns all values, in the order of files and lines.
    pub(super) fn all(&self) -> Vec<&Assigned> {
        let lists = self.lists.values();
        let mut all: Vec<&Assigned> = lists.flat_map(|list| &list.assigned).collect();
        all.sort_by_key(|assigned| assigned.rank);
        all
    }
}

/// Returns the value of a line in canonical form.
fn check_value(option: &OptionSpec, line: &TorrcLine) -> Result<String, TorrcError> {
    let error = |problem| TorrcError::Value {
        position: line.position.clone(),
        option: option.name,
        problem,
    };
    // `files` replaces bytes that are not UTF-8 with this character.
    if option.role == OptionRole::Translated && line.value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(error(
            "the value is not UTF-8; save the file in UTF-8".to_owned(),
        ));
    }
    value::canonicalize(option, &line.value).map_err(error)
}
