//! Onion services of the Tor network, through tor-hsclient.

use std::sync::Arc;

use arti_client::config::TorClientConfig;
use tokio_util::sync::DropGuard;
use tor_circmgr::ClientOnionServiceDataTunnel;
use tor_circmgr::hspool::HsCircPool;
use tor_circmgr::isolation::StreamIsolation;
use tor_error::ErrorReport as _;
use tor_hsclient::{HsClientConnector, HsClientSecretKeys};
use tor_hscrypto::pk::HsId;
use tor_proto::client::stream::StreamParameters;
use tracing::{debug, warn};

use super::network::{CallParameters, Network};
use crate::failure::Failure;
use crate::tor::arti_errors::{self, StreamError};
use crate::tor::client_auth::KeyRing;
use crate::tor::directory::Directory;
use crate::tor::onion_address::OnionAddress;
use crate::tor::open_stream::{self, OpenStream};
use crate::tor::optimistic_data::OptimisticData;
use crate::tor::runtime::{SlotRuntimeFactory, TorRuntime};

/// The [`Network`] of tor-hsclient.
pub(crate) struct HsNetwork {
    pool: Arc<HsCircPool<TorRuntime>>,
    config: TorClientConfig,
    directory: Directory,
    keys: Arc<KeyRing>,
    runtimes: SlotRuntimeFactory,
}

/// The connector of one slot.
///
/// tor-hsclient's connector never forgets a service that did not answer. Each slot therefore has
/// its own connector. The connector's tasks hold a reference to it, so they are ended with the
/// slot.
#[derive(Clone)]
pub(crate) struct SlotConnector(Arc<BoundConnector>);

struct BoundConnector {
    connector: HsClientConnector<TorRuntime>,
    /// The connector's tasks end when this is dropped.
    _tasks: DropGuard,
}

impl HsNetwork {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// One sentence, if there is no tokio runtime.
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
    type HsConnector = SlotConnector;
    type HsTunnel = ClientOnionServiceDataTunnel;
    type HsStream = OpenStream;

    async fn read_keys(&self, service: &OnionAddress) -> Result<HsClientSecretKeys, Failure> {
        self.keys.for_service(service).await
    }

    fn new_connector(&self) -> Result<SlotConnector, Failure> {
        let (tasks, runtime) = self.runtimes.create();
        // The slot is dropped long before tor-hsclient would expire any of its data.
        let no_housekeeping = Box::pin(futures::stream::empty());
        let pool = Arc::clone(&self.pool);
        match HsClientConnector::new(runtime, pool, &self.config, no_housekeeping) {
            Ok(connector) => Ok(SlotConnector(Arc::new(BoundConnector {
                connector,
                _tasks: tasks,
            }))),
            Err(error) => {
                warn!(
                    "cannot create an onion service connector: {}",
                    error.report()
                );
                Err(Failure::Internal)
            }
        }
    }

    async fn call(
        &self,
        connector: &SlotConnector,
        call: CallParameters<'_>,
    ) -> Result<Arc<ClientOnionServiceDataTunnel>, Failure> {
        let netdir = self.directory.timely(call.directory_deadline).await;
        let netdir = netdir.ok_or(Failure::NotBootstrapped)?;
        let isolation = StreamIsolation::builder()
            .stream_isolation(Box::new(call.token))
            .build()
            .map_err(|error| {
                warn!("cannot isolate a stream: {error}");
                Failure::Internal
            })?;
        let service = HsId::from(call.service.key());
        let tunnel = connector.0.connector.get_or_launch_tunnel(
            &netdir,
            service,
            call.keys.clone(),
            isolation,
        );
        let tunnel = call.observer.observe(tunnel).await;
        tunnel.map_err(|error| {
            let failure = arti_errors::classify_onion_attempt(&error);
            call.observer.combine_with_rendezvous_errors(failure)
        })
    }

    fn is_closed(tunnel: &ClientOnionServiceDataTunnel) -> bool {
        tunnel.is_closed()
    }

    async fn open_stream(
        tunnel: &ClientOnionServiceDataTunnel,
        port: u16,
        optimistic: Option<&OptimisticData>,
    ) -> Result<OpenStream, StreamError> {
        debug!(
            "opening a stream to the onion service on circuit {}",
            tunnel.unique_id()
        );
        // The BEGIN message contains the port alone (rend-spec-v3, "Handling a BEGIN message").
        let mut parameters = StreamParameters::default();
        parameters.suppress_hostname().suppress_begin_flags();
        parameters.optimistic(optimistic.is_some());
        let begun = tunnel.begin_stream("", port, Some(parameters)).await;
        let stream = begun.map_err(|error| arti_errors::classify_stream(&error))?;
        match optimistic {
            None => Ok(open_stream::into_open_stream(stream)),
            // A service without this port closes the stream and does not open it first.
            Some(optimistic) => {
                open_stream::open_optimistically(stream, optimistic, Some(Failure::StreamClosed))
                    .await
            }
        }
    }

    fn retire_spare_circuits(&self) {
        if let Err(error) = self.pool.retire_all_circuits() {
            warn!("cannot drop the circuits built in advance: {error}");
        }
    }
}
