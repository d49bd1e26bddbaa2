//! The task that serves one client.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::{Instrument as _, Span};

use crate::config::port_line::PortKind;
use crate::inbound::lingering_close::Connection;
use crate::inbound::transparent::{self, Redirection};
use crate::inbound::{connection, http};
use crate::request::ClientAddr;
use crate::request::dispatch::Dispatcher;
use crate::tor::connector::Connector;

/// What the task of a client needs, whatever its protocol.
///
/// Each protocol is spawned as a future of its own type, because many tasks wait for long: one type for
/// all would make every task as large as the largest.
pub(super) struct ClientTask<T> {
    pub(super) dispatcher: Arc<Dispatcher<T>>,
    /// The port's current dispatcher, for connections that serve several requests.
    pub(super) current: watch::Receiver<Arc<Dispatcher<T>>>,
    /// Released when the connection is closed.
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) span: Span,
}

impl<T: Connector> ClientTask<T> {
    /// Spawns the task that serves a client of a SOCKS or HTTP port. `local` is the address that the
    /// client connected to.
    pub(super) fn spawn<C>(
        self,
        kind: PortKind,
        client_auth_form: &Arc<http::ClientAuthForm>,
        connection: C,
        client_addr: ClientAddr,
        local: Option<SocketAddr>,
    ) where
        C: Connection + 'static,
    {
        let ClientTask {
            dispatcher,
            current,
            permit,
            span,
        } = self;
        if kind == PortKind::Http {
            let client_auth_form = Arc::clone(client_auth_form);
            let serving = async move {
                let _permit = permit;
                http::serve(current, connection, client_addr, local, client_auth_form).await;
            };
            tokio::spawn(serving.instrument(span));
        } else {
            let dispatcher = DispatcherWithPermit {
                dispatcher,
                _permit: permit,
            };
            spawn_in_span(span, connection::serve(dispatcher, connection, client_addr));
        }
    }

    /// Spawns the task that serves a client of a transparent port.
    pub(super) fn spawn_redirected(
        self,
        stream: TcpStream,
        client_addr: ClientAddr,
        redirection: Redirection,
    ) {
        let ClientTask {
            dispatcher,
            permit,
            span,
            ..
        } = self;
        let serving = async move {
            let _permit = permit;
            transparent::serve(&dispatcher, stream, client_addr, redirection).await;
        };
        tokio::spawn(serving.instrument(span));
    }
}

/// A dispatcher that holds the permit of the connection it serves. An `async` block that held the permit
/// instead would store the connection's future twice.
struct DispatcherWithPermit<T> {
    dispatcher: Arc<Dispatcher<T>>,
    /// Released when the connection is closed.
    _permit: OwnedSemaphorePermit,
}

impl<T> Deref for DispatcherWithPermit<T> {
    type Target = Dispatcher<T>;

    fn deref(&self) -> &Dispatcher<T> {
        &self.dispatcher
    }
}

/// Spawns a task in `span`, without storing the span if its level (`debug`) is off.
fn spawn_in_span(span: Span, serving: impl Future<Output = ()> + Send + 'static) {
    if span.is_disabled() {
        tokio::spawn(serving);
    } else {
        tokio::spawn(serving.instrument(span));
    }
}
