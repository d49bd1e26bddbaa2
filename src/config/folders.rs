//! Checks whether arti-client will be able to use its folders.

use std::path::Path;

use fs_mistrust::{Mistrust, Verifier};
use nix::unistd::{AccessFlags, access};

use super::error::ConfigError;
use super::error_text::chain;
use super::setting::Setting;

/// The alternative remedy for a folder that arti does not trust.
const PERMISSIONS: &str = "see storage.permissions in arti.toml.example";

/// Checks the folder of arti's persistent state; others must not be able to read it.
pub(super) fn check_state(
    path: &Path,
    mistrust: &Mistrust,
    setting: &Setting,
) -> Result<(), ConfigError> {
    let verifier = mistrust.verifier();
    check_trusted(path, path, verifier, setting)?;
    // arti creates nothing in this folder itself once its subfolders exist.
    match path.join("state").exists() {
        true => Ok(()),
        false => check_writable(path, setting),
    }
}

/// Checks the folder of downloaded directories, which are not secret.
pub(super) fn check_cache(
    path: &Path,
    mistrust: &Mistrust,
    setting: &Setting,
) -> Result<(), ConfigError> {
    // The folder itself may be one such as /tmp; arti checks its subfolder.
    let subfolder = path.join("dir_blobs");
    let verifier = mistrust.verifier().permit_readable();
    check_trusted(path, &subfolder, verifier, setting)?;
    check_writable(path, setting)
}

/// Checks `checked` as arti-client will; `path` is the configured folder, for the message.
///
/// A folder that does not exist passes if those above it do: arti-client creates it.
fn check_trusted(
    path: &Path,
    checked: &Path,
    verifier: Verifier<'_>,
    setting: &Setting,
) -> Result<(), ConfigError> {
    match verifier.require_directory().check(checked) {
        Ok(()) | Err(fs_mistrust::Error::NotFound(_)) => Ok(()),
        Err(error) => {
            let (problem, remedy) = (chain(&error), find_remedy(&error));
            Err(setting.value_error(format!("{}: {problem}; {remedy}", path.display())))
        }
    }
}

/// Checks that this user can create files in a folder or, if it is missing, create the folder.
fn check_writable(path: &Path, setting: &Setting) -> Result<(), ConfigError> {
    let Some(existing) = path.ancestors().find(|folder| folder.exists()) else {
        return Ok(());
    };
    access(existing, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| {
        setting.value_error(format!(
            "{}: cannot write to {}: {}; start onionport as the owner of the folder, or choose \
             another folder",
            path.display(),
            existing.display(),
            error.desc(),
        ))
    })
}

/// Returns what to do about an error.
fn find_remedy(error: &fs_mistrust::Error) -> String {
    match error {
        fs_mistrust::Error::BadPermission(path, _, bad) => {
            let bits = [(0o044, 'r'), (0o022, 'w'), (0o011, 'x')];
            let bits = bits.iter().filter(|(mask, _)| bad & mask != 0);
            let bits: String = bits.map(|(_, letter)| letter).collect();
            format!("run chmod go-{bits} {}, or {PERMISSIONS}", path.display())
        }
        fs_mistrust::Error::BadOwner(path, _) => format!(
            "start onionport as the owner of {}, or change its owner (chown), or {PERMISSIONS}",
            path.display()
        ),
        fs_mistrust::Error::BadType(path) => {
            format!("choose another folder, or move {} away", path.display())
        }
        _ => format!("choose another folder, or {PERMISSIONS}"),
    }
}
