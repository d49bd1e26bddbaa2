//! Responses that are not HTML: those to CONNECT and OPTIONS, and short texts.

use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SERVER, VIA,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use super::body::{Body, full};
use super::request_kind::OWN_HOST;
use crate::failure::Failure;

/// Why a request failed: tokens of the form `space/TOKEN` (Tor's HTTP CONNECT specification).
const REQUEST_FAILED: HeaderName = HeaderName::from_static("tor-request-failed");
/// What a proxy supports beyond the specification; empty here.
const CAPABILITIES: HeaderName = HeaderName::from_static("tor-capabilities");

/// `Cross-Origin-Resource-Policy` of the Fetch standard.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The value of `Via`, in the format of C tor.
const OWN_VIA: &str = concat!(
    "tor/1.0 tor-network (onionport ",
    env!("CARGO_PKG_VERSION"),
    ")"
);
/// The value of `Server`, in the format of C tor.
const OWN_SERVER: &str = concat!("tor/1.0 (onionport ", env!("CARGO_PKG_VERSION"), ")");
/// The value of `Allow`, for the port and its own pages.
pub(super) const OWN_METHODS: &str = "OPTIONS, CONNECT, GET, HEAD";

/// The reason phrase of a successful CONNECT. Some clients check for these words instead of the
/// status.
const TUNNEL_OPEN: &[u8] = b"Connection established";

/// The outcome of one request, for hyper.
pub(super) type ResponseResult = Result<Response<Body>, NoResponse>;

/// Makes hyper close the connection without a response.
#[derive(Debug)]
pub(super) struct NoResponse;

impl std::fmt::Display for NoResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request gets no response")
    }
}

impl std::error::Error for NoResponse {}

/// Returns the response to a CONNECT that succeeded.
pub(super) fn tunnel_open() -> Response<Body> {
    let mut response = Response::new(full(""));
    set_tor_headers(response.headers_mut());
    let reason = ReasonPhrase::from_static(TUNNEL_OPEN);
    response.extensions_mut().insert(reason);
    response
}

/// Returns the response to a CONNECT that failed. Browsers do not show its body; other tools do.
pub(super) fn tunnel_failed(failure: Failure) -> Response<Body> {
    let row = failure.row();
    let status = StatusCode::from_u16(row.http).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = text(status, &format!("{}: {}", row.name, row.sentence));
    set_tor_headers(response.headers_mut());
    set_failure_tokens(response.headers_mut(), failure);
    set_reason(&mut response, failure.name());
    response
}

/// Returns the response to a malformed or unsupported request.
pub(super) fn reject(
    request: &Request<Incoming>,
    status: StatusCode,
    reason: &'static str,
) -> Response<Body> {
    let mut response = text(status, reason);
    if request.method() == Method::CONNECT {
        set_tor_headers(response.headers_mut());
    }
    response
}

/// Returns the response to OPTIONS (Tor's HTTP CONNECT specification, "OPTIONS method support").
pub(super) fn options() -> Response<Body> {
    let mut response = Response::new(full(""));
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(OWN_METHODS));
    headers.insert(CAPABILITIES, HeaderValue::from_static(""));
    headers.insert(SERVER, HeaderValue::from_static(OWN_SERVER));
    protect(headers);
    response
}

/// Returns a response of one line of plain text, or a few.
pub(super) fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    protect(headers);
    response
}

/// Sets the headers of every response to a CONNECT.
fn set_tor_headers(headers: &mut HeaderMap) {
    headers.insert(VIA, HeaderValue::from_static(OWN_VIA));
    headers.insert(CAPABILITIES, HeaderValue::from_static(""));
}

/// Sets `Tor-Request-Failed` for a failure: onionport's token, then C tor's for the same failure.
pub(super) fn set_failure_tokens(headers: &mut HeaderMap, failure: Failure) {
    let token = failure.row().token;
    match end_reason(failure) {
        Some(reason) => set_tokens(headers, &format!("{token} {reason}")),
        None => set_tokens(headers, token),
    }
}

/// Sets `Tor-Request-Failed` to `tokens`, separated by spaces.
pub(super) fn set_tokens(headers: &mut HeaderMap, tokens: &str) {
    if let Ok(tokens) = HeaderValue::from_str(tokens) {
        headers.insert(REQUEST_FAILED, tokens);
    }
}

/// Returns C tor's token for a failure whose token in the failure table is onionport's own, for clients
/// that know only C tor's.
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

/// Adds the name of a failure to the reason phrase: `503 Service Unavailable (no route)`.
pub(super) fn set_reason<B>(response: &mut Response<B>, name: &str) {
    let usual = response.status().canonical_reason().unwrap_or("Failed");
    if let Ok(reason) = ReasonPhrase::try_from(format!("{usual} ({name})").into_bytes()) {
        response.extensions_mut().insert(reason);
    }
}

/// Sets headers that keep onionport's own responses from other sites: browsers do not embed them, run
/// them as scripts, report whether they arrived, or cache them.
pub(super) fn protect(headers: &mut HeaderMap) {
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(RESOURCE_POLICY, "same-origin");
    set(X_FRAME_OPTIONS, "DENY");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(CACHE_CONTROL, "no-store");
}

/// Returns the URL of one of onionport's own pages; `path` is empty or starts with a slash.
pub(super) fn own_url(path: &str) -> String {
    format!("http://{OWN_HOST}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_tokens_of_the_specification() {
        for failure in Failure::ALL {
            let response = tunnel_failed(*failure);
            assert_eq!(response.status().as_u16(), failure.row().http);
            let tokens = response.headers()[REQUEST_FAILED].to_str().expect("ASCII");
            for token in tokens.split(' ') {
                let (space, name) = token.split_once('/').expect("space/TOKEN");
                assert!(["onionport", "end"].contains(&space), "{tokens}");
                assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'));
            }
            assert!(tokens.matches("end/").count() <= 1, "{tokens}");
        }
    }
}
