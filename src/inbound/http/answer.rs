//! Answers that are no pages: those to CONNECT and OPTIONS, and short refusals.

use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SERVER,
    USER_AGENT, VIA, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use super::request_kind::{OUR_HOST, Wanted, credentials};
use super::{Body, full};
use crate::failure::Failure;
use crate::request;
use crate::tor::isolation::ClientCredentials;

/// Says why a request failed: tokens `space/TOKEN` (Tor's HTTP CONNECT specification).
pub(super) const REQUEST_FAILED: HeaderName = HeaderName::from_static("tor-request-failed");
/// What a proxy can do beyond the specification: nothing.
const CAPABILITIES: HeaderName = HeaderName::from_static("tor-capabilities");

/// The Fetch standard's `Cross-Origin-Resource-Policy`.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// In the forms of C tor's.
const OUR_VIA: &str = concat!(
    "tor/1.0 tor-network (onionport ",
    env!("CARGO_PKG_VERSION"),
    ")"
);
const OUR_SERVER: &str = concat!("tor/1.0 (onionport ", env!("CARGO_PKG_VERSION"), ")");
/// The methods that the port itself knows.
pub(super) const OUR_METHODS: &str = "OPTIONS, CONNECT, GET, HEAD";

/// What has to be known of a request when it is gone.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// The whole address, the host of it, and the host with its port.
    pub(super) url: String,
    pub(super) host: String,
    pub(super) place: String,
    /// The stream that was to be opened.
    pub(super) request: Option<request::Request>,
    /// Whether the client shows HTML to somebody.
    pub(super) html: bool,
    /// Whether it is a browser's, which may ask for what a site's scripts want.
    pub(super) browser: bool,
    /// What isolates the client from others.
    pub(super) credentials: Option<ClientCredentials>,
}

impl Asked {
    /// Whether the host was meant for an onion service.
    pub(super) fn is_onion(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        let last = name.rsplit('.').next().unwrap_or_default();
        last.eq_ignore_ascii_case("onion")
    }

    /// `wanted` if the request is to be passed on.
    pub(super) fn of<B>(request: &Request<B>, wanted: Option<&Wanted>) -> Asked {
        Asked {
            method: request.method().clone(),
            url: wanted.map_or_else(|| request.uri().to_string(), |wanted| wanted.url.clone()),
            host: request.uri().host().unwrap_or_default().to_owned(),
            place: request
                .uri()
                .authority()
                .map(ToString::to_string)
                .unwrap_or_default(),
            request: wanted.map(|wanted| wanted.request.clone()),
            html: takes_html(request.headers()),
            browser: is_browser(request.headers()),
            credentials: credentials(request.headers()),
        }
    }
}

/// Whether a client takes HTML rather than anything: browsers say so, programs do not.
pub(super) fn takes_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| {
            let mut parts = kind.split(';').map(str::trim);
            let html = matches!(parts.next(), Some("text/html" | "application/xhtml+xml"));
            let refused = |part: &str| {
                let weight = part.strip_prefix("q=").unwrap_or("1");
                weight.parse::<f32>().is_ok_and(|weight| weight == 0.0)
            };
            html && !parts.any(refused)
        })
}

/// Whether a client is a browser: those in use say so in these words, and a script cannot change them in
/// a request to another site.
pub(super) fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

/// The reason phrase of a tunnel that is open. Some clients look for these words and not at the status.
const TUNNEL_OPEN: &[u8] = b"Connection established";

/// The tunnel is open.
pub(super) fn tunnel_open() -> Response<Body> {
    let mut answer = Response::new(full(""));
    as_tor(answer.headers_mut());
    let reason = ReasonPhrase::from_static(TUNNEL_OPEN);
    answer.extensions_mut().insert(reason);
    answer
}

/// There is no tunnel. Browsers show nothing of the body, but people with other tools read it.
pub(super) fn tunnel_failed(failure: Failure) -> Response<Body> {
    let row = failure.row();
    let status = StatusCode::from_u16(row.http).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut answer = short(status, &format!("{}: {}", row.name, row.sentence));
    as_tor(answer.headers_mut());
    set_tokens(answer.headers_mut(), failure);
    name_it(&mut answer, failure.name());
    answer
}

/// The headers that every answer to a CONNECT has.
fn as_tor(headers: &mut HeaderMap) {
    headers.insert(VIA, HeaderValue::from_static(OUR_VIA));
    headers.insert(CAPABILITIES, HeaderValue::from_static(""));
}

/// Says in the headers why a request failed: our own token first, then C tor's for the same.
pub(super) fn set_tokens(headers: &mut HeaderMap, failure: Failure) {
    let token = failure.row().token;
    match end_reason(failure) {
        Some(reason) => set_token(headers, &format!("{token} {reason}")),
        None => set_token(headers, token),
    }
}

/// Says it in a token, or several.
pub(super) fn set_token(headers: &mut HeaderMap, tokens: &str) {
    if let Ok(tokens) = HeaderValue::from_str(tokens) {
        headers.insert(REQUEST_FAILED, tokens);
    }
}

/// What C tor says for a failure of an onion service, for clients that know its tokens alone.
fn end_reason(failure: Failure) -> Option<&'static str> {
    use Failure as F;
    match failure {
        F::DescriptorNotFound
        | F::DescriptorInvalid
        | F::IntroductionFailed
        | F::IntroductionTimedOut
        | F::DirectoriesUnreachable
        | F::NoSuchFamily => Some("end/RESOLVEFAILED"),
        F::RendezvousFailed | F::DirectoriesTimedOut | F::NotBootstrapped | F::DeadlinePassed => {
            Some("end/TIMEOUT")
        }
        F::ClientAuthMissing | F::ClientAuthWrong => Some("end/MISC"),
        F::AddressInvalid | F::DestinationInvalid => Some("end/TORPROTOCOL"),
        _ => None,
    }
}

/// Puts the name of a failure behind the status: `503 Service Unavailable (no route)`.
pub(super) fn name_it<B>(answer: &mut Response<B>, name: &str) {
    let usual = answer.status().canonical_reason().unwrap_or("Failed");
    if let Ok(reason) = ReasonPhrase::try_from(format!("{usual} ({name})").into_bytes()) {
        answer.extensions_mut().insert(reason);
    }
}

/// What the port can do (the specification, "OPTIONS method support").
pub(super) fn options() -> Response<Body> {
    let mut answer = Response::new(full(""));
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(OUR_METHODS));
    headers.insert(CAPABILITIES, HeaderValue::from_static(""));
    headers.insert(SERVER, HeaderValue::from_static(OUR_SERVER));
    protect(headers);
    answer
}

/// A few words of plain text.
pub(super) fn short(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(full(format!("{text}\n")));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    protect(headers);
    answer
}

/// Keeps what is ours from other sites: a browser neither shows nor runs it there, nor tells them
/// whether it came; and keeps it nowhere.
pub(super) fn protect(headers: &mut HeaderMap) {
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(RESOURCE_POLICY, "same-origin");
    set(X_FRAME_OPTIONS, "DENY");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(CACHE_CONTROL, "no-store");
}

/// The answer to a request that makes no sense.
pub(super) fn refusal(
    request: &Request<Incoming>,
    status: StatusCode,
    why: &'static str,
) -> Response<Body> {
    let mut answer = short(status, why);
    if request.method() == Method::CONNECT {
        as_tor(answer.headers_mut());
    }
    answer
}

/// Where our own pages are, for links.
pub(super) fn our_url(path: &str) -> String {
    format!("http://{OUR_HOST}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().expect("a value"));
        takes_html(&headers)
    }

    #[test]
    fn only_those_who_ask_for_html_get_it() {
        assert!(accept("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(accept("image/avif, text/html;q=0.5"));
        assert!(!accept("*/*"));
        assert!(!accept("image/avif,*/*"));
        assert!(!accept("text/html;q=0, */*"));
        assert!(!takes_html(&HeaderMap::new()));
    }

    #[test]
    fn every_failure_has_tokens_of_the_specification() {
        for failure in Failure::ALL {
            let answer = tunnel_failed(*failure);
            assert_eq!(answer.status().as_u16(), failure.row().http);
            let tokens = answer.headers()[REQUEST_FAILED].to_str().expect("text");
            for token in tokens.split(' ') {
                let (space, name) = token.split_once('/').expect("space/TOKEN");
                assert!(["onionport", "end"].contains(&space), "{tokens}");
                assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'));
            }
            assert!(tokens.matches("end/").count() <= 1, "{tokens}");
        }
    }
}
