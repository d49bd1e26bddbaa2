//! The files of a key folder, and what the log says of those that give no key.
//!
//! The name of a key file is often the address of its service. At level warn the log names no
//! service, so such a name appears at level debug only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::SUFFIX;
use super::auth_private::{BadKeyFile, Secret, read_file};
use crate::tor::onion_address::OnionAddress;

/// The shortest run of base32 that counts as an onion address: those of version 2 had 16 characters.
const SHORTEST_ADDRESS: usize = 16;

/// A file of a key folder that gives no key, and why.
///
/// [`Display`](fmt::Display) names the file; it is for the user's terminal. [`log`](Self::log) is
/// for the log.
#[derive(Debug)]
pub struct UnusedKeyFile {
    path: PathBuf,
    problem: BadKeyFile,
}

impl fmt::Display for UnusedKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnusedKeyFile { path, problem } = self;
        write!(
            f,
            "client authorization key {} is not used: {problem}",
            shown(path)
        )
    }
}

impl UnusedKeyFile {
    /// Logs a warning, which names the file unless its name holds an onion address.
    pub fn log(&self) {
        if !names_a_service(&self.path) {
            warn!("{self}");
            return;
        }
        warn!(
            "a client authorization key in {} is not used: {}; {HIDDEN}",
            shown(folder_of(&self.path)),
            self.problem
        );
        debug!("{self}");
    }
}

/// How to get at a name that a warning leaves out.
pub(super) const HIDDEN: &str = "its name may hold an onion address: --check-config shows it, and so does the log at \
                                 level debug";

/// Whether the name of a file may tell of a service.
pub(super) fn names_a_service(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_base32 = |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'2'..=b'7');
    name.split(|byte| !is_base32(byte))
        .any(|run| run.len() >= SHORTEST_ADDRESS)
}

/// The folder in which a file lies.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// A path on one line: the names of files may hold anything.
pub(super) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        match c.is_control() {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
    }
    text
}

/// Lists the key files of a folder. Which of two files for one service counts must not change from
/// one request to the next, so they are in the order of their names.
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

/// Reads all keys of a folder. A bad file costs only itself; `report` gets it.
pub(super) fn read_folder(
    folder: &Path,
    mut report: impl FnMut(UnusedKeyFile),
) -> io::Result<HashMap<OnionAddress, Secret>> {
    let mut keys = HashMap::new();
    for path in key_files(folder)? {
        let problem = match read_file(&path) {
            Ok((service, secret)) => match keys.entry(service) {
                Entry::Vacant(free) => {
                    free.insert(secret);
                    continue;
                }
                Entry::Occupied(_) => BadKeyFile::Duplicate,
            },
            Err(problem) => problem,
        };
        report(UnusedKeyFile { path, problem });
    }
    Ok(keys)
}
