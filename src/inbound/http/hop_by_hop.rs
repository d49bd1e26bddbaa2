//! Hop-by-hop headers (RFC 9110 section 7.6.1), and those that must not pass a proxy.

use std::collections::HashSet;

use hyper::HeaderMap;
use hyper::body::Frame;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};

use super::request_kind::{FAMILY, ISOLATION, OLD_ISOLATION, RPC_TARGET};

/// Headers that are never forwarded, in either direction: hop-by-hop headers, and those between a
/// client and its proxy. A site must neither see nor forge these.
const NOT_FORWARDED: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "te",
    "transfer-encoding",
    "upgrade",
    FAMILY,
    ISOLATION,
    OLD_ISOLATION,
    RPC_TARGET,
    "tor-request-failed",
    "tor-capabilities",
];

/// The transfer coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferCoding {
    /// None: the body has a length, or ends with the connection.
    None,
    /// `chunked`.
    Chunked,
    /// Anything else, such as compression for this hop, which onionport never requests.
    Unsupported,
}

/// Returns the transfer coding of a message.
pub(super) fn transfer_coding(headers: &HeaderMap) -> TransferCoding {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => TransferCoding::None,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            TransferCoding::Chunked
        }
        _ => TransferCoding::Unsupported,
    }
}

/// Whether a request is to be upgraded to WebSocket (RFC 6455). Other upgrades are not forwarded: the
/// site gets a plain request.
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    list_items(headers, &CONNECTION).any(|item| item.eq_ignore_ascii_case("upgrade"))
        && headers
            .get(UPGRADE)
            .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Turns the headers of a client's request into those of the request to the site.
pub(super) fn rewrite_for_site(headers: &mut HeaderMap, host: HeaderValue, websocket: bool) {
    let trailers = list_items(headers, &TE).any(|item| item.eq_ignore_ascii_case("trailers"));
    let chunked = transfer_coding(headers) == TransferCoding::Chunked;
    remove_hop_by_hop(headers);
    // Replaces the old value without moving it.
    headers.insert(HOST, host);
    if chunked {
        // Without it hyper sends a GET as a request without a body.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    } else if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// Turns the headers of a site's response into those of the response to the client.
pub(super) fn rewrite_for_client(headers: &mut HeaderMap, websocket: bool) {
    remove_hop_by_hop(headers);
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Removes hop-by-hop headers from a frame of trailers; returns other frames unchanged.
pub(super) fn rewrite_trailers<D>(frame: Frame<D>) -> Frame<D> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            remove_hop_by_hop(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

/// Removes what is not forwarded, and keeps the order of the rest, because sites may fingerprint
/// browsers by it. Also removes a `Content-Length` beside `chunked` (RFC 9112 section 6.3).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let chunked = transfer_coding(headers) == TransferCoding::Chunked;
    // Parsed once: the sender controls the length of this list and the number of headers to look up.
    let listed: HashSet<HeaderName> = list_items(headers, &CONNECTION)
        .filter_map(|name| name.parse().ok())
        .collect();
    let is_removed = |name: &HeaderName| {
        NOT_FORWARDED.contains(&name.as_str())
            || (chunked && *name == CONTENT_LENGTH)
            || (*name != HOST && listed.contains(name))
    };
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !is_removed(name)) {
        kept.append(name.clone(), value.clone());
    }
    *headers = kept;
}

/// Returns the items of a header that is a comma-separated list, without their parameters.
fn list_items<'a>(headers: &'a HeaderMap, list: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(list)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|item| item.split(';').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(
                name.parse::<HeaderName>().expect("a header name"),
                value.parse().expect("a header value"),
            );
        }
        map
    }

    fn listed(map: &HeaderMap) -> Vec<(&str, &str)> {
        map.iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
            .collect()
    }

    #[test]
    fn headers_for_the_proxy_are_not_forwarded() {
        let mut map = headers(&[
            ("host", "other.example"),
            ("proxy-authorization", "Basic dG9yOmE="),
            ("proxy-connection", "keep-alive"),
            ("connection", "X-One, close"),
            ("connection", "x-two"),
            ("keep-alive", "timeout=5"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("tor-stream-isolation", "a"),
            ("x-tor-stream-isolation", "a"),
            ("tor-family-preference", "ipv6-only"),
            ("cookie", "c=d"),
        ]);
        rewrite_for_site(&mut map, HeaderValue::from_static("good.example"), false);
        assert_eq!(listed(&map), [("host", "good.example"), ("cookie", "c=d")]);
    }

    #[test]
    fn te_trailers_and_chunked_are_announced_to_the_site() {
        let mut map = headers(&[
            ("te", "trailers, deflate;q=0.5"),
            ("transfer-encoding", "chunked"),
        ]);
        rewrite_for_site(&mut map, HeaderValue::from_static("good.example"), false);
        let mut all = listed(&map);
        all.sort_unstable();
        assert_eq!(
            all,
            [
                ("connection", "TE"),
                ("host", "good.example"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
            ]
        );
    }

    #[test]
    fn only_websocket_upgrades_are_forwarded() {
        for (connection, upgrade, wanted) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, upgrade", "WebSocket", true),
            ("keep-alive", "websocket", false),
            ("upgrade", "h2c", false),
        ] {
            let map = headers(&[("connection", connection), ("upgrade", upgrade)]);
            assert_eq!(wants_websocket(&map), wanted, "{connection} {upgrade}");
        }
    }

    #[test]
    fn a_site_cannot_set_the_headers_of_the_proxy() {
        let mut map = headers(&[
            ("proxy-authenticate", "Basic realm=\"give it to me\""),
            ("tor-request-failed", "end/MISC"),
            ("connection", "keep-alive"),
            ("set-cookie", "a=b"),
        ]);
        rewrite_for_client(&mut map, false);
        assert_eq!(listed(&map), [("set-cookie", "a=b")]);
    }

    #[test]
    fn only_a_single_chunked_coding_is_supported() {
        for (values, expected) in [
            (&[][..], TransferCoding::None),
            (&["Chunked"], TransferCoding::Chunked),
            (&["gzip, chunked"], TransferCoding::Unsupported),
            (&["chunked", "chunked"], TransferCoding::Unsupported),
        ] {
            let all: Vec<_> = values.iter().map(|v| ("transfer-encoding", *v)).collect();
            assert_eq!(transfer_coding(&headers(&all)), expected, "{values:?}");
        }
    }
}
