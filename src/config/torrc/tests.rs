//! Tests with torrc files; `c_tor` compares the readings with C tor's.

use std::fs;
use std::path::Path;

use super::*;

mod c_tor;
mod lines;
mod real;
mod translate;

/// Reads one file with this text. Positions in messages begin with `torrc:`.
fn read_text(text: &str) -> Result<Torrc, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torrc");
    fs::write(&path, text).unwrap();
    read(&[path]).map_err(|error| error_text(&error, folder.path()))
}

/// Returns the settings of a valid text.
fn read_good(text: &str) -> Torrc {
    read_text(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// Returns the error for an invalid text.
fn read_error(text: &str) -> String {
    read_text(text).expect_err(text)
}

/// Returns the message of an error without the folder of the files, and asserts that it is one line.
fn error_text(error: &TorrcError, folder: &Path) -> String {
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.replace(&format!("{}/", folder.display()), "")
}

/// Returns the settings as TOML without comments.
fn read_toml(text: &str) -> String {
    read_good(text).table.to_string()
}

/// Returns the warnings for a text without the folder of the file.
fn read_warnings(text: &str) -> Vec<String> {
    let torrc = read_good(text);
    let folder = torrc.files[0].parent().unwrap().to_owned();
    let short = |warning: &String| warning.replace(&format!("{}/", folder.display()), "");
    torrc.warnings.iter().map(short).collect()
}
