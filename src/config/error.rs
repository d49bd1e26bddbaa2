//! What can be wrong with the configuration, and where.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::redact::hide;
use crate::config::port_line::PortError;
use crate::config::torrc::TorrcError;

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, if it is known.
        line: Option<usize>,
    },
    /// In the `-o` option of the command line for this key.
    Option(String),
    /// In an option of its own on the command line.
    CommandLine,
    /// Nowhere that can be named: a default, or several places together.
    Unknown,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Origin::File { path, line: None } => path.display().fmt(f),
            Origin::Option(text) => write!(f, "-o {text}"),
            Origin::CommandLine => f.write_str("command line"),
            Origin::Unknown => f.write_str("configuration"),
        }
    }
}

/// Why there is no usable configuration.
///
/// Every message is one line: where, which key, what is wrong, what to do. For a terminal or a log take
/// [`message`](ConfigError::message).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// C tor's files cannot be used.
    #[error("{0}")]
    Torrc(#[from] TorrcError),
    /// A file named on the command line is not there.
    #[error("{}: there is no such file: correct -c or create it", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {problem}; see that it is a file or folder which this user may read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// A file that somebody else could have changed.
    #[error(
        "{}: is not safe to read: {problem}; make it and its folders writable for you alone, or \
         set ARTI_FS_DISABLE_PERMISSION_CHECKS=true", path.display()
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Whose permissions are wrong, and how.
        problem: String,
    },
    /// A file that is no TOML.
    #[error("{origin}: not TOML: {problem}; correct this line")]
    Syntax {
        /// The file and line.
        origin: Origin,
        /// What the parser said.
        problem: String,
    },
    /// A `-o` option that sets nothing.
    #[error("{origin}: {problem}; write -o TABLE.KEY=VALUE, with strings of blanks in quotes")]
    Option {
        /// The option.
        origin: Origin,
        /// What is wrong with it.
        problem: String,
    },
    /// A key that nobody knows.
    #[error("{origin}: unknown key {key}: the nearest is {nearest}; arti.toml.example lists all")]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key with its tables.
        key: String,
        /// The known key most like it.
        nearest: String,
    },
    /// A key that the arti program knows and this one does not serve.
    #[error("{origin}: {key} is not served by onionport: {remedy}")]
    NotServed {
        /// Where it stands.
        origin: Origin,
        /// The key with its tables.
        key: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A value that does not fit its key.
    #[error("{origin}: {key}: {problem}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key with its tables.
        key: String,
        /// What is wrong with it, and the remedy where one is known.
        problem: String,
    },
    /// Settings that do not fit together, or a problem that names no key.
    #[error("{origin}: {problem}")]
    Settings {
        /// Where they stand, if it is one place.
        origin: Origin,
        /// What is wrong.
        problem: String,
    },
    /// A port line with a mistake.
    #[error("{origin}: {key}: {line:?}: {source}")]
    Port {
        /// Where it stands.
        origin: Origin,
        /// The key with its table, or the option.
        key: String,
        /// The line.
        line: String,
        /// The mistake.
        source: Box<PortError>,
    },
    /// Port lines that do not fit together.
    #[error("{origin}: {key}: {source}")]
    Ports {
        /// Where they stand.
        origin: Origin,
        /// The key with its table, or the option.
        key: String,
        /// The mistake.
        source: Box<PortError>,
    },
    /// A log filter that cannot be read.
    #[error(
        "{origin}: {key}: {filter:?} is not a log filter ({problem}): write a level (error, warn, info, \
         debug, trace, off), or TARGET=LEVEL pairs with commas between them"
    )]
    LogFilter {
        /// Where it stands.
        origin: Origin,
        /// The key with its table, or the option.
        key: String,
        /// The filter.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ConfigError {
    /// The error in one line, without what looks like a password in it.
    #[must_use]
    pub fn message(&self) -> String {
        hide(&self.to_string())
    }
}
