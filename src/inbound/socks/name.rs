//! Which host names a client may request: C tor's rules, not those of RFC 1123.
//!
//! Names in use contain underscores, and clients send IP addresses as host names. The rules are those of C tor's
//! `string_is_valid_dest` and, for text in brackets, of `address_is_invalid_destination`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::request::Address;

/// Why a name was refused. C tor refuses the two in different stages, so the replies have different forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidName {
    /// Neither an IP address nor a host name.
    Form,
    /// Brackets around an IPv4 address or host name; they are valid around an IPv6 address only.
    Brackets,
}

/// Parses the host name of a request: an IPv4 address, an IPv6 address with or without brackets, or a name.
///
/// A name is one or more labels separated by dots, with an optional dot at the end. A label consists of ASCII letters,
/// digits, `-` and `_`, and starts with a letter or digit. Labels have no maximum length. The spelling is kept.
///
/// Zero bytes at the end are dropped: some clients include the terminator of their string. Zero bytes elsewhere are
/// refused: C tor would end the name there, and the client may mean another host.
pub(crate) fn parse(name: &[u8]) -> Result<Address, InvalidName> {
    let end = name
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let text = str::from_utf8(&name[..end]).map_err(|_| InvalidName::Form)?;

    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return match inner.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(Address::Ip(IpAddr::V6(ip))),
            Err(_) if inner.parse::<Ipv4Addr>().is_ok() || is_hostname(inner) => {
                Err(InvalidName::Brackets)
            }
            Err(_) => Err(InvalidName::Form),
        };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Address::Ip(ip));
    }
    if is_hostname(text) {
        Ok(Address::Name(text.into()))
    } else {
        Err(InvalidName::Form)
    }
}

fn is_hostname(text: &str) -> bool {
    text.strip_suffix('.')
        .unwrap_or(text)
        .split('.')
        .all(is_label)
}

fn is_label(label: &str) -> bool {
    label.starts_with(|first: char| first.is_ascii_alphanumeric())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<Address, InvalidName> {
        Ok(Address::Name(text.into()))
    }

    fn ip(text: &str) -> Result<Address, InvalidName> {
        Ok(Address::Ip(text.parse().unwrap()))
    }

    #[test]
    fn names_keep_their_spelling() {
        for text in [
            "a",
            "Example.COM",
            "example.com.",
            "a_b.c-d",
            "a-.b_",
            "1234",
            "1.2.3",
            "1.2.3.004",
            "00.0.0.0",
            "1.2.3.256",
            "1.2.3.4.5",
            "0x7f000001",
            "a_b.onion",
        ] {
            assert_eq!(parse(text.as_bytes()), name(text));
        }
    }

    #[test]
    fn ip_addresses_are_recognised() {
        for (text, address) in [
            ("1.2.3.4", "1.2.3.4"),
            ("0.0.0.0", "0.0.0.0"),
            ("::", "::"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("ABCD::EF", "abcd::ef"),
            ("01:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
            ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
            ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
            ("::1:2:3:4:5:1.2.3.4", "0:1:2:3:4:5:102:304"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        ] {
            assert_eq!(parse(text.as_bytes()), ip(address), "{text}");
        }
    }

    #[test]
    fn text_that_is_neither_name_nor_address_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "a..",
            ".a",
            "-a",
            "_a",
            "a.-b",
            "a b",
            "a%b",
            "a:b",
            "é.example",
            "[",
            "]",
            "[]",
            "[::1",
            "::1]",
            "[[::1]]",
            "[-a]",
            "00001::",
            ":1",
            "1:",
            "::1.2.3",
            "1::2::3",
            "1:2:3:4:5:6:7:8:9",
            "::12345",
            "1:2:3:4:5:6:7::8",
            "0::1:2:3:4:5:6:7",
            "::1:2:3:4:5:6:1.2.3.4",
            "1.2.3.4::",
            "::1.2.3.256",
            "::0x1",
            "fe80::1%eth0",
            " 1.2.3.4",
            "+1.2.3.4",
        ] {
            assert_eq!(parse(text.as_bytes()), Err(InvalidName::Form), "{text}");
        }
        assert_eq!(parse(b"\xff.example"), Err(InvalidName::Form));
    }

    #[test]
    fn brackets_are_valid_around_ipv6_only() {
        for text in ["[1.2.3.4]", "[example.com]", "[a]", "[a.]"] {
            assert_eq!(parse(text.as_bytes()), Err(InvalidName::Brackets), "{text}");
        }
    }

    #[test]
    fn zero_bytes_are_dropped_at_the_end_and_refused_elsewhere() {
        assert_eq!(parse(b"example.com\0"), name("example.com"));
        assert_eq!(parse(b"1.2.3.4\0\0"), ip("1.2.3.4"));
        assert_eq!(parse(b"example.com\0.onion"), Err(InvalidName::Form));
        assert_eq!(parse(b"\0"), Err(InvalidName::Form));
    }
}
