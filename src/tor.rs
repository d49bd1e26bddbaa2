//! The Tor network, as the rest of the program sees it: streams and look-ups, or a [`Failure`].
//!
//! | module | holds |
//! |---|---|
//! | [`connector`] | what the rest of the program asks of it: the trait, and an open stream |
//! | [`destination`], [`onion_address`] | what it can be asked for |
//! | [`isolation`] | which streams may share a circuit |
//! | [`optimistic_data`] | what a client says before its request is answered |
//! | [`onion`] | streams to onion services: attempts, and the classification of their failures |
//! | [`open_stream`] | opening a stream, with early data behind it |
//! | [`exit`] | streams and look-ups through exits |
//! | [`arti_errors`] | all knowledge of upstream error types |
//! | [`client`] | arti's client: made, connected, replaced, given up |
//! | [`current`] | what serves requests now, and how requests wait for the next client |
//! | [`directory`] | the network directory, once it is current |
//! | [`storage`] | the client's files, put in order before it reads them |
//! | [`client_auth`] | client authorization keys |
//! | [`relay_socket`] | TCP connections to relays |
//! | [`runtime`] | the runtime the Tor crates run on |

pub(crate) mod arti_errors;
pub(crate) mod client;
pub mod client_auth;
pub mod connector;
mod current;
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
use crate::tor::destination::Permit;
use crate::tor::isolation::Isolation;
use crate::tor::optimistic_data::OptimisticData;
use client::{Client, Clients};
use client_auth::KeyRing;
use current::{Current, Retire};
use directory::Directory;
use exit::Exits;
use onion::Onions;
use onion::hs_network::HsNetwork;
use runtime::TorRuntime;

pub use client::{Progress, ReplaceError, Settings};

/// When the circuits that are kept ready for onion services are built, after the client has become usable:
/// the vanguards that they go through are chosen by a task that hears of the directory when this does.
const READY_AFTER: Duration = Duration::from_secs(1);

/// The part of the program's `tracing` subscriber that the Tor side needs; without it, requests
/// that run into their deadline cannot say where they stuck.
pub fn observer_layer<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    onion::observer::layer()
}

/// A client of the Tor network.
pub struct Tor {
    clients: Clients,
    /// Filled while a client is usable; another object for each client.
    usable: Current<Usable>,
}

/// What there is once the client has bootstrapped.
struct Usable {
    onions: Onions,
    exits: Exits,
}

impl Retire for Usable {
    fn retire(&self) {
        self.onions.retire_all();
    }
}

impl Tor {
    /// Makes a client that is not connected yet; [`Tor::run`] does that. Has to run inside of a tokio
    /// runtime.
    ///
    /// Puts the client's files in order first, and waits some seconds if another process holds a state
    /// folder that is needed. The error is one sentence that says what to do.
    pub async fn new(settings: Settings) -> Result<Tor, String> {
        Ok(Tor {
            clients: Clients::new(settings).await?,
            usable: Current::new(),
        })
    }

    /// Connects to the Tor network and keeps a client usable from then on. `report` gets each step, and
    /// [`Progress::Connected`] each time a client has become usable.
    ///
    /// Returns only if there can be no usable client. The error is one sentence.
    pub async fn run(&self, report: impl Fn(Progress<'_>) + Sync) -> String {
        let mut clients = self.clients.subscribe();
        loop {
            report(Progress::Connecting);
            // The place is empty while a client is being replaced.
            let Some(client) = clients.borrow_and_update().clone() else {
                if clients.changed().await.is_err() {
                    return "the Tor client is gone".to_owned();
                }
                continue;
            };
            let bootstrapped = tokio::select! {
                biased;
                // A client that has just been given up must not be put to use.
                _ = clients.changed() => continue,
                bootstrapped = client.bootstrap(&report) => bootstrapped,
            };
            let assembled = match bootstrapped {
                Ok(()) => assemble(&client),
                Err(broken) => {
                    drop(client);
                    if let Err(problem) = self.clients.recover(broken, &clients).await {
                        return problem;
                    }
                    continue;
                }
            };
            // What serves requests holds its own shares.
            drop(client);
            let usable = match assembled {
                Ok(usable) => usable,
                Err(problem) => return format!("cannot use the Tor client: {problem}"),
            };
            let connected = || report(Progress::Connected);
            self.usable
                .serve_until_replaced(usable, &mut clients, connected)
                .await;
        }
    }

    /// The settings in use.
    pub fn settings(&self) -> Settings {
        self.clients.settings()
    }

    /// Whether a client with other settings could take the place of this one. The error is one
    /// sentence.
    pub fn check(&self, settings: &Settings) -> Result<(), String> {
        self.clients.check(settings)
    }

    /// Has the requests from now on served with these settings. If they differ from those before, by
    /// another client: open streams go on, and requests that wait for theirs ask the new one.
    ///
    /// Gives whether there is another client.
    pub async fn change_to(&self, settings: Settings) -> Result<bool, ReplaceError> {
        if self.clients.settings() == settings {
            return Ok(false);
        }
        self.usable.retire();
        self.clients.replace(settings).await?;
        Ok(true)
    }
}

/// Puts together what serves requests, from the parts of a client that has bootstrapped.
fn assemble(client: &Client) -> Result<Usable, String> {
    let (client, settings) = (&client.arti, &client.settings);
    let provider = client.dirmgr().map_err(|e| e.report().to_string())?;
    let circuits = client.circmgr().map_err(|e| e.report().to_string())?;
    let pool = client.hs_circ_pool().map_err(|e| e.report().to_string())?;
    build_ahead(&pool, client.runtime(), &provider)?;
    let directory = Directory::new(provider);
    let keys = KeyRing::new(settings.keys.clone(), Arc::clone(client));
    let network = HsNetwork::new(pool, settings.config.clone(), directory.clone(), keys)?;
    Ok(Usable {
        onions: Onions::new(network),
        exits: Exits::new(circuits, directory, settings.exits),
    })
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

impl Connector for Tor {
    type Reader = open_stream::Reader;
    type Writer = DataWriter;

    async fn connect(
        &self,
        permit: &Permit,
        isolation: &Isolation,
        early: &OptimisticData,
        deadline: Instant,
    ) -> Result<Stream<open_stream::Reader, DataWriter>, Failure> {
        self.usable
            .ask(deadline, |usable| async move {
                match permit {
                    // A client before this one may have delivered it.
                    Permit::Onion { .. } if early.may_have_arrived() => {
                        Err(Failure::CircuitDestroyed)
                    }
                    Permit::Onion { service, port } => {
                        let onions = &usable.onions;
                        onions
                            .connect(service, *port, isolation, early, deadline)
                            .await
                    }
                    Permit::Exit { host, port, family } => {
                        let exits = &usable.exits;
                        exits
                            .connect(host, *port, *family, isolation, early, deadline)
                            .await
                    }
                    Permit::Resolve { .. } | Permit::ResolvePtr(_) | Permit::Literal(_) => {
                        Err(Failure::Internal)
                    }
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
        self.usable
            .ask(deadline, |usable| async move {
                usable.exits.resolve(host, isolation, deadline).await
            })
            .await
    }

    async fn resolve_ptr(
        &self,
        address: IpAddr,
        isolation: &Isolation,
        deadline: Instant,
    ) -> Result<Vec<String>, Failure> {
        self.usable
            .ask(deadline, |usable| async move {
                usable.exits.resolve_ptr(address, isolation, deadline).await
            })
            .await
    }
}
