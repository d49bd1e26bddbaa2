//! Names and IP addresses as the address map compares them.

use std::net::IpAddr;

/// The longest host name, in bytes, as in SOCKS5.
pub(super) const MAX_NAME_LEN: usize = 255;

/// Returns the spelling in which addresses are compared: IP addresses without brackets, names in
/// lower case.
pub(crate) fn canonicalize(name: &str) -> String {
    match parse_ip(name) {
        Some(ip) => ip.to_string(),
        None => name.to_ascii_lowercase(),
    }
}

/// Parses an IP address; an IPv6 address may have brackets.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}
