//! Errors in torrc files, with their positions.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::options::RefusalReason;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePosition {
    /// The file.
    pub path: PathBuf,
    /// The line on which the option begins, counted from 1.
    pub line: usize,
}

impl fmt::Display for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Why torrc files cannot be used.
///
/// Every message is one line with the position, the option, the problem and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TorrcError {
    /// A file named on the command line does not exist.
    #[error("cannot read {}: no such file; correct --torrc or create the file", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {problem}; name a readable torrc", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's error, or what is wrong with the file.
        problem: String,
    },
    /// An `%include` that cannot be followed.
    #[error("{position}: %include {pattern:?}: {problem}")]
    Include {
        /// The line.
        position: FilePosition,
        /// The path or pattern to include, as written.
        pattern: String,
        /// The problem and the remedy.
        problem: String,
    },
    /// A line with a syntax error.
    #[error("{position}: {problem}")]
    Syntax {
        /// The line.
        position: FilePosition,
        /// The problem and the remedy.
        problem: String,
    },
    /// A value that its option does not allow, or that conflicts with other options.
    #[error("{position}: {option}: {problem}")]
    Value {
        /// The line.
        position: FilePosition,
        /// The option.
        option: &'static str,
        /// The problem and the remedy.
        problem: String,
    },
    /// All unknown names; the message lists the first 20.
    #[error("{}: unknown option; correct the name or remove the line", list_unknown(.0))]
    Unknown(Vec<UnknownOption>),
    /// All options that onionport can neither follow nor ignore.
    #[error("{}", list_refused(.0))]
    Refused(Vec<RefusedOption>),
}

/// A name that no option has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownOption {
    /// The line.
    pub position: FilePosition,
    /// The name as written.
    pub name: String,
    /// The option with the most similar name, if one is similar.
    pub nearest: Option<&'static str>,
}

impl fmt::Display for UnknownOption {
    /// Shows the name only if it resembles an option's: any other word may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.position.fmt(f)?;
        if self.name.starts_with(BYTE_ORDER_MARK) {
            // Editors do not show the mark, so name it.
            return f.write_str(" (starts with a UTF-8 byte order mark; save the file without it)");
        }
        let Some(nearest) = self.nearest else {
            return Ok(());
        };
        match self.name.split_once('=') {
            Some(_) => write!(f, " (write {nearest} VALUE, without an equals sign)"),
            None => write!(f, " {} (did you mean {nearest}?)", self.name.escape_debug()),
        }
    }
}

/// U+FEFF, which some editors put before the first line.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// How many unknown names the message lists.
pub(super) const MAX_LISTED: usize = 20;

/// Lists unknown names on one line.
fn list_unknown(unknown: &[UnknownOption]) -> String {
    let first = unknown.iter().take(MAX_LISTED);
    let mut names: Vec<String> = first.map(UnknownOption::to_string).collect();
    if let Some(more) = unknown.len().checked_sub(MAX_LISTED)
        && more > 0
    {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

/// A refused option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedOption {
    /// The line.
    pub position: FilePosition,
    /// The name of the option.
    pub option: &'static str,
    /// Why it is refused.
    pub(super) reason: RefusalReason,
}

/// Lists refused options in one message, grouped by reason, each group in the order of its lines.
fn list_refused(refused: &[RefusedOption]) -> String {
    let mut reasons: Vec<RefusalReason> = refused.iter().map(|option| option.reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let groups = reasons.iter().map(|reason| {
        let names: Vec<String> = refused
            .iter()
            .filter(|option| option.reason == *reason)
            .map(|option| format!("{} {}", option.position, option.option))
            .collect();
        format!("{}: {}", names.join(", "), reason.explanation())
    });
    groups.collect::<Vec<_>>().join("; ")
}
