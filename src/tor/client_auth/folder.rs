//! The key files of a folder, and the log messages about those that are not used.
//!
//! The name of a key file is often the address of its service. Warnings must not name a service, so such a
//! name is logged at level debug only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::auth_private::{ClientSecretKey, KeyFileError, SUFFIX, read_file};
use crate::tor::onion_address::OnionAddress;

/// The shortest run of base32 characters that counts as an onion address: that of version 2.
const SHORTEST_ADDRESS: usize = 16;

/// Reads all keys of a folder. `report` receives every file that is not used; the others still count.
pub(super) fn read_folder(
    folder: &Path,
    mut report: impl FnMut(RejectedKeyFile),
) -> io::Result<HashMap<OnionAddress, ClientSecretKey>> {
    let mut keys = HashMap::new();
    for path in key_files(folder)? {
        let problem = match read_file(&path) {
            Ok((service, secret)) => match keys.entry(service) {
                Entry::Vacant(free) => {
                    free.insert(secret);
                    continue;
                }
                Entry::Occupied(_) => KeyFileError::Duplicate,
            },
            Err(problem) => problem,
        };
        report(RejectedKeyFile { path, problem });
    }
    Ok(keys)
}

/// Lists the key files of a folder, sorted by name: of two files for one service, every request must use
/// the same one.
pub(super) fn key_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == SUFFIX)
        })
        .collect();
    paths.sort();
    Ok(paths)
}

/// A key file that is not used, and why.
///
/// [`Display`](fmt::Display) names the file; it is for the user's terminal. [`RejectedKeyFile::log`] is for
/// the log.
#[derive(Debug)]
pub struct RejectedKeyFile {
    path: PathBuf,
    problem: KeyFileError,
}

impl fmt::Display for RejectedKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RejectedKeyFile { path, problem } = self;
        write!(
            f,
            "client authorization key {} is not used: {problem}",
            escaped(path)
        )
    }
}

impl RejectedKeyFile {
    /// Logs a warning that names the file, unless its name may contain an onion address.
    pub fn log(&self) {
        if !may_name_a_service(&self.path) {
            warn!("{self}");
            return;
        }
        warn!(
            "a client authorization key in {} is not used: {}; {HIDDEN_NAME}",
            escaped(parent_folder(&self.path)),
            self.problem
        );
        debug!("{self}");
    }
}

/// How to find the name that a warning omits.
const HIDDEN_NAME: &str = "its name may contain an onion address, so only --check-config and the \
                           log at level debug show it";

/// Returns whether a file name may contain an onion address.
pub(super) fn may_name_a_service(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_base32 = |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'2'..=b'7');
    name.split(|byte| !is_base32(byte))
        .any(|run| run.len() >= SHORTEST_ADDRESS)
}

/// The folder that contains a file.
pub(super) fn parent_folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Returns a path as text on one line: file names may contain control characters.
pub(super) fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        match c.is_control() {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
    }
    text
}
