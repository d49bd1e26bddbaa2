//! The Tor network, as the rest of the program sees it: streams and look-ups, or a [`Failure`].
//!
//! | module | holds |
//! |---|---|
//! | [`onion`] | streams to onion services, and who shares an attempt |
//! | [`attempt`] | one effort to get a circuit to an onion service |
//! | [`begin`] | opening a stream, with early data behind it |
//! | [`exit`] | streams and look-ups through exits |
//! | [`evidence`] | what is known of an attempt while it runs |
//! | [`verdict`] | the rules that turn clues into one failure |
//! | [`border`] | all knowledge of upstream error types |
//! | [`keys`] | client authorization keys |
//! | [`relay_socket`] | TCP connections to relays |
//! | [`runtime`] | the runtime the Tor crates run on |

mod attempt;
pub(crate) mod begin;
pub(crate) mod border;
pub(crate) mod evidence;
pub(crate) mod exit;
pub mod keys;
pub(crate) mod onion;
pub(crate) mod relay_socket;
pub(crate) mod runtime;
#[cfg(test)]
mod upstream_tests;
pub(crate) mod verdict;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arti_client::config::{Reconfigure, TorClientConfig};
use arti_client::{BootstrapBehavior, TorClient};
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tor_circmgr::CircuitTiming;
use tor_circmgr::hspool::HsCircPool;
use tor_dirmgr::DirProvider;
use tor_error::ErrorReport as _;
use tor_hsclient::HsClientConnector;
use tor_netdir::{DirEvent, NetDir, NetDirProvider};
use tor_proto::client::stream::DataWriter;
use tracing::{info, warn};

use crate::config::ExitTimeouts;
use crate::dial::{Dial, Stream};
use crate::early::Early;
use crate::failure::Failure;
use crate::isolation::Isolation;
use crate::policy::Permit;
use crate::status::Status;
use exit::Exits;
use keys::KeyRing;
use onion::Onions;
use runtime::TorRuntime;

/// How often to look again for a directory that has run out: after a long sleep of the computer.
const DIRECTORY_POLL: Duration = Duration::from_millis(250);
/// How long to wait after bootstrapping failed for good, before it is tried again.
const BOOTSTRAP_PAUSE: Duration = Duration::from_secs(5);

/// When the circuits that are kept ready for onion services are built, after the client has become usable:
/// the vanguards that they go through are chosen by a task that hears of the directory when this does.
const READY_AFTER: Duration = Duration::from_secs(1);

/// The part of the program's `tracing` subscriber that the Tor side needs; without it, requests
/// that run into their deadline cannot say where they stuck.
pub fn evidence_layer<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    evidence::layer()
}

/// A client of the Tor network.
pub struct Tor {
    client: Arc<TorClient<TorRuntime>>,
    config: TorClientConfig,
    folder: Option<PathBuf>,
    exits: ExitTimeouts,
    /// Filled once the client is usable.
    usable: watch::Sender<Option<Arc<Usable>>>,
}

/// What there is once the client has bootstrapped.
struct Usable {
    onions: Onions,
    exits: Exits,
}

/// The network's current directory.
#[derive(Clone)]
pub(crate) struct Directory(Arc<dyn DirProvider>);

impl Directory {
    /// The directory as soon as there is one that is up to date; `None` if there is none until
    /// `deadline`.
    pub(crate) async fn timely(&self, deadline: Instant) -> Option<Arc<NetDir>> {
        loop {
            if let Ok(netdir) = self.0.timely_netdir() {
                return Some(netdir);
            }
            if Instant::now() + DIRECTORY_POLL > deadline {
                return None;
            }
            sleep(DIRECTORY_POLL).await;
        }
    }
}

impl Tor {
    /// Makes a client that is not connected yet; [`Tor::bootstrap`] does that.
    ///
    /// `keys` is the folder with client authorization keys, `exits` how long an exit may take. Has to run inside of a tokio runtime.
    pub fn new(
        config: TorClientConfig,
        keys: Option<PathBuf>,
        exits: ExitTimeouts,
    ) -> Result<Tor, String> {
        let runtime =
            runtime::current().map_err(|e| format!("cannot start the Tor client: {e}"))?;
        let client = TorClient::with_runtime(runtime)
            .config(config.clone())
            .bootstrap_behavior(BootstrapBehavior::OnDemand)
            .create_unbootstrapped()
            .map_err(|e| format!("cannot start the Tor client: {}", e.report()))?;
        Ok(Tor {
            client,
            config,
            folder: keys,
            exits,
            usable: watch::Sender::new(None),
        })
    }

    /// Whether the client can use another configuration while it runs. The error is one sentence.
    pub fn could_change_to(&self, config: &TorClientConfig) -> Result<(), String> {
        self.reconfigure(config, Reconfigure::CheckAllOrNothing)
    }

    /// Whether a configuration has another `[circuit_timing]`, whose `hs_*` keys count only from a start on:
    /// what connects to onion services keeps a copy.
    pub fn differs_in_timing(before: &TorClientConfig, after: &TorClientConfig) -> bool {
        let timing = |config: &TorClientConfig| -> CircuitTiming {
            AsRef::<CircuitTiming>::as_ref(config).clone()
        };
        timing(before) != timing(after)
    }

    /// Has the client use another configuration.
    pub fn change_to(&self, config: &TorClientConfig) -> Result<(), String> {
        self.reconfigure(config, Reconfigure::AllOrNothing)
    }

    fn reconfigure(&self, config: &TorClientConfig, how: Reconfigure) -> Result<(), String> {
        self.client
            .reconfigure(config, how)
            .map_err(|e| e.report().to_string())
    }

    /// Connects to the Tor network, telling `status` how far it has got; returns once the client is
    /// usable.
    ///
    /// Goes on trying for as long as it takes: a computer may be offline for hours.
    pub async fn bootstrap(&self, status: &Status) -> Result<(), String> {
        let mut events = self.client.bootstrap_events();
        let progress = async {
            let mut told = String::new();
            while let Some(event) = events.next().await {
                let text = event.to_string();
                if text != told {
                    info!("connecting to Tor: {text}");
                    status.progress(&text);
                    told = text;
                }
            }
            std::future::pending::<()>().await;
        };
        let connect = async {
            while let Err(error) = self.client.bootstrap().await {
                warn!(
                    "cannot connect to the Tor network: {}; trying again",
                    error.report()
                );
                sleep(BOOTSTRAP_PAUSE).await;
            }
        };
        tokio::select! {
            () = progress => {}
            () = connect => {}
        }
        let usable = self
            .assemble()
            .map_err(|e| format!("cannot use the Tor client: {e}"))?;
        self.usable.send_replace(Some(Arc::new(usable)));
        Ok(())
    }

    /// Puts together what serves requests, from the parts of a client that has bootstrapped.
    fn assemble(&self) -> Result<Usable, String> {
        let client = &self.client;
        let provider = client.dirmgr().map_err(|e| e.report().to_string())?;
        let circuits = client.circmgr().map_err(|e| e.report().to_string())?;
        let pool = client.hs_circ_pool().map_err(|e| e.report().to_string())?;
        build_ahead(&pool, client.runtime(), &provider)?;
        // tor-hsclient throws out old data whenever this yields.
        let housekeeping = provider
            .events()
            .filter_map(async |event| matches!(event, DirEvent::NewConsensus).then_some(()));
        let connector = HsClientConnector::new(
            client.runtime().clone(),
            pool,
            &self.config,
            Box::pin(housekeeping),
        )
        .map_err(|e| e.report().to_string())?;
        let directory = Directory(provider);
        let keys = KeyRing::new(self.folder.clone(), Arc::clone(client));
        Ok(Usable {
            onions: Onions::new(connector, directory.clone(), keys),
            exits: Exits::new(circuits, directory, self.exits),
        })
    }

    /// Waits until the client is usable.
    async fn usable(&self, deadline: Instant) -> Result<Arc<Usable>, Failure> {
        let mut usable = self.usable.subscribe();
        let ready = timeout_at(deadline, usable.wait_for(Option::is_some)).await;
        ready
            .ok()
            .and_then(Result::ok)
            .and_then(|usable| usable.clone())
            .ok_or(Failure::NotBootstrapped)
    }
}

/// Has the circuits built soon that are kept ready for onion services. The pool looks for a directory
/// when the client is made, finds none, and would look again half a minute later: the first streams
/// would wait for circuits of their own.
fn build_ahead(
    pool: &Arc<HsCircPool<TorRuntime>>,
    runtime: &TorRuntime,
    directory: &Arc<dyn DirProvider>,
) -> Result<(), String> {
    let directory: Arc<dyn NetDirProvider> = Arc::<dyn DirProvider>::clone(directory);
    // They run since the client was made; this gives their handles.
    let tasks = pool.launch_background_tasks(runtime, &directory);
    for task in tasks.map_err(|e| e.report().to_string())? {
        task.fire_at((Instant::now() + READY_AFTER).into_std());
    }
    Ok(())
}

impl Dial for Tor {
    type Reader = begin::Reader;
    type Writer = DataWriter;

    async fn connect(
        &self,
        permit: &Permit,
        isolation: &Isolation,
        early: &Early,
        deadline: Instant,
    ) -> Result<Stream<begin::Reader, DataWriter>, Failure> {
        let usable = self.usable(deadline).await?;
        match permit {
            Permit::Onion { service, port } => {
                usable
                    .onions
                    .connect(service, *port, isolation, early, deadline)
                    .await
            }
            Permit::Exit { host, port, family } => {
                usable
                    .exits
                    .connect(host, *port, *family, isolation, early, deadline)
                    .await
            }
            Permit::Resolve { .. } | Permit::ResolvePtr(_) | Permit::Literal(_) => {
                Err(Failure::Internal)
            }
        }
    }

    async fn resolve(
        &self,
        host: &str,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        self.usable(deadline)
            .await?
            .exits
            .resolve(host, isolation, deadline)
            .await
    }

    async fn resolve_ptr(
        &self,
        address: IpAddr,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<String>, Failure> {
        self.usable(deadline)
            .await?
            .exits
            .resolve_ptr(address, isolation, deadline)
            .await
    }
}
