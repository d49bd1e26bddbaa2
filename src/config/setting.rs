//! One setting with its location: every error and warning about it starts with both.

use std::fmt;

use super::error::{ConfigError, SourceLocation};
use super::port_line::PortError;

/// A key of ours or a command-line option, and where it is set.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The key with its section, or the option.
    pub(super) key: &'static str,
    /// Where it is set.
    pub(super) location: SourceLocation,
}

impl Setting {
    /// A dedicated command-line option, such as `--log`.
    pub(super) fn for_option(name: &'static str) -> Self {
        Setting {
            key: name,
            location: SourceLocation::CommandLine,
        }
    }

    /// Builds the error for a value that cannot be used.
    pub(super) fn value_error(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            location: self.location.clone(),
            key: self.key.to_owned(),
            problem: problem.into(),
        }
    }

    /// Builds the error for an invalid port line.
    pub(super) fn port_error(&self, line: String, source: PortError) -> ConfigError {
        ConfigError::Port {
            location: self.location.clone(),
            key: self.key.to_owned(),
            line,
            source: Box::new(source),
        }
    }

    /// Builds the error for port lines that contradict each other.
    pub(super) fn ports_error(&self, source: PortError) -> ConfigError {
        ConfigError::Ports {
            location: self.location.clone(),
            key: self.key.to_owned(),
            source: Box::new(source),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.key)
    }
}
