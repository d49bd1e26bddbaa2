//! From values to settings: what each option of C tor is called here.

use std::path::Path;

use super::assign::{Said, Values};
use super::document::Document;
use super::error::{Place, Refusal, TorrcError};
use super::options::{self, Kind, Opt, Role};
use super::value;

mod bridges;
mod local;
mod network;
mod ports;
mod reachable;

/// The longest `socks_timeout` and `connect_timeout`, in seconds.
const MAX_TIMEOUT: i64 = crate::config::MAX_SOCKS_TIMEOUT.as_secs() as i64;

/// Turns what a torrc says into settings, in the order of `arti.toml.example`.
///
/// # Errors
/// [`TorrcError::Refused`] with all options that must not be passed over, else
/// [`TorrcError::Value`] for the first value that cannot be served.
pub(super) fn serve(values: &mut Values) -> Result<Document, TorrcError> {
    refuse(values)?;
    warn(values);
    let mut document = Document::default();
    ports::serve(values, &mut document)?;
    local::serve(values, &mut document)?;
    bridges::serve(values, &mut document)?;
    network::serve(values, &mut document)?;
    Ok(document)
}

/// Refuses the options that cannot be obeyed and forbid something, or ask for another program.
fn refuse(values: &Values) -> Result<(), TorrcError> {
    let refusals: Vec<Refusal> = values
        .all()
        .into_iter()
        .filter_map(|said| match options::find(said.name)?.option {
            option @ Opt {
                role: Role::Refused(reason),
                ..
            } if !is_off(option, said) => Some(Refusal {
                place: said.place.clone(),
                option: said.name,
                reason: *reason,
            }),
            _ => None,
        })
        .collect();
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(TorrcError::Refused(refusals)),
    }
}

/// Whether a line asks for nothing but what is so without it.
fn is_off(option: &Opt, said: &Said) -> bool {
    if option.name == "ExitPolicy" {
        return value::words(&said.value)
            .all(|rule| rule.to_ascii_lowercase().starts_with("reject"));
    }
    said.value.is_empty() || said.value == "0" || said.value == option.default
}

/// Names the options without effect, those with the same explanation together.
fn warn(values: &mut Values) {
    let mut groups: Vec<(&'static str, Vec<String>)> = Vec::new();
    for said in values.all() {
        let Some(found) = options::find(said.name) else {
            continue;
        };
        let Role::Warned(text) = found.option.role else {
            continue;
        };
        let closed = found.option.kind == Kind::Lines && said.value == "0";
        let fulfilled = said.value == found.option.default
            || options::is_fulfilled(found.option.name, &said.value);
        if said.value.is_empty() || fulfilled || closed {
            continue;
        }
        let name = format!("{} {}", said.place, said.name);
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

/// The error for a value that cannot be served.
fn bad(said: &Said, problem: impl Into<String>) -> TorrcError {
    TorrcError::Value {
        place: said.place.clone(),
        option: said.name,
        problem: problem.into(),
    }
}

/// The place of a line, as the origin of one value.
fn from(said: &Said) -> Vec<Place> {
    vec![said.place.clone()]
}

/// A number in base units; the kind of the option has been checked.
fn number(said: &Said) -> Result<i64, TorrcError> {
    said.value
        .parse()
        .map_err(|_| bad(said, format!("{} is too large", said.value)))
}

/// A list of TCP ports.
fn port_numbers(said: &Said) -> Result<Vec<toml::Value>, TorrcError> {
    let number = |word: &str| match word.parse::<u16>() {
        Ok(port) if port > 0 => Ok(toml::Value::from(i64::from(port))),
        _ => Err(bad(
            said,
            format!(
                "{word:?} is not a port: write numbers from 1 to 65535 with commas between them"
            ),
        )),
    };
    value::words(&said.value).map(number).collect()
}

/// A path from the folder where the program is started, as C tor takes it, in the form that arti
/// reads: a `$` would begin a variable.
fn path(said: &Said, path: &str) -> Result<String, TorrcError> {
    let absolute = std::path::absolute(Path::new(path))
        .map_err(|error| bad(said, format!("{path:?} is no path: {error}")))?;
    match absolute.to_str() {
        Some(text) => Ok(text.replace('$', "$$")),
        None => Err(bad(said, format!("{path:?}: the path is not UTF-8"))),
    }
}
