//! A single source, with its text.

use std::path::PathBuf;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::super::error::{ConfigError, SourceLocation};
use super::super::error_text::to_one_line;
use super::super::key::Key;
use super::super::torrc::Torrc;
use super::toml_tree::find_key;

/// One file, one `-o` option, or all torrc files together.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) kind: SourceKind,
    /// The settings as TOML: the text of the file, or what the option or the torrc files translate
    /// to. It may contain passwords.
    pub(super) text: Zeroizing<String>,
}

#[derive(Debug)]
pub(super) enum SourceKind {
    File(PathBuf),
    /// The key of the option, or "…" if it has none; fit for messages.
    Option(String),
    Torrc(Box<Torrc>),
}

impl Source {
    /// Returns the location of `key`, if this source sets it.
    pub(super) fn locate(&self, key: &Key) -> Option<SourceLocation> {
        let at = self.with_table(|table| find_key(table, key).map(|(at, _)| at))??;
        Some(match &self.kind {
            SourceKind::File(path) => SourceLocation::File {
                path: path.clone(),
                line: Some(line_at(&self.text, at)),
            },
            SourceKind::Option(option) => SourceLocation::Option(option.clone()),
            SourceKind::Torrc(torrc) => match torrc.origin(&key.to_string()) {
                Some(place) => SourceLocation::File {
                    path: place.path.clone(),
                    line: Some(place.line),
                },
                None => SourceLocation::Unknown,
            },
        })
    }

    /// Parses the text and passes it to `f`; returns `None` if it is not valid TOML.
    pub(super) fn with_table<T>(&self, f: impl FnOnce(&DeTable<'_>) -> T) -> Option<T> {
        DeTable::parse(&self.text)
            .ok()
            .map(|table| f(table.get_ref()))
    }

    /// Builds the error for a file that is not valid TOML.
    pub(super) fn syntax_error(&self, error: &toml::de::Error) -> ConfigError {
        ConfigError::Syntax {
            location: SourceLocation::File {
                path: match &self.kind {
                    SourceKind::File(path) => path.clone(),
                    SourceKind::Option(_) | SourceKind::Torrc(_) => PathBuf::new(),
                },
                line: error.span().map(|span| line_at(&self.text, span.start)),
            },
            problem: to_one_line(error.message()),
        }
    }
}

/// Returns the number of the line that contains the byte at `offset`, counted from 1.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}
