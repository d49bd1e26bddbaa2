//! Client authorization keys: which one, if any, belongs to an onion service.
//!
//! Two places are looked at, in this order: the folder `client_onion_auth_dir`, in C tor's format
//! (`<56 characters>:descriptor:x25519:<52 characters of base32>`, one line in a file that ends in
//! `.auth_private`; tor(1), "ClientOnionAuthDir"), and arti's own key store. Both are read anew for
//! each request, so that a new key works at once.
//!
//! Every copy of a key that this module makes is wiped when it is dropped. arti and the kernel's page
//! cache have copies of their own.
//!
//! tor-hsclient shares circuits only between requests that hold the same key *object*. A key is
//! therefore kept for as long as its bytes stay the same.

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

pub use folder::UnusedKeyFile;
pub use save::{KeyFolder, NewKey, SaveError};

use auth_private::Secret;

/// How the names of key files end.
const SUFFIX: &str = "auth_private";

/// How often it is logged that a place cannot be read: each request for an onion service looks there.
static FOLDER: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static KEY_STORE: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// Finds the keys for onion services.
pub(crate) struct KeyRing {
    folder: Option<PathBuf>,
    client: Arc<TorClient<TorRuntime>>,
    /// For each service the key that was last found, and the object made of it.
    known: Mutex<HashMap<OnionAddress, (Secret, HsClientSecretKeys)>>,
}

impl KeyRing {
    /// Looks for keys in `folder`, if there is one, and in the key store of `client`.
    pub(crate) fn new(folder: Option<PathBuf>, client: Arc<TorClient<TorRuntime>>) -> Arc<KeyRing> {
        Arc::new(KeyRing {
            folder,
            client,
            known: Mutex::default(),
        })
    }

    /// The key for `service`, or the empty set of keys if there is none.
    ///
    /// [`Failure::ClientAuthUnreadable`] if a place where keys are kept cannot be read; the log
    /// says which, at level debug if it names the service.
    pub(crate) async fn for_service(
        self: &Arc<Self>,
        service: &OnionAddress,
    ) -> Result<HsClientSecretKeys, Failure> {
        let (ring, service) = (Arc::clone(self), *service);
        // Files are read: nobody else shall wait for a slow disk.
        let looked_up = tokio::task::spawn_blocking(move || ring.look_up(&service));
        looked_up.await.unwrap_or(Err(Failure::Internal))
    }

    fn look_up(&self, service: &OnionAddress) -> Result<HsClientSecretKeys, Failure> {
        let mut from_folder = match &self.folder {
            // The start has named the bad files.
            Some(folder) => folder::read_folder(folder, drop).map_err(|error| {
                if let Some(times) = FOLDER.due() {
                    let (folder, times) = (folder.display(), Occurrences(times));
                    warn!("cannot read client_onion_auth_dir {folder}: {error}{times}");
                }
                Failure::ClientAuthUnreadable
            })?,
            None => HashMap::new(),
        };
        let secret = match from_folder.remove(service) {
            Some(secret) => Some(secret),
            None => self.in_key_store(service)?,
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
        let keys = assemble(&secret)?;
        known.insert(*service, (secret, keys.clone()));
        Ok(keys)
    }

    /// The key that arti's own key store holds for `service`.
    fn in_key_store(&self, service: &OnionAddress) -> Result<Option<Secret>, Failure> {
        let Ok(store) = self.client.keymgr() else {
            return Ok(None);
        };
        let which = HsClientDescEncKeypairSpecifier::new(HsId::from(service.key()));
        match store.get::<HsClientDescEncKeypair>(&which) {
            Ok(keypair) => Ok(keypair.map(|k| {
                let pair: curve25519::StaticKeypair = k.into();
                let mut secret = Secret::default();
                secret.copy_from_slice(pair.secret.as_bytes());
                secret
            })),
            Err(error) => {
                // The name of a key file holds that of the service.
                if let Some(times) = KEY_STORE.due() {
                    warn!(
                        "cannot read a client authorization key of the key store; level debug says \
                         which{}",
                        Occurrences(times)
                    );
                }
                debug!("cannot read the key store: {error}");
                Err(Failure::ClientAuthUnreadable)
            }
        }
    }
}

/// Makes the object that tor-hsclient wants of a secret key.
fn assemble(secret: &Secret) -> Result<HsClientSecretKeys, Failure> {
    let secret = curve25519::StaticSecret::from(***secret);
    let public = curve25519::PublicKey::from(&secret);
    let mut builder = HsClientSecretKeysBuilder::default();
    builder.ks_hsc_desc_enc(HsClientDescEncKeypair::new(public.into(), secret.into()));
    builder.build().map_err(|error| {
        warn!("cannot use a client authorization key: {error}");
        Failure::Internal
    })
}

/// Counts the keys in `folder`; for the start of the program. `report` gets every file that looks
/// like a key and is none.
///
/// Fails if the folder cannot be read or is not private: the keys in
/// it are secrets (tor(1) refuses to start with such a folder).
pub fn check_folder(
    folder: &Path,
    mistrust: &Mistrust,
    report: impl FnMut(UnusedKeyFile),
) -> Result<usize, String> {
    mistrust
        .verifier()
        .require_directory()
        .check(folder)
        .map_err(|error| {
            format!(
                "client_onion_auth_dir {}: {error}; make it a folder of your own with mode 0700",
                folder.display()
            )
        })?;
    let keys = folder::read_folder(folder, report)
        .map_err(|error| format!("client_onion_auth_dir {}: {error}", folder.display()))?;
    Ok(keys.len())
}
