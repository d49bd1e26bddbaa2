//! Which host names a client may ask for: C tor's rules, not RFC 1123's.
//!
//! Names out in the wild have underscores, and clients write IP addresses where a name belongs. The rules are those
//! of C tor's `string_is_valid_dest` and, for what that lets by in brackets, `address_is_invalid_destination`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Address;

/// Why a name was refused. The two differ in who refuses them in C tor, and so in the shape of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// Neither an IP address nor a host name.
    Form,
    /// Brackets around something that would be valid without them, but is no IPv6 address.
    Brackets,
}

/// Reads what a client wrote as a host name: an IPv4 address, an IPv6 address with or without brackets, or a name.
///
/// A name is one or more labels between dots, perhaps with one more dot at the end. A label is made of ASCII letters,
/// digits, `-` and `_`, and starts with a letter or digit. Label lengths are not limited. The spelling is kept.
///
/// Zero bytes at the end are dropped: some clients count the terminator of their string. One inside is refused;
/// C tor would read the name up to there, so that the client and Tor could mean different hosts.
pub(crate) fn parse(written: &[u8]) -> Result<Address, Invalid> {
    let end = written
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let text = str::from_utf8(&written[..end]).map_err(|_| Invalid::Form)?;

    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return match inner.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(Address::Ip(IpAddr::V6(ip))),
            Err(_) if inner.parse::<Ipv4Addr>().is_ok() || is_hostname(inner) => {
                Err(Invalid::Brackets)
            }
            Err(_) => Err(Invalid::Form),
        };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Address::Ip(ip));
    }
    if is_hostname(text) {
        Ok(Address::Name(text.into()))
    } else {
        Err(Invalid::Form)
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

    fn name(text: &str) -> Result<Address, Invalid> {
        Ok(Address::Name(text.into()))
    }

    fn ip(text: &str) -> Result<Address, Invalid> {
        Ok(Address::Ip(text.parse().unwrap()))
    }

    #[test]
    fn names_keep_their_spelling() {
        for written in [
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
            assert_eq!(parse(written.as_bytes()), name(written));
        }
    }

    #[test]
    fn ip_addresses_are_read_as_such() {
        for (written, meant) in [
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
            assert_eq!(parse(written.as_bytes()), ip(meant), "{written}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for written in [
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
            assert_eq!(parse(written.as_bytes()), Err(Invalid::Form), "{written}");
        }
        assert_eq!(parse(b"\xff.example"), Err(Invalid::Form));
    }

    #[test]
    fn brackets_belong_to_ipv6_only() {
        for written in ["[1.2.3.4]", "[example.com]", "[a]", "[a.]"] {
            assert_eq!(
                parse(written.as_bytes()),
                Err(Invalid::Brackets),
                "{written}"
            );
        }
    }

    #[test]
    fn zero_bytes_are_dropped_at_the_end_and_refused_inside() {
        assert_eq!(parse(b"example.com\0"), name("example.com"));
        assert_eq!(parse(b"1.2.3.4\0\0"), ip("1.2.3.4"));
        assert_eq!(parse(b"example.com\0.onion"), Err(Invalid::Form));
        assert_eq!(parse(b"\0"), Err(Invalid::Form));
    }
}
