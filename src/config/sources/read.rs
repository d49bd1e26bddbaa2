//! Finds and reads the sources.

use std::fs;
use std::path::{Path, PathBuf};

use arti_client::config::{ConfigurationSource, ConfigurationSources, default_config_files};
use fs_mistrust::Mistrust;
use toml::de::DeTable;
use tor_config::mistrust::BuilderExt as _;
use tor_config::sources::MustRead;
use zeroize::Zeroizing;

use super::super::error::{ConfigError, SourceLocation};
use super::super::error_text::{chain, to_one_line};
use super::super::key::Key;
use super::super::known_keys;
use super::super::torrc;
use super::source::{Source, SourceKind};

/// Reads C tor's files as one source.
pub(super) fn read_torrc(files: &[PathBuf]) -> Result<Source, ConfigError> {
    let torrc = torrc::read(files)?;
    Ok(Source {
        text: Zeroizing::new(torrc.table.to_string()),
        kind: SourceKind::Torrc(Box::new(torrc)),
    })
}

/// Reads TOML files, and the `*.toml` files of folders; arti's default files if `files` is empty.
pub(super) fn read_files(files: &[PathBuf]) -> Result<Vec<Source>, ConfigError> {
    let mut sources = Vec::new();
    for (path, must_read) in find_files(files)? {
        sources.extend(read_file(path, must_read)?);
    }
    Ok(sources)
}

/// Reads `-o` options. Of several for the same key, the last one counts.
pub(super) fn read_options(options: &[String]) -> Result<Vec<Source>, ConfigError> {
    let mut sources: Vec<Source> = Vec::new();
    for option in options {
        let (key, source) = read_option(option)?;
        sources.retain(|earlier| parse_line_key(&earlier.text) != key);
        sources.push(source);
    }
    Ok(sources)
}

/// Lists the files to read, in order, and whether each has to exist.
fn find_files(files: &[PathBuf]) -> Result<Vec<(PathBuf, MustRead)>, ConfigError> {
    let mut sources = ConfigurationSources::new_empty();
    if files.is_empty() {
        // A user without a home folder, as in many containers, has no default files.
        for source in default_config_files().unwrap_or_default() {
            sources.push_source(source, MustRead::TolerateAbsence);
        }
    }
    for file in files {
        // arti treats a path as a folder only if it ends in a slash; we check the path itself.
        let source = match file.is_dir() {
            true => ConfigurationSource::Dir(file.clone()),
            false => ConfigurationSource::from_path(file),
        };
        sources.push_source(source, MustRead::MustRead);
    }
    let must_read = match files.is_empty() {
        true => MustRead::TolerateAbsence,
        false => MustRead::MustRead,
    };
    let found = sources.scan().map_err(|error| match error {
        tor_config::ConfigError::Io { path, err, .. } => unreadable_error(path, &err),
        other => ConfigError::Settings {
            location: SourceLocation::Unknown,
            problem: chain(&other),
        },
    })?;
    let paths = found.iter().filter_map(|source| match source {
        ConfigurationSource::File(path) => Some((path.clone(), must_read)),
        ConfigurationSource::Dir(_) | ConfigurationSource::Verbatim(_) => None,
    });
    Ok(paths.collect())
}

/// Reads one file; returns `None` if it does not exist and need not.
fn read_file(path: PathBuf, must_read: MustRead) -> Result<Option<Source>, ConfigError> {
    let optional = must_read == MustRead::TolerateAbsence;
    match check_permissions(&path) {
        Ok(()) => {}
        Err(fs_mistrust::Error::NotFound(_)) if optional => return Ok(None),
        Err(fs_mistrust::Error::NotFound(_)) => return Err(ConfigError::NoFile { path }),
        Err(error) => {
            return Err(ConfigError::Untrusted {
                path,
                problem: chain(&error),
            });
        }
    }
    let bytes = fs::read(&path).map_err(|error| unreadable_error(path.clone(), &error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        ConfigError::Syntax {
            location: SourceLocation::File {
                path: path.clone(),
                line: Some(
                    1 + error.as_bytes()[..valid]
                        .iter()
                        .filter(|b| **b == b'\n')
                        .count(),
                ),
            },
            problem: "not UTF-8".to_owned(),
        }
    })?;
    let source = Source {
        kind: SourceKind::File(path),
        text: Zeroizing::new(text),
    };
    match DeTable::parse(&source.text) {
        Ok(_) => Ok(Some(source)),
        Err(error) => Err(source.syntax_error(&error)),
    }
}

/// Refuses a file that another user could have written, as arti does for its own files.
fn check_permissions(path: &Path) -> Result<(), fs_mistrust::Error> {
    let mistrust = Mistrust::builder()
        .build_for_arti()
        .unwrap_or_else(|_| Mistrust::new());
    mistrust.verifier().permit_readable().check(path)
}

/// Builds the error for a file or folder that cannot be read.
fn unreadable_error(path: PathBuf, error: &std::io::Error) -> ConfigError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return ConfigError::NoFile { path };
    }
    ConfigError::Unreadable {
        path,
        problem: error.to_string(),
    }
}

/// Parses `KEY=VALUE`: a line of TOML, or a value without quotes that can only be a string. Returns
/// the key with the source.
fn read_option(option: &str) -> Result<(String, Source), ConfigError> {
    let error = |problem: String| ConfigError::Option {
        location: SourceLocation::Option(show_option(option)),
        problem,
    };
    let Some((key, value)) = option.split_once('=') else {
        return Err(error("the = is missing".to_owned()));
    };
    let text = match toml::from_str::<toml::Table>(option) {
        Ok(_) => option.to_owned(),
        Err(problem) if value.trim_start().starts_with(['"', '\'', '[', '{']) => {
            return Err(error(to_one_line(problem.message())));
        }
        Err(_) => {
            let quoted = toml::Value::String(value.trim().to_owned());
            let text = format!("{} = {quoted}", key.trim());
            toml::from_str::<toml::Table>(&text).map_err(|e| error(to_one_line(e.message())))?;
            text
        }
    };
    let source = Source {
        kind: SourceKind::Option(show_option(option)),
        text: Zeroizing::new(text),
    };
    Ok((key.trim().to_owned(), source))
}

/// Returns what messages show of an `-o` option: its key, or "…" if it has none. The value may be a
/// password, and without a key any part of the text may be.
fn show_option(option: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let end = option.find(|c| !bare(c)).unwrap_or(option.len());
    let (key, rest) = option.split_at(end);
    let is_key = match rest {
        "" => known_keys::is_in_known_table(&Key::parse(key)),
        rest => rest.trim_start().starts_with('=') && !key.is_empty(),
    };
    match is_key {
        true => key.to_owned(),
        false => "…".to_owned(),
    }
}

/// Returns the key of a line of TOML.
fn parse_line_key(line: &str) -> &str {
    line.split_once('=').map_or(line, |(key, _)| key).trim()
}
