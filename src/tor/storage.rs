//! The files that arti keeps between runs, checked and repaired before it reads them.
//!
//! arti trusts its files and writes them without fsync. A file that a power cut has truncated can leave a
//! client that starts, reports that it is ready, and never works. Before a client is created, this module
//! therefore checks every file that can cause this:
//!
//! - The state folder ([`state`]) holds what cannot be downloaded again, above all the guards. A damaged
//!   file is renamed to `NAME.damaged` with a warning, as C tor does with its state file ([`set_aside`]).
//! - The cache folder ([`cache`]) holds directory documents. Damaged ones are removed and downloaded again.
//! - Bridges in the state folder that no longer match their configured line are dropped ([`bridges`]).
//!
//! Files that only arti can judge are repaired after arti has refused them
//! ([`ClientStorage::repair_after`]). Wrong permissions and owners are left to arti's own check, which makes
//! the start fail: the user has to decide. Nothing is touched while another process holds a folder's lock
//! ([`lock`]).
//!
//! Nothing here knows the client; it only gets arti's configuration.

mod bridges;
mod cache;
mod lock;
mod set_aside;
mod state;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arti_client::config::TorClientConfig;
use fs_mistrust::Mistrust;
use tor_error::ErrorKind;
use tracing::warn;

pub(super) use lock::LockHolder;

/// The folders of one client.
#[derive(Clone, Debug)]
pub(super) struct ClientStorage {
    /// The folder `state` in arti's `storage.state_dir`: JSON files and their lock.
    state: PathBuf,
    /// arti's `storage.cache_dir`.
    cache: PathBuf,
    mistrust: Mistrust,
}

impl ClientStorage {
    /// The files below `state_dir` and `cache_dir`. `mistrust` checks their permissions.
    pub(super) fn new(state_dir: &Path, cache_dir: &Path, mistrust: &Mistrust) -> ClientStorage {
        ClientStorage {
            state: state_dir.join("state"),
            cache: cache_dir.to_owned(),
            mistrust: mistrust.clone(),
        }
    }

    /// Renames or removes the files that a client with this configuration could not use, with a warning
    /// for each. Rewrites `guards.json`, with an info message, if the lines of stored bridges have changed.
    ///
    /// Blocks for some milliseconds: the cached consensus is read.
    pub(super) fn repair(&self, config: &TorClientConfig) {
        for path in self.locks() {
            if let (Some(why), Some(folder)) = (set_aside::find_type_problem(&path), path.parent())
            {
                set_aside::set_aside(&path, folder, why);
            }
        }
        if self.state_holder().is_none() {
            state::repair(&self.state);
            bridges::drop_changed(&self.state, config);
        }
        if lock::find_holder(&self.cache_lock()).is_none() {
            cache::repair(&self.cache, &self.mistrust);
        }
    }

    /// Repairs what arti has just refused with an error of this kind and text. Returns whether a file was
    /// repaired, so that a retry may succeed.
    pub(super) fn repair_after(&self, kind: ErrorKind, report: &str) -> bool {
        // The file of another process may be intact, and in the format of a later version.
        let others = |path: &PathBuf| matches!(lock::find_holder(path), Some(LockHolder::Other(_)));
        if self.locks().iter().any(others) {
            return false;
        }
        match kind {
            ErrorKind::PersistentStateCorrupted => state::set_named_aside(&self.state, report),
            ErrorKind::CacheCorrupted => cache::set_database_aside(&self.cache, report),
            // SQLite's message for a file that is not a database.
            ErrorKind::InvalidConfig if report.contains("not a database") => {
                cache::set_database_aside(&self.cache, report)
            }
            _ => false,
        }
    }

    /// The process that holds the state folder's lock, if any.
    pub(super) fn state_holder(&self) -> Option<LockHolder> {
        lock::find_holder(&self.state_lock())
    }

    /// Returns whether a previous client of this process still holds one of the locks.
    pub(super) fn is_held_by_us(&self) -> bool {
        let held = |path: &PathBuf| lock::find_holder(path) == Some(LockHolder::Us);
        self.locks().iter().any(held)
    }

    /// Removes the lock files that a previous client of this process still holds, so that a new client can
    /// create and lock new ones. Only the holder may do so. `holds_state` is whether that client got the
    /// state folder's lock, in case the system does not report the holder.
    pub(super) fn abandon_locks(&self, holds_state: bool) {
        for (path, known) in [(self.state_lock(), holds_state), (self.cache_lock(), false)] {
            let ours = match lock::find_holder(&path) {
                Some(LockHolder::Us) => true,
                Some(LockHolder::Other(None)) => known,
                _ => false,
            };
            if ours && let Err(error) = fs::remove_file(&path) {
                warn!("cannot remove {}: {error}", path.display());
            }
        }
    }

    /// The folder whose lock [`ClientStorage::state_holder`] checks, for messages.
    pub(super) fn state_folder(&self) -> &Path {
        &self.state
    }

    /// Returns a lock file that this user may not open; arti's error does not name it.
    pub(super) fn inaccessible_lock(&self) -> Option<PathBuf> {
        let is_inaccessible = |path: &PathBuf| {
            let opened = File::options().read(true).write(true).open(path);
            opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        self.locks().into_iter().find(is_inaccessible)
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
