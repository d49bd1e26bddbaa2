//! The trait for what streams to onion services need of the Tor network.
//!
//! [`super::hs_network`] implements it with tor-hsclient, the unit tests with a scripted network.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;
use tor_circmgr::IsolationToken;
use tor_hsclient::HsClientSecretKeys;

use super::observer::CallObserver;
use crate::failure::Failure;
use crate::tor::arti_errors::StreamError;
use crate::tor::onion_address::OnionAddress;
use crate::tor::optimistic_data::OptimisticData;

/// The arguments of [`Network::call`].
pub(crate) struct CallParameters<'a> {
    pub(crate) service: &'a OnionAddress,
    pub(crate) keys: &'a HsClientSecretKeys,
    /// Calls with the same token share a circuit.
    pub(crate) token: IsolationToken,
    /// Until when to wait for a network directory.
    pub(crate) directory_deadline: Instant,
    /// Records how far the call gets.
    pub(crate) observer: &'a Arc<CallObserver>,
}

/// Builds circuits to onion services and opens streams on them.
pub(crate) trait Network: Send + Sync + 'static {
    /// Connects to one service on behalf of one slot.
    ///
    /// It remembers descriptors, introduction points and circuits. Dropping the last clone drops
    /// them; open streams keep their circuits.
    type HsConnector: Clone + Send + Sync + 'static;
    /// A circuit to a service. The connector owns it as long as it may take new streams.
    type HsTunnel: Send + Sync + 'static;
    /// An open stream.
    type HsStream: Send + 'static;

    /// Reads the client authorization keys for a service.
    fn read_keys(
        &self,
        service: &OnionAddress,
    ) -> impl Future<Output = Result<HsClientSecretKeys, Failure>> + Send;

    /// Creates a connector without any state.
    fn new_connector(&self) -> Result<Self::HsConnector, Failure>;

    /// Requests a circuit to a service once.
    fn call(
        &self,
        connector: &Self::HsConnector,
        call: CallParameters<'_>,
    ) -> impl Future<Output = Result<Arc<Self::HsTunnel>, Failure>> + Send;

    /// Whether the circuit can take no more streams.
    fn is_closed(tunnel: &Self::HsTunnel) -> bool;

    /// Opens a stream to `port`. Sends `optimistic`, if given, without waiting for the service to
    /// accept the stream.
    fn open_stream(
        tunnel: &Self::HsTunnel,
        port: u16,
        optimistic: Option<&OptimisticData>,
    ) -> impl Future<Output = Result<Self::HsStream, StreamError>> + Send;

    /// Drops the circuits that were built in advance.
    fn retire_spare_circuits(&self);
}
