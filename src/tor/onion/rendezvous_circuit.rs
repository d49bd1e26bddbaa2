//! An open circuit to an onion service.

use std::sync::{Arc, Weak};

use tor_circmgr::IsolationToken;

use super::network::Network;

/// An open circuit to a service.
pub(super) struct RendezvousCircuit<N: Network> {
    /// Weak: the connector owns the circuit, as long as it may take new streams.
    tunnel: Weak<N::HsTunnel>,
    /// Keeps the circuit for requests that are about to use it while its slot gets a new connector.
    connector: N::HsConnector,
    /// Whether the attempt that the request waited for built the circuit.
    pub(super) fresh: bool,
    /// The isolation token under which the connector holds the circuit.
    pub(super) token: IsolationToken,
}

// Not derived: a derived `Clone` would require `N: Clone`.
impl<N: Network> Clone for RendezvousCircuit<N> {
    fn clone(&self) -> Self {
        RendezvousCircuit {
            tunnel: Weak::clone(&self.tunnel),
            connector: self.connector.clone(),
            fresh: self.fresh,
            token: self.token,
        }
    }
}

impl<N: Network> RendezvousCircuit<N> {
    pub(super) fn new(
        tunnel: &Arc<N::HsTunnel>,
        connector: N::HsConnector,
        fresh: bool,
        token: IsolationToken,
    ) -> RendezvousCircuit<N> {
        RendezvousCircuit {
            tunnel: Arc::downgrade(tunnel),
            connector,
            fresh,
            token,
        }
    }

    /// The circuit itself, unless the connector has dropped it.
    pub(super) fn tunnel(&self) -> Option<Arc<N::HsTunnel>> {
        self.tunnel.upgrade()
    }

    /// Returns the circuit for later requests, to which it is not fresh.
    pub(super) fn to_reused(&self) -> RendezvousCircuit<N> {
        RendezvousCircuit {
            fresh: false,
            ..self.clone()
        }
    }

    /// Whether the circuit can take new streams.
    pub(super) fn is_open(&self) -> bool {
        self.tunnel().is_some_and(|tunnel| !N::is_closed(&tunnel))
    }
}
