//! `[channel]`, `[address_filter]`, `[path_rules]` and the other tables for the way into and through
//! the network.

use std::net::{IpAddr, SocketAddr};

use super::super::assign::{Said, Values};
use super::super::document::Document;
use super::super::error::TorrcError;
use super::{MAX_TIMEOUT, bad, from, number, port_numbers, reachable};

/// The proxies that arti knows too: the option, the scheme, and the port if none is written.
const PROXIES: &[(&str, &str, u16)] = &[
    ("HTTPSProxy", "http", 443),
    ("Socks4Proxy", "socks4", 1080),
    ("Socks5Proxy", "socks5", 1080),
];
/// The shortest `CircuitStreamTimeout` and `MaxCircuitDirtiness` of C tor, in seconds.
const MIN_SECONDS: i64 = 10;
/// The longest `MaxCircuitDirtiness` of C tor, in seconds.
const MAX_DIRTINESS: i64 = 30 * 24 * 60 * 60;
/// One bit more than an address has: no two relays are then of one family by their addresses.
const NO_FAMILY: (i64, i64) = (33, 129);

/// Fills the tables.
pub(super) fn serve(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    padding(values, document);
    proxy(values, document)?;
    for (option, key) in [
        (
            "ClientRejectInternalAddresses",
            "address_filter.allow_local_addrs",
        ),
        (
            "ClientDNSRejectInternalAddresses",
            "address_filter.allow_resolving_local_addrs",
        ),
    ] {
        if let Some(said) = values.one(option) {
            document.set(key, said.value != "1", from(said));
        }
    }
    let limits = (MIN_SECONDS, MAX_TIMEOUT);
    seconds(
        values,
        document,
        "CircuitStreamTimeout",
        "stream_timeouts.connect_timeout",
        limits,
    )?;
    let limits = (MIN_SECONDS, MAX_DIRTINESS);
    seconds(
        values,
        document,
        "MaxCircuitDirtiness",
        "circuit_timing.max_dirtiness",
        limits,
    )?;
    if let Some(said) = values
        .one("EnforceDistinctSubnets")
        .filter(|s| s.value != "1")
    {
        document.set(
            "path_rules.ipv4_subnet_family_prefix",
            NO_FAMILY.0,
            from(said),
        );
        document.set(
            "path_rules.ipv6_subnet_family_prefix",
            NO_FAMILY.1,
            from(said),
        );
    }
    reachable::serve(values, document)?;
    if let Some(said) = values.one("LongLivedPorts") {
        let ports = port_numbers(said)?;
        let origins = vec![said.place.clone(); ports.len().max(1)];
        document.set("path_rules.long_lived_ports", ports, origins);
    }
    if let Some(said) = values
        .one("VanguardsLiteEnabled")
        .filter(|s| s.value != "auto")
    {
        let mode = if said.value == "1" {
            "lite"
        } else {
            "disabled"
        };
        document.set("vanguards.mode", mode, from(said));
    }
    match values.one("UseDefaultFallbackDirs") {
        Some(said) if said.value != "1" => Err(bad(
            said,
            "arti always begins with a list of fallback directories: remove this line, or write a \
             list of your own in tor_network.fallback_caches, in a file for -c",
        )),
        _ => Ok(()),
    }
}

/// `ConnectionPadding` and `ReducedConnectionPadding`.
fn padding(values: &Values, document: &mut Document) {
    let general = values
        .one("ConnectionPadding")
        .filter(|s| s.value != "auto");
    let reduced = values
        .one("ReducedConnectionPadding")
        .filter(|s| s.value == "1");
    let (said, level) = match (general, reduced) {
        (Some(said), _) if said.value == "0" => (said, "none"),
        (_, Some(said)) => (said, "reduced"),
        (Some(said), None) => (said, "normal"),
        (None, None) => return,
    };
    document.set("channel.padding", level, from(said));
}

/// `HTTPSProxy`, `Socks4Proxy` or `Socks5Proxy`, with name and password.
fn proxy(values: &Values, document: &mut Document) -> Result<(), TorrcError> {
    let mut found: Option<&Said> = None;
    for &(option, scheme, port) in PROXIES {
        let Some(said) = values.one(option).filter(|s| !s.value.is_empty()) else {
            continue;
        };
        if let Some(other) = found {
            return Err(bad(
                said,
                format!("there is {} too: keep one of them", other.name),
            ));
        }
        found = Some(said);
        let address = address(&said.value, port).ok_or_else(|| {
            // There may be a password before the address.
            bad(
                said,
                "the value is not an address for arti, which looks up no names here: write IP:PORT",
            )
        })?;
        if (scheme, address.port()) == ("http", 80) {
            return Err(bad(
                said,
                "arti cannot be told of an HTTP proxy on port 80: let it listen on another port too",
            ));
        }
        let login = login(values, said)?;
        document.set(
            "channel.outbound_proxy",
            format!("{scheme}://{login}{address}"),
            from(said),
        );
    }
    Ok(())
}

/// Why a login to an HTTP proxy is refused: tor-chanmgr 0.47 sends `[scrubbed]:[scrubbed]` in its place.
const NO_HTTP_LOGIN: &str = "arti cannot log in to an HTTP proxy: use Socks5Proxy, or let this computer \
                             in without a login";

/// The name and password for a proxy, as they stand in a URL: empty, or with `@` at the end.
fn login(values: &Values, proxy: &Said) -> Result<String, TorrcError> {
    let text = |name| {
        values
            .one(name)
            .filter(|said: &&Said| !said.value.is_empty())
    };
    match proxy.name {
        "HTTPSProxy" => Ok(match text("HTTPSProxyAuthenticator") {
            None => String::new(),
            Some(said) => return Err(bad(said, NO_HTTP_LOGIN)),
        }),
        "Socks5Proxy" => match (text("Socks5ProxyUsername"), text("Socks5ProxyPassword")) {
            (None, None) => Ok(String::new()),
            (Some(name), Some(word)) => {
                Ok(format!("{}:{}@", encode(&name.value), encode(&word.value)))
            }
            (Some(said), None) | (None, Some(said)) => Err(bad(
                said,
                "Socks5ProxyUsername and Socks5ProxyPassword go together: write both or none",
            )),
        },
        _ => Ok(String::new()),
    }
}

/// Percent-encoding for the name and the password in a URL (RFC 3986, section 2.1).
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An IP address with a port, or with the usual one. `localhost` needs no looking up.
fn address(text: &str, usual: u16) -> Option<SocketAddr> {
    let text = text.to_ascii_lowercase();
    let text = match text.strip_prefix("localhost") {
        Some(port) if port.is_empty() || port.starts_with(':') => format!("127.0.0.1{port}"),
        _ => text,
    };
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = match text.parse() {
        Ok(address) => address,
        Err(_) => SocketAddr::new(bare.parse::<IpAddr>().ok()?, usual),
    };
    (address.port() != 0).then_some(address)
}

/// A length of time with C tor's limits, and with ours for a timeout, which has no upper one there;
/// 0 leaves the default.
fn seconds(
    values: &mut Values,
    document: &mut Document,
    option: &'static str,
    key: &str,
    (least, most): (i64, i64),
) -> Result<(), TorrcError> {
    let Some(said) = values.one(option).cloned() else {
        return Ok(());
    };
    let asked = number(&said)?;
    if asked == 0 && option == "CircuitStreamTimeout" {
        return Ok(());
    }
    let taken = asked.clamp(least, most);
    if taken != asked {
        let text = match taken == MAX_TIMEOUT {
            true => format!("{option} is cut to {taken} seconds, the longest there is"),
            false => format!("{option} is taken as {taken} seconds, as C tor does"),
        };
        values.warn(&said.place, &text);
    }
    document.set(key, format!("{taken} s"), from(&said));
    Ok(())
}
