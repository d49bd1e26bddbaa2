//! Damaged files are renamed, so that arti does not find them and the user can still examine them.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::warn;

/// What is appended to the name of a damaged file.
const SUFFIX: &str = "damaged";
/// How many damaged files of one name are kept.
pub(super) const MAX_KEPT: u32 = 9;

/// Renames `path` into the folder `to`, so that the client no longer finds it, and logs a warning. `why`
/// goes into the parentheses of "PATH is damaged (...)".
///
/// Returns whether the file was renamed.
pub(super) fn set_aside(path: &Path, to: &Path, why: &str) -> bool {
    // arti does not trust a folder that contains a dangling link.
    let to = match fs::metadata(path).is_err() && path.is_symlink() {
        true => to.parent().unwrap_or(to),
        false => to,
    };
    let name = path.file_name().unwrap_or_default().display().to_string();
    let candidates = (1..=MAX_KEPT).map(|number| match number {
        1 => to.join(format!("{name}.{SUFFIX}")),
        _ => to.join(format!("{name}.{SUFFIX}.{number}")),
    });
    let free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    // When all names are taken, replace the last file: repeated damage must not fill the disk.
    let last = to.join(format!("{name}.{SUFFIX}.{MAX_KEPT}"));
    let aside = candidates.into_iter().find(free).unwrap_or(last);
    match fs::rename(path, &aside) {
        Ok(()) => {
            warn!(
                "{} is damaged ({why}): renamed to {}",
                path.display(),
                aside.display()
            );
            true
        }
        Err(error) => {
            warn!(
                "{} is damaged ({why}) and cannot be renamed: {error}; remove it",
                path.display()
            );
            false
        }
    }
}

/// Returns what is wrong with `path`, links followed, if something other than a regular file exists there.
pub(super) fn find_type_problem(path: &Path) -> Option<&'static str> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(metadata) if metadata.is_dir() => Some("it is a folder"),
        Ok(_) => Some("it is not a regular file"),
        Err(_) if fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) => {
            Some("it is a dangling symbolic link")
        }
        Err(_) => None,
    }
}
