//! What can be wrong with a torrc, and where.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::options::Reason;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line on which the option begins, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Why a torrc cannot be used.
///
/// Every message is one line: where, which option, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TorrcError {
    /// A file named on the command line is not there.
    #[error("{}: there is no such file: correct --torrc or create it", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {problem}; name a torrc which this user may read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said, or what is wrong with it.
        problem: String,
    },
    /// An `%include` that leads nowhere.
    #[error("{place}: %include {pattern:?}: {problem}")]
    Include {
        /// The line.
        place: Place,
        /// What is to be included, as written.
        pattern: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A line that is none.
    #[error("{place}: {problem}")]
    Syntax {
        /// The line.
        place: Place,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A value that does not fit its option, or options that do not fit together.
    #[error("{place}: {option}: {problem}")]
    Value {
        /// The line.
        place: Place,
        /// The option.
        option: &'static str,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// Names that no option has: all that there are, of which the first are listed.
    #[error("{}: C tor has no such option: correct the name, or remove the line", listed(.0))]
    Unknown(Vec<Unknown>),
    /// Options that onionport cannot obey and must not pass over: all that there are.
    #[error("{}", refusal(.0))]
    Refused(Vec<Refusal>),
}

/// A name that no option has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Where it stands.
    pub place: Place,
    /// The name as written.
    pub name: String,
    /// The option whose name looks like it, if there is one.
    pub nearest: Option<&'static str>,
}

impl fmt::Display for Unknown {
    /// Only a name that looks like an option's is shown: other words may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        if self.name.starts_with(BYTE_ORDER_MARK) {
            // No editor shows what is wrong here.
            return f.write_str(
                " (begins with a UTF-8 byte order mark: save the file without this BOM)",
            );
        }
        let Some(nearest) = self.nearest else {
            return Ok(());
        };
        match self.name.split_once('=') {
            Some(_) => write!(
                f,
                " (the name ends in =: write {nearest}, a blank and the value)"
            ),
            None => write!(
                f,
                " {} (the nearest is {nearest})",
                self.name.escape_debug()
            ),
        }
    }
}

/// What some editors put before the first line.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// How many names are listed.
pub(super) const MAX_LISTED: usize = 20;

/// The names on one line.
fn listed(unknown: &[Unknown]) -> String {
    let first = unknown.iter().take(MAX_LISTED);
    let mut names: Vec<String> = first.map(Unknown::to_string).collect();
    if let Some(more) = unknown.len().checked_sub(MAX_LISTED)
        && more > 0
    {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

/// An option that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where it stands.
    pub place: Place,
    /// Its name.
    pub option: &'static str,
    /// Why.
    pub(super) reason: Reason,
}

/// One message for all of them: by their reason, in the order of the lines.
fn refusal(refusals: &[Refusal]) -> String {
    let mut reasons: Vec<Reason> = refusals.iter().map(|refusal| refusal.reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let groups = reasons.iter().map(|reason| {
        let names: Vec<String> = refusals
            .iter()
            .filter(|refusal| refusal.reason == *reason)
            .map(|refusal| format!("{} {}", refusal.place, refusal.option))
            .collect();
        format!("{}: {}", names.join(", "), reason.text())
    });
    groups.collect::<Vec<_>>().join("; ")
}
