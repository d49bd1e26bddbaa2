//! `[channel]`, `[address_filter]`, `[path_rules]` and the other tables about connections to relays and
//! circuits.

use std::net::{IpAddr, SocketAddr};

use super::super::assign::Values;
use super::super::assigned::Assigned;
use super::super::document::Document;
use super::super::error::TorrcError;
use super::{reachable, timeouts};

/// The proxies that arti supports: option, scheme, default port.
const PROXIES: &[(&str, &str, u16)] = &[
    ("HTTPSProxy", "http", 443),
    ("Socks4Proxy", "socks4", 1080),
    ("Socks5Proxy", "socks5", 1080),
];
/// One bit more than an IPv4 and an IPv6 address have: then no two relays share a family by address.
const NO_FAMILY: (i64, i64) = (33, 129);

/// Fills the tables.
pub(super) fn translate(values: &mut Values, document: &mut Document) -> Result<(), TorrcError> {
    set_padding(values, document);
    set_outbound_proxy(values, document)?;
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
        if let Some(assigned) = values.get(option) {
            document.set(key, assigned.value != "1", assigned.origin());
        }
    }
    timeouts::set_circuit_times(values, document)?;
    let subnets = values.get("EnforceDistinctSubnets");
    if let Some(assigned) = subnets.filter(|assigned| assigned.value != "1") {
        for (key, prefix) in [
            ("path_rules.ipv4_subnet_family_prefix", NO_FAMILY.0),
            ("path_rules.ipv6_subnet_family_prefix", NO_FAMILY.1),
        ] {
            document.set(key, prefix, assigned.origin());
        }
    }
    reachable::translate(values, document)?;
    if let Some(assigned) = values.get("LongLivedPorts") {
        let ports = assigned.parse_ports()?;
        let origins = vec![assigned.position.clone(); ports.len().max(1)];
        document.set("path_rules.long_lived_ports", ports, origins);
    }
    let vanguards = values.get("VanguardsLiteEnabled");
    if let Some(assigned) = vanguards.filter(|assigned| assigned.value != "auto") {
        let mode = match assigned.value == "1" {
            true => "lite",
            false => "disabled",
        };
        document.set("vanguards.mode", mode, assigned.origin());
    }
    match values.get("UseDefaultFallbackDirs") {
        Some(assigned) if assigned.value != "1" => Err(assigned.error(
            "arti always needs a list of fallback directories; remove this line or set \
             tor_network.fallback_caches in a TOML file (-c)",
        )),
        _ => Ok(()),
    }
}

/// Translates `ConnectionPadding` and `ReducedConnectionPadding`.
fn set_padding(values: &Values, document: &mut Document) {
    let general = values
        .get("ConnectionPadding")
        .filter(|assigned| assigned.value != "auto");
    let reduced = values
        .get("ReducedConnectionPadding")
        .filter(|assigned| assigned.value == "1");
    let (assigned, level) = match (general, reduced) {
        (Some(assigned), _) if assigned.value == "0" => (assigned, "none"),
        (_, Some(assigned)) => (assigned, "reduced"),
        (Some(assigned), None) => (assigned, "normal"),
        (None, None) => return,
    };
    document.set("channel.padding", level, assigned.origin());
}

/// Translates `HTTPSProxy`, `Socks4Proxy` or `Socks5Proxy`, with its user and password.
fn set_outbound_proxy(values: &Values, document: &mut Document) -> Result<(), TorrcError> {
    let mut first: Option<&Assigned> = None;
    for &(option, scheme, port) in PROXIES {
        let proxy = values.get(option);
        let Some(proxy) = proxy.filter(|proxy| !proxy.value.is_empty()) else {
            continue;
        };
        if let Some(first) = first {
            return Err(proxy.error(format!("{} is set as well; keep one of them", first.name)));
        }
        first = Some(proxy);
        let address = parse_address(&proxy.value, port).ok_or_else(|| {
            // The message does not quote the value: a password may precede the address.
            proxy.error("arti needs an IP address here and looks up no name; write IP:PORT")
        })?;
        if (scheme, address.port()) == ("http", 80) {
            return Err(proxy.error(
                "arti cannot use an HTTP proxy on port 80; let the proxy listen on another port",
            ));
        }
        let login = format_login(values, proxy)?;
        document.set(
            "channel.outbound_proxy",
            format!("{scheme}://{login}{address}"),
            proxy.origin(),
        );
    }
    Ok(())
}

/// The error for a login to an HTTP proxy: arti 0.47 sends the text `[scrubbed]:[scrubbed]` instead.
const NO_HTTP_LOGIN: &str = "arti cannot log in to an HTTP proxy; use Socks5Proxy, or allow this computer \
                             without a login";

/// Returns the user and password of a proxy as they appear in a URL: empty, or ending in `@`.
fn format_login(values: &Values, proxy: &Assigned) -> Result<String, TorrcError> {
    let get = |name| {
        let assigned = values.get(name);
        assigned.filter(|assigned: &&Assigned| !assigned.value.is_empty())
    };
    match proxy.name {
        "HTTPSProxy" => match get("HTTPSProxyAuthenticator") {
            None => Ok(String::new()),
            Some(login) => Err(login.error(NO_HTTP_LOGIN)),
        },
        "Socks5Proxy" => match (get("Socks5ProxyUsername"), get("Socks5ProxyPassword")) {
            (None, None) => Ok(String::new()),
            (Some(user), Some(password)) => Ok(format!(
                "{}:{}@",
                percent_encode(&user.value),
                percent_encode(&password.value)
            )),
            (Some(alone), None) | (None, Some(alone)) => Err(alone.error(
                "Socks5ProxyUsername and Socks5ProxyPassword need each other; set both or neither",
            )),
        },
        _ => Ok(String::new()),
    }
}

/// Percent-encodes a user or a password for a URL (RFC 3986, section 2.1).
fn percent_encode(text: &str) -> String {
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

/// Parses an IP address with an optional port. `localhost` needs no lookup and is accepted as well.
fn parse_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    let text = text.to_ascii_lowercase();
    let text = match text.strip_prefix("localhost") {
        Some(port) if port.is_empty() || port.starts_with(':') => format!("127.0.0.1{port}"),
        _ => text,
    };
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = match text.parse() {
        Ok(address) => address,
        Err(_) => SocketAddr::new(bare.parse::<IpAddr>().ok()?, default_port),
    };
    (address.port() != 0).then_some(address)
}
