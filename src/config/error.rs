//! Configuration errors and their locations.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::port_line::PortError;
use super::redact::hide;
use super::torrc::TorrcError;

/// Why there is no usable configuration.
///
/// Every message is one line: location, key, problem, remedy. Use
/// [`message`](ConfigError::message) for a terminal or a log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// C tor's files cannot be used.
    #[error("{0}")]
    Torrc(#[from] TorrcError),
    /// A file named on the command line does not exist.
    #[error("{}: no such file: correct -c or create the file", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {problem}; name a file or folder that this user can read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        problem: String,
    },
    /// Another user could have changed a file.
    #[error(
        "{}: not safe to read: {problem}; make the file and its folders writable for you only, or \
         set ARTI_FS_DISABLE_PERMISSION_CHECKS=true", path.display()
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// The file or folder with wrong permissions, and what is wrong with them.
        problem: String,
    },
    /// A file is not valid TOML.
    #[error("{location}: invalid TOML: {problem}; correct this line")]
    Syntax {
        /// The file and line.
        location: SourceLocation,
        /// The parser's error.
        problem: String,
    },
    /// An `-o` option is not of the form `KEY=VALUE`.
    #[error("{location}: {problem}; write -o TABLE.KEY=VALUE, in shell quotes if it has spaces")]
    Option {
        /// The option.
        location: SourceLocation,
        /// What is wrong with it.
        problem: String,
    },
    /// No program knows a key.
    #[error(
        "{location}: unknown key {key}: did you mean {nearest}? arti.toml.example lists all keys"
    )]
    UnknownKey {
        /// Where it is set.
        location: SourceLocation,
        /// The key with its tables.
        key: String,
        /// The known key most like it.
        nearest: String,
    },
    /// The arti program has a key that onionport does not support.
    #[error("{location}: {key} is not supported by onionport: {remedy}")]
    UnsupportedKey {
        /// Where it is set.
        location: SourceLocation,
        /// The key with its tables.
        key: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A value is invalid for its key.
    #[error("{location}: {key}: {problem}")]
    Value {
        /// Where it is set.
        location: SourceLocation,
        /// The key with its tables.
        key: String,
        /// What is wrong with it, and the remedy if one is known.
        problem: String,
    },
    /// Settings contradict each other, or arti's code reports an error without a key.
    #[error("{location}: {problem}")]
    Settings {
        /// Where they are set, if in one place.
        location: SourceLocation,
        /// What is wrong.
        problem: String,
    },
    /// A port line is invalid.
    #[error("{location}: {key}: {line:?}: {source}")]
    Port {
        /// Where it is set.
        location: SourceLocation,
        /// The key with its table, or the option.
        key: String,
        /// The line.
        line: String,
        /// What is wrong with it.
        source: Box<PortError>,
    },
    /// Port lines contradict each other.
    #[error("{location}: {key}: {source}")]
    Ports {
        /// Where they are set.
        location: SourceLocation,
        /// The key with its table, or the option.
        key: String,
        /// What is wrong.
        source: Box<PortError>,
    },
    /// A log filter is invalid.
    #[error(
        "{location}: {key}: {filter:?} is not a log filter ({problem}): write a level (error, \
         warn, info, debug, trace, off), or TARGET=LEVEL pairs separated by commas"
    )]
    LogFilter {
        /// Where it is set.
        location: SourceLocation,
        /// The key with its table, or the option.
        key: String,
        /// The filter.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ConfigError {
    /// Formats the error on one line, and hides what looks like a password in it.
    #[must_use]
    pub fn message(&self) -> String {
        hide(&self.to_string())
    }
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceLocation {
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, if it is known.
        line: Option<usize>,
    },
    /// The `-o` option for this key.
    Option(String),
    /// A dedicated command-line option.
    CommandLine,
    /// A default, or several places together.
    Unknown,
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceLocation::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            SourceLocation::File { path, line: None } => path.display().fmt(f),
            SourceLocation::Option(key) => write!(f, "-o {key}"),
            SourceLocation::CommandLine => f.write_str("command line"),
            SourceLocation::Unknown => f.write_str("configuration"),
        }
    }
}
