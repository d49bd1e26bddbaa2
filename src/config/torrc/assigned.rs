//! One value that a torrc assigns to an option, and its conversions.

use std::path::Path;

use super::error::{FilePosition, TorrcError};
use super::value;

/// A value that a line assigns to an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assigned {
    /// The option; where several options share a list, the option of this line.
    pub(super) name: &'static str,
    /// The value in canonical form; empty if there is none.
    pub(super) value: String,
    /// Where the line begins.
    pub(super) position: FilePosition,
    /// The rank of the line among all lines that assign a value, in the order of files and lines.
    pub(super) rank: usize,
}

impl Assigned {
    /// Builds the error for a value that cannot be used.
    pub(super) fn error(&self, problem: impl Into<String>) -> TorrcError {
        TorrcError::Value {
            position: self.position.clone(),
            option: self.name,
            problem: problem.into(),
        }
    }

    /// Returns the position, as the origin of a single value.
    pub(super) fn origin(&self) -> Vec<FilePosition> {
        vec![self.position.clone()]
    }

    /// Parses the number, in base units. `value` has checked its form already.
    pub(super) fn parse_number(&self) -> Result<i64, TorrcError> {
        self.value.parse().map_err(|_| {
            self.error(format!(
                "{} is too large; write a smaller number",
                self.value
            ))
        })
    }

    /// Parses a list of TCP ports.
    pub(super) fn parse_ports(&self) -> Result<Vec<toml::Value>, TorrcError> {
        let number = |word: &str| match word.parse::<u16>() {
            Ok(port) if port > 0 => Ok(toml::Value::from(i64::from(port))),
            _ => Err(self.error(format!(
                "{word:?} is not a port; write numbers from 1 to 65535, separated by commas"
            ))),
        };
        value::words(&self.value).map(number).collect()
    }

    /// Makes `path` absolute, as C tor does, and escapes it for arti, which expands variables that
    /// begin with `$`.
    pub(super) fn absolute_path(&self, path: &str) -> Result<String, TorrcError> {
        let absolute = std::path::absolute(Path::new(path))
            .map_err(|error| self.error(format!("invalid path {path:?}: {error}; correct it")))?;
        match absolute.to_str() {
            Some(text) => Ok(text.replace('$', "$$")),
            None => Err(self.error(format!(
                "the absolute path of {path:?} is not UTF-8; use another path"
            ))),
        }
    }
}
