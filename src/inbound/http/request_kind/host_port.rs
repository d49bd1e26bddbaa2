//! A host with an optional port, as in URLs and in `Host`.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

/// A host and its port, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbound::http) struct HostPort<'a> {
    /// The host as written; an IPv6 address includes its brackets.
    pub(in crate::inbound::http) host: &'a str,
    pub(in crate::inbound::http) port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Parses `host`, `host:port`, `[IPv6]` or `[IPv6]:port` (RFC 3986 section 3.2, without the user
    /// information). Does not check whether the host is a valid name.
    ///
    /// A port has one to five digits and is from 1 to 65535. Returns `None` for an empty port, a sign,
    /// or anything else after the bracket, so that client and proxy never read different ports.
    pub(in crate::inbound::http) fn parse(text: &'a str) -> Option<HostPort<'a>> {
        let end = match text.strip_prefix('[') {
            Some(inner) => inner.find(']')? + "[]".len(),
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(end);
        if host.is_empty() || host.contains('@') {
            return None;
        }
        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(parse_port(digits)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(HostPort { host, port })
    }

    /// Whether the host is this computer: `localhost`, 127.0.0.0/8 or `[::1]`.
    pub(in crate::inbound::http) fn is_loopback(&self) -> bool {
        let host = self.host;
        if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback());
        }
        host.eq_ignore_ascii_case("localhost")
            || host.eq_ignore_ascii_case("localhost.")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    const MAX_DIGITS: usize = 5;
    let well_formed = digits.len() <= MAX_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    // Fails for an empty port.
    let port: NonZeroU16 = digits.parse().ok()?;
    well_formed.then_some(port.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_parsed_strictly() {
        for (text, host, port) in [
            ("good.example", "good.example", None),
            ("good.example:1", "good.example", Some(1)),
            ("good.example:00080", "good.example", Some(80)),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[2001:db8::1]:81", "[2001:db8::1]", Some(81)),
        ] {
            assert_eq!(
                HostPort::parse(text),
                Some(HostPort { host, port }),
                "{text}"
            );
        }
        for text in [
            "",
            ":80",
            "good.example:",
            "good.example:0",
            "good.example:+80",
            "good.example:-1",
            "good.example: 80",
            "good.example:80 ",
            "good.example:000080",
            "good.example:65536",
            "good.example:80:80",
            "::1",
            "[::1",
            "[::1]:",
            "[::1]x",
            "[2001:db8::1]x:81",
            "[::1]]:80",
            "me@good.example:80",
            "me:80@good.example",
            "me:pw@good.example:80",
        ] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }
}
