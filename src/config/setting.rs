//! One setting and its place: what every error and warning about it begins with.

use std::fmt;

use super::error::{ConfigError, Origin};
use crate::config::port_line::PortError;

/// A key of ours, or an option, and where it is set.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The key with its table, or the option.
    pub(super) key: &'static str,
    /// Where it is set.
    pub(super) origin: Origin,
}

impl Setting {
    /// An option of its own on the command line.
    pub(super) fn option(name: &'static str) -> Self {
        Setting {
            key: name,
            origin: Origin::CommandLine,
        }
    }

    /// The error for a value that cannot be used.
    pub(super) fn wrong(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            origin: self.origin.clone(),
            key: self.key.to_owned(),
            problem: problem.into(),
        }
    }

    /// The error for a port line with a mistake.
    pub(super) fn bad_line(&self, line: String, source: PortError) -> ConfigError {
        ConfigError::Port {
            origin: self.origin.clone(),
            key: self.key.to_owned(),
            line,
            source: Box::new(source),
        }
    }

    /// The error for port lines that do not fit together.
    pub(super) fn bad_lines(&self, source: PortError) -> ConfigError {
        ConfigError::Ports {
            origin: self.origin.clone(),
            key: self.key.to_owned(),
            source: Box::new(source),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.key)
    }
}
