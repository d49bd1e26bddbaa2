//! Translates C tor's options into settings of onionport.
//!
//! Each module translates the options of some tables, in the order of `arti.toml.example`: `ports`, `local`,
//! `bridges` and `network`, which uses `reachable`. `timeouts` has the durations of `ports` and
//! `network`. The modules do not import this one.

use super::assign::Values;
use super::assigned::Assigned;
use super::document::Document;
use super::error::{RefusedOption, TorrcError};
use super::options::{self, OptionKind, OptionRole, OptionSpec};
use super::value;

mod bridges;
mod local;
mod network;
mod ports;
mod reachable;
mod timeouts;

/// Translates all values, and adds warnings for ignored ones.
///
/// # Errors
/// [`TorrcError::Refused`] with all options that are refused, otherwise [`TorrcError::Value`] for the
/// first value that cannot be translated.
pub(super) fn to_document(values: &mut Values) -> Result<Document, TorrcError> {
    refuse(values)?;
    warn_ignored(values);
    let mut document = Document::default();
    ports::translate(values, &mut document)?;
    local::translate(values, &mut document)?;
    bridges::translate(values, &mut document)?;
    network::translate(values, &mut document)?;
    Ok(document)
}

/// Refuses options that onionport can neither follow nor ignore.
fn refuse(values: &Values) -> Result<(), TorrcError> {
    let refused: Vec<RefusedOption> = values
        .all()
        .into_iter()
        .filter_map(|assigned| match options::find(assigned.name)?.option {
            option @ OptionSpec {
                role: OptionRole::Refused(reason),
                ..
            } if !is_off(option, assigned) => Some(RefusedOption {
                position: assigned.position.clone(),
                option: assigned.name,
                reason: *reason,
            }),
            _ => None,
        })
        .collect();
    match refused.is_empty() {
        true => Ok(()),
        false => Err(TorrcError::Refused(refused)),
    }
}

/// Whether a line sets the option to its default or switches it off.
fn is_off(option: &OptionSpec, assigned: &Assigned) -> bool {
    let value = assigned.value.as_str();
    if option.name == "ExitPolicy" {
        return value::words(value).all(|rule| rule.to_ascii_lowercase().starts_with("reject"));
    }
    value.is_empty() || value == "0" || value == option.default
}

/// Warns of ignored options, with one message for all that share an explanation.
fn warn_ignored(values: &mut Values) {
    let mut groups: Vec<(&'static str, Vec<String>)> = Vec::new();
    for assigned in values.all() {
        let Some(found) = options::find(assigned.name) else {
            continue;
        };
        let option = found.option;
        let OptionRole::Ignored(text) = option.role else {
            continue;
        };
        let value = assigned.value.as_str();
        let closed = option.kind == OptionKind::Lines && value == "0";
        let redundant = value == option.default || options::is_redundant(option.name, value);
        if value.is_empty() || redundant || closed {
            continue;
        }
        let name = format!("{} {}", assigned.position, assigned.name);
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(name),
            None => groups.push((text, vec![name])),
        }
    }
    for (text, names) in groups {
        values
            .warnings
            .push(format!("{}: {text}", names.join(", ")));
    }
}
