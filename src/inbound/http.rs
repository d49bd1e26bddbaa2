//! The life of one connection to an HTTP port.
//!
//! head -> what is asked for -> stream, or a failure -> answer -> relay, or the next request
//!
//! A client may ask for three things:
//!
//! | request | gets | told in |
//! |---|---|---|
//! | `CONNECT host:port` | a tunnel | [`tunnel`] |
//! | `GET http://host/path` | the site's answer, or a page that says why there is none | [`forward`], [`page`] |
//! | `GET http://onionport.invalid/`, or `GET /` at a loopback `Host` | a page of our own | [`status_page`], [`client_auth_form`] |
//!
//! [`request_kind`] finds out which; hyper reads and writes HTTP, but for what it has no way to do
//! ([`wire`]). What a request to the network leads to is [`crate::request::dispatch`]'s business, here as on every port.
//!
//! The port answers whoever reaches it, and browsers let any web page send requests to it. So a
//! request that is not meant for a proxy gets no answer unless it names this computer as its
//! `Host`: a name that a foreign site has pointed at 127.0.0.1 (DNS rebinding) reaches nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::debug;

use crate::inbound::lingering_close::{Connection, part, reset};
use crate::request::ClientAddr;
use crate::request::dispatch::Dispatcher;
use crate::tor::connector::Connector;

mod answer;
mod client_auth_form;
mod forward;
mod hop_by_hop;
mod idle_timeout;
mod page;
mod request_kind;
mod site;
mod status_page;
mod tunnel;
mod wire;

pub use client_auth_form::ClientAuthForm;

use request_kind::{Refusal, RequestKind, ask};
use site::Site;
use tunnel::Tunnel;
use wire::half_close::Answering;
use wire::{Line, Wire};

/// How long the head of a message may be, in bytes; a longer one is answered with 431. Cookies are
/// what makes heads long.
const MAX_HEAD: usize = 32 * 1024;
/// How many header lines a message may have; more are answered with 431.
const MAX_HEADERS: usize = 256;
/// How much of a connection is held in memory, one way.
const MAX_BUFFER: usize = 64 * 1024;

/// Why a body ends before its end.
type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// What goes to a client or to a site.
type Body = UnsyncBoxBody<Bytes, BodyError>;

/// One client's connection: what outlives each of its requests.
struct Session<T: Connector> {
    dispatcher: Arc<Dispatcher<T>>,
    /// Tells when the port gets another dispatcher, or is closed.
    current: watch::Receiver<Arc<Dispatcher<T>>>,
    origin: ClientAddr,
    /// The address of the port, as the client reached it.
    local: Option<SocketAddr>,
    /// Takes keys for onion services.
    client_auth_form: Arc<ClientAuthForm>,
    /// What hyper reads from and writes to.
    line: Arc<Line>,
    state: Mutex<State<T>>,
}

struct State<T: Connector> {
    /// The sites of the last requests, the latest at the end: the next one may be for them, too.
    sites: Vec<Site>,
    /// What the connection turns into when the last answer is written.
    tunnel: Option<Tunnel<T>>,
    /// The tasks that carry the bytes of sites.
    carriers: JoinSet<()>,
}

/// Serves one connection until it is over, by what `current` is now. `local` is the port's own
/// address; `client_auth_form` takes keys for onion services.
///
/// A request that comes when `current` has been replaced, or the port closed, gets no answer: the
/// client makes a new connection, which the new rules are for.
pub async fn serve<T, C>(
    mut current: watch::Receiver<Arc<Dispatcher<T>>>,
    connection: C,
    origin: ClientAddr,
    local: Option<SocketAddr>,
    client_auth_form: Arc<ClientAuthForm>,
) where
    T: Connector,
    C: Connection + 'static,
{
    let dispatcher = Arc::clone(&current.borrow_and_update());
    let line = Arc::<Line>::default();
    let session = Arc::new(Session {
        dispatcher,
        current,
        origin,
        local,
        client_auth_form,
        line: Arc::clone(&line),
        state: Mutex::new(State {
            sites: Vec::new(),
            tunnel: None,
            carriers: JoinSet::new(),
        }),
    });
    let wire = Wire::new(connection, line);
    // In a box of its own, which a tunnel no longer needs.
    if let Some(tunnel) = Box::pin(converse(&session, wire)).await {
        // The session goes on: a task of its own may still have to hand over the site's connection.
        tunnel.carry::<C>(&session.line.ahead).await;
    }
}

/// Answers requests until there are no more; gives what the connection becomes then, if it goes on.
async fn converse<T, C>(session: &Arc<Session<T>>, wire: Wire<C>) -> Option<Tunnel<T>>
where
    T: Connector,
    C: Connection + 'static,
{
    // Also for the time between two requests: as C tor does, the connection ends without a word.
    let timeout = session.dispatcher.timeout;
    let service = service_fn(|request: Request<Incoming>| {
        // How CONNECT hears of a client that has left is told in `wire::early_read`.
        let may_wait =
            request.method() != Method::CONNECT && !answer::is_browser(request.headers());
        let answering = may_wait.then(|| Answering::begin(&session.line));
        Box::pin(Arc::clone(session).answer(request, answering))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        // Sites may tell browsers apart by it; what a browser writes gets there as it is.
        .preserve_header_case(true)
        // What a site does not say is not said for it.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    if let Err(error) = (&mut connection).await {
        debug!("the connection broke: {error}");
    }
    let tunnel = session.state().tunnel.take();
    match connection.into_parts() {
        None => tunnel,
        Some(parts) => {
            // If the answer could not be written, the far end hears of it by this.
            drop(tunnel);
            let client = parts.io.into_inner().into_inner();
            match session.line.broken.is_broken() {
                true => reset(client).await,
                false => part(client).await,
            }
            None
        }
    }
}

/// What hyper is to do with a request: nothing at all, if there is no answer.
type Answered = Result<Response<Body>, Silence>;

/// The connection is to end without an answer.
#[derive(Debug)]
struct Silence;

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request gets no answer")
    }
}

impl std::error::Error for Silence {}

impl<T: Connector> Session<T> {
    /// Answers one request.
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        answering: Option<Answering>,
    ) -> Answered {
        if !matches!(self.current.has_changed(), Ok(false)) {
            debug!("no answer: the port has other rules by now");
            return Err(Silence);
        }
        let refusal = match ask(&request) {
            Ok(RequestKind::Tunnel(wanted)) => return Ok(self.open_tunnel(wanted, request).await),
            Ok(RequestKind::Forward(wanted)) => {
                return self.forward(wanted, request, answering).await;
            }
            Ok(RequestKind::Proxied) => return Ok(self.our_site(request).await),
            Ok(RequestKind::Direct) => return Ok(self.at_home(&request)),
            Err(refusal) => refusal,
        };
        let answer = match refusal {
            Refusal::Silence => {
                debug!("no answer: the Host of a request is not this computer");
                return Err(Silence);
            }
            Refusal::Status(status, why) => answer::refusal(&request, status, why),
            Refusal::Failure(failure) => {
                self.dispatcher.shared.status.record_failure(failure);
                self.failed(failure, &request)
            }
        };
        Ok(match request.method() {
            // What is to be done with the connection is the same as if a tunnel had been tried.
            &Method::CONNECT => self.no_tunnel(hyper::upgrade::on(&mut request), answer),
            _ => answer,
        })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that is there already.
fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A future in a box, for what has to be named.
type Boxed<O> = Pin<Box<dyn Future<Output = O> + Send>>;
