//! Saves a key that the user has entered in the key folder, as C tor does (tor(1), "ClientOnionAuthDir").
//!
//! The replaced file stays beside the new one as `NAME.old`, which nothing reads as a key; an older
//! `NAME.old` is overwritten. Only regular files are replaced: any other `.auth_private` entry, even a
//! symbolic link, is left alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_mistrust::Mistrust;
use nix::fcntl::OFlag;
use thiserror::Error;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::auth_private::{self, ClientSecretKey, KeyFileError, SUFFIX, label};
use super::folder::{escaped, key_files, may_name_a_service, parent_folder};
use crate::tor::onion_address::OnionAddress;

#[cfg(test)]
mod tests;

/// The folder with client authorization keys, for writing.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    path: PathBuf,
    mistrust: Mistrust,
}

/// The age at which a temporary file is removed: it was left behind by a crash.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

impl KeyFolder {
    /// The folder at `path`. `mistrust` checks its permissions when a key is saved.
    pub fn new(path: PathBuf, mistrust: Mistrust) -> KeyFolder {
        KeyFolder { path, mistrust }
    }

    /// Saves `key`, replacing the key that is in effect for its service, if there is one.
    ///
    /// The file appears with its whole content or not at all, and is readable by its owner only. Blocks.
    ///
    /// # Errors
    /// If the folder is not private, or cannot be written, or if a symbolic link takes precedence.
    pub fn save(&self, key: &ClientAuthKey) -> Result<(), SaveError> {
        self.try_save(key).map_err(|problem| SaveError {
            folder: self.path.clone(),
            problem,
        })
    }

    fn try_save(&self, key: &ClientAuthKey) -> Result<(), SaveErrorKind> {
        let verifier = self.mistrust.verifier();
        verifier.require_directory().check(&self.path)?;
        let file = choose_file(&self.path, &key.service)?;
        write(&self.path, &file, key)?;
        Ok(())
    }
}

/// A client authorization key for one onion service.
pub struct ClientAuthKey {
    service: OnionAddress,
    secret: ClientSecretKey,
}

impl ClientAuthKey {
    /// Parses a key for `service` as users receive it: 52 characters of base32, or the whole line of a key
    /// file. White space is ignored.
    ///
    /// # Errors
    /// A sentence for the user, which does not repeat the text.
    pub fn parse(text: &str, service: OnionAddress) -> Result<ClientAuthKey, String> {
        // Allocated at full size: a buffer that grows leaves copies behind.
        let mut bare = Zeroizing::new(String::with_capacity(text.len()));
        bare.extend(text.split_whitespace());
        let text = bare;
        if text.is_empty() {
            return Err("Nothing was entered.".to_owned());
        }
        let label = label(&service);
        let fields: Vec<&str> = text.trim_end_matches('=').split(':').collect();
        let key = match fields[..] {
            [key] | ["descriptor", "x25519", key] => key,
            [address, "descriptor", "x25519", key] => {
                let address = address.strip_suffix(".onion").unwrap_or(address);
                if !address.eq_ignore_ascii_case(&label) {
                    return Err("This key is for another onion service.".to_owned());
                }
                key
            }
            _ => return Err(NOT_A_KEY.to_owned()),
        };
        let secret = auth_private::decode_key(key.as_bytes()).map_err(|_| NOT_A_KEY.to_owned())?;
        Ok(ClientAuthKey { service, secret })
    }
}

/// The error for text that is not a key.
const NOT_A_KEY: &str =
    "This is not a key: a key has 52 characters, the letters A to Z and the digits 2 to 7.";

/// Why a key was not saved.
///
/// [`Display`](std::fmt::Display) may name a file; it is for the user. [`SaveError::log`] is for the log.
#[derive(Debug, Error)]
#[error("client_onion_auth_dir {}: {problem}", escaped(folder))]
pub struct SaveError {
    folder: PathBuf,
    problem: SaveErrorKind,
}

#[derive(Debug, Error)]
enum SaveErrorKind {
    #[error("{0}")]
    NotPrivate(#[from] fs_mistrust::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no file name is free")]
    NoFreeName,
    #[error(
        "{} is a symbolic link to a key for this onion service and takes precedence; remove it, or \
         change the file that it points to",
        escaped(.0)
    )]
    Link(PathBuf),
}

impl SaveError {
    /// Logs a warning that does not name a file whose name may contain an onion address.
    pub fn log(&self) {
        match &self.problem {
            SaveErrorKind::Link(link) if may_name_a_service(link) => {
                warn!(
                    "cannot save a client authorization key: a symbolic link in {} provides a key for the \
                     same onion service and takes precedence; remove it (the log names it at level debug)",
                    escaped(parent_folder(link))
                );
                debug!("cannot save a client authorization key: {self}");
            }
            _ => warn!("cannot save a client authorization key: {self}"),
        }
    }
}

/// Returns the file to write: the first regular file with a key for `service`, since that key is in effect;
/// otherwise a free name.
fn choose_file(folder: &Path, service: &OnionAddress) -> Result<PathBuf, SaveErrorKind> {
    let paths = key_files(folder)?;
    let has_key =
        |path: &&PathBuf| matches!(inspect(path), PathContent::Key(owner) if owner == *service);
    let in_effect = paths.iter().find(has_key);
    // A link is read like any other key file, but not written.
    let links_to_key = |path: &&PathBuf| {
        matches!(inspect(path), PathContent::Other)
            && auth_private::read_file(path).is_ok_and(|(owner, _)| owner == *service)
    };
    let link = paths.iter().find(links_to_key);
    let file = match in_effect {
        Some(path) => path.clone(),
        None => free_file(folder, service)?,
    };
    match link {
        Some(link) if *link < file => Err(SaveErrorKind::Link(link.clone())),
        _ => Ok(file),
    }
}

/// Returns C tor's name for the key file, with a number appended to the address if that would overwrite a
/// key of another service, a link or an unreadable file.
fn free_file(folder: &Path, service: &OnionAddress) -> Result<PathBuf, SaveErrorKind> {
    let label = label(service);
    let names = std::iter::once(format!("{label}.{SUFFIX}"))
        .chain((2..).map(|number| format!("{label}-{number}.{SUFFIX}")));
    let mut paths = names.map(|name| folder.join(name));
    let free = paths.find(|path| {
        matches!(
            inspect(path),
            PathContent::Missing | PathContent::InvalidKeyFile
        )
    });
    free.ok_or(SaveErrorKind::NoFreeName)
}

/// What exists at a path.
enum PathContent {
    Missing,
    /// A file with a key for this service.
    Key(OnionAddress),
    /// A readable file without a valid key. It may be overwritten.
    InvalidKeyFile,
    /// A folder, a link, or an unreadable file. It must be left alone.
    Other,
}

fn inspect(path: &Path) -> PathContent {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return PathContent::Missing,
        _ => return PathContent::Other,
    }
    // The flags make opening fail safely if a link or a pipe has replaced the file meanwhile.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    match opened.map_err(Into::into).and_then(auth_private::read_text) {
        Err(KeyFileError::Io(_)) => PathContent::Other,
        Err(_) => PathContent::InvalidKeyFile,
        Ok(text) => match auth_private::parse(&text) {
            Ok((owner, _)) => PathContent::Key(owner),
            Err(_) => PathContent::InvalidKeyFile,
        },
    }
}

/// Writes a temporary file, then renames it to `file`.
fn write(folder: &Path, file: &Path, key: &ClientAuthKey) -> io::Result<()> {
    remove_stale(folder);
    let encoded = auth_private::format(&key.service, &key.secret);
    let temporary = temporary_path(folder);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut out| {
            out.write_all(&encoded)?;
            out.sync_all()
        })
        .and_then(|()| keep_old(folder, file))
        .and_then(|()| fs::rename(&temporary, file));
    if written.is_err() {
        // The file may not exist.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The key is saved; a failed fsync only risks losing it in a power cut, so warn and go on.
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        warn!("cannot sync {}: {error}", folder.display());
    }
    Ok(())
}

/// Returns a random path without the suffix of key files, so that nothing reads a partial key.
fn temporary_path(folder: &Path) -> PathBuf {
    folder.join(format!(".{:032x}.new", rand::random::<u128>()))
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix('.')?.strip_suffix(".new"));
    number.is_some_and(|n| n.len() == 32 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Removes old temporary files that a crash has left behind. Younger ones may still be in use.
fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let is_stale = |metadata: fs::Metadata| {
            let age = metadata.modified().ok()?.elapsed().ok()?;
            (metadata.is_file() && age > STALE).then_some(())
        };
        if is_temporary(&path)
            && fs::symlink_metadata(&path)
                .ok()
                .and_then(is_stale)
                .is_some()
        {
            // On an error, the next save tries again.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Hard-links the old file to `.old` first, so the key is never without a name on disk.
fn keep_old(folder: &Path, file: &Path) -> io::Result<()> {
    let mut old = file.as_os_str().to_owned();
    old.push(".old");
    let link = temporary_path(folder);
    match fs::hard_link(file, &link) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Not every file system has hard links.
        Err(_) => return fs::rename(file, old),
    }
    let renamed = fs::rename(&link, old);
    // The link still exists if renaming failed, or if both names were links to the same file.
    let _ = fs::remove_file(&link);
    renamed
}
