//! Plain requests, passed on to their site.
//!
//! Nothing is added that tells the site anything of the client or of this program: no `Via`, no
//! `Forwarded`; what is said between client and proxy is taken out ([`hops`]).

use hyper::body::{Body as _, Incoming};
use hyper::header::{HeaderValue, MAX_FORWARDS};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;
use tracing::{debug, info};

use super::ask::Wanted;
use super::hops::{self, Coding};
use super::page::Trouble;
use super::site::{Fault, Site, What};
use super::tunnel::Tunnel;
use super::{Body, Session, answer, full, patience, streamed};
use crate::dial::Dial;
use crate::early::Early;
use crate::failure::Failure;
use crate::gateway::Reached;

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

impl<T: Dial> Session<T> {
    /// Passes a request on, and gives the site's answer or a page that says why there is none.
    pub(super) async fn forward(
        &self,
        wanted: Wanted,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        if let Some(refused) = refused(&mut request) {
            return refused;
        }
        let begun = Instant::now();
        let websocket =
            request.version() == Version::HTTP_11 && hops::wants_websocket(request.headers());
        let client = websocket.then(|| hyper::upgrade::on(&mut request));
        let asked = answer::Asked::of(&request, Some(&wanted));
        let Some(request) = for_site(request, &wanted, websocket) else {
            return answer::short(StatusCode::BAD_REQUEST, "this address cannot be passed on");
        };
        let (request, leave) = patience::hold(request);
        let answer = self.ask_site(&wanted, request).await;
        // The final answer: a body that was not asked for by now is not wanted.
        drop(leave);
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(trouble) => {
                let (status, name) = (trouble.status().as_u16(), trouble.name());
                info!("failed with {status} after {:.1?}: {name}", begun.elapsed());
                return self.page(trouble, asked);
            }
        };
        debug!("answered in {:.1?}", begun.elapsed());
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        match (switched, client) {
            (true, Some(client)) => {
                let site = hyper::upgrade::on(&mut answer);
                self.state().tunnel = Some(Tunnel::Switched { client, site });
            }
            (true, None) => return self.page(Trouble::Nonsense, asked),
            (false, _) => {}
        }
        // Browsers would believe that the proxy wants to know who they are.
        if answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            || hops::coding(answer.headers()) == Coding::Unknown
        {
            return self.page(Trouble::Nonsense, asked);
        }
        hops::to_client(answer.headers_mut(), switched);
        *answer.version_mut() = Version::HTTP_11;
        if switched {
            return answer.map(|_| full(""));
        }
        answer.map(streamed)
    }

    /// Asks the site, on the connection that is open to it or on a new one.
    async fn ask_site(
        &self,
        wanted: &Wanted,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Trouble> {
        let what = What {
            request: wanted.request.clone(),
            epoch: self.gateway.shared.epoch.now(),
        };
        let copy = Again::of(&request);
        let mut kept = self.state().site.take();
        loop {
            let mut site = match kept.take() {
                Some(mut site) => match site.serves(&what).await {
                    true => site,
                    false => continue,
                },
                None => self.connect(what.clone()).await?,
            };
            let used = site.used;
            match site.ask(request).await {
                Ok(answer) => {
                    self.state().site = Some(site);
                    return Ok(answer);
                }
                // A site may close a connection that was idle just when it is used again
                // (RFC 9112 section 9.3.1).
                Err(Fault::NotSent(unsent)) if used => request = *unsent,
                Err(Fault::Lost) if used && copy.is_some() => {
                    request = match &copy {
                        Some(Again(copy)) => copy.clone().map(|()| full("")),
                        None => return Err(Trouble::Lost),
                    };
                }
                Err(Fault::NotSent(_) | Fault::Lost) => return Err(Trouble::Lost),
                Err(Fault::Nonsense) => return Err(Trouble::Nonsense),
            }
        }
    }

    /// A new connection to a site.
    async fn connect(&self, what: What) -> Result<Site, Trouble> {
        let early = Early::new(Vec::new());
        let reached = self.gateway.reach(&what.request, self.origin, &early).await;
        let stream = match reached.map_err(Trouble::Failure)? {
            Reached::Stream(stream) => stream,
            // Look-ups alone are answered.
            Reached::Answer(_) => return Err(Trouble::Failure(Failure::Internal)),
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

/// The answer to a request that is not passed on, whatever its site.
fn refused(request: &mut Request<Incoming>) -> Option<Response<Body>> {
    if hops::coding(request.headers()) == Coding::Unknown {
        let why = "the body comes in a form that is not known here";
        return Some(answer::short(StatusCode::NOT_IMPLEMENTED, why));
    }
    if request.method() == Method::TRACE {
        // It would show scripts what they must not see.
        let why = "TRACE is not passed on";
        return Some(answer::short(StatusCode::METHOD_NOT_ALLOWED, why));
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
    hops::to_site(request.headers_mut(), host, websocket);
    let root = || PathAndQuery::from_static("/");
    let path = request.uri().path_and_query().cloned().unwrap_or_else(root);
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    Some(request)
}
