//! The folders that arti-client keeps its files in: whether it could, before it tries.

use std::path::Path;

use fs_mistrust::{Mistrust, Verifier};
use nix::unistd::{AccessFlags, access};

use super::error::ConfigError;
use super::setting::Setting;
use super::sources::chain;

/// What else there is to do about a folder that arti does not trust.
const OTHERWISE: &str = "see storage.permissions in arti.toml.example";

/// Checks the folder of arti's lasting state, in which others may read nothing.
pub(super) fn check_state(
    path: &Path,
    mistrust: &Mistrust,
    setting: &Setting,
) -> Result<(), ConfigError> {
    let verifier = mistrust.verifier();
    trusted(path, path, verifier, setting)?;
    // With its folders in it, nothing is made here any more.
    match path.join("state").exists() {
        true => Ok(()),
        false => writable(path, setting),
    }
}

/// Checks the folder of downloaded directories, which are no secret.
pub(super) fn check_cache(
    path: &Path,
    mistrust: &Mistrust,
    setting: &Setting,
) -> Result<(), ConfigError> {
    // The folder itself may be one such as /tmp: what counts is the one in it.
    let within = path.join("dir_blobs");
    let verifier = mistrust.verifier().permit_readable();
    trusted(path, &within, verifier, setting)?;
    writable(path, setting)
}

/// Checks a folder, `looked_at` in the place of `path`, as arti-client will. One that is not there is made by
/// then, if the folders above it are good.
fn trusted(
    path: &Path,
    looked_at: &Path,
    verifier: Verifier<'_>,
    setting: &Setting,
) -> Result<(), ConfigError> {
    match verifier.require_directory().check(looked_at) {
        Ok(()) | Err(fs_mistrust::Error::NotFound(_)) => Ok(()),
        Err(error) => {
            let (problem, remedy) = (chain(&error), remedy(&error));
            Err(setting.wrong(format!("{}: {problem}; {remedy}", path.display())))
        }
    }
}

/// Checks that files can be made in a folder, or the folder itself.
fn writable(path: &Path, setting: &Setting) -> Result<(), ConfigError> {
    let Some(there) = path.ancestors().find(|folder| folder.exists()) else {
        return Ok(());
    };
    access(there, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| {
        setting.wrong(format!(
            "{}: cannot write to {}: {}; start onionport as the user whose folder it is, or choose \
             another folder",
            path.display(),
            there.display(),
            error.desc(),
        ))
    })
}

/// What to do about an error.
fn remedy(error: &fs_mistrust::Error) -> String {
    match error {
        fs_mistrust::Error::BadPermission(path, _, bad) => {
            let bits = [(0o044, 'r'), (0o022, 'w'), (0o011, 'x')];
            let bits = bits.iter().filter(|(mask, _)| bad & mask != 0);
            let bits: String = bits.map(|(_, letter)| letter).collect();
            format!("run chmod go-{bits} {}, or {OTHERWISE}", path.display())
        }
        fs_mistrust::Error::BadOwner(path, _) => format!(
            "start onionport as the user whose folder it is, give {} to the one who starts it (chown), or \
             {OTHERWISE}",
            path.display()
        ),
        fs_mistrust::Error::BadType(path) => {
            format!("choose another folder, or move {} away", path.display())
        }
        _ => format!("choose another folder, or {OTHERWISE}"),
    }
}
