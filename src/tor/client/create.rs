//! Creating a client: wait for its folders, repair its files, start it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arti_client::{BootstrapBehavior, DormantMode, TorClient};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};
use tor_error::{ErrorKind, ErrorReport as _, HasKind as _};
use tracing::{info, warn};

use super::settings::ClientSettings;
use crate::tor::runtime::{self, TorRuntime};
use crate::tor::storage::{ClientStorage, LockHolder};

/// How long a client that needs the state folder's lock waits for another process to exit, as in C tor.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two checks of the lock.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// How long repairing files may take: a disk may hang.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(20);

/// A client of arti, with the settings it was created with.
pub(in crate::tor) struct ArtiClient {
    pub(in crate::tor) arti: Arc<TorClient<TorRuntime>>,
    pub(in crate::tor) settings: ClientSettings,
    /// The bootstrap attempt that creating the client began.
    pub(super) first_bootstrap: Mutex<Option<BootstrapFuture>>,
    /// Whether the client has the lock of the state folder.
    pub(super) holds_state: bool,
}

/// An attempt to bootstrap.
pub(super) type BootstrapFuture = BoxFuture<'static, arti_client::Result<()>>;

impl ArtiClient {
    /// Makes arti save its state soon: setting the dormant mode, even to the current one, wakes all its
    /// periodic tasks.
    pub(super) fn save_soon(&self) {
        self.arti.set_dormant(DormantMode::Normal);
    }
}

/// Waits until no other process holds a state folder that is needed.
///
/// # Errors
/// One sentence with the remedy, after five seconds.
pub(super) async fn wait_for_lock(settings: &ClientSettings) -> Result<(), String> {
    let storage = settings.storage();
    let other = || match storage.state_holder() {
        Some(LockHolder::Us) | None => None,
        Some(other) => Some(other),
    };
    let Some(holder) = other() else { return Ok(()) };
    let folder = storage.state_folder().display();
    if !settings.needs_lock() {
        warn!(
            "{holder} uses {folder}: guards are not saved while it runs; stop it, or set \
             storage.state_dir to another folder"
        );
        return Ok(());
    }
    info!("{holder} uses {folder}: waiting for it to exit");
    let deadline = Instant::now() + LOCK_TIMEOUT;
    while let Some(holder) = other() {
        if Instant::now() > deadline {
            return Err(in_use_error(settings, holder));
        }
        sleep(LOCK_POLL).await;
    }
    Ok(())
}

/// The error if another process holds a state folder that is needed.
pub(super) fn in_use_error(settings: &ClientSettings, holder: LockHolder) -> String {
    format!(
        "{holder} uses {}, and bridges need exclusive use of the state folder: stop it, or set \
         storage.state_dir to another folder",
        settings.storage().state_folder().display()
    )
}

/// Repairs the client's files, then creates a client, which begins to bootstrap.
///
/// # Errors
/// One sentence with the remedy.
pub(super) async fn create(settings: &ClientSettings) -> Result<ArtiClient, String> {
    let storage = settings.storage();
    repair(&storage, settings).await;
    let mut repaired = false;
    loop {
        let runtime =
            runtime::current().map_err(|e| format!("cannot start the Tor client: {e}"))?;
        let error = match start(settings, &storage, runtime) {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let report = error.report().to_string();
        // Repair once: what is still wrong afterwards cannot be repaired.
        if repaired || !storage.repair_after(error.kind(), &report) {
            let lock = storage.inaccessible_lock();
            let lock = lock.map(|path| format!(" ({})", path.display()));
            let (lock, remedy) = (lock.unwrap_or_default(), remedy(error.kind()));
            return Err(format!(
                "cannot start the Tor client: {report}{lock}{remedy}"
            ));
        }
        repaired = true;
    }
}

/// Repairs the client's files on a blocking thread: a disk may be slow.
async fn repair(storage: &ClientStorage, settings: &ClientSettings) {
    let (storage, config) = (storage.clone(), settings.config.clone());
    let repairing = tokio::task::spawn_blocking(move || storage.repair(&config));
    match timeout(REPAIR_TIMEOUT, repairing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("cannot check the Tor client's files: {error}"),
        Err(_) => warn!(
            "cannot check the Tor client's files within {} s; starting before the check is done",
            REPAIR_TIMEOUT.as_secs()
        ),
    }
}

/// Creates a client and polls its first bootstrap attempt once: only then does arti check its configuration
/// and its files.
fn start(
    settings: &ClientSettings,
    storage: &ClientStorage,
    runtime: TorRuntime,
) -> arti_client::Result<ArtiClient> {
    let holds_state = storage.state_holder().is_none();
    let arti = TorClient::with_runtime(runtime)
        .config(settings.config.clone())
        .bootstrap_behavior(BootstrapBehavior::OnDemand)
        .create_unbootstrapped()?;
    let mut bootstrap: BootstrapFuture = {
        let arti = Arc::clone(&arti);
        async move { arti.bootstrap().await }.boxed()
    };
    let first_bootstrap = match (&mut bootstrap).now_or_never() {
        // Without a circuit manager, arti failed to assemble the client.
        Some(Err(error)) if arti.circmgr().is_err() || needs_file_repair(error.kind()) => {
            return Err(error);
        }
        Some(Err(_)) => None,
        // The cache held all that was needed.
        Some(Ok(())) => Some(std::future::ready(Ok(())).boxed()),
        None => Some(bootstrap),
    };
    Ok(ArtiClient {
        arti,
        settings: settings.clone(),
        first_bootstrap: Mutex::new(first_bootstrap),
        holds_state,
    })
}

/// The remedy for an error of this kind; arti's report, which precedes it, names the file.
pub(super) fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::FsPermissions
        | ErrorKind::PersistentStateAccessFailed
        | ErrorKind::CacheAccessFailed => {
            "; change its permissions or its owner (chmod, chown), or see storage.permissions in \
             arti.toml.example"
        }
        _ => "",
    }
}

/// Returns whether a retry cannot succeed before the client's files are repaired.
pub(super) fn needs_file_repair(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PersistentStateCorrupted | ErrorKind::CacheCorrupted
    )
}
