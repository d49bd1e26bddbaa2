//! The life of arti's client: made, connected, made anew, given up.
//!
//! A client cannot always be mended in place. One that met a damaged file is of no use ever after; and
//! some of its parts never take up a new configuration (pluggable transports, the proxy to the relays,
//! a bridge that is stored with another address). So a client is replaced as a whole, while the ports
//! stay open and requests wait for the new one. Streams that are open go on: each holds its circuit.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arti_client::config::TorClientConfig;
use arti_client::{BootstrapBehavior, DormantMode, TorClient};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tor_error::{ErrorKind, ErrorReport as _, HasKind as _};
use tor_guardmgr::GuardMgrConfig as _;
use tor_linkspec::HasAddrs as _;
use tracing::{debug, info, warn};

use super::runtime::{self, TorRuntime};
use super::storage::{Holder, Storage};
use crate::config::{Config, ExitTimeouts};

/// How long to wait after connecting failed, before it is tried again.
const BOOTSTRAP_PAUSE: Duration = Duration::from_secs(5);
/// How long a client that needs the state folder for itself waits for another process to end. C tor
/// waits as long.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// How long a client that is given up may take to let go of its folders. Circuits that are being built
/// hold them until they fail.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);
/// How often it is checked whether it has.
const RELEASE_POLL: Duration = Duration::from_millis(10);
/// How long to retry restoring the previous client when a new one cannot be made, and the pause between
/// retries.
const RESTORE_LIMIT: Duration = Duration::from_secs(30);
const RESTORE_PAUSE: Duration = Duration::from_secs(1);
/// How long it may take to put files in order: a disk may hang.
const MEND_LIMIT: Duration = Duration::from_secs(20);

/// How long bridges may be silent before that is told, and how often it is told from then on.
const BRIDGES_PATIENCE: Duration = Duration::from_secs(15);
const BRIDGES_REPORT: Duration = Duration::from_secs(60);

/// What a Tor client is made of. Two that are equal serve alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// arti's own configuration.
    pub(super) config: TorClientConfig,
    /// The folder with client authorization keys, if there is one.
    pub(super) keys: Option<PathBuf>,
    /// How long an exit may take.
    pub(super) exits: ExitTimeouts,
    /// arti's folder for lasting state.
    state_dir: PathBuf,
    /// arti's folder for downloaded directories.
    cache_dir: PathBuf,
}

impl Settings {
    /// The part of the program's configuration that concerns the Tor client.
    pub fn new(config: &Config) -> Settings {
        Settings {
            config: config.tor.clone(),
            keys: config.client_onion_auth_dir.clone(),
            exits: config.exit_timeouts,
            state_dir: config.state_dir.clone(),
            cache_dir: config.cache_dir.clone(),
        }
    }

    fn storage(&self) -> Storage {
        let mistrust = self.config.fs_mistrust();
        Storage::new(&self.state_dir, &self.cache_dir, mistrust)
    }

    /// Whether a client with these settings cannot do without the state folder's lock: arti refuses
    /// bridges that it could not store.
    fn needs_lock(&self) -> bool {
        self.config.bridges_enabled()
    }
}

/// How far connecting to the Tor network has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The network cannot be used yet, or no longer.
    Connecting,
    /// A step on the way, in arti's words or ours.
    Step(&'a str),
    /// The network can be used.
    Connected,
}

/// Why a client could not be put in the place of another.
#[derive(Debug)]
pub enum ReplaceError {
    /// It cannot be made; the one before is in its place again.
    Refused(String),
    /// Neither can be made. Nothing is served any more.
    Lost(String),
}

/// One client of arti, with the settings it was made with.
pub(super) struct Client {
    pub(super) arti: Arc<TorClient<TorRuntime>>,
    pub(super) settings: Settings,
    /// Its first attempt to connect, which was begun when it was made.
    connecting: Mutex<Option<Connecting>>,
    /// Whether it got the lock of the state folder.
    holds_state: bool,
}

/// An attempt to connect.
type Connecting = BoxFuture<'static, arti_client::Result<()>>;

/// The place of the client.
pub(super) struct Clients {
    current: watch::Sender<Option<Arc<Client>>>,
    /// Those to make the next one with, should the present one break.
    settings: Mutex<Settings>,
    /// Held by whoever is putting another client in the place.
    replacing: tokio::sync::Mutex<()>,
}

impl Clients {
    /// Makes a client that is not connected yet. Has to run inside of a tokio runtime.
    ///
    /// Waits up to [`LOCK_LIMIT`] if another process holds a state folder that is needed. The error is
    /// one sentence that says what to do.
    pub(super) async fn new(settings: Settings) -> Result<Clients, String> {
        wait_for_lock(&settings).await?;
        let client = make(&settings).await?;
        Ok(Clients {
            current: watch::Sender::new(Some(Arc::new(client))),
            settings: Mutex::new(settings),
            replacing: tokio::sync::Mutex::default(),
        })
    }

    /// The settings of the present client.
    pub(super) fn settings(&self) -> Settings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tells of each client that takes the place of another.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Client>>> {
        self.current.subscribe()
    }

    /// Gives up the present client and puts one with these settings in its place. Whoever holds a
    /// share of the present one has to drop it when [`Clients::subscribe`] tells.
    pub(super) async fn replace(&self, settings: Settings) -> Result<(), ReplaceError> {
        let _replacing = self.replacing.lock().await;
        let before = self.settings();
        self.give_up(&before).await;
        match make(&settings).await {
            Ok(client) => {
                *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
                self.current.send_replace(Some(Arc::new(client)));
                Ok(())
            }
            Err(problem) => {
                // What is short for a moment, such as open files, must not end the program.
                let deadline = Instant::now() + RESTORE_LIMIT;
                let mut is_first = true;
                loop {
                    match make(&before).await {
                        Ok(client) => {
                            self.current.send_replace(Some(Arc::new(client)));
                            return Err(ReplaceError::Refused(problem));
                        }
                        Err(lost) if Instant::now() > deadline => {
                            return Err(ReplaceError::Lost(format!(
                                "{problem}; cannot restore the Tor client before it either: {lost}; \
                                 correct the configuration and restart onionport"
                            )));
                        }
                        Err(lost) => {
                            if std::mem::take(&mut is_first) {
                                warn!(
                                    "cannot restore the Tor client: {lost}; retrying for up to {} s",
                                    RESTORE_LIMIT.as_secs()
                                );
                            }
                            sleep(RESTORE_PAUSE).await;
                        }
                    }
                }
            }
        }
    }

    /// Drops the present client. Its files are free afterwards.
    async fn give_up(&self, settings: &Settings) {
        let Some(client) = self.current.send_replace(None) else {
            return;
        };
        let holds_state = client.holds_state;
        let stopped = tokio::spawn(client.arti.wait_for_stop());
        drop(client);
        let storage = settings.storage();
        let deadline = Instant::now() + RELEASE_LIMIT;
        // The lock of the cache folder goes with other tasks than that of the state folder.
        while !stopped.is_finished() || storage.is_held_by_us() {
            if Instant::now() > deadline {
                debug!("an older Tor client still holds its folders; taking them from it");
                storage.abandon_locks(holds_state);
                break;
            }
            sleep(RELEASE_POLL).await;
        }
        // When it ends it writes down what it knew, in the place of what is known by then.
        let current = self.current.subscribe();
        tokio::spawn(async move {
            let _ = stopped.await;
            if let Some(client) = current.borrow().clone() {
                client.save_soon();
            }
        });
    }

    /// Whether settings could be used by a client in the place of this one. The error is one sentence.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), String> {
        let before = self.settings();
        for (key, differs) in [
            ("storage.state_dir", before.state_dir != settings.state_dir),
            ("storage.cache_dir", before.cache_dir != settings.cache_dir),
        ] {
            if differs {
                return Err(format!("{key} has changed: restart onionport to apply it"));
            }
        }
        let holder = settings.storage().state_holder();
        match holder {
            Some(holder @ Holder::Other(Some(_))) if settings.needs_lock() => {
                Err(in_use(settings, holder))
            }
            _ => Ok(()),
        }
    }

    /// Replaces the client that `seen` saw last and that broke with this error, after mending its files.
    /// The error is one sentence; it means that the user has to act.
    pub(super) async fn recover(
        &self,
        broken: Broken,
        seen: &watch::Receiver<Option<Arc<Client>>>,
    ) -> Result<(), String> {
        let _replacing = self.replacing.lock().await;
        if seen.has_changed().unwrap_or(false) {
            // Other settings have come meanwhile, and another client with them.
            return Ok(());
        }
        let settings = self.settings();
        self.give_up(&settings).await;
        wait_for_lock(&settings).await?;
        if !settings.storage().mend_after(broken.kind, &broken.report) {
            let remedy = remedy(broken.kind);
            return Err(format!(
                "cannot use the Tor client: {}{remedy}",
                broken.report
            ));
        }
        let client = make(&settings).await?;
        self.current.send_replace(Some(Arc::new(client)));
        Ok(())
    }
}

/// Waits until no other process holds a state folder that is needed.
async fn wait_for_lock(settings: &Settings) -> Result<(), String> {
    let storage = settings.storage();
    let other = || match storage.state_holder() {
        Some(Holder::Us) | None => None,
        Some(other) => Some(other),
    };
    let Some(holder) = other() else { return Ok(()) };
    let folder = storage.state_folder().display();
    if !settings.needs_lock() {
        warn!(
            "{holder} uses {folder}: guards are not saved as long as it does; stop it, or set storage.state_dir to another folder"
        );
        return Ok(());
    }
    info!("{holder} uses {folder}: waiting for it to end");
    let deadline = Instant::now() + LOCK_LIMIT;
    while let Some(holder) = other() {
        if Instant::now() > deadline {
            return Err(in_use(settings, holder));
        }
        sleep(LOCK_POLL).await;
    }
    Ok(())
}

fn in_use(settings: &Settings, holder: Holder) -> String {
    format!(
        "{holder} uses {}, and bridges need a state folder of their own: stop it, or set \
         storage.state_dir to another folder",
        settings.storage().state_folder().display()
    )
}

/// Puts the files in order, then makes a client.
async fn make(settings: &Settings) -> Result<Client, String> {
    let storage = settings.storage();
    mend(&storage, settings).await;
    let mut mended = false;
    loop {
        let runtime =
            runtime::current().map_err(|e| format!("cannot start the Tor client: {e}"))?;
        let error = match begin(settings, &storage, runtime) {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let report = error.report().to_string();
        // Once: what is still wrong then cannot be mended.
        if mended || !storage.mend_after(error.kind(), &report) {
            let barred = storage.barred_lock();
            let barred = barred.map(|path| format!(" ({})", path.display()));
            let (barred, remedy) = (barred.unwrap_or_default(), remedy(error.kind()));
            return Err(format!(
                "cannot start the Tor client: {report}{barred}{remedy}"
            ));
        }
        mended = true;
    }
}

/// Puts the files in order, elsewhere: a disk may be slow.
async fn mend(storage: &Storage, settings: &Settings) {
    let (storage, config) = (storage.clone(), settings.config.clone());
    let mending = tokio::task::spawn_blocking(move || storage.mend(&config));
    match timeout(MEND_LIMIT, mending).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("cannot check the Tor client's files: {error}"),
        Err(_) => warn!("checking the Tor client's files takes too long; going on without"),
    }
}

/// Makes a client and has it begin to connect: arti judges its configuration and its files only then.
fn begin(
    settings: &Settings,
    storage: &Storage,
    runtime: TorRuntime,
) -> arti_client::Result<Client> {
    let free = storage.state_holder().is_none();
    let arti = TorClient::with_runtime(runtime)
        .config(settings.config.clone())
        .bootstrap_behavior(BootstrapBehavior::OnDemand)
        .create_unbootstrapped()?;
    let mut connecting: Connecting = {
        let arti = Arc::clone(&arti);
        async move { arti.bootstrap().await }.boxed()
    };
    let connecting = match (&mut connecting).now_or_never() {
        // A client whose parts could not be put together has none to show.
        Some(Err(error)) if arti.circmgr().is_err() || is_about_files(error.kind()) => {
            return Err(error);
        }
        Some(Err(_)) => None,
        // It has found all it needs in the cache.
        Some(Ok(())) => Some(std::future::ready(Ok(())).boxed()),
        None => Some(connecting),
    };
    Ok(Client {
        arti,
        settings: settings.clone(),
        connecting: Mutex::new(connecting),
        holds_state: free,
    })
}

/// What to do about an error of this kind, behind the words of arti, which name the file.
fn remedy(kind: ErrorKind) -> &'static str {
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

/// The error of a client that is of no use any more.
pub(super) struct Broken {
    kind: ErrorKind,
    report: String,
}

impl Client {
    /// Has arti write down its state soon: waking it up, which it is already, sets off all its regular
    /// tasks.
    fn save_soon(&self) {
        self.arti.set_dormant(DormantMode::Normal);
    }

    /// Connects to the Tor network. `report` gets each step. Returns once the client is
    /// usable.
    ///
    /// Goes on trying for as long as it takes: a computer may be offline for hours.
    pub(super) async fn bootstrap(
        &self,
        report: &(impl Fn(Progress<'_>) + Sync),
    ) -> Result<(), Broken> {
        let mut events = self.arti.bootstrap_events();
        let progress = async {
            let mut last = String::new();
            while let Some(event) = events.next().await {
                let text = event.to_string();
                if text != last {
                    info!("connecting to Tor: {text}");
                    report(Progress::Step(&text));
                    last = text;
                }
            }
            std::future::pending().await
        };
        let connect = async {
            let first = self
                .connecting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let mut connecting = first.unwrap_or_else(|| self.arti.bootstrap().boxed());
            while let Err(error) = connecting.await {
                let (kind, report) = (error.kind(), error.report().to_string());
                // A client that failed to put its parts together has none to show.
                if is_about_files(kind) || self.arti.circmgr().is_err() {
                    return Err(Broken { kind, report });
                }
                warn!("cannot connect to the Tor network: {report}; trying again");
                sleep(BOOTSTRAP_PAUSE).await;
                connecting = self.arti.bootstrap().boxed();
            }
            Ok(())
        };
        tokio::select! {
            ended = progress => ended,
            ended = connect => ended,
            ended = self.report_silent_bridges(report) => ended,
        }
    }

    /// Says again and again which bridges do not answer, if there are any; never returns.
    async fn report_silent_bridges(
        &self,
        report: &(impl Fn(Progress<'_>) + Sync),
    ) -> Result<(), Broken> {
        let config = &self.settings.config;
        if !config.bridges_enabled() {
            return std::future::pending().await;
        }
        let addresses: Vec<String> = config
            .bridges()
            .iter()
            .flat_map(|bridge| bridge.addrs().map(|address| address.to_string()))
            .collect();
        let addresses = addresses.join(", ");
        let begun = Instant::now();
        sleep(BRIDGES_PATIENCE).await;
        loop {
            let silence = begun.elapsed().as_secs();
            warn!(
                "no bridge has let us into the Tor network for {silence} s ({addresses}): check this \
                 computer's network, the bridge lines and their transports, or use other bridges"
            );
            report(Progress::Step(&format!(
                "no bridge has let us into the Tor network ({addresses}): check the bridge lines"
            )));
            sleep(BRIDGES_REPORT).await;
        }
    }
}

/// Whether trying again makes no sense before the client's files have changed.
fn is_about_files(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::PersistentStateCorrupted | ErrorKind::CacheCorrupted
    )
}

impl From<String> for ReplaceError {
    fn from(problem: String) -> Self {
        ReplaceError::Refused(problem)
    }
}
