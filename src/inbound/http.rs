//! HTTP ports: CONNECT tunnels, a forward proxy for `http://` URLs, and onionport's own pages.
//!
//! head -> kind of request -> stream or failure -> response -> relay, or the next request
//!
//! | request | response | module |
//! |---|---|---|
//! | `CONNECT host:port` | a tunnel | `tunnel`, `upgraded` |
//! | `GET http://host/path` | the site's response, or a page that explains the failure | `forward`, `page` |
//! | `GET http://onionport.invalid/`, or `GET /` with a loopback `Host` | one of onionport's own pages | `status_page`, `client_auth_form` |
//!
//! A *site* is the origin server of a forwarded request, reached through Tor.
//!
//! Read this file of `http` first, then `request_kind` (classifies a request), `session` (the state
//! of a connection) and the modules of the table. hyper reads and writes HTTP; `wire` adds what it
//! lacks. [`crate::request::dispatch`] opens streams and performs lookups, as for every kind of port.
//!
//! `forward`, `page`, `status_page` and `tunnel` add methods to `session::HttpSession`. All
//! others are below it and must not import it: `body`, `client_auth_form`, `hop_by_hop`, `html`,
//! `idle_timeout`, `limits`, `pac`, `request_kind`, `request_summary`, `response`, `site`,
//! `site_error`, `upgraded`, `wire`. Nothing here may import [`super::listener`].
//!
//! Browsers let any web page send requests to this port. A request that is not in proxy form is
//! therefore answered only if its `Host` names this computer: a foreign name that resolves to 127.0.0.1
//! (DNS rebinding) gets no response.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tracing::debug;

use crate::inbound::lingering_close::{Connection, close, reset};
use crate::request::ClientAddr;
use crate::request::dispatch::Dispatcher;
use crate::tor::connector::Connector;

mod body;
mod client_auth_form;
mod forward;
mod hop_by_hop;
mod html;
mod idle_timeout;
mod limits;
mod pac;
mod page;
mod request_kind;
mod request_summary;
mod response;
mod session;
mod site;
mod site_error;
mod status_page;
mod tunnel;
mod upgraded;
mod wire;

pub use client_auth_form::ClientAuthForm;

use limits::{MAX_BUFFER, MAX_HEAD, MAX_HEADERS};
use request_kind::{HttpRejection, RequestKind, classify};
use request_summary::is_browser;
use response::{NoResponse, ResponseResult};
use session::{HttpSession, SessionState};
use upgraded::UpgradedConnection;
use wire::Wire;
use wire::state::{ResponseInProgress, WireState};

/// Serves one client connection until it ends, by the rules that `current` holds at its start.
///
/// `local` is the address of the port, as the client reached it; `None` for a Unix socket.
/// `client_auth_form` takes keys for onion services.
///
/// A request that arrives after `current` was replaced, or after the port closed, gets no response:
/// the client reconnects, and the new rules apply.
pub async fn serve<T, C>(
    mut current: watch::Receiver<Arc<Dispatcher<T>>>,
    connection: C,
    client: ClientAddr,
    local: Option<SocketAddr>,
    client_auth_form: Arc<ClientAuthForm>,
) where
    T: Connector,
    C: Connection + 'static,
{
    let dispatcher = Arc::clone(&current.borrow_and_update());
    let wire_state = Arc::<WireState>::default();
    let session = Arc::new(HttpSession {
        dispatcher,
        current,
        client,
        local,
        client_auth_form,
        wire: Arc::clone(&wire_state),
        state: Mutex::new(SessionState::new()),
    });
    let wire = Wire::new(connection, wire_state);
    // Boxed, so that a relayed connection does not keep the memory of hyper's state.
    if let Some(upgraded) = Box::pin(serve_requests(&session, wire)).await {
        // The session stays alive: one of its tasks may still have to pass on the site's connection.
        upgraded.relay::<C>(&session.wire.optimistic_reader).await;
    }
}

/// Answers requests until the last one; returns what the connection turns into after that, if it stays open.
async fn serve_requests<T, C>(
    session: &Arc<HttpSession<T>>,
    wire: Wire<C>,
) -> Option<UpgradedConnection<T>>
where
    T: Connector,
    C: Connection + 'static,
{
    // Also limits the time between two requests. As in C tor, the connection then closes without a
    // response.
    let timeout = session.dispatcher.timeout;
    let service = service_fn(|request: Request<Incoming>| {
        // For CONNECT, `wire::optimistic_read` decides what the end of the client's input means. A browser
        // that closes its side has left.
        let may_half_close = request.method() != Method::CONNECT && !is_browser(request.headers());
        let in_progress = may_half_close.then(|| ResponseInProgress::begin(&session.wire));
        Box::pin(Arc::clone(session).respond(request, in_progress))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        // Sites may fingerprint browsers by it, so forward the browser's spelling unchanged.
        .preserve_header_case(true)
        // A site that sends no Date gets none added.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    if let Err(error) = (&mut connection).await {
        debug!("HTTP connection ended: {error}");
    }
    let upgraded = session.state().upgraded.take();
    match connection.into_parts() {
        None => upgraded,
        Some(parts) => {
            // The response could not be written: dropping the stream notifies the remote end.
            drop(upgraded);
            let client = parts.io.into_inner().into_inner();
            match session.wire.aborted.is_aborted() {
                true => reset(client).await,
                false => close(client).await,
            }
            None
        }
    }
}

impl<T: Connector> HttpSession<T> {
    /// Answers one request.
    async fn respond(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        in_progress: Option<ResponseInProgress>,
    ) -> ResponseResult {
        if !matches!(self.current.has_changed(), Ok(false)) {
            debug!("no response: the port has new rules or is closed");
            return Err(NoResponse);
        }
        let rejection = match classify(&request) {
            Ok(RequestKind::Tunnel(target)) => return Ok(self.open_tunnel(target, request).await),
            Ok(RequestKind::Forward(target)) => {
                return self.forward(target, request, in_progress).await;
            }
            Ok(RequestKind::OwnHost) => return Ok(self.respond_as_own_host(request).await),
            Ok(RequestKind::Direct) => return Ok(self.respond_directly(&request)),
            Err(rejection) => rejection,
        };
        let response = match rejection {
            HttpRejection::NoResponse => {
                debug!("no response: the Host of the request is not this computer");
                return Err(NoResponse);
            }
            HttpRejection::Status(status, reason) => response::reject(&request, status, reason),
            HttpRejection::Failure(failure) => {
                self.dispatcher.shared.status.record_failure(failure);
                self.respond_with_failure(failure, &request)
            }
        };
        Ok(match request.method() {
            // The connection ends as after a tunnel that failed.
            &Method::CONNECT => self.refuse_tunnel(hyper::upgrade::on(&mut request), response),
            _ => response,
        })
    }
}
