//! Classifies requests: tunnel, forwarded request, or one of onionport's own pages.

use hyper::header::{CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use crate::failure::Failure;
use crate::inbound::socks::name;
pub(super) use crate::request::target::OWN_HOST;
use crate::request::target::is_own_host_or_below;
use crate::request::{self, Address, Command};
use crate::tor::destination::Family;
use crate::tor::isolation::{ClientCredentials, Protocol};
pub(super) use host_port::HostPort;

mod host_port;

/// Longest host name, in bytes: C tor's `MAX_SOCKS_ADDR_LEN` without the terminating zero.
const MAX_HOST: usize = 255;

/// The default port of `http://` URLs.
const HTTP: u16 = 80;

/// Request headers of Tor's HTTP CONNECT specification.
pub(super) const FAMILY: &str = "tor-family-preference";
pub(super) const ISOLATION: &str = "tor-stream-isolation";
pub(super) const OLD_ISOLATION: &str = "x-tor-stream-isolation";
pub(super) const RPC_TARGET: &str = "tor-rpc-target";

/// The kinds of requests.
#[derive(Debug)]
pub(super) enum RequestKind {
    /// CONNECT: a tunnel.
    Tunnel(request::Request),
    /// An `http://` URL: the response of a site.
    Forward(ForwardRequest),
    /// `http://onionport.invalid/`: one of onionport's own pages, requested in proxy form.
    OwnHost,
    /// A path: one of onionport's own pages, requested from the port itself as an HTTP server.
    Direct,
}

/// Where to forward a request.
#[derive(Debug)]
pub(super) struct ForwardRequest {
    /// The stream to open for it.
    pub(super) request: request::Request,
    /// The value of its `Host`.
    pub(super) authority: Authority,
    /// The whole URL, as the client wrote it.
    pub(super) url: String,
}

/// Why a request is not served.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HttpRejection {
    /// It was not meant for this port: close the connection without a response.
    NoResponse,
    /// It is malformed, or needs something unsupported; the text explains it to the user.
    Status(StatusCode, &'static str),
    /// Its destination is not valid.
    Failure(Failure),
}

/// Classifies a request by its method, target and headers.
///
/// # Errors
///
/// [`HttpRejection`] if the request is not served at all.
pub(super) fn classify<B>(request: &Request<B>) -> Result<RequestKind, HttpRejection> {
    let (uri, headers) = (request.uri(), request.headers());
    if request.method() == Method::CONNECT {
        return parse_connect(uri, headers).map(RequestKind::Tunnel);
    }
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) => {
            check_host_header(request)?;
            let target = parse_authority(authority, Some(HTTP))?;
            if target.host.eq_ignore_ascii_case(OWN_HOST) {
                return match target.port {
                    None | Some(HTTP) => Ok(RequestKind::OwnHost),
                    Some(_) => Err(bad_request("onionport.invalid has only port 80")),
                };
            }
            Ok(RequestKind::Forward(ForwardRequest {
                request: stream_request(target, headers)?,
                authority: authority.clone(),
                url: uri.to_string(),
            }))
        }
        (Some(_), _) => Err(bad_request(
            "only http:// URLs are forwarded: use CONNECT for others",
        )),
        (None, _) => match single_host(headers) {
            Some(host) if HostPort::parse(host).is_some_and(|host| host.is_loopback()) => {
                Ok(RequestKind::Direct)
            }
            _ => Err(HttpRejection::NoResponse),
        },
    }
}

fn bad_request(reason: &'static str) -> HttpRejection {
    HttpRejection::Status(StatusCode::BAD_REQUEST, reason)
}

/// Parses a CONNECT request (RFC 9110 section 9.3.6).
fn parse_connect(uri: &Uri, headers: &HeaderMap) -> Result<request::Request, HttpRejection> {
    if headers.contains_key(RPC_TARGET) {
        let reason = "Tor-RPC-Target is not supported";
        return Err(HttpRejection::Status(StatusCode::NOT_IMPLEMENTED, reason));
    }
    let length = headers.get(CONTENT_LENGTH).map(|length| length.as_bytes());
    if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0") {
        return Err(bad_request("a CONNECT request must not have a body"));
    }
    match (uri.scheme(), uri.authority(), uri.path_and_query()) {
        (None, Some(authority), None) => stream_request(parse_authority(authority, None)?, headers),
        _ => Err(bad_request("CONNECT requires a host and a port")),
    }
}

/// Checks that an HTTP/1.1 request has exactly one `Host` (RFC 9112 section 3.2). Its value does not
/// matter: the URL in the request line overrides it.
fn check_host_header<B>(request: &Request<B>) -> Result<(), HttpRejection> {
    match request.headers().get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if request.version() < Version::HTTP_11 => Ok(()),
        _ => Err(bad_request("a request must have exactly one Host header")),
    }
}

/// Returns the value of `Host`, if there is exactly one.
fn single_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// Parses the host and port of a request target; without a port it has `default_port`.
fn parse_authority(
    authority: &Authority,
    default_port: Option<u16>,
) -> Result<HostPort<'_>, HttpRejection> {
    let text = authority.as_str();
    if text.contains('@') {
        return Err(bad_request("a user name in the address is not supported"));
    }
    // An empty port means the default one (RFC 3986 section 3.2.3); CONNECT has no default.
    let target = match default_port {
        Some(_) => HostPort::parse(text.strip_suffix(':').unwrap_or(text)),
        None => HostPort::parse(text),
    };
    let target = target.ok_or_else(|| bad_request(INVALID_PORT))?;
    Ok(HostPort {
        port: target.port.or(default_port),
        ..target
    })
}

/// Response text for an address whose port is missing or malformed.
const INVALID_PORT: &str = "write a port from 1 to 65535 after the host";

/// Builds the request for a stream to `target`, isolated as the headers demand.
fn stream_request(
    target: HostPort<'_>,
    headers: &HeaderMap,
) -> Result<request::Request, HttpRejection> {
    let host = target.host;
    if is_own_host_or_below(host) {
        return Err(HttpRejection::Status(
            StatusCode::FORBIDDEN,
            "onionport's pages are at http://onionport.invalid/, over http:// only",
        ));
    }
    if host.len() > MAX_HOST {
        return Err(HttpRejection::Status(
            StatusCode::URI_TOO_LONG,
            "the host name is longer than 255 bytes",
        ));
    }
    let port = target.port.ok_or_else(|| bad_request(INVALID_PORT))?;
    let address =
        name::parse(host.as_bytes()).map_err(|_| HttpRejection::Failure(invalid_host(host)))?;
    Ok(request::Request {
        command: Command::Connect,
        address,
        port,
        protocol: Protocol::Http,
        credentials: credentials(headers),
        family: headers
            .get(FAMILY)
            .map(|value| parse_family(value.as_bytes())),
    })
}

/// Returns the failure of a host that is not a valid name or address.
fn invalid_host(host: &str) -> Failure {
    match crate::request::target::Target::parse(&Address::Name(host.into())) {
        Err(failure) => failure,
        Ok(_) => Failure::DestinationInvalid,
    }
}

/// Returns what isolates a client: the whole of `Proxy-Authorization`, whatever user it names, and both
/// spellings of `Tor-Stream-Isolation`.
pub(super) fn credentials(headers: &HeaderMap) -> Option<ClientCredentials> {
    let join = |names: &[&str]| {
        let mut all = Vec::new();
        for (number, name) in names.iter().enumerate() {
            for value in headers.get_all(*name) {
                // No header value contains this byte, so different lists never join to the same bytes.
                all.push(u8::try_from(number).unwrap_or(u8::MAX));
                all.extend_from_slice(value.as_bytes());
            }
        }
        all
    };
    ClientCredentials::new(
        &join(&[PROXY_AUTHORIZATION.as_str()]),
        &join(&[ISOLATION, OLD_ISOLATION]),
    )
}

/// Parses `Tor-Family-Preference`; an unknown value counts as `ipv4-preferred`.
fn parse_family(value: &[u8]) -> Family {
    match value.to_ascii_lowercase().as_slice() {
        b"ipv4-only" => Family::V4Only,
        b"ipv6-only" => Family::V6Only,
        b"ipv6-preferred" => Family::V6Preferred,
        _ => Family::V4Preferred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a valid request")
    }

    fn tunnel_to(target: &str) -> Result<(Address, u16), HttpRejection> {
        match classify(&request("CONNECT", target, &[]))? {
            RequestKind::Tunnel(stream) => Ok((stream.address, stream.port)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_for_a_path_is_answered_only_if_its_host_header_names_this_computer() {
        for host in [
            "localhost",
            "LOCALHOST:9080",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:9080",
            "127.9.8.7:1",
            "[::1]",
            "[::1]:9080",
        ] {
            let kind = classify(&request("GET", "/", &[("host", host)]));
            assert!(matches!(kind, Ok(RequestKind::Direct)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example@127.0.0.1",
            "127.0.0.1@evil.example",
            "::1",
            "[::2]",
            "[::ffff:1.2.3.4]",
            "128.0.0.1",
            "0.0.0.0",
            "0x7f.1",
            "onionport.invalid",
            "",
            " ",
            "127.0.0.1, evil.example",
            "127.0.0.1:",
            "127.0.0.1:+80",
            "[::1]x:80",
            "localhost:port",
        ] {
            let rejection = classify(&request("GET", "/", &[("host", host)])).expect_err(host);
            assert_eq!(rejection, HttpRejection::NoResponse, "{host}");
        }
        let missing = classify(&request("GET", "/", &[])).expect_err("no Host");
        assert_eq!(missing, HttpRejection::NoResponse);
        let both = [("host", "localhost"), ("host", "evil.example")];
        let two = classify(&request("GET", "/", &both)).expect_err("two");
        assert_eq!(two, HttpRejection::NoResponse);
    }

    #[test]
    fn a_tunnel_needs_a_host_and_a_port() {
        let name = |text: &str| Address::Name(text.into());
        let ip = |text: &str| Address::Ip(text.parse().expect("an IP address"));
        for (target, address, port) in [
            ("good.example:443", name("good.example"), 443),
            ("a_b.example.:1", name("a_b.example."), 1),
            ("192.0.2.1:80", ip("192.0.2.1"), 80),
            ("[2001:db8::1]:80", ip("2001:db8::1"), 80),
        ] {
            assert_eq!(tunnel_to(target), Ok((address, port)), "{target}");
        }
        for target in [
            "good.example",
            "good.example:",
            "good.example:0",
            "good.example:+80",
            "[2001:db8::1]x:81",
            "[::1]",
            "http://good.example:80",
            "http://good.example:80/",
            "/good.example:80",
            "me@good.example:80",
        ] {
            let rejected = tunnel_to(target).expect_err(target);
            assert!(
                matches!(rejected, HttpRejection::Status(StatusCode::BAD_REQUEST, _)),
                "{target}: {rejected:?}"
            );
        }
        let long = format!("{}:80", "a".repeat(256));
        assert!(matches!(
            tunnel_to(&long),
            Err(HttpRejection::Status(StatusCode::URI_TOO_LONG, _))
        ));
        for (target, failure) in [
            ("-a.onion:80", Failure::AddressInvalid),
            ("-a.example:80", Failure::DestinationInvalid),
        ] {
            assert_eq!(
                tunnel_to(target),
                Err(HttpRejection::Failure(failure)),
                "{target}"
            );
        }
    }

    #[test]
    fn the_url_in_the_request_line_overrides_the_host_header() {
        let headers = [("host", "other.example")];
        let kind = classify(&request("GET", "http://good.example:81/x?y", &headers));
        let Ok(RequestKind::Forward(forward)) = kind else {
            panic!("{kind:?}");
        };
        assert_eq!(forward.authority, "good.example:81");
        assert_eq!(forward.request.port, 81);
        assert_eq!(forward.url, "http://good.example:81/x?y");
        for (target, headers) in [
            ("https://good.example/", &headers[..]),
            ("ftp://good.example/", &headers),
            ("http://me:pw@good.example/", &headers),
            ("http://good.example:0/", &headers),
            ("http://good.example:+81/", &headers),
            ("http://[2001:db8::1]x:81/", &headers),
            ("http://me@onionport.invalid/", &headers),
            ("http://onionport.invalid:+80/", &headers),
            ("http://good.example/", &[]),
            ("http://good.example/", &[("host", "a"), ("host", "a")]),
            ("http://onionport.invalid:81/", &headers),
        ] {
            let rejected = classify(&request("GET", target, headers)).expect_err(target);
            assert!(
                matches!(rejected, HttpRejection::Status(StatusCode::BAD_REQUEST, _)),
                "{target}: {rejected:?}"
            );
        }
        let Ok(RequestKind::Forward(empty)) =
            classify(&request("GET", "http://good.example:/", &headers))
        else {
            panic!("an empty port means the default one");
        };
        assert_eq!(empty.request.port, 80);
        for target in ["http://onionport.invalid/", "http://ONIONPORT.invalid:80/x"] {
            let kind = classify(&request("GET", target, &headers));
            assert!(matches!(kind, Ok(RequestKind::OwnHost)), "{target}");
        }
    }

    #[test]
    fn hosts_that_resemble_our_own_are_never_sent_to_an_exit() {
        let headers = [("host", "a")];
        for (method, target) in [
            ("GET", "http://onionport.invalid./"),
            ("GET", "http://OnionPort.Invalid.:80/"),
            ("GET", "http://www.onionport.invalid/"),
            ("CONNECT", "onionport.invalid:443"),
            ("CONNECT", "ONIONPORT.invalid:80"),
            ("CONNECT", "a.b.onionport.invalid.:443"),
        ] {
            let rejected = classify(&request(method, target, &headers)).expect_err(target);
            assert!(
                matches!(rejected, HttpRejection::Status(StatusCode::FORBIDDEN, _)),
                "{target}: {rejected:?}"
            );
        }
        for other in [
            "http://notonionport.invalid/",
            "http://onionport.invalid.example/",
        ] {
            let kind = classify(&request("GET", other, &headers));
            assert!(
                matches!(kind, Ok(RequestKind::Forward(_))),
                "{other}: {kind:?}"
            );
        }
    }

    #[test]
    fn credentials_differ_whenever_an_isolation_header_differs() {
        let read = |headers: &[(&str, &str)]| {
            let request = request("CONNECT", "good.example:80", headers);
            credentials(request.headers())
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("host", "a")]), None);
        let all = [
            read(&[("proxy-authorization", "Basic dG9yOmE=")]),
            read(&[("proxy-authorization", "Basic dG9yLWlzbzph")]),
            read(&[("tor-stream-isolation", "a")]),
            read(&[("x-tor-stream-isolation", "a")]),
            read(&[("tor-stream-isolation", "aa")]),
            read(&[("tor-stream-isolation", "a"), ("tor-stream-isolation", "a")]),
            read(&[
                ("tor-stream-isolation", "a"),
                ("x-tor-stream-isolation", "a"),
            ]),
            read(&[("proxy-authorization", "a"), ("tor-stream-isolation", "a")]),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(one.is_some(), "{number}");
            for (other_number, other) in all.iter().enumerate() {
                assert_eq!(
                    one == other,
                    number == other_number,
                    "{number} {other_number}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_family_preference_means_ipv4_preferred() {
        for (value, expected) in [
            ("ipv4-only", Family::V4Only),
            ("IPv6-Only", Family::V6Only),
            ("ipv6-preferred", Family::V6Preferred),
            ("ipv4-preferred", Family::V4Preferred),
            ("nonsense", Family::V4Preferred),
        ] {
            let kind = classify(&request("CONNECT", "a.example:80", &[(FAMILY, value)]));
            let Ok(RequestKind::Tunnel(stream)) = kind else {
                panic!("{kind:?}");
            };
            assert_eq!(stream.family, Some(expected), "{value}");
        }
    }

    #[test]
    fn a_tunnel_with_a_body_or_an_rpc_target_is_refused() {
        for (header, status) in [
            (("content-length", "5"), StatusCode::BAD_REQUEST),
            (("transfer-encoding", "chunked"), StatusCode::BAD_REQUEST),
            ((RPC_TARGET, "x"), StatusCode::NOT_IMPLEMENTED),
        ] {
            let rejected = classify(&request("CONNECT", "a.example:80", &[header]));
            let Err(HttpRejection::Status(got, _)) = rejected else {
                panic!("{rejected:?}");
            };
            assert_eq!(got, status);
        }
        assert!(
            classify(&request(
                "CONNECT",
                "a.example:80",
                &[("content-length", "0")]
            ))
            .is_ok()
        );
    }
}
