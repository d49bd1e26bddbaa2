//! Client authorization keys for onion services.
//!
//! Keys come from the folder `client_onion_auth_dir` in C tor's format (files named `*.auth_private` with
//! one line `<56 characters>:descriptor:x25519:<52 characters of base32>`; tor(1), "ClientOnionAuthDir"),
//! and from arti's key store. The folder is read for each request, and the key store if the folder has no
//! key for the service, so that a new key works at once.
//!
//! Every copy of a key that this module makes is wiped when dropped. arti and the kernel's page cache keep
//! copies of their own.
//!
//! Read in this order: `auth_private` (the file format), `folder` (all files of the folder), `save` (a
//! new key from the user). Except for arti's key store, nothing here knows the Tor client.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arti_client::TorClient;
use fs_mistrust::Mistrust;
use tor_hsclient::{
    HsClientDescEncKeypairSpecifier, HsClientSecretKeys, HsClientSecretKeysBuilder,
};
use tor_hscrypto::pk::{HsClientDescEncKeypair, HsId};
use tor_llcrypto::pk::curve25519;
use tracing::{debug, warn};

use super::runtime::TorRuntime;
use crate::failure::Failure;
use crate::log_limit::{LogLimiter, Occurrences};
use crate::tor::onion_address::OnionAddress;

mod auth_private;
mod folder;
mod save;
#[cfg(test)]
mod tests;

pub use folder::RejectedKeyFile;
pub use save::{ClientAuthKey, KeyFolder, SaveError};

use auth_private::ClientSecretKey;

/// Read errors, logged at most once a minute: each request for an onion service may repeat them.
static FOLDER_ERRORS: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static KEY_STORE_ERRORS: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// Finds the client authorization key for an onion service.
pub(crate) struct KeyRing {
    folder: Option<PathBuf>,
    client: Arc<TorClient<TorRuntime>>,
    /// The last key of each service, and the object built from it. tor-hsclient shares circuits only between
    /// requests with the same key object, so the object is kept until the key changes.
    known: Mutex<HashMap<OnionAddress, (ClientSecretKey, HsClientSecretKeys)>>,
}

impl KeyRing {
    /// Uses the keys in `folder`, if there is one, and in the key store of `client`.
    pub(crate) fn new(folder: Option<PathBuf>, client: Arc<TorClient<TorRuntime>>) -> Arc<KeyRing> {
        Arc::new(KeyRing {
            folder,
            client,
            known: Mutex::default(),
        })
    }

    /// Returns the key for `service`, or an empty set of keys if there is none.
    ///
    /// # Errors
    /// [`Failure::ClientAuthUnreadable`] if the folder or the key store cannot be read. The log has the
    /// details, at level debug if they name the service.
    pub(crate) async fn for_service(
        self: &Arc<Self>,
        service: &OnionAddress,
    ) -> Result<HsClientSecretKeys, Failure> {
        let (ring, service) = (Arc::clone(self), *service);
        // Reading files on a slow disk must not block other tasks.
        let looked_up = tokio::task::spawn_blocking(move || ring.look_up(&service));
        looked_up.await.unwrap_or(Err(Failure::Internal))
    }

    fn look_up(&self, service: &OnionAddress) -> Result<HsClientSecretKeys, Failure> {
        let mut from_folder = match &self.folder {
            // Rejected files were logged at the start or reload.
            Some(folder) => folder::read_folder(folder, drop).map_err(|error| {
                if let Some(times) = FOLDER_ERRORS.due() {
                    let (folder, times) = (folder.display(), Occurrences(times));
                    warn!("cannot read client_onion_auth_dir {folder}: {error}{times}");
                }
                Failure::ClientAuthUnreadable
            })?,
            None => HashMap::new(),
        };
        let secret = match from_folder.remove(service) {
            Some(secret) => Some(secret),
            None => self.find_in_key_store(service)?,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(secret) = secret else {
            known.remove(service);
            return Ok(HsClientSecretKeys::none());
        };
        if let Some((kept, keys)) = known.get(service)
            && *kept == secret
        {
            return Ok(keys.clone());
        }
        let keys = build_keys(&secret)?;
        known.insert(*service, (secret, keys.clone()));
        Ok(keys)
    }

    /// Returns the key for `service` in arti's key store.
    fn find_in_key_store(
        &self,
        service: &OnionAddress,
    ) -> Result<Option<ClientSecretKey>, Failure> {
        let Ok(store) = self.client.keymgr() else {
            return Ok(None);
        };
        let specifier = HsClientDescEncKeypairSpecifier::new(HsId::from(service.key()));
        match store.get::<HsClientDescEncKeypair>(&specifier) {
            Ok(keypair) => Ok(keypair.map(|k| {
                let pair: curve25519::StaticKeypair = k.into();
                let mut secret = ClientSecretKey::default();
                secret.copy_from_slice(pair.secret.as_bytes());
                secret
            })),
            Err(error) => {
                // The error contains the key file's name, which contains the service's address.
                if let Some(times) = KEY_STORE_ERRORS.due() {
                    warn!(
                        "cannot read a client authorization key in the key store; the log at level \
                         debug names it{}",
                        Occurrences(times)
                    );
                }
                debug!("cannot read the key store: {error}");
                Err(Failure::ClientAuthUnreadable)
            }
        }
    }
}

/// Builds tor-hsclient's object for a secret key.
fn build_keys(secret: &ClientSecretKey) -> Result<HsClientSecretKeys, Failure> {
    let secret = curve25519::StaticSecret::from(***secret);
    let public = curve25519::PublicKey::from(&secret);
    let mut builder = HsClientSecretKeysBuilder::default();
    builder.ks_hsc_desc_enc(HsClientDescEncKeypair::new(public.into(), secret.into()));
    builder.build().map_err(|error| {
        warn!("cannot use a client authorization key: {error}");
        Failure::Internal
    })
}

/// Checks the key folder at a start or reload, and returns the number of its keys. `report` receives every
/// key file that is not used.
///
/// # Errors
/// If the folder cannot be read or is not private: C tor refuses to start with such a folder, too.
pub fn check_folder(
    folder: &Path,
    mistrust: &Mistrust,
    report: impl FnMut(RejectedKeyFile),
) -> Result<usize, String> {
    mistrust
        .verifier()
        .require_directory()
        .check(folder)
        .map_err(|error| {
            format!(
                "client_onion_auth_dir {}: {error}; make it a folder that you own, with mode 0700",
                folder.display()
            )
        })?;
    let keys = folder::read_folder(folder, report)
        .map_err(|error| format!("client_onion_auth_dir {}: {error}", folder.display()))?;
    Ok(keys.len())
}
