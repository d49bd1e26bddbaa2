//! Torrc files and what comes out of them; `c_tor` puts the same files to C tor.

use std::fs;
use std::path::Path;

use super::*;

mod c_tor;
mod lines;
mod real;
mod served;

/// Reads one file with this text. The places in messages begin with `torrc:`.
fn read_text(text: &str) -> Result<Torrc, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torrc");
    fs::write(&path, text).unwrap();
    read(&[path]).map_err(|error| message(&error, folder.path()))
}

/// The settings of a text that must be good.
fn good(text: &str) -> Torrc {
    read_text(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// The message for a text that must be refused.
fn refusal(text: &str) -> String {
    read_text(text).expect_err(text)
}

/// The message of an error, which has to be one line, without the folder of the files.
fn message(error: &TorrcError, folder: &Path) -> String {
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.replace(&format!("{}/", folder.display()), "")
}

/// The settings as TOML, without comments.
fn toml(text: &str) -> String {
    good(text).table.to_string()
}

/// The warnings for a text, from the name of the file on.
fn warnings(text: &str) -> Vec<String> {
    let torrc = good(text);
    let folder = torrc.files[0].parent().unwrap().to_owned();
    let short = |warning: &String| warning.replace(&format!("{}/", folder.display()), "");
    torrc.warnings.iter().map(short).collect()
}
