//! What responses need to know of a request after its body was consumed.

use hyper::header::{ACCEPT, HeaderMap, USER_AGENT};
use hyper::{Method, Request};

use super::request_kind::{ForwardRequest, credentials};
use crate::request;
use crate::tor::isolation::ClientCredentials;

/// A request without its body, as failure pages need it.
#[derive(Clone, Debug)]
pub(super) struct RequestSummary {
    pub(super) method: Method,
    /// The whole URL.
    pub(super) url: String,
    /// The host of the URL.
    pub(super) host: String,
    /// The host of the URL with its port, if it names one.
    pub(super) authority: String,
    /// The stream to open; `None` if the destination is not valid.
    pub(super) request: Option<request::Request>,
    /// Whether the client accepts HTML ([`accepts_html`]).
    pub(super) accepts_html: bool,
    /// Whether the client is a browser ([`is_browser`]), so that a site's script may have sent the
    /// request.
    pub(super) is_browser: bool,
    /// What isolates the client from others.
    pub(super) credentials: Option<ClientCredentials>,
}

impl RequestSummary {
    /// Summarizes `request`; `target` is what it is forwarded as, if it is.
    pub(super) fn new<B>(request: &Request<B>, target: Option<&ForwardRequest>) -> RequestSummary {
        RequestSummary {
            method: request.method().clone(),
            url: target.map_or_else(|| request.uri().to_string(), |target| target.url.clone()),
            host: request.uri().host().unwrap_or_default().to_owned(),
            authority: request
                .uri()
                .authority()
                .map(ToString::to_string)
                .unwrap_or_default(),
            request: target.map(|target| target.request.clone()),
            accepts_html: accepts_html(request.headers()),
            is_browser: is_browser(request.headers()),
            credentials: credentials(request.headers()),
        }
    }

    /// Whether the host ends in `.onion`, valid or not.
    pub(super) fn is_onion(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        let last = name.rsplit('.').next().unwrap_or_default();
        last.eq_ignore_ascii_case("onion")
    }
}

/// Whether `Accept` names HTML itself, not just `*/*`: that of browsers does, that of programs does
/// not.
pub(super) fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let html = matches!(parts.next(), Some("text/html" | "application/xhtml+xml"));
            let has_zero_weight = |part: &str| {
                let weight = part.strip_prefix("q=").unwrap_or("1");
                weight.parse::<f32>().is_ok_and(|weight| weight == 0.0)
            };
            html && !parts.any(has_zero_weight)
        })
}

/// Whether the client is a browser. All common browsers send a `User-Agent` that starts with
/// `Mozilla/`, and scripts cannot change it in a request to another site.
pub(super) fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, value.parse().expect("a header value"));
        accepts_html(&headers)
    }

    #[test]
    fn only_clients_that_name_html_accept_html() {
        assert!(accept("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(accept("image/avif, text/html;q=0.5"));
        assert!(!accept("*/*"));
        assert!(!accept("image/avif,*/*"));
        assert!(!accept("text/html;q=0, */*"));
        assert!(!accepts_html(&HeaderMap::new()));
    }
}
