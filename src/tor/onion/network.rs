//! What streams to onion services need of the Tor network.
//!
//! [`Network`] is the seam between the table of circuits and tor-hsclient: [`HsNetwork`] is the real thing, and
//! the unit tests put a script in its place.

use std::future::Future;
use std::sync::Arc;

use arti_client::config::TorClientConfig;
use tokio::sync::watch;
use tokio::time::Instant;
use tor_circmgr::ClientOnionServiceDataTunnel;
use tor_circmgr::IsolationToken;
use tor_circmgr::hspool::HsCircPool;
use tor_circmgr::isolation::StreamIsolation;
use tor_error::ErrorReport as _;
use tor_hsclient::{HsClientConnector, HsClientSecretKeys};
use tor_hscrypto::pk::HsId;
use tor_proto::client::stream::StreamParameters;
use tracing::{debug, warn};

use crate::failure::Failure;
use crate::tor::arti_errors::{self, StreamError};
use crate::tor::client_auth::KeyRing;
use crate::tor::directory::Directory;
use crate::tor::evidence::Evidence;
use crate::tor::onion_address::OnionAddress;
use crate::tor::open_stream::{self, OpenStream};
use crate::tor::optimistic_data::OptimisticData;
use crate::tor::runtime::{SlotRuntimeFactory, TorRuntime};

/// One call to a [`Network::Connector`].
pub(crate) struct Call<'a> {
    pub(crate) service: &'a OnionAddress,
    pub(crate) keys: &'a HsClientSecretKeys,
    /// Calls with the same token share a circuit.
    pub(crate) token: IsolationToken,
    /// Until when to wait for a directory of the network.
    pub(crate) until: Instant,
    /// Learns how far the call has got.
    pub(crate) evidence: &'a Arc<Evidence>,
}

/// Finds circuits to onion services and opens streams on them.
pub(crate) trait Network: Send + Sync + 'static {
    /// Looks for one service on behalf of one slot. It remembers what it learns on the way: descriptors,
    /// introduction points and circuits. Dropping the last clone forgets all of it; streams that are open
    /// keep their circuits.
    type Connector: Clone + Send + Sync + 'static;
    /// A circuit to a service. The connector owns it for as long as it may take new streams.
    type Tunnel: Send + Sync + 'static;
    /// An open stream.
    type Stream: Send + 'static;

    /// The client authorization keys for a service.
    fn keys(
        &self,
        service: &OnionAddress,
    ) -> impl Future<Output = Result<HsClientSecretKeys, Failure>> + Send;

    /// Makes a connector that knows nothing yet.
    fn connector(&self) -> Result<Self::Connector, Failure>;

    /// Asks a connector for a circuit once.
    fn call(
        &self,
        connector: &Self::Connector,
        call: Call<'_>,
    ) -> impl Future<Output = Result<Arc<Self::Tunnel>, Failure>> + Send;

    /// Whether the circuit can take no more streams.
    fn is_closed(tunnel: &Self::Tunnel) -> bool;

    /// Opens a stream to `port`, and sends `early` right behind the request if there is any.
    fn begin(
        tunnel: &Self::Tunnel,
        port: u16,
        early: Option<&OptimisticData>,
    ) -> impl Future<Output = Result<Self::Stream, StreamError>> + Send;

    /// Drops the circuits that were built ahead of any request.
    fn retire_spare_circuits(&self);
}

/// Onion services of the Tor network, through tor-hsclient.
pub(crate) struct HsNetwork {
    pool: Arc<HsCircPool<TorRuntime>>,
    config: TorClientConfig,
    directory: Directory,
    keys: Arc<KeyRing>,
    runtimes: SlotRuntimeFactory,
}

/// tor-hsclient's connector never forgets a service that did not answer. Each slot therefore has a
/// connector of its own, and its tasks, which hold on to the connector, end with it.
#[derive(Clone)]
pub(crate) struct SlotConnector(Arc<BoundConnector>);

struct BoundConnector {
    connector: HsClientConnector<TorRuntime>,
    /// The tasks end when this is dropped.
    _tasks: watch::Sender<()>,
}

impl HsNetwork {
    /// Has to run inside of a tokio runtime. The error is one sentence.
    pub(crate) fn new(
        pool: Arc<HsCircPool<TorRuntime>>,
        config: TorClientConfig,
        directory: Directory,
        keys: Arc<KeyRing>,
    ) -> Result<HsNetwork, String> {
        Ok(HsNetwork {
            pool,
            config,
            directory,
            keys,
            runtimes: SlotRuntimeFactory::current().map_err(|e| e.to_string())?,
        })
    }
}

impl Network for HsNetwork {
    type Connector = SlotConnector;
    type Tunnel = ClientOnionServiceDataTunnel;
    type Stream = OpenStream;

    async fn keys(&self, service: &OnionAddress) -> Result<HsClientSecretKeys, Failure> {
        self.keys.for_service(service).await
    }

    fn connector(&self) -> Result<SlotConnector, Failure> {
        let (tasks, runtime) = self.runtimes.create();
        // The slot is dropped long before tor-hsclient would call any of its data old.
        let no_housekeeping = Box::pin(futures::stream::empty());
        let pool = Arc::clone(&self.pool);
        match HsClientConnector::new(runtime, pool, &self.config, no_housekeeping) {
            Ok(connector) => Ok(SlotConnector(Arc::new(BoundConnector {
                connector,
                _tasks: tasks,
            }))),
            Err(error) => {
                warn!("cannot look for an onion service: {}", error.report());
                Err(Failure::Internal)
            }
        }
    }

    async fn call(
        &self,
        connector: &SlotConnector,
        call: Call<'_>,
    ) -> Result<Arc<ClientOnionServiceDataTunnel>, Failure> {
        let netdir = self.directory.timely(call.until).await;
        let netdir = netdir.ok_or(Failure::NotBootstrapped)?;
        let isolation = StreamIsolation::builder()
            .stream_isolation(Box::new(call.token))
            .build()
            .map_err(|error| {
                warn!("cannot isolate a stream: {error}");
                Failure::Internal
            })?;
        let service = HsId::from(call.service.key());
        let asking = connector.0.connector.get_or_launch_tunnel(
            &netdir,
            service,
            call.keys.clone(),
            isolation,
        );
        let got = call.evidence.gather(asking).await;
        got.map_err(|error| {
            let failure = arti_errors::classify_onion_attempt(&error);
            call.evidence.beside_tries(failure)
        })
    }

    fn is_closed(tunnel: &ClientOnionServiceDataTunnel) -> bool {
        tunnel.is_closed()
    }

    async fn begin(
        tunnel: &ClientOnionServiceDataTunnel,
        port: u16,
        early: Option<&OptimisticData>,
    ) -> Result<OpenStream, StreamError> {
        debug!("asking the onion service of circuit {}", tunnel.unique_id());
        // Onion services are told the port alone (rend-spec-v3, "Handling a BEGIN message").
        let mut parameters = StreamParameters::default();
        parameters.suppress_hostname().suppress_begin_flags();
        parameters.optimistic(early.is_some());
        let begun = tunnel.begin_stream("", port, Some(parameters)).await;
        let stream = begun.map_err(|error| arti_errors::classify_stream(&error))?;
        match early {
            None => Ok(open_stream::from_open(stream)),
            // A service that lacks the port closes the stream without opening it.
            Some(early) => {
                open_stream::open_optimistically(stream, early, Some(Failure::StreamClosed)).await
            }
        }
    }

    fn retire_spare_circuits(&self) {
        if let Err(error) = self.pool.retire_all_circuits() {
            warn!("cannot drop the circuits that were built ahead: {error}");
        }
    }
}
