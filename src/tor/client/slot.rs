//! The slot of the current client, and how another client takes its place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::bootstrap::ClientError;
use super::create::{ArtiClient, create, in_use_error, remedy, wait_for_lock};
use super::settings::ClientSettings;
use crate::tor::storage::LockHolder;

/// How long a discarded client may take to release its folders. Circuits that are being built hold them
/// until they fail.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two checks whether the folders are released.
const RELEASE_POLL: Duration = Duration::from_millis(10);
/// How long to retry restoring the previous client when a new one cannot be created, and the pause between
/// retries.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(30);
const RESTORE_PAUSE: Duration = Duration::from_secs(1);

/// Holds the current client; empty while the client is replaced.
pub(in crate::tor) struct ClientSlot {
    current: watch::Sender<Option<Arc<ArtiClient>>>,
    /// The settings of the current client; also used to create a replacement if the current client fails.
    settings: Mutex<ClientSettings>,
    /// Held while the client is replaced.
    replacing: tokio::sync::Mutex<()>,
}

/// Why a client could not be replaced.
#[derive(Debug)]
pub enum ReplaceError {
    /// The new configuration or client was refused; the previous client serves on.
    Refused(String),
    /// Neither client can be created. No request is served any more.
    Lost(String),
}

impl From<String> for ReplaceError {
    fn from(problem: String) -> Self {
        ReplaceError::Refused(problem)
    }
}

impl ClientSlot {
    /// Creates a client, which is not usable yet. Must be called within a tokio runtime.
    ///
    /// Waits up to five seconds if another process holds a state folder that is needed.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub(in crate::tor) async fn new(settings: ClientSettings) -> Result<ClientSlot, String> {
        wait_for_lock(&settings).await?;
        let client = create(&settings).await?;
        Ok(ClientSlot {
            current: watch::Sender::new(Some(Arc::new(client))),
            settings: Mutex::new(settings),
            replacing: tokio::sync::Mutex::default(),
        })
    }

    /// The settings of the current client.
    pub(in crate::tor) fn settings(&self) -> ClientSettings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns a receiver of the current client.
    pub(in crate::tor) fn subscribe(&self) -> watch::Receiver<Option<Arc<ArtiClient>>> {
        self.current.subscribe()
    }

    /// Discards the current client and creates one with these settings. Holders of the current client must
    /// drop it when the receiver of [`ClientSlot::subscribe`] reports a change.
    ///
    /// # Errors
    /// [`ReplaceError`], with one sentence that names the remedy.
    pub(in crate::tor) async fn replace(
        &self,
        settings: ClientSettings,
    ) -> Result<(), ReplaceError> {
        let _replacing = self.replacing.lock().await;
        let before = self.settings();
        self.discard_current(&before).await;
        match create(&settings).await {
            Ok(client) => {
                *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
                self.current.send_replace(Some(Arc::new(client)));
                Ok(())
            }
            Err(problem) => Err(self.restore(&before, problem).await),
        }
    }

    /// Creates the previous client again after `problem` kept the new one from being created.
    async fn restore(&self, before: &ClientSettings, problem: String) -> ReplaceError {
        // A temporary shortage, as of file descriptors, must not end the program.
        let deadline = Instant::now() + RESTORE_TIMEOUT;
        let mut is_first = true;
        loop {
            match create(before).await {
                Ok(client) => {
                    self.current.send_replace(Some(Arc::new(client)));
                    return ReplaceError::Refused(problem);
                }
                Err(error) if Instant::now() > deadline => {
                    return ReplaceError::Lost(format!(
                        "{problem}; cannot restore the previous Tor client: {error}; correct the \
                         configuration and restart onionport"
                    ));
                }
                Err(error) => {
                    if std::mem::take(&mut is_first) {
                        warn!(
                            "cannot restore the previous Tor client: {error}; retrying for up to {} s",
                            RESTORE_TIMEOUT.as_secs()
                        );
                    }
                    sleep(RESTORE_PAUSE).await;
                }
            }
        }
    }

    /// Drops the current client and waits until its files are free; after [`RELEASE_TIMEOUT`], removes its
    /// locks.
    async fn discard_current(&self, settings: &ClientSettings) {
        let Some(client) = self.current.send_replace(None) else {
            return;
        };
        let holds_state = client.holds_state;
        let stopped = tokio::spawn(client.arti.wait_for_stop());
        drop(client);
        let storage = settings.storage();
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        // The tasks that hold the cache folder's lock are not those that hold the state folder's.
        while !stopped.is_finished() || storage.is_held_by_us() {
            if Instant::now() > deadline {
                debug!("the previous Tor client still holds its folders; removing its locks");
                storage.abandon_locks(holds_state);
                break;
            }
            sleep(RELEASE_POLL).await;
        }
        // A client that stops late overwrites the state with its own, older one: have the current client
        // save its state again.
        let current = self.current.subscribe();
        tokio::spawn(async move {
            let _ = stopped.await;
            if let Some(client) = current.borrow().clone() {
                client.save_soon();
            }
        });
    }

    /// Checks whether a client with these settings could replace the current one.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub(in crate::tor) fn check(&self, settings: &ClientSettings) -> Result<(), String> {
        let before = self.settings();
        for (key, differs) in [
            ("storage.state_dir", before.state_dir != settings.state_dir),
            ("storage.cache_dir", before.cache_dir != settings.cache_dir),
        ] {
            if differs {
                return Err(format!("{key} changed: restart onionport to apply it"));
            }
        }
        let holder = settings.storage().state_holder();
        match holder {
            Some(holder @ LockHolder::Other(Some(_))) if settings.needs_lock() => {
                Err(in_use_error(settings, holder))
            }
            _ => Ok(()),
        }
    }

    /// Repairs the files and replaces a client that failed to bootstrap with `error`. `seen` is the receiver
    /// that returned this client; does nothing if the client has been replaced since.
    ///
    /// # Errors
    /// One sentence: the user must act.
    pub(in crate::tor) async fn recover(
        &self,
        error: ClientError,
        seen: &watch::Receiver<Option<Arc<ArtiClient>>>,
    ) -> Result<(), String> {
        let _replacing = self.replacing.lock().await;
        if seen.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let settings = self.settings();
        self.discard_current(&settings).await;
        wait_for_lock(&settings).await?;
        if !settings.storage().repair_after(error.kind, &error.report) {
            let remedy = remedy(error.kind);
            return Err(format!(
                "cannot use the Tor client: {}{remedy}",
                error.report
            ));
        }
        let client = create(&settings).await?;
        self.current.send_replace(Some(Arc::new(client)));
        Ok(())
    }
}
