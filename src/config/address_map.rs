//! `MapAddress` and automapping (tor(1)), as the user has set them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

mod mapping;

pub(crate) use mapping::{Mapping, TooLong};

/// The longest host name, as in SOCKS5.
const MAX_NAME_LEN: usize = 255;

/// The smallest networks that C tor takes: a /16 and a /104.
const MAX_PREFIX_V4: u8 = 16;
const MAX_PREFIX_V6: u8 = 104;

/// What the user has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `FROM TO` pairs, the last of those with the same `FROM` counting (tor(1) `MapAddress`).
    pub map: Vec<String>,
    /// Whether looking up some names gives an address that stands for the name (tor(1)
    /// `AutomapHostsOnResolve`).
    pub automap: bool,
    /// The ends of those names (`AutomapHostsSuffixes`).
    pub suffixes: Vec<String>,
    /// Where those addresses are taken from (`VirtualAddrNetworkIPv4`).
    pub network_v4: String,
    /// The same for IPv6 (`VirtualAddrNetworkIPv6`).
    pub network_v6: String,
}

/// The same, read.
pub(crate) struct Parsed {
    pub(crate) map: Mapping,
    pub(crate) suffixes: Vec<String>,
    pub(crate) network_v4: Ipv4Net,
    pub(crate) network_v6: Ipv6Net,
}

impl Default for Settings {
    /// tor(1)'s defaults.
    fn default() -> Self {
        Settings {
            map: Vec::new(),
            automap: false,
            suffixes: vec![".onion".to_owned(), ".exit".to_owned()],
            network_v4: "127.192.0.0/10".to_owned(),
            network_v6: "[FE80::]/10".to_owned(),
        }
    }
}

impl Settings {
    /// Reads each value. The error names the key of the configuration, and says what is wrong and what
    /// to do.
    pub(crate) fn parse(&self) -> Result<Parsed, (&'static str, String)> {
        let at = |key| move |problem| (key, problem);
        let suffixes = self.suffixes.iter().map(|text| suffix(text));
        Ok(Parsed {
            map: Mapping::read(&self.map).map_err(at("proxy.map_address"))?,
            suffixes: suffixes
                .collect::<Result<_, _>>()
                .map_err(at("proxy.automap_hosts_suffixes"))?,
            network_v4: network_v4(&self.network_v4)
                .map_err(at("proxy.virtual_addr_network_ipv4"))?,
            network_v6: network_v6(&self.network_v6)
                .map_err(at("proxy.virtual_addr_network_ipv6"))?,
        })
    }
}

impl std::fmt::Display for Settings {
    /// What is set, in lines for a person; nothing, if nothing stands for anything.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
            writeln!(f, "{names} get an address of {v4} or {v6} when looked up")?;
        }
        Ok(())
    }
}

/// Reads the end of names to be automapped: `.` is all names.
fn suffix(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if trimmed.is_empty() || !trimmed.chars().all(fits) {
        return Err(format!(
            "{text:?} is no end of a host name: write one such as \".onion\", or \".\" for all names"
        ));
    }
    let end = trimmed.strip_suffix('.').unwrap_or(trimmed);
    Ok(end.to_ascii_lowercase())
}

/// Reads an IPv4 network such as `127.192.0.0/10`; the error says what is wrong with it.
fn network_v4(text: &str) -> Result<Ipv4Net, String> {
    match network(text) {
        Some(IpNet::V4(net)) if net.prefix_len() <= MAX_PREFIX_V4 => Ok(net),
        Some(IpNet::V4(_)) => Err(format!(
            "{text:?} is too small: write a /{MAX_PREFIX_V4} or larger"
        )),
        Some(IpNet::V6(_)) | None => Err(format!(
            "{text:?} is no IPv4 network: write one such as 127.192.0.0/10"
        )),
    }
}

/// Reads an IPv6 network such as `[FE80::]/10`; the error says what is wrong with it.
fn network_v6(text: &str) -> Result<Ipv6Net, String> {
    match network(text) {
        Some(IpNet::V6(net)) if net.prefix_len() <= MAX_PREFIX_V6 => Ok(net),
        Some(IpNet::V6(_)) => Err(format!(
            "{text:?} is too small: write a /{MAX_PREFIX_V6} or larger"
        )),
        Some(IpNet::V4(_)) | None => Err(format!(
            "{text:?} is no IPv6 network: write one such as [FE80::]/10"
        )),
    }
}

/// An address with the length of its prefix or, for IPv4, a mask; without either it is alone.
fn network(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let ip = ip(address)?;
    let Some(prefix) = prefix else {
        return Some(ip.into());
    };
    match (ip, prefix.parse::<Ipv4Addr>()) {
        (IpAddr::V4(ip), Ok(mask)) => Ipv4Net::with_netmask(ip, mask).ok().map(IpNet::V4),
        _ if !prefix.bytes().all(|b| b.is_ascii_digit()) => None,
        _ => IpNet::new(ip, prefix.parse().ok()?).ok(),
    }
}

/// The one spelling that addresses are compared in.
pub(crate) fn canonical(name: &str) -> String {
    match ip(name) {
        Some(ip) => ip.to_string(),
        None => name.to_ascii_lowercase(),
    }
}

/// An IP address, with or without brackets.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verdicts are C tor's.
    #[test]
    fn networks_are_read_as_c_tor_reads_them() {
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
            assert_eq!(network_v4(text).is_ok(), v4, "{text}");
            assert_eq!(network_v6(text).is_ok(), v6, "{text}");
        }
    }
}
