//! Headers that are for the next hop alone, and what may not pass through a proxy at all
//! (RFC 9110 section 7.6.1).

use std::collections::HashSet;

use hyper::HeaderMap;
use hyper::body::Frame;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};

use super::request_kind::{FAMILY, ISOLATION, OLD_ISOLATION, RPC_TARGET};

/// Never passed on, in either direction: what is meant for the next hop, and what a client and its
/// proxy say to each other. A site must not learn it, nor be able to make it up.
const FOR_ONE_HOP: &[&str] = &[
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

/// How a body comes, as far as it is more than its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// With a length, or up to the end of the connection.
    Plain,
    /// In chunks.
    Chunked,
    /// Compressed for this hop: nobody asked for that.
    Unknown,
}

/// How the body of a message comes.
pub(super) fn coding(headers: &HeaderMap) -> Coding {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Coding::Plain,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        _ => Coding::Unknown,
    }
}

/// Whether the client wants to turn the connection into a WebSocket (RFC 6455). Other protocols are
/// not offered to sites: the request stays a plain one.
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    names(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
        && headers
            .get(UPGRADE)
            .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Turns the headers of a client's request into those of the request to the site.
pub(super) fn to_site(headers: &mut HeaderMap, host: HeaderValue, websocket: bool) {
    let trailers = names(headers, &TE).any(|name| name.eq_ignore_ascii_case("trailers"));
    let chunked = coding(headers) == Coding::Chunked;
    keep_the_rest(headers);
    // In the place where it was.
    headers.insert(HOST, host);
    if chunked {
        // Said openly, or hyper takes a GET for one without a body.
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

/// Turns the headers of a site's answer into those of the answer to the client.
pub(super) fn to_client(headers: &mut HeaderMap, websocket: bool) {
    keep_the_rest(headers);
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// The trailers in a part of a body are headers, too.
pub(super) fn without_trailers_for_one_hop<D>(frame: Frame<D>) -> Frame<D> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            keep_the_rest(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

/// Leaves what is for both ends, in the order in which it came: sites may tell browsers apart by
/// the order, too. A length beside chunks counts for nothing, and goes (RFC 9112 section 6.3).
fn keep_the_rest(headers: &mut HeaderMap) {
    let chunked = coding(headers) == Coding::Chunked;
    // Read once: the list may be long, and whoever wrote it decides how many headers are looked up.
    let named: HashSet<HeaderName> = names(headers, &CONNECTION)
        .filter_map(|name| name.parse().ok())
        .collect();
    let goes = |name: &HeaderName| {
        FOR_ONE_HOP.contains(&name.as_str())
            || (chunked && *name == CONTENT_LENGTH)
            || (*name != HOST && named.contains(name))
    };
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !goes(name)) {
        kept.append(name.clone(), value.clone());
    }
    *headers = kept;
}

/// The names in a header that is a list.
fn names<'a>(headers: &'a HeaderMap, list: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(list)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.split(';').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(
                name.parse::<HeaderName>().expect("a name"),
                value.parse().expect("a value"),
            );
        }
        map
    }

    fn listed(map: &HeaderMap) -> Vec<(&str, &str)> {
        map.iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect()
    }

    #[test]
    fn what_is_for_the_proxy_stays_with_it() {
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
        to_site(&mut map, HeaderValue::from_static("good.example"), false);
        assert_eq!(listed(&map), [("host", "good.example"), ("cookie", "c=d")]);
    }

    #[test]
    fn trailers_and_chunks_are_announced_again() {
        let mut map = headers(&[
            ("te", "trailers, deflate;q=0.5"),
            ("transfer-encoding", "chunked"),
        ]);
        to_site(&mut map, HeaderValue::from_static("good.example"), false);
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
    fn only_websockets_are_offered() {
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
    fn a_site_cannot_speak_for_the_proxy() {
        let mut map = headers(&[
            ("proxy-authenticate", "Basic realm=\"give it to me\""),
            ("tor-request-failed", "end/MISC"),
            ("connection", "keep-alive"),
            ("set-cookie", "a=b"),
        ]);
        to_client(&mut map, false);
        assert_eq!(listed(&map), [("set-cookie", "a=b")]);
    }

    #[test]
    fn codings_for_one_hop_are_told_apart() {
        for (values, expected) in [
            (&[][..], Coding::Plain),
            (&["Chunked"], Coding::Chunked),
            (&["gzip, chunked"], Coding::Unknown),
            (&["chunked", "chunked"], Coding::Unknown),
        ] {
            let all: Vec<_> = values.iter().map(|v| ("transfer-encoding", *v)).collect();
            assert_eq!(coding(&headers(&all)), expected, "{values:?}");
        }
    }
}
