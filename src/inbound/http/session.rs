//! The state of one client connection, shared by all of its requests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client_auth_form::ClientAuthForm;
use super::site::SiteConnection;
use super::upgraded::UpgradedConnection;
use super::wire::state::WireState;
use crate::request::ClientAddr;
use crate::request::dispatch::Dispatcher;
use crate::tor::connector::Connector;

/// One client connection to an HTTP port.
pub(super) struct HttpSession<T: Connector> {
    pub(super) dispatcher: Arc<Dispatcher<T>>,
    /// Changes when the port gets another dispatcher, and closes with the port.
    pub(super) current: watch::Receiver<Arc<Dispatcher<T>>>,
    pub(super) client: ClientAddr,
    /// The address of the port, as the client reached it; `None` for a Unix socket.
    pub(super) local: Option<SocketAddr>,
    /// Takes keys for onion services.
    pub(super) client_auth_form: Arc<ClientAuthForm>,
    /// The state shared with the [`Wire`](super::wire::Wire) that hyper reads and writes.
    pub(super) wire: Arc<WireState>,
    pub(super) state: Mutex<SessionState<T>>,
}

/// The part of a session that its requests change.
pub(super) struct SessionState<T: Connector> {
    /// Connections to sites that a later request may reuse, most recently used last.
    pub(super) sites: Vec<SiteConnection>,
    /// What the connection turns into once the last response is written.
    pub(super) upgraded: Option<UpgradedConnection<T>>,
    /// The tasks that drive the connections to sites.
    pub(super) site_tasks: JoinSet<()>,
}

impl<T: Connector> SessionState<T> {
    /// Returns the state of a connection without a request.
    pub(super) fn new() -> Self {
        SessionState {
            sites: Vec::new(),
            upgraded: None,
            site_tasks: JoinSet::new(),
        }
    }
}

impl<T: Connector> HttpSession<T> {
    /// Locks the changeable part of the session.
    pub(super) fn state(&self) -> MutexGuard<'_, SessionState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
