//! `MapAddress` and automapping (tor(1)), as configured.
//!
//! `mapping` parses and applies `MapAddress` lines, `address` names and IP addresses. The rules of
//! the two together are in `request::address_map`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

mod address;
mod mapping;

pub(crate) use address::{canonicalize, parse_ip};
pub(crate) use mapping::{Mapping, TooLong};

/// The longest prefix that C tor accepts for a virtual IPv4 network.
const MAX_PREFIX_V4: u8 = 16;
/// The longest prefix that C tor accepts for a virtual IPv6 network.
const MAX_PREFIX_V6: u8 = 104;

/// The settings as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressMapSettings {
    /// `FROM TO` pairs; the last of several with the same `FROM` counts (tor(1) `MapAddress`).
    pub map: Vec<String>,
    /// Whether to answer lookups of some names with virtual addresses (tor(1)
    /// `AutomapHostsOnResolve`).
    pub automap: bool,
    /// The suffixes of these names (`AutomapHostsSuffixes`).
    pub suffixes: Vec<String>,
    /// The network of virtual IPv4 addresses (`VirtualAddrNetworkIPv4`).
    pub network_v4: String,
    /// The network of virtual IPv6 addresses (`VirtualAddrNetworkIPv6`).
    pub network_v6: String,
}

/// The settings, parsed.
pub(crate) struct ParsedAddressMap {
    pub(crate) map: Mapping,
    /// In lower case; the empty suffix matches all names.
    pub(crate) suffixes: Vec<String>,
    pub(crate) network_v4: Ipv4Net,
    pub(crate) network_v6: Ipv6Net,
}

impl AddressMapSettings {
    /// Parses each value.
    ///
    /// # Errors
    /// The key of the configuration, and a message with problem and remedy.
    pub(crate) fn parse(&self) -> Result<ParsedAddressMap, (&'static str, String)> {
        let at = |key| move |problem| (key, problem);
        let suffixes = self.suffixes.iter().map(|text| parse_suffix(text));
        Ok(ParsedAddressMap {
            map: Mapping::parse(&self.map).map_err(at("proxy.map_address"))?,
            suffixes: suffixes
                .collect::<Result<_, _>>()
                .map_err(at("proxy.automap_hosts_suffixes"))?,
            network_v4: parse_network_v4(&self.network_v4)
                .map_err(at("proxy.virtual_addr_network_ipv4"))?,
            network_v6: parse_network_v6(&self.network_v6)
                .map_err(at("proxy.virtual_addr_network_ipv6"))?,
        })
    }
}

impl Default for AddressMapSettings {
    /// tor(1)'s defaults.
    fn default() -> Self {
        AddressMapSettings {
            map: Vec::new(),
            automap: false,
            suffixes: vec![".onion".to_owned(), ".exit".to_owned()],
            network_v4: "127.192.0.0/10".to_owned(),
            network_v6: "[FE80::]/10".to_owned(),
        }
    }
}

impl fmt::Display for AddressMapSettings {
    /// Describes the settings in lines for a person; writes nothing if nothing is mapped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.map {
            let mut words = line.split_whitespace();
            let from = words.next().unwrap_or_default();
            let to = words.next().unwrap_or_default();
            writeln!(f, "requests for {from} go to {to}")?;
        }
        if self.automap {
            let (v4, v6) = (&self.network_v4, &self.network_v6);
            let names = match self.suffixes.iter().any(|suffix| suffix == ".") {
                true => "all names".to_owned(),
                false => format!("names that end in {}", self.suffixes.join(", ")),
            };
            writeln!(
                f,
                "lookups of {names} return a virtual address of {v4} or {v6}"
            )?;
        }
        Ok(())
    }
}

/// Parses a suffix of names to be automapped; `.` stands for all names.
fn parse_suffix(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if trimmed.is_empty() || !trimmed.chars().all(fits) {
        return Err(format!(
            "{text:?} is not a suffix of host names: write one such as \".onion\", or \".\" for \
             all names"
        ));
    }
    let end = trimmed.strip_suffix('.').unwrap_or(trimmed);
    Ok(end.to_ascii_lowercase())
}

/// Parses an IPv4 network such as `127.192.0.0/10`; the error contains problem and remedy.
fn parse_network_v4(text: &str) -> Result<Ipv4Net, String> {
    match parse_network(text) {
        Some(IpNet::V4(net)) if net.prefix_len() <= MAX_PREFIX_V4 => Ok(net),
        Some(IpNet::V4(_)) => Err(format!(
            "{text:?} is too small: write a /{MAX_PREFIX_V4} or larger"
        )),
        Some(IpNet::V6(_)) | None => Err(format!(
            "{text:?} is not an IPv4 network: write one such as 127.192.0.0/10"
        )),
    }
}

/// Parses an IPv6 network such as `[FE80::]/10`; the error contains problem and remedy.
fn parse_network_v6(text: &str) -> Result<Ipv6Net, String> {
    match parse_network(text) {
        Some(IpNet::V6(net)) if net.prefix_len() <= MAX_PREFIX_V6 => Ok(net),
        Some(IpNet::V6(_)) => Err(format!(
            "{text:?} is too small: write a /{MAX_PREFIX_V6} or larger"
        )),
        Some(IpNet::V4(_)) | None => Err(format!(
            "{text:?} is not an IPv6 network: write one such as [FE80::]/10"
        )),
    }
}

/// Parses an address with a prefix length or, for IPv4, a mask. Without either, the network is this
/// address alone.
fn parse_network(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let ip = parse_ip(address)?;
    let Some(prefix) = prefix else {
        return Some(ip.into());
    };
    match (ip, prefix.parse::<Ipv4Addr>()) {
        (IpAddr::V4(ip), Ok(mask)) => Ipv4Net::with_netmask(ip, mask).ok().map(IpNet::V4),
        _ if !prefix.bytes().all(|b| b.is_ascii_digit()) => None,
        _ => IpNet::new(ip, prefix.parse().ok()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expectations are C tor's results.
    #[test]
    fn networks_are_parsed_as_c_tor_parses_them() {
        for (text, v4, v6) in [
            ("10.0.0.0/8", true, false),
            ("10.0.0.0/16", true, false),
            ("10.0.0.0/17", false, false),
            ("10.0.0.0", false, false),
            ("10.1.2.3/8", true, false),
            ("10.0.0.0/255.0.0.0", true, false),
            ("0.0.0.0/0", true, false),
            ("10.0.0.0/33", false, false),
            ("10.0.0.0/+8", false, false),
            ("10.0.0.0/8:80", false, false),
            ("foo", false, false),
            ("", false, false),
            ("[FE80::]/10", false, true),
            ("FE80::/10", false, true),
            ("[FE80::]/104", false, true),
            ("[FE80::]/105", false, false),
            ("[FE80::]", false, false),
            ("[::]/0", false, true),
        ] {
            assert_eq!(parse_network_v4(text).is_ok(), v4, "{text}");
            assert_eq!(parse_network_v6(text).is_ok(), v6, "{text}");
        }
    }
}
