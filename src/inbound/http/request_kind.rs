//! What a request asks for.

use hyper::header::{CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use crate::failure::Failure;
use crate::inbound::socks::name;
pub(super) use crate::request::target::OUR_HOST;
use crate::request::target::is_near_ours;
use crate::request::{self, Address, Command};
use crate::tor::destination::Family;
use crate::tor::isolation::{ClientCredentials, Protocol};
pub(super) use place::Place;

mod place;

/// The longest host name, in bytes: C tor's `MAX_SOCKS_ADDR_LEN`, less its closing zero.
const MAX_HOST: usize = 255;

/// The port of `http://` addresses without one.
const HTTP: u16 = 80;

/// Headers of Tor's HTTP CONNECT specification.
pub(super) const FAMILY: &str = "tor-family-preference";
pub(super) const ISOLATION: &str = "tor-stream-isolation";
pub(super) const OLD_ISOLATION: &str = "x-tor-stream-isolation";
pub(super) const RPC_TARGET: &str = "tor-rpc-target";

/// What a client wants.
#[derive(Debug)]
pub(super) enum RequestKind {
    /// A tunnel.
    Tunnel(request::Request),
    /// A site's answer.
    Forward(Wanted),
    /// A page of ours, through the proxy.
    Proxied,
    /// A page of ours, straight from the port.
    Direct,
}

/// A request to be passed on.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The stream to open for it.
    pub(super) request: request::Request,
    /// What to write as its `Host`.
    pub(super) authority: Authority,
    /// The whole address, as the client wrote it.
    pub(super) url: String,
}

/// Why a request is not served at all.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was not meant for us: it gets no answer.
    Silence,
    /// It makes no sense, or asks for what there is not.
    Status(StatusCode, &'static str),
    /// Its destination is none.
    Failure(Failure),
}

/// Finds out what a request asks for.
pub(super) fn ask<B>(request: &Request<B>) -> Result<RequestKind, Refusal> {
    let (uri, headers) = (request.uri(), request.headers());
    if request.method() == Method::CONNECT {
        return tunnel(uri, headers).map(RequestKind::Tunnel);
    }
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) => {
            check_host(request)?;
            let place = place(authority, Some(HTTP))?;
            if place.host.eq_ignore_ascii_case(OUR_HOST) {
                return match place.port {
                    None | Some(HTTP) => Ok(RequestKind::Proxied),
                    Some(_) => Err(bad("this host has one port, 80")),
                };
            }
            Ok(RequestKind::Forward(Wanted {
                request: connect(place, headers)?,
                authority: authority.clone(),
                url: uri.to_string(),
            }))
        }
        (Some(_), _) => Err(bad(
            "only http:// addresses are passed on: use CONNECT for others",
        )),
        (None, _) => match one_host(headers) {
            Some(host) if Place::read(host).is_some_and(|host| host.is_loopback()) => {
                Ok(RequestKind::Direct)
            }
            _ => Err(Refusal::Silence),
        },
    }
}

fn bad(why: &'static str) -> Refusal {
    Refusal::Status(StatusCode::BAD_REQUEST, why)
}

/// RFC 9110 section 9.3.6.
fn tunnel(uri: &Uri, headers: &HeaderMap) -> Result<request::Request, Refusal> {
    if headers.contains_key(RPC_TARGET) {
        let why = "there is no RPC here";
        return Err(Refusal::Status(StatusCode::NOT_IMPLEMENTED, why));
    }
    let length = headers.get(CONTENT_LENGTH).map(|length| length.as_bytes());
    if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0") {
        return Err(bad("a CONNECT request has no body"));
    }
    match (uri.scheme(), uri.authority(), uri.path_and_query()) {
        (None, Some(authority), None) => connect(place(authority, None)?, headers),
        _ => Err(bad("CONNECT takes a host and a port")),
    }
}

/// RFC 9112 section 3.2: an HTTP/1.1 request has one `Host`, though the address in its first line
/// counts more.
fn check_host<B>(request: &Request<B>) -> Result<(), Refusal> {
    match request.headers().get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if request.version() < Version::HTTP_11 => Ok(()),
        _ => Err(bad("a request has one Host")),
    }
}

/// The only `Host`.
fn one_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// The host and port of an address; `default_port` is used where it has none.
fn place(authority: &Authority, default_port: Option<u16>) -> Result<Place<'_>, Refusal> {
    let text = authority.as_str();
    if text.contains('@') {
        return Err(bad("an address with a user name is not passed on"));
    }
    // An empty port is the default one (RFC 3986 section 3.2.3); for CONNECT there is none.
    let place = match default_port {
        Some(_) => Place::read(text.strip_suffix(':').unwrap_or(text)),
        None => Place::read(text),
    };
    let place = place.ok_or_else(|| bad(PORT))?;
    Ok(Place {
        port: place.port.or(default_port),
        ..place
    })
}

/// What to do about an address whose port cannot be read.
const PORT: &str = "write a port from 1 to 65535 behind the host";

/// The stream that a place and the headers of a request ask for.
fn connect(place: Place<'_>, headers: &HeaderMap) -> Result<request::Request, Refusal> {
    let host = place.host;
    if is_near_ours(host) {
        return Err(Refusal::Status(
            StatusCode::FORBIDDEN,
            "the pages of onionport are at http://onionport.invalid/, with http:// only",
        ));
    }
    if host.len() > MAX_HOST {
        return Err(Refusal::Status(
            StatusCode::URI_TOO_LONG,
            "no host name is that long",
        ));
    }
    let port = place.port.ok_or_else(|| bad(PORT))?;
    let address = name::parse(host.as_bytes()).map_err(|_| Refusal::Failure(invalid(host)))?;
    Ok(request::Request {
        command: Command::Connect,
        address,
        port,
        protocol: Protocol::Http,
        credentials: credentials(headers),
        family: headers.get(FAMILY).map(|value| family(value.as_bytes())),
    })
}

/// Why something that is no host name is none.
fn invalid(host: &str) -> Failure {
    match crate::request::target::Target::parse(&Address::Name(host.into())) {
        Err(failure) => failure,
        Ok(_) => Failure::DestinationInvalid,
    }
}

/// What isolates: the whole `Proxy-Authorization`, whatever user it names, and both spellings of
/// `Tor-Stream-Isolation`.
pub(super) fn credentials(headers: &HeaderMap) -> Option<ClientCredentials> {
    let joined = |names: &[&str]| {
        let mut all = Vec::new();
        for (number, name) in names.iter().enumerate() {
            for value in headers.get_all(*name) {
                // No header value holds such a byte: two lists never look alike.
                all.push(u8::try_from(number).unwrap_or(u8::MAX));
                all.extend_from_slice(value.as_bytes());
            }
        }
        all
    };
    ClientCredentials::new(
        &joined(&[PROXY_AUTHORIZATION.as_str()]),
        &joined(&[ISOLATION, OLD_ISOLATION]),
    )
}

/// `Tor-Family-Preference`; what is not known counts as `ipv4-preferred`.
fn family(value: &[u8]) -> Family {
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
        request.body(()).expect("a request")
    }

    fn tunnel_to(target: &str) -> Result<(Address, u16), Refusal> {
        match ask(&request("CONNECT", target, &[]))? {
            RequestKind::Tunnel(wanted) => Ok((wanted.address, wanted.port)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_without_a_host_in_its_address_is_for_us_only_if_its_host_is_this_computer() {
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
            let asked = ask(&request("GET", "/", &[("host", host)]));
            assert!(matches!(asked, Ok(RequestKind::Direct)), "{host}");
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
            let asked = ask(&request("GET", "/", &[("host", host)])).expect_err(host);
            assert_eq!(asked, Refusal::Silence, "{host}");
        }
        let none = ask(&request("GET", "/", &[])).expect_err("no Host");
        assert_eq!(none, Refusal::Silence);
        let both = [("host", "localhost"), ("host", "evil.example")];
        let two = ask(&request("GET", "/", &both)).expect_err("two");
        assert_eq!(two, Refusal::Silence);
    }

    #[test]
    fn a_tunnel_needs_a_host_and_a_port() {
        let name = |text: &str| Address::Name(text.into());
        let ip = |text: &str| Address::Ip(text.parse().expect("an address"));
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
            let refused = tunnel_to(target).expect_err(target);
            assert!(
                matches!(refused, Refusal::Status(StatusCode::BAD_REQUEST, _)),
                "{target}: {refused:?}"
            );
        }
        let long = format!("{}:80", "a".repeat(256));
        assert!(matches!(
            tunnel_to(&long),
            Err(Refusal::Status(StatusCode::URI_TOO_LONG, _))
        ));
        for (target, failure) in [
            ("-a.onion:80", Failure::AddressInvalid),
            ("-a.example:80", Failure::DestinationInvalid),
        ] {
            assert_eq!(
                tunnel_to(target),
                Err(Refusal::Failure(failure)),
                "{target}"
            );
        }
    }

    #[test]
    fn the_address_of_a_plain_request_is_that_of_its_first_line() {
        let headers = [("host", "other.example")];
        let asked = ask(&request("GET", "http://good.example:81/x?y", &headers));
        let Ok(RequestKind::Forward(wanted)) = asked else {
            panic!("{asked:?}");
        };
        assert_eq!(wanted.authority, "good.example:81");
        assert_eq!(wanted.request.port, 81);
        assert_eq!(wanted.url, "http://good.example:81/x?y");
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
            let refused = ask(&request("GET", target, headers)).expect_err(target);
            assert!(
                matches!(refused, Refusal::Status(StatusCode::BAD_REQUEST, _)),
                "{target}: {refused:?}"
            );
        }
        let Ok(RequestKind::Forward(empty)) =
            ask(&request("GET", "http://good.example:/", &headers))
        else {
            panic!("an empty port is the default one");
        };
        assert_eq!(empty.request.port, 80);
        for target in ["http://onionport.invalid/", "http://ONIONPORT.invalid:80/x"] {
            let asked = ask(&request("GET", target, &headers));
            assert!(matches!(asked, Ok(RequestKind::Proxied)), "{target}");
        }
    }

    #[test]
    fn no_exit_is_asked_for_anything_that_looks_like_our_own_pages() {
        let headers = [("host", "a")];
        for (method, target) in [
            ("GET", "http://onionport.invalid./"),
            ("GET", "http://OnionPort.Invalid.:80/"),
            ("GET", "http://www.onionport.invalid/"),
            ("CONNECT", "onionport.invalid:443"),
            ("CONNECT", "ONIONPORT.invalid:80"),
            ("CONNECT", "a.b.onionport.invalid.:443"),
        ] {
            let refused = ask(&request(method, target, &headers)).expect_err(target);
            assert!(
                matches!(refused, Refusal::Status(StatusCode::FORBIDDEN, _)),
                "{target}: {refused:?}"
            );
        }
        for other in [
            "http://notonionport.invalid/",
            "http://onionport.invalid.example/",
        ] {
            let asked = ask(&request("GET", other, &headers));
            assert!(
                matches!(asked, Ok(RequestKind::Forward(_))),
                "{other}: {asked:?}"
            );
        }
    }

    #[test]
    fn what_isolates_differs_whenever_a_header_differs() {
        let of = |headers: &[(&str, &str)]| {
            let request = request("CONNECT", "good.example:80", headers);
            credentials(request.headers())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("host", "a")]), None);
        let all = [
            of(&[("proxy-authorization", "Basic dG9yOmE=")]),
            of(&[("proxy-authorization", "Basic dG9yLWlzbzph")]),
            of(&[("tor-stream-isolation", "a")]),
            of(&[("x-tor-stream-isolation", "a")]),
            of(&[("tor-stream-isolation", "aa")]),
            of(&[("tor-stream-isolation", "a"), ("tor-stream-isolation", "a")]),
            of(&[
                ("tor-stream-isolation", "a"),
                ("x-tor-stream-isolation", "a"),
            ]),
            of(&[("proxy-authorization", "a"), ("tor-stream-isolation", "a")]),
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
    fn an_unknown_family_is_ipv4_preferred() {
        for (value, expected) in [
            ("ipv4-only", Family::V4Only),
            ("IPv6-Only", Family::V6Only),
            ("ipv6-preferred", Family::V6Preferred),
            ("ipv4-preferred", Family::V4Preferred),
            ("nonsense", Family::V4Preferred),
        ] {
            let asked = ask(&request("CONNECT", "a.example:80", &[(FAMILY, value)]));
            let Ok(RequestKind::Tunnel(wanted)) = asked else {
                panic!("{asked:?}");
            };
            assert_eq!(wanted.family, Some(expected), "{value}");
        }
    }

    #[test]
    fn a_tunnel_with_a_body_or_an_rpc_target_is_refused() {
        for (header, status) in [
            (("content-length", "5"), StatusCode::BAD_REQUEST),
            (("transfer-encoding", "chunked"), StatusCode::BAD_REQUEST),
            ((RPC_TARGET, "x"), StatusCode::NOT_IMPLEMENTED),
        ] {
            let refused = ask(&request("CONNECT", "a.example:80", &[header]));
            let Err(Refusal::Status(got, _)) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(got, status);
        }
        assert!(
            ask(&request(
                "CONNECT",
                "a.example:80",
                &[("content-length", "0")]
            ))
            .is_ok()
        );
    }
}
