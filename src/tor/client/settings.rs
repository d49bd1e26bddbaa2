//! The settings of a Tor client.

use std::path::PathBuf;

use arti_client::config::TorClientConfig;
use tor_guardmgr::GuardMgrConfig as _;

use crate::config::{Config, ExitTimeouts};
use crate::tor::storage::ClientStorage;

/// The settings of a Tor client. Clients with equal settings behave alike.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSettings {
    /// arti's own configuration.
    pub(in crate::tor) config: TorClientConfig,
    /// The folder with client authorization keys, if one is configured.
    pub(in crate::tor) keys: Option<PathBuf>,
    /// How long an exit may take to reply.
    pub(in crate::tor) exits: ExitTimeouts,
    /// arti's folder for persistent state.
    pub(super) state_dir: PathBuf,
    /// arti's folder for downloaded directory documents.
    pub(super) cache_dir: PathBuf,
}

impl ClientSettings {
    /// Extracts the settings of the Tor client from the program's configuration.
    pub fn new(config: &Config) -> ClientSettings {
        ClientSettings {
            config: config.tor.clone(),
            keys: config.client_onion_auth_dir.clone(),
            exits: config.exit_timeouts,
            state_dir: config.state_dir.clone(),
            cache_dir: config.cache_dir.clone(),
        }
    }

    /// The client's files.
    pub(super) fn storage(&self) -> ClientStorage {
        let mistrust = self.config.fs_mistrust();
        ClientStorage::new(&self.state_dir, &self.cache_dir, mistrust)
    }

    /// Returns whether a client with these settings needs the lock of the state folder: arti refuses
    /// bridges that it cannot store.
    pub(super) fn needs_lock(&self) -> bool {
        self.config.bridges_enabled()
    }
}
