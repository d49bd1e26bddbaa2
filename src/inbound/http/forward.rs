//! Plain requests, passed on to their site.
//!
//! Nothing is added that tells the site anything of the client or of this program: no `Via`, no
//! `Forwarded`; what is said between client and proxy is taken out ([`hop_by_hop`]).

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONNECTION, HeaderValue, MAX_FORWARDS};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;
use tracing::{debug, info};

use super::hop_by_hop::{self, Coding};
use super::idle_timeout::{self, Exchange};
use super::page::Trouble;
use super::request_kind::Wanted;
use super::site::{Fault, Site, What};
use super::tunnel::Tunnel;
use super::wire::half_close::Answering;
use super::{Answered, Body, Session, Silence, answer, full};
use crate::failure::Failure;
use crate::inbound::failure_log::log_failure;
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::dispatch::Outcome;
use crate::tor::connector::Connector;
use crate::tor::optimistic_data::OptimisticData;

/// How many sites a client's connection keeps. Browsers send requests for several sites through one
/// connection, by turns.
const MAX_KEPT: usize = 4;

/// How often a site without an answer is logged.
static NO_ANSWER: LogLimiter = LogLimiter::burst(Duration::from_secs(60), 5);

/// What `Allow` says where a method is refused: of those that are passed on, the ones with a meaning
/// that everybody knows. Which of them a site takes, only the site knows.
const PASSED_ON: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a request got no answer.
enum Unanswered {
    /// The site is the reason, or the way to it.
    Site(Trouble),
    /// The client is.
    Client,
}

/// A request that can be sent a second time: it changes nothing at the site, and has no body.
struct Again(Request<()>);

impl Again {
    fn of(request: &Request<Body>) -> Option<Again> {
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        (safe && request.body().is_end_stream()).then_some(Again(copy))
    }
}

impl<T: Connector> Session<T> {
    /// Passes a request on, and gives the site's answer or a page that says why there is none.
    pub(super) async fn forward(
        &self,
        wanted: Wanted,
        mut request: Request<Incoming>,
        answering: Option<Answering>,
    ) -> Answered {
        if let Some(refused) = refused(&mut request) {
            return Ok(refused);
        }
        let begun = Instant::now();
        let knows_interim = request.version() == Version::HTTP_11;
        let websocket = knows_interim && hop_by_hop::wants_websocket(request.headers());
        let client = websocket.then(|| hyper::upgrade::on(&mut request));
        let asked = answer::Asked::of(&request, Some(&wanted));
        let Some(request) = for_site(request, &wanted, websocket) else {
            let why = "this address cannot be passed on";
            return Ok(answer::short(StatusCode::BAD_REQUEST, why));
        };
        // Older clients would take an interim answer for the final one (RFC 9110 section 15.2).
        let teller = knows_interim.then(|| self.line.interim.begin());
        let (request, exchange) = idle_timeout::watch(request, teller, answering);
        let answered = self.ask_site(&wanted, request, &exchange).await;
        self.line.interim.end().await;
        let mut answer = match answered {
            Ok(answer) => answer,
            Err(Unanswered::Site(trouble)) => {
                log(trouble, begun.elapsed());
                return self.troubled(trouble, asked);
            }
            Err(Unanswered::Client) => {
                debug!("the client did not end its request");
                return Err(Silence);
            }
        };
        debug!("answered in {:.1?}", begun.elapsed());
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        // Browsers would believe that the proxy wants to know who they are.
        if answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            || hop_by_hop::coding(answer.headers()) == Coding::Unknown
        {
            return self.troubled(Trouble::Nonsense, asked);
        }
        match (switched, client) {
            (true, Some(client)) => {
                let site = hyper::upgrade::on(&mut answer);
                let mut state = self.state();
                state.tunnel = Some(Tunnel::Switched { client, site });
                // There is no next request.
                state.sites.clear();
            }
            (true, None) => return self.troubled(Trouble::Nonsense, asked),
            (false, _) => {}
        }
        hop_by_hop::to_client(answer.headers_mut(), switched);
        *answer.version_mut() = Version::HTTP_11;
        if switched {
            return Ok(answer.map(|_| full("")));
        }
        if exchange.refused() {
            // Whether the client sends its body all the same, nobody can know.
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        Ok(answer.map(|body| exchange.answer(body, Arc::clone(&self.line))))
    }

    /// Says that a site gave no answer: as a page, or as a line to programs. What sites can bring
    /// about themselves is not told to a browser that shows no page: with `no-cors` a site's script
    /// hears whether an answer came or a connection broke, and an answer where the site gave none
    /// would tell it of this program. (One that asks for a page itself gets it.)
    fn troubled(&self, trouble: Trouble, asked: answer::Asked) -> Answered {
        let for_script = asked.browser && !asked.html;
        match trouble {
            Trouble::Lost | Trouble::Silent | Trouble::Nonsense if for_script => Err(Silence),
            _ => Ok(self.page(trouble, asked)),
        }
    }

    /// Asks the site, on the connection that is open to it or on a new one.
    async fn ask_site(
        &self,
        wanted: &Wanted,
        mut request: Request<Body>,
        exchange: &Exchange,
    ) -> Result<Response<Incoming>, Unanswered> {
        let what = What {
            request: wanted.request.clone(),
            epoch: self.dispatcher.shared.epoch.current(),
        };
        let copy = Again::of(&request);
        loop {
            let mut site = match self.kept(&what) {
                Some(mut site) => match site.serves().await {
                    true => site,
                    false => continue,
                },
                None => {
                    let connected = self.connect(what.clone()).await;
                    connected.map_err(Unanswered::Site)?
                }
            };
            let used = site.used;
            let trouble = match site.ask(request, exchange).await {
                Ok(answer) => {
                    if exchange.answered() {
                        self.keep(site);
                    }
                    return Ok(answer);
                }
                // A site may close a connection that was idle just when it is used again
                // (RFC 9112 section 9.3.1).
                Err(Fault::NotSent(unsent)) if used => {
                    request = *unsent;
                    continue;
                }
                Err(Fault::Lost) if used && let Some(Again(copy)) = &copy => {
                    request = copy.clone().map(|()| full(""));
                    continue;
                }
                Err(Fault::Client) => return Err(Unanswered::Client),
                Err(Fault::NotSent(_) | Fault::Lost) => Trouble::Lost,
                Err(Fault::Silent) => Trouble::Silent,
                Err(Fault::Nonsense) => Trouble::Nonsense,
            };
            return Err(Unanswered::Site(trouble));
        }
    }

    /// A connection that is open already, taken out of those that are kept.
    fn kept(&self, what: &What) -> Option<Site> {
        let sites = &mut self.state().sites;
        sites.retain(|site| site.what().epoch == what.epoch && !site.is_closed());
        let place = sites.iter().position(|site| site.what() == what)?;
        Some(sites.remove(place))
    }

    /// Keeps a connection for later requests, in place of the one that was used least recently.
    fn keep(&self, site: Site) {
        let sites = &mut self.state().sites;
        if sites.len() >= MAX_KEPT {
            sites.remove(0);
        }
        sites.push(site);
    }

    /// A new connection to a site.
    async fn connect(&self, what: What) -> Result<Site, Trouble> {
        let early = OptimisticData::new(Vec::new());
        let reached = self
            .dispatcher
            .serve(&what.request, self.origin, &early)
            .await;
        let stream = match reached.map_err(Trouble::Failure)? {
            Outcome::Stream(stream) => stream,
            // Look-ups alone are answered.
            Outcome::Answer(_) => return Err(Trouble::Failure(Failure::Internal)),
        };
        let begun = Site::begin(stream, what).await;
        let (site, carrier) = begun.ok_or(Trouble::Failure(Failure::Internal))?;
        let carriers = &mut self.state().carriers;
        // Those that are done.
        while carriers.try_join_next().is_some() {}
        carriers.spawn(carrier);
        Ok(site)
    }
}

/// Logs that a site gave no answer.
fn log(trouble: Trouble, took: Duration) {
    let status = trouble.status().as_u16();
    match trouble {
        Trouble::Failure(failure) => log_failure(failure, status, took),
        Trouble::Lost | Trouble::Silent | Trouble::Nonsense => {
            if let Some(times) = NO_ANSWER.due() {
                let (name, times) = (trouble.name(), Occurrences(times));
                info!("failed with {status} after {took:.1?}: {name}{times}");
            }
        }
    }
}

/// The answer to a request that is not passed on, whatever its site.
fn refused(request: &mut Request<Incoming>) -> Option<Response<Body>> {
    if hop_by_hop::coding(request.headers()) == Coding::Unknown {
        let why = "the body comes in a form that is not known here";
        return Some(answer::short(StatusCode::NOT_IMPLEMENTED, why));
    }
    if request.method() == Method::TRACE {
        // It would show scripts what they must not see.
        let why = "TRACE is not passed on";
        let mut refused = answer::short(StatusCode::METHOD_NOT_ALLOWED, why);
        let passed_on = HeaderValue::from_static(PASSED_ON);
        refused.headers_mut().insert(ALLOW, passed_on);
        return Some(refused);
    }
    // RFC 9110 section 7.6.2.
    if request.method() == Method::OPTIONS
        && let Some(left) = request.headers().get(MAX_FORWARDS)
        && let Some(left) = left.to_str().ok().and_then(|left| left.parse::<u32>().ok())
    {
        let Some(left) = left.checked_sub(1) else {
            return Some(answer::options());
        };
        request.headers_mut().insert(MAX_FORWARDS, left.into());
    }
    None
}

/// The request as the site gets it; `None` if there is no way to write it.
fn for_site(
    mut request: Request<Incoming>,
    wanted: &Wanted,
    websocket: bool,
) -> Option<Request<Incoming>> {
    let host = HeaderValue::from_str(wanted.authority.as_str()).ok()?;
    hop_by_hop::to_site(request.headers_mut(), host, websocket);
    let root = || PathAndQuery::from_static("/");
    let path = request.uri().path_and_query().cloned().unwrap_or_else(root);
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    Some(request)
}
