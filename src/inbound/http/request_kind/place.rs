//! A host and its port, as they stand in addresses and in `Host`.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

/// A host, and perhaps a port behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbound::http) struct Place<'a> {
    /// The host as it was written, an IPv6 address with its brackets.
    pub(in crate::inbound::http) host: &'a str,
    pub(in crate::inbound::http) port: Option<u16>,
}

impl<'a> Place<'a> {
    /// Reads `host`, `host:port`, `[IPv6]` or `[IPv6]:port` (RFC 3986 section 3.2, without the user).
    ///
    /// A port is one to five digits from 1 to 65535: an empty one, a sign, or anything else behind
    /// the bracket makes it no place at all, so that nobody reads another port out of it than the
    /// client does. Whether the host is a good one is not looked at.
    pub(in crate::inbound::http) fn read(text: &'a str) -> Option<Place<'a>> {
        let end = match text.strip_prefix('[') {
            Some(inner) => inner.find(']')? + "[]".len(),
            None => text.find(':').unwrap_or(text.len()),
        };
        let (host, behind) = text.split_at(end);
        if host.is_empty() || host.contains('@') {
            return None;
        }
        let port = match behind.strip_prefix(':') {
            Some(digits) => Some(port(digits)?),
            None if behind.is_empty() => None,
            None => return None,
        };
        Some(Place { host, port })
    }

    /// Whether it is this computer, however it is written: `localhost`, 127.0.0.0/8 or `[::1]`.
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

fn port(digits: &str) -> Option<u16> {
    const MOST: usize = 5;
    let good = digits.len() <= MOST && digits.bytes().all(|b| b.is_ascii_digit());
    // Without a digit there is no number.
    let port: NonZeroU16 = digits.parse().ok()?;
    good.then_some(port.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_read_strictly() {
        for (text, host, port) in [
            ("good.example", "good.example", None),
            ("good.example:1", "good.example", Some(1)),
            ("good.example:00080", "good.example", Some(80)),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[2001:db8::1]:81", "[2001:db8::1]", Some(81)),
        ] {
            assert_eq!(Place::read(text), Some(Place { host, port }), "{text}");
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
            assert_eq!(Place::read(text), None, "{text}");
        }
    }
}
