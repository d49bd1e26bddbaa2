//! The Tor network, as the rest of the program sees it: streams and lookups, or a [`Failure`].
//!
//! Apart from `config`, which reads arti's configuration, only this module imports arti's crates. Of the
//! rest of the program it imports only the configuration, [`Failure`], and the log limiter. Read
//! [`connector`] first, then this file, then the modules in the order of the table.
//!
//! | module | holds |
//! |---|---|
//! | [`connector`] | the interface to the rest of the program: a trait, and an open stream |
//! | [`destination`], [`onion_address`] | the requests that the network can serve |
//! | [`isolation`] | which streams may share a circuit |
//! | [`optimistic_data`] | what a client sends before its request has a reply |
//! | `onion` | streams to onion services: attempts, and the classification of their failures |
//! | `open_stream` | opening a stream, with optimistic data |
//! | `exit` | streams and lookups through exits |
//! | `arti_errors` | classification of upstream errors |
//! | `client` | arti's client: created, bootstrapped, replaced |
//! | `backend` | what serves requests, and how requests wait while it is replaced |
//! | `directory` | the network directory |
//! | `storage` | the client's files, repaired before it reads them |
//! | [`client_auth`] | client authorization keys |
//! | `relay_socket` | TCP connections to relays |
//! | `runtime` | the runtime of the Tor crates |

pub(crate) mod arti_errors;
mod backend;
pub(crate) mod client;
pub mod client_auth;
pub mod connector;
pub mod destination;
mod directory;
pub(crate) mod exit;
pub mod isolation;
pub(crate) mod onion;
pub mod onion_address;
pub(crate) mod open_stream;
pub mod optimistic_data;
pub(crate) mod relay_socket;
pub(crate) mod runtime;
pub(crate) mod storage;
#[cfg(test)]
mod upstream_tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tor_circmgr::hspool::HsCircPool;
use tor_dirmgr::DirProvider;
use tor_error::ErrorReport as _;
use tor_netdir::NetDirProvider;
use tor_proto::client::stream::DataWriter;

use crate::failure::Failure;
use crate::tor::connector::{Connector, Stream};
use crate::tor::destination::PermittedRequest;
use crate::tor::isolation::Isolation;
use crate::tor::optimistic_data::OptimisticData;
use backend::{Backend, CurrentBackend};
use client::{ArtiClient, ClientSlot};
use client_auth::KeyRing;
use directory::Directory;
use exit::Exits;
use onion::Onions;
use onion::hs_network::HsNetwork;
use open_stream::StreamReader;
use runtime::TorRuntime;

pub use client::{BootstrapProgress, ClientSettings, ReplaceError};

/// How long after bootstrapping arti builds its spare circuits for onion services. They use vanguards, which
/// arti's vanguard manager chooses in a task of its own once it learns of the directory.
const SPARE_CIRCUITS_DELAY: Duration = Duration::from_secs(1);

/// Returns the layer of the program's `tracing` subscriber that observes tor-hsclient. Without it, failures
/// of onion services are imprecise, and the optimistic data and retries that rely on its reports are
/// disabled.
pub fn observer_layer<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    onion::observer::layer()
}

/// A client of the Tor network.
pub struct Tor {
    clients: ClientSlot,
    /// The backend of the current client, once that is usable.
    backend: CurrentBackend<TorBackend>,
}

/// Serves requests through a client that has bootstrapped.
struct TorBackend {
    onions: Onions,
    exits: Exits,
}

impl Backend for TorBackend {
    fn retire(&self) {
        self.onions.retire_all();
    }
}

impl Tor {
    /// Creates a client; [`Tor::run`] connects it. Must be called within a tokio runtime.
    ///
    /// Repairs the client's files first, and waits up to five seconds if another process holds a state
    /// folder that is needed.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub async fn new(settings: ClientSettings) -> Result<Tor, String> {
        Ok(Tor {
            clients: ClientSlot::new(settings).await?,
            backend: CurrentBackend::new(),
        })
    }

    /// Connects to the Tor network and keeps a client usable from then on. `report` receives each step, and
    /// [`BootstrapProgress::Connected`] each time a client has become usable.
    ///
    /// Returns, with one sentence, only if no client can become usable.
    pub async fn run(&self, report: impl Fn(BootstrapProgress<'_>) + Sync) -> String {
        let mut clients = self.clients.subscribe();
        loop {
            report(BootstrapProgress::Connecting);
            // The slot is empty while the client is replaced.
            let Some(client) = clients.borrow_and_update().clone() else {
                if clients.changed().await.is_err() {
                    return "the Tor client has stopped".to_owned();
                }
                continue;
            };
            let bootstrapped = tokio::select! {
                biased;
                // First, so that a discarded client never serves requests.
                _ = clients.changed() => continue,
                bootstrapped = client.bootstrap(&report) => bootstrapped,
            };
            let assembled = match bootstrapped {
                Ok(()) => assemble(&client),
                Err(error) => {
                    drop(client);
                    if let Err(problem) = self.clients.recover(error, &clients).await {
                        return problem;
                    }
                    continue;
                }
            };
            // The backend holds all that it needs; a client must be droppable when it is replaced.
            drop(client);
            let backend = match assembled {
                Ok(backend) => backend,
                Err(problem) => return format!("cannot use the Tor client: {problem}"),
            };
            let connected = || report(BootstrapProgress::Connected);
            self.backend
                .serve_until_replaced(backend, &mut clients, connected)
                .await;
        }
    }

    /// The settings of the current client.
    pub fn settings(&self) -> ClientSettings {
        self.clients.settings()
    }

    /// Checks whether a client with these settings could replace the current one.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub fn check(&self, settings: &ClientSettings) -> Result<(), String> {
        self.clients.check(settings)
    }

    /// Serves requests with these settings from now on. If they differ from the current ones, a new client
    /// replaces the current one: open streams continue, and unanswered requests start again on the new client.
    ///
    /// Returns whether the client was replaced.
    ///
    /// # Errors
    /// [`ReplaceError`], with one sentence that names the remedy.
    pub(crate) async fn change_to(&self, settings: ClientSettings) -> Result<bool, ReplaceError> {
        if self.clients.settings() == settings {
            return Ok(false);
        }
        self.backend.retire();
        self.clients.replace(settings).await?;
        Ok(true)
    }
}

/// Builds the backend of a client that has bootstrapped.
fn assemble(client: &ArtiClient) -> Result<TorBackend, String> {
    let (client, settings) = (&client.arti, &client.settings);
    let provider = client.dirmgr().map_err(|e| e.report().to_string())?;
    let circuits = client.circmgr().map_err(|e| e.report().to_string())?;
    let pool = client.hs_circ_pool().map_err(|e| e.report().to_string())?;
    schedule_spare_circuits(&pool, client.runtime(), &provider)?;
    let directory = Directory::new(provider);
    let keys = KeyRing::new(settings.keys.clone(), Arc::clone(client));
    let network = HsNetwork::new(pool, settings.config.clone(), directory.clone(), keys)?;
    Ok(TorBackend {
        onions: Onions::new(network),
        exits: Exits::new(circuits, directory, settings.exits),
    })
}

/// Makes arti build its spare circuits for onion services soon. The pool checks for a directory when the
/// client is created, finds none, and checks again only half a minute later; until then, streams would wait
/// for circuits to be built.
fn schedule_spare_circuits(
    pool: &Arc<HsCircPool<TorRuntime>>,
    runtime: &TorRuntime,
    directory: &Arc<dyn DirProvider>,
) -> Result<(), String> {
    let directory: Arc<dyn NetDirProvider> = Arc::<dyn DirProvider>::clone(directory);
    // The tasks already run since the client was created; this call returns their handles.
    let tasks = pool.launch_background_tasks(runtime, &directory);
    for task in tasks.map_err(|e| e.report().to_string())? {
        task.fire_at((Instant::now() + SPARE_CIRCUITS_DELAY).into_std());
    }
    Ok(())
}

impl Connector for Tor {
    type Reader = StreamReader;
    type Writer = DataWriter;

    async fn connect(
        &self,
        request: &PermittedRequest,
        isolation: &Isolation,
        optimistic: &OptimisticData,
        deadline: Instant,
    ) -> Result<Stream<StreamReader, DataWriter>, Failure> {
        self.backend
            .call(deadline, |backend| async move {
                match request {
                    // The previous client may have delivered the data; it must not arrive twice.
                    PermittedRequest::Onion { .. } if optimistic.may_have_arrived() => {
                        Err(Failure::CircuitDestroyed)
                    }
                    PermittedRequest::Onion { service, port } => {
                        let onions = &backend.onions;
                        onions
                            .connect(service, *port, isolation, optimistic, deadline)
                            .await
                    }
                    PermittedRequest::Exit { host, port, family } => {
                        let exits = &backend.exits;
                        exits
                            .connect(host, *port, *family, isolation, optimistic, deadline)
                            .await
                    }
                    PermittedRequest::Resolve { .. }
                    | PermittedRequest::ResolvePtr(_)
                    | PermittedRequest::Literal(_) => Err(Failure::Internal),
                }
            })
            .await
    }

    async fn resolve(
        &self,
        host: &str,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        self.backend
            .call(deadline, |backend| async move {
                backend.exits.resolve(host, isolation, deadline).await
            })
            .await
    }

    async fn resolve_ptr(
        &self,
        address: IpAddr,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<String>, Failure> {
        self.backend
            .call(deadline, |backend| async move {
                backend
                    .exits
                    .resolve_ptr(address, isolation, deadline)
                    .await
            })
            .await
    }
}
