//! Forwards plain `http://` requests to their site.
//!
//! Nothing is added that identifies the client or onionport to the site: no `Via`, no `Forwarded`.
//! Headers between client and proxy are removed ([`hop_by_hop`]).

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONNECTION, HeaderValue, MAX_FORWARDS};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;
use tracing::{debug, info};

use super::body::{Body, full};
use super::hop_by_hop::{self, TransferCoding};
use super::idle_timeout::{self, Exchange};
use super::request_kind::ForwardRequest;
use super::request_summary::RequestSummary;
use super::response::{self, NoResponse, ResponseResult};
use super::session::HttpSession;
use super::site::{ConnectionKey, ExchangeError, SiteConnection};
use super::site_error::SiteError;
use super::upgraded::UpgradedConnection;
use super::wire::state::ResponseInProgress;
use crate::failure::Failure;
use crate::inbound::failure_log::log_failure;
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::dispatch::Outcome;
use crate::tor::connector::Connector;
use crate::tor::optimistic_data::OptimisticData;

/// Most connections to sites that one client connection keeps for later requests. Browsers alternate
/// between several sites on one connection to the proxy.
const MAX_IDLE_SITES: usize = 4;

/// Limits log messages about sites that did not answer.
static NO_RESPONSE: LogLimiter = LogLimiter::with_burst(Duration::from_secs(60), 5);

/// `Allow` where a method is refused: the common methods that are forwarded. Which of them a site
/// supports, only the site knows.
const FORWARDED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request got no response from its site.
enum ForwardError {
    /// Because of the site, or of the path to it.
    Site(SiteError),
    /// Because the client did not finish its request.
    Client,
}

/// A copy of a request that can be sent again: it has a safe method and no body.
struct RetryableRequest(Request<()>);

impl RetryableRequest {
    /// Copies `request`, if it can be sent again.
    fn copy_from(request: &Request<Body>) -> Option<RetryableRequest> {
        let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        (is_safe && request.body().is_end_stream()).then_some(RetryableRequest(copy))
    }
}

impl<T: Connector> HttpSession<T> {
    /// Forwards a request; returns the site's response, or a page that explains why there is none.
    pub(super) async fn forward(
        &self,
        target: ForwardRequest,
        mut request: Request<Incoming>,
        in_progress: Option<ResponseInProgress>,
    ) -> ResponseResult {
        if let Some(response) = refuse(&mut request) {
            return Ok(response);
        }
        let started = Instant::now();
        let accepts_interim = request.version() == Version::HTTP_11;
        let websocket = accepts_interim && hop_by_hop::wants_websocket(request.headers());
        let client = websocket.then(|| hyper::upgrade::on(&mut request));
        let summary = RequestSummary::new(&request, Some(&target));
        let Some(request) = rewrite_request(request, &target, websocket) else {
            let reason = "this URL cannot be forwarded";
            return Ok(response::text(StatusCode::BAD_REQUEST, reason));
        };
        // Older clients would take an interim response for the final one (RFC 9110 section 15.2).
        let interim = accepts_interim.then(|| self.wire.interim.begin());
        let (request, exchange) = idle_timeout::watch(request, interim, in_progress);
        let result = self.send_to_site(&target, request, &exchange).await;
        self.wire.interim.end().await;
        let mut response = match result {
            Ok(response) => response,
            Err(ForwardError::Site(error)) => {
                log_error(error, started.elapsed());
                return self.respond_with_error(error, summary);
            }
            Err(ForwardError::Client) => {
                debug!("no response: the client did not finish its request");
                return Err(NoResponse);
            }
        };
        debug!("the site responded after {:.1?}", started.elapsed());
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        // A browser would take a site's 407 for the proxy's, and prompt its user for a password.
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            || hop_by_hop::transfer_coding(response.headers()) == TransferCoding::Unsupported
        {
            return self.respond_with_error(SiteError::InvalidResponse, summary);
        }
        match (switched, client) {
            (true, Some(client)) => {
                let site = hyper::upgrade::on(&mut response);
                let mut state = self.state();
                state.upgraded = Some(UpgradedConnection::WebSocket { client, site });
                // No request can follow that would use them.
                state.sites.clear();
            }
            (true, None) => return self.respond_with_error(SiteError::InvalidResponse, summary),
            (false, _) => {}
        }
        hop_by_hop::rewrite_for_client(response.headers_mut(), switched);
        *response.version_mut() = Version::HTTP_11;
        if switched {
            return Ok(response.map(|_| full("")));
        }
        if exchange.is_body_held() {
            // The client may still send its body or skip it, so the start of its next request is unknown.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Ok(response.map(|body| exchange.into_response_body(body, Arc::clone(&self.wire))))
    }

    /// Responds to a request that got no usable response from its site: with a page, or a line of text.
    ///
    /// For errors that a site can cause, a browser that did not request a page gets no response: with
    /// `no-cors` a script can tell a response from a closed connection, so a response in place of the
    /// site's would reveal the proxy.
    fn respond_with_error(&self, error: SiteError, summary: RequestSummary) -> ResponseResult {
        let may_be_script = summary.is_browser && !summary.accepts_html;
        match error {
            SiteError::Closed | SiteError::TimedOut | SiteError::InvalidResponse
                if may_be_script =>
            {
                Err(NoResponse)
            }
            _ => Ok(self.error_response(error, summary)),
        }
    }

    /// Sends a request on a connection to its site that was kept, or on a new one.
    async fn send_to_site(
        &self,
        target: &ForwardRequest,
        mut request: Request<Body>,
        exchange: &Exchange,
    ) -> Result<Response<Incoming>, ForwardError> {
        let key = ConnectionKey {
            request: target.request.clone(),
            epoch: self.dispatcher.shared.epoch.current(),
        };
        let copy = RetryableRequest::copy_from(&request);
        loop {
            let mut site = match self.take_idle(&key) {
                Some(mut site) => match site.is_ready().await {
                    true => site,
                    false => continue,
                },
                None => {
                    let connected = self.connect_site(key.clone()).await;
                    connected.map_err(ForwardError::Site)?
                }
            };
            let was_used = site.used;
            let error = match site.send(request, exchange).await {
                Ok(response) => {
                    if exchange.note_response() {
                        self.keep_idle(site);
                    }
                    return Ok(response);
                }
                // A site may close an idle connection just as it is reused (RFC 9112 section 9.3.1).
                Err(ExchangeError::NotSent(unsent)) if was_used => {
                    request = *unsent;
                    continue;
                }
                Err(ExchangeError::Closed)
                    if was_used && let Some(RetryableRequest(copy)) = &copy =>
                {
                    request = copy.clone().map(|()| full(""));
                    continue;
                }
                Err(ExchangeError::Client) => return Err(ForwardError::Client),
                Err(ExchangeError::NotSent(_) | ExchangeError::Closed) => SiteError::Closed,
                Err(ExchangeError::TimedOut) => SiteError::TimedOut,
                Err(ExchangeError::InvalidResponse) => SiteError::InvalidResponse,
            };
            return Err(ForwardError::Site(error));
        }
    }

    /// Takes a connection that was kept and that requests for `key` may use.
    fn take_idle(&self, key: &ConnectionKey) -> Option<SiteConnection> {
        let sites = &mut self.state().sites;
        sites.retain(|site| site.key().epoch == key.epoch && !site.is_closed());
        let index = sites.iter().position(|site| site.key() == key)?;
        Some(sites.remove(index))
    }

    /// Keeps a connection for later requests; closes the least recently used one if there are too many.
    fn keep_idle(&self, site: SiteConnection) {
        let sites = &mut self.state().sites;
        if sites.len() >= MAX_IDLE_SITES {
            sites.remove(0);
        }
        sites.push(site);
    }

    /// Connects to a site.
    async fn connect_site(&self, key: ConnectionKey) -> Result<SiteConnection, SiteError> {
        let optimistic = OptimisticData::new(Vec::new());
        let outcome = self
            .dispatcher
            .serve(&key.request, self.client, &optimistic)
            .await;
        let stream = match outcome.map_err(SiteError::Failure)? {
            Outcome::Stream(stream) => stream,
            // Only lookups have this outcome.
            Outcome::Answer(_) => return Err(SiteError::Failure(Failure::Internal)),
        };
        let handshake = SiteConnection::handshake(stream, key).await;
        let (site, driver) = handshake.ok_or(SiteError::Failure(Failure::Internal))?;
        let tasks = &mut self.state().site_tasks;
        // Remove those that have finished.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(driver);
        Ok(site)
    }
}

/// Logs a failed request, rate-limited.
fn log_error(error: SiteError, took: Duration) {
    let status = error.status().as_u16();
    match error {
        SiteError::Failure(failure) => log_failure(failure, status, took),
        SiteError::Closed | SiteError::TimedOut | SiteError::InvalidResponse => {
            if let Some(times) = NO_RESPONSE.due() {
                let (name, times) = (error.name(), Occurrences(times));
                info!("failed with {status} after {took:.1?}: {name}{times}");
            }
        }
    }
}

/// Returns the response to a request that is not forwarded, whatever its site; decrements the
/// `Max-Forwards` of others.
fn refuse(request: &mut Request<Incoming>) -> Option<Response<Body>> {
    if hop_by_hop::transfer_coding(request.headers()) == TransferCoding::Unsupported {
        let reason = "the only supported transfer coding is chunked";
        return Some(response::text(StatusCode::NOT_IMPLEMENTED, reason));
    }
    if request.method() == Method::TRACE {
        // Its response would echo headers that scripts must not read.
        let reason = "TRACE is not forwarded";
        let mut response = response::text(StatusCode::METHOD_NOT_ALLOWED, reason);
        let methods = HeaderValue::from_static(FORWARDED_METHODS);
        response.headers_mut().insert(ALLOW, methods);
        return Some(response);
    }
    // RFC 9110 section 7.6.2.
    if request.method() == Method::OPTIONS
        && let Some(left) = request.headers().get(MAX_FORWARDS)
        && let Some(left) = left.to_str().ok().and_then(|left| left.parse::<u32>().ok())
    {
        let Some(left) = left.checked_sub(1) else {
            return Some(response::options());
        };
        request.headers_mut().insert(MAX_FORWARDS, left.into());
    }
    None
}

/// Rewrites a request for its site; returns `None` if the host cannot be written in a header.
fn rewrite_request(
    mut request: Request<Incoming>,
    target: &ForwardRequest,
    websocket: bool,
) -> Option<Request<Incoming>> {
    let host = HeaderValue::from_str(target.authority.as_str()).ok()?;
    hop_by_hop::rewrite_for_site(request.headers_mut(), host, websocket);
    let root = || PathAndQuery::from_static("/");
    let path = request.uri().path_and_query().cloned().unwrap_or_else(root);
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    Some(request)
}
