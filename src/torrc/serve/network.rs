//! `[channel]`, `[address_filter]`, `[path_rules]` and the other tables for the way into and through
//! the network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::Value;
use tor_netdoc::types::policy::AddrPortPattern;

use super::super::assign::{Said, Values};
use super::super::document::Document;
use super::super::error::{Place, TorrcError};
use super::super::value;
use super::{bad, from, number, port_numbers};

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
    let limits = (MIN_SECONDS, i64::MAX);
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
    reachable(values, document)?;
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
            let problem = format!(
                "{:?} is no address for arti, which looks up no names here: write IP:PORT",
                said.value
            );
            bad(said, problem)
        })?;
        let login = login(values, said)?;
        document.set(
            "channel.outbound_proxy",
            format!("{scheme}://{login}{address}"),
            from(said),
        );
    }
    Ok(())
}

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
            Some(said) => match said.value.split_once(':') {
                Some((name, word)) => format!("{}:{}@", encode(name), encode(word)),
                None => format!("{}@", encode(&said.value)),
            },
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

/// An IP address with a port, or with the usual one.
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, port)),
    }
}

/// A length of time with C tor's limits; 0 leaves the default.
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
        let text = format!("{option} is taken as {taken} seconds, as C tor does");
        values.warn(&said.place, &text);
    }
    document.set(key, format!("{taken} s"), from(&said));
    Ok(())
}

/// `ReachableORAddresses`, or else `ReachableAddresses`, or else `FascistFirewall`; and which of IPv4
/// and IPv6 may be used.
fn reachable(values: &Values, document: &mut Document) -> Result<(), TorrcError> {
    let v4 = values.is_on("ClientUseIPv4", true);
    // As C tor has it: something must be left, and bridges may be anywhere.
    let v6 = values.is_on("ClientUseIPv6", true) || !v4 || values.is_on("UseBridges", false);
    let firewall = ["ReachableORAddresses", "ReachableAddresses"]
        .iter()
        .map(|option| values.list(option))
        .find(|said| !said.is_empty());
    let mut rules: Vec<(String, Place)> = Vec::new();
    if let Some(lines) = firewall {
        rules = patterns(lines)?;
    } else if let Some(said) = values.one("FascistFirewall").filter(|s| s.value == "1") {
        let ports = match values.one("FirewallPorts") {
            Some(ports) if !ports.value.is_empty() => port_numbers(ports)?,
            _ => vec![Value::from(80), Value::from(443)],
        };
        rules.extend(
            ports
                .iter()
                .map(|port| (format!("*:{port}"), said.place.clone())),
        );
    } else if !v4 || !v6 {
        let said = ["ClientUseIPv4", "ClientUseIPv6"].iter();
        let off = said
            .filter_map(|name| values.one(name))
            .find(|s| s.value != "1");
        rules.extend(off.map(|said| ("*:*".to_owned(), said.place.clone())));
    } else {
        return Ok(());
    }
    let (values, origins): (Vec<Value>, Vec<Place>) = rules
        .into_iter()
        .filter_map(|(rule, place)| Some((Value::from(within(&rule, v4, v6)?), place)))
        .unzip();
    match (values.is_empty(), firewall.and_then(|lines| lines.last())) {
        (true, Some(said)) => Err(bad(
            said,
            "nothing can be reached then: allow some addresses",
        )),
        (true, None) => Ok(()),
        (false, _) => {
            document.set("path_rules.reachable_addrs", values, origins);
            Ok(())
        }
    }
}

/// A pattern of what may be reached, cut down to IPv4 or IPv6; nothing if nothing is left of it.
fn within(rule: &str, v4: bool, v6: bool) -> Option<String> {
    if let Some(ports) = rule.strip_prefix("*:") {
        return Some(match (v4, v6) {
            (true, true) => rule.to_owned(),
            (true, false) => format!("0.0.0.0/0:{ports}"),
            (false, _) => format!("[::]/0:{ports}"),
        });
    }
    let wanted = if rule.starts_with('[') { v6 } else { v4 };
    wanted.then(|| rule.to_owned())
}

/// The rules of lines such as `1.2.3.0/24:443, *:80, reject *:*`. arti knows what to accept, not
/// what to except; a `reject` of all is where its list ends anyway.
fn patterns(lines: &[Said]) -> Result<Vec<(String, Place)>, TorrcError> {
    let mut rules = Vec::new();
    for said in lines {
        for rule in value::words(&said.value) {
            let (action, pattern) = match rule.split_once(|c: char| c.is_ascii_whitespace()) {
                Some((action, pattern)) => (action.to_ascii_lowercase(), pattern.trim()),
                None => ("accept".to_owned(), rule),
            };
            let mut pattern = with_ports(pattern);
            if action == "accept6"
                && let Some(ports) = pattern.strip_prefix("*:")
            {
                pattern = format!("[::]/0:{ports}");
            }
            match (action.as_str(), pattern.as_str()) {
                ("accept" | "accept6", _) => {}
                ("reject", "*:*") => return Ok(rules),
                ("reject" | "reject6", _) => {
                    let problem = format!(
                        "{rule:?}: arti knows no exceptions from what it may reach: list what to accept"
                    );
                    return Err(bad(said, problem));
                }
                _ => {
                    return Err(bad(
                        said,
                        format!("{rule:?} is no rule: write ADDRESS:PORT"),
                    ));
                }
            }
            pattern.parse::<AddrPortPattern>().map_err(|_| {
                let problem = format!(
                    "{rule:?} is no rule for arti: write an IP address, a network such as \
                     198.51.100.0/24 or *, and :PORT"
                );
                bad(said, problem)
            })?;
            rules.push((pattern, said.place.clone()));
        }
    }
    Ok(rules)
}

/// A pattern with the ports that C tor would think of, and with its mask in bits.
fn with_ports(pattern: &str) -> String {
    let end = match pattern.starts_with('[') {
        true => pattern.find(']').unwrap_or(0),
        false => 0,
    };
    let colon = pattern.get(end..).and_then(|rest| rest.rfind(':'));
    let (host, ports) = match colon {
        Some(at) => (&pattern[..end + at], &pattern[end + at + 1..]),
        None => (pattern, "*"),
    };
    let host = match host {
        "*4" => "0.0.0.0/0".to_owned(),
        "*6" => "[::]/0".to_owned(),
        _ => match host.split_once('/') {
            Some((ip, mask)) => match mask.parse::<Ipv4Addr>().map(ipnet::ipv4_mask_to_prefix) {
                Ok(Ok(bits)) => format!("{ip}/{bits}"),
                _ => host.to_owned(),
            },
            None => host.to_owned(),
        },
    };
    format!("{host}:{ports}")
}
