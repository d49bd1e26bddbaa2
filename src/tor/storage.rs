//! The files that arti keeps between runs, put in order before it reads them.
//!
//! arti takes its files as they are and writes them without fsync. A file that a power failure has cut
//! short leaves a client that starts, says that it is ready, and never works. So before a client is
//! made, this module looks at each file that can do so:
//!
//! - The state folder ([`state`]) holds what cannot be fetched again, the guards above all. A damaged
//!   file is renamed to `NAME.damaged` with a warning, as C tor does with its state file.
//! - The cache folder ([`cache`]) holds downloaded directories. What is damaged is removed and fetched
//!   anew.
//! - Bridges in the state folder that no longer match their configured line are dropped ([`bridges`]).
//!
//! What only arti can judge is mended after it has refused it ([`Storage::mend_after`]). Wrong
//! permissions and owners are left to arti's own check, which ends the start: a person has to decide.
//! Nothing is touched while another process holds the lock of a folder ([`lock`]).

mod bridges;
mod cache;
mod lock;
mod state;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arti_client::config::TorClientConfig;
use fs_mistrust::Mistrust;
use tor_error::ErrorKind;
use tracing::warn;

pub(super) use lock::Holder;

/// What a damaged file is called from then on.
const SUFFIX: &str = "damaged";
/// How many damaged files of one name are kept.
const MAX_KEPT: u32 = 9;

/// The folders of one configuration of the client.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// `state` in arti's `storage.state_dir`: its JSON files and their lock.
    state: PathBuf,
    /// arti's `storage.cache_dir`.
    cache: PathBuf,
    mistrust: Mistrust,
}

impl Storage {
    /// The folders at `state_dir` and `cache_dir`, whose permissions `mistrust` judges.
    pub(super) fn new(state_dir: &Path, cache_dir: &Path, mistrust: &Mistrust) -> Storage {
        Storage {
            state: state_dir.join("state"),
            cache: cache_dir.to_owned(),
            mistrust: mistrust.clone(),
        }
    }

    /// Puts aside or removes what a client with this configuration could not use.
    ///
    /// Reads the cached consensus, so this takes some milliseconds. Warns of each file, once.
    pub(super) fn mend(&self, config: &TorClientConfig) {
        for path in self.locks() {
            if let (Some(why), Some(folder)) = (not_a_file(&path), path.parent()) {
                set_aside(&path, folder, why);
            }
        }
        if self.state_holder().is_none() {
            state::mend(&self.state);
            bridges::forget_changed(&self.state, config);
        }
        if lock::holder(&self.cache_lock()).is_none() {
            cache::mend(&self.cache, &self.mistrust);
        }
    }

    /// Mends what arti has just refused with an error of this kind and text. Gives whether there was
    /// anything to mend, so that trying again makes sense.
    pub(super) fn mend_after(&self, kind: ErrorKind, report: &str) -> bool {
        // A file that another process works with may be good, and of a later version.
        let others = |path: &PathBuf| matches!(lock::holder(path), Some(Holder::Other(_)));
        if self.locks().iter().any(others) {
            return false;
        }
        match kind {
            ErrorKind::PersistentStateCorrupted => state::mend_named_in(&self.state, report),
            ErrorKind::CacheCorrupted => cache::set_database_aside(&self.cache, report),
            // What SQLite says of a file that is none of its databases.
            ErrorKind::InvalidConfig if report.contains("not a database") => {
                cache::set_database_aside(&self.cache, report)
            }
            _ => false,
        }
    }

    /// Which process holds the state folder; `None` if nobody does.
    pub(super) fn state_holder(&self) -> Option<Holder> {
        lock::holder(&self.state_lock())
    }

    /// Whether an older client of this process still holds one of the folders.
    pub(super) fn is_held_by_us(&self) -> bool {
        let held = |path: &PathBuf| lock::holder(path) == Some(Holder::Us);
        self.locks().iter().any(held)
    }

    /// Gives up the locks that an older client of this process still holds: removes the locked files,
    /// so that a new client can make and lock others. Only the holder may do that. `holds_state` says
    /// that the state folder is ours where the system does not tell.
    pub(super) fn abandon_locks(&self, holds_state: bool) {
        for (path, known) in [(self.state_lock(), holds_state), (self.cache_lock(), false)] {
            let ours = match lock::holder(&path) {
                Some(Holder::Us) => true,
                Some(Holder::Other(None)) => known,
                _ => false,
            };
            if ours && let Err(error) = fs::remove_file(&path) {
                warn!("cannot remove {}: {error}", path.display());
            }
        }
    }

    /// The folder that [`Storage::state_holder`] speaks of, for messages.
    pub(super) fn state_folder(&self) -> &Path {
        &self.state
    }

    /// A lock file that this user may not open. arti does not name it.
    pub(super) fn barred_lock(&self) -> Option<PathBuf> {
        let is_barred = |path: &PathBuf| {
            let opened = File::options().read(true).write(true).open(path);
            opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        self.locks().into_iter().find(is_barred)
    }

    fn state_lock(&self) -> PathBuf {
        self.state.join("state.lock")
    }

    fn cache_lock(&self) -> PathBuf {
        self.cache.join("dir.lock")
    }

    fn locks(&self) -> [PathBuf; 2] {
        [self.state_lock(), self.cache_lock()]
    }
}

/// Renames `path` so that the client no longer finds it, and warns. `why` completes the sentence
/// "PATH is damaged: …".
fn set_aside(path: &Path, to: &Path, why: &str) -> bool {
    // arti does not trust a folder with a link to nothing in it.
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
    // The last one is replaced when all are taken: a file that is damaged again and again must not
    // fill the disk.
    let last = to.join(format!("{name}.{SUFFIX}.{MAX_KEPT}"));
    let aside = candidates.into_iter().find(free).unwrap_or(last);
    match fs::rename(path, &aside) {
        Ok(()) => {
            warn!(
                "{} is damaged ({why}): set aside as {}",
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

/// What `path` leads to, if that is not a regular file.
fn not_a_file(path: &Path) -> Option<&'static str> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(metadata) if metadata.is_dir() => Some("it is a folder"),
        Ok(_) => Some("it is not a regular file"),
        Err(_) if fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) => {
            Some("it is a link to nothing")
        }
        Err(_) => None,
    }
}
