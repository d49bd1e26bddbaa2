//! Replies to SOCKS requests, byte for byte as in C tor, and the page for clients that speak HTTP. The
//! replies before a request (method choice, authentication) are built in `v5`.
//!
//! SOCKS5 replies (RFC 1928, section 6) are `05 code 00 type address port(2)`, SOCKS4 replies `00 code port(2) ip(4)`.
//! The bound address in the reply to a CONNECT is always zero. Its type follows the family of the *client's* address,
//! not the request: clients on IPv4 get 10 bytes, all others (IPv6, Unix sockets) 22.

use std::net::IpAddr;

use super::request::Version;
use crate::request::{Answer, ClientAddr, Command};

/// SOCKS5 `00`: succeeded.
pub const SUCCEEDED: u8 = 0x00;
/// SOCKS5 `01`: general SOCKS server failure.
pub(crate) const GENERAL_FAILURE: u8 = 0x01;
/// SOCKS5 `02`: connection not allowed by ruleset.
pub(crate) const NOT_ALLOWED: u8 = 0x02;
/// SOCKS5 `04`: host unreachable; the only code of failed lookups.
pub(crate) const HOST_UNREACHABLE: u8 = 0x04;
/// SOCKS5 `07`: command not supported.
pub(crate) const COMMAND_NOT_SUPPORTED: u8 = 0x07;
/// SOCKS5 `08`: address type not supported.
pub(crate) const ADDRESS_TYPE_NOT_SUPPORTED: u8 = 0x08;

/// SOCKS4 `5A`: request granted.
const SOCKS4_GRANTED: u8 = 0x5A;
/// SOCKS4 `5B`: request rejected or failed; the only code of failures.
const SOCKS4_REJECTED: u8 = 0x5B;

/// The address family that a client connects from. SOCKS5 CONNECT replies contain a zero address of
/// this family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFamily {
    /// IPv4: replies of 10 bytes, ATYP 1.
    V4,
    /// IPv6 and Unix sockets: replies of 22 bytes, ATYP 4.
    Other,
}

impl From<ClientAddr> for ClientFamily {
    fn from(client_addr: ClientAddr) -> Self {
        match client_addr {
            ClientAddr::Ip(ip) if ip.is_ipv4() => Self::V4,
            ClientAddr::Ip(_) | ClientAddr::Unix => Self::Other,
        }
    }
}

/// Builds the reply to a CONNECT. `code` is the SOCKS5 reply code: [`SUCCEEDED`], or a failure (including
/// the onion-service codes F0 to F7), which SOCKS4 replies do not distinguish.
pub(crate) fn connect_reply(version: Version, code: u8, client: ClientFamily) -> Vec<u8> {
    match (version, client) {
        (Version::V4 | Version::V4a, _) => {
            let code = if code == SUCCEEDED {
                SOCKS4_GRANTED
            } else {
                SOCKS4_REJECTED
            };
            socks4(code, [0; 4])
        }
        (Version::V5, ClientFamily::V4) => socks5(code, 1, &[0; 4]),
        (Version::V5, ClientFamily::Other) => socks5(code, 4, &[0; 16]),
    }
}

/// Builds the reply to a RESOLVE or RESOLVE_PTR that succeeded (socks-extensions). The port is 0.
///
/// SOCKS4 replies can hold an IPv4 address only, and SOCKS5 replies a name of at most 255 bytes. For other answers,
/// builds a failure.
pub(crate) fn resolve_reply(version: Version, answer: &Answer) -> Vec<u8> {
    match (version, answer) {
        (Version::V4 | Version::V4a, Answer::Ip(IpAddr::V4(ip))) => {
            socks4(SOCKS4_GRANTED, ip.octets())
        }
        (Version::V5, Answer::Ip(IpAddr::V4(ip))) => socks5(SUCCEEDED, 1, &ip.octets()),
        (Version::V5, Answer::Ip(IpAddr::V6(ip))) => socks5(SUCCEEDED, 4, &ip.octets()),
        (Version::V5, Answer::Name(name)) => match u8::try_from(name.len()) {
            Ok(len) => socks5(SUCCEEDED, 3, &[&[len], name.as_bytes()].concat()),
            Err(_) => resolve_failure(version),
        },
        (Version::V4 | Version::V4a, Answer::Ip(IpAddr::V6(_)) | Answer::Name(_)) => {
            resolve_failure(version)
        }
    }
}

/// Builds the reply to a RESOLVE or RESOLVE_PTR that failed, whatever the reason and the port's flags: `05 04` and
/// eight zeros, so that even the address type is 0.
pub(crate) fn resolve_failure(version: Version) -> Vec<u8> {
    match version {
        Version::V4 | Version::V4a => socks4(SOCKS4_REJECTED, [0; 4]),
        Version::V5 => socks5(HOST_UNREACHABLE, 0, &[0; 4]),
    }
}

/// Builds the reply to a failed request: [`connect_reply`] or [`resolve_failure`], by its command.
pub(crate) fn failure_reply(
    version: Version,
    command: Command,
    code: u8,
    client: ClientFamily,
) -> Vec<u8> {
    match command {
        Command::Connect => connect_reply(version, code, client),
        Command::Resolve | Command::ResolvePtr => resolve_failure(version),
    }
}

/// Returns the page for a browser that takes this port for an HTTP proxy. The status line is C tor's, because health
/// checks search for it.
pub(crate) fn not_an_http_proxy() -> Vec<u8> {
    NOT_AN_HTTP_PROXY.replace('\n', "\r\n").into_bytes()
}

const NOT_AN_HTTP_PROXY: &str = "\
HTTP/1.0 501 Tor is not an HTTP Proxy
Content-Type: text/html; charset=utf-8
Connection: close

<!DOCTYPE html>
<html>
<head><title>This is a SOCKS proxy, not an HTTP proxy</title></head>
<body>
<h1>This is a SOCKS proxy, not an HTTP proxy</h1>
<p>Your browser or program sent an HTTP request to a Tor SOCKS port. It is probably set up to use
this address and port as an HTTP proxy.</p>
<p>In its proxy settings, clear the fields for the HTTP and HTTPS proxy, and enter this address and port as
the <b>SOCKS host</b>, version 5. Let it resolve host names through the proxy: in Firefox that is
&ldquo;Proxy DNS when using SOCKS v5&rdquo;, in other programs the proxy address starts with
<code>socks5h://</code>.</p>
<p>A program that knows HTTP proxies only needs an <code>HTTPTunnelPort</code>, which is another port.</p>
</body>
</html>
";

fn socks4(code: u8, ip: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0, code, 0, 0];
    bytes.extend(ip);
    bytes
}

fn socks5(code: u8, address_type: u8, address: &[u8]) -> Vec<u8> {
    let mut bytes = vec![5, code, 0, address_type];
    bytes.extend(address);
    bytes.extend([0, 0]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: Vec<u8>) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn name(text: &str) -> Answer {
        Answer::Name(text.to_owned())
    }

    #[test]
    fn a_socks5_client_on_ipv4_gets_10_bytes() {
        let reply = |code| hex(connect_reply(Version::V5, code, ClientFamily::V4));
        assert_eq!(
            reply(SUCCEEDED),
            "05 00 00 01 00000000 0000".replace(' ', "")
        );
        assert_eq!(reply(0xF6), "05 f6 00 01 00000000 0000".replace(' ', ""));
    }

    #[test]
    fn a_socks5_client_not_on_ipv4_gets_22_bytes() {
        let reply = hex(connect_reply(Version::V5, SUCCEEDED, ClientFamily::Other));
        assert_eq!(
            reply,
            "05 00 00 04 00000000000000000000000000000000 0000".replace(' ', "")
        );
    }

    #[test]
    fn a_socks4_reply_is_granted_or_rejected() {
        for version in [Version::V4, Version::V4a] {
            for client in [ClientFamily::V4, ClientFamily::Other] {
                let reply = |code| hex(connect_reply(version, code, client));
                assert_eq!(reply(SUCCEEDED), "00 5a 0000 00000000".replace(' ', ""));
                assert_eq!(reply(NOT_ALLOWED), "00 5b 0000 00000000".replace(' ', ""));
                assert_eq!(reply(0xF0), "00 5b 0000 00000000".replace(' ', ""));
            }
        }
    }

    #[test]
    fn a_resolved_name_is_preceded_by_its_length() {
        let reply = hex(resolve_reply(Version::V5, &name("a.bc")));
        assert_eq!(reply, "05 00 00 03 04 612e6263 0000".replace(' ', ""));
    }

    #[test]
    fn an_answer_that_does_not_fit_into_the_reply_is_a_failure() {
        let long = name(&"a".repeat(256));
        assert_eq!(
            resolve_reply(Version::V5, &long),
            resolve_failure(Version::V5)
        );
        assert_eq!(
            resolve_reply(Version::V4, &name("a")),
            resolve_failure(Version::V4)
        );
        assert_eq!(
            resolve_reply(Version::V5, &name(&"a".repeat(255))).len(),
            4 + 1 + 255 + 2
        );
    }

    #[test]
    fn a_failed_lookup_has_no_address_type() {
        assert_eq!(
            hex(resolve_failure(Version::V5)),
            "05 04 00 00 00000000 0000".replace(' ', "")
        );
        assert_eq!(
            hex(resolve_failure(Version::V4a)),
            "00 5b 0000 00000000".replace(' ', "")
        );
    }

    #[test]
    fn a_failed_connect_has_the_failures_code_and_a_failed_lookup_has_not() {
        let reply = |command| failure_reply(Version::V5, command, 0xF6, ClientFamily::V4);
        assert_eq!(
            reply(Command::Connect),
            connect_reply(Version::V5, 0xF6, ClientFamily::V4)
        );
        assert_eq!(reply(Command::Resolve), resolve_failure(Version::V5));
        assert_eq!(reply(Command::ResolvePtr), resolve_failure(Version::V5));
    }

    #[test]
    fn the_page_names_the_mistake_and_the_remedy() {
        let page = String::from_utf8(not_an_http_proxy()).unwrap();
        assert!(
            page.starts_with("HTTP/1.0 501 Tor is not an HTTP Proxy\r\nContent-Type: text/html")
        );
        assert!(page.contains("\r\n\r\n<!DOCTYPE html>"));
        assert!(page.contains("SOCKS host") && page.contains("HTTPTunnelPort"));
        assert!(page.is_ascii());
    }
}
