//! Names that stand for others, and addresses that stand for names.
//!
//! The rules are C tor's (`connection_ap_handshake_rewrite`, addressmap.c), in this order: lines of
//! the configuration first, then a virtual address for a name that is looked up, or the name for a
//! virtual address. No virtual address ever reaches the network.

use std::net::IpAddr;

use crate::failure::Failure;
use crate::isolation::Protocol;
use crate::policy::Family;
use crate::port::Flags;
use crate::request::{Address, Answer, Command, Request};
use crate::target::Target;

mod map;
mod virtuals;

use map::{Map, TooLong};
use virtuals::Virtuals;

/// The longest host name, as in SOCKS5.
const MAX_NAME_LEN: usize = 255;

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
    /// Whether [`Names`] can be made of these. The error names the key of the configuration, and
    /// says what is wrong and what to do.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        Names::new(self).map(drop)
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

/// What names stand for. One for all ports: a name has the same address on each.
#[derive(Debug, Default)]
pub struct Names {
    map: Map,
    /// The ends of the names that get an address when they are looked up, in lower case; the empty
    /// one fits all names.
    suffixes: Vec<String>,
    virtuals: Virtuals,
}

/// What a request is, once its names are put in.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// The request to serve.
    Request(Request),
    /// The answer: the network needs not be asked.
    Answer(Answer),
}

impl Names {
    /// The names that these settings give. The error names the key of the configuration, and says
    /// what is wrong and what to do.
    pub fn new(settings: &Settings) -> Result<Names, (&'static str, String)> {
        let Settings {
            map,
            automap,
            suffixes,
            network_v4,
            network_v6,
        } = settings;
        let at = |key| move |problem| (key, problem);
        let map = Map::read(map).map_err(at("proxy.map_address"))?;
        let suffixes: Vec<String> = suffixes
            .iter()
            .map(|text| suffix(text))
            .collect::<Result<_, _>>()
            .map_err(at("proxy.automap_hosts_suffixes"))?;
        let v4 = virtuals::network_v4(network_v4).map_err(at("proxy.virtual_addr_network_ipv4"))?;
        let v6 = virtuals::network_v6(network_v6).map_err(at("proxy.virtual_addr_network_ipv6"))?;
        Ok(Names {
            map,
            suffixes: match automap {
                true => suffixes,
                false => Vec::new(),
            },
            virtuals: Virtuals::new(v4, v6),
        })
    }

    /// The names that other settings give. As in C tor an address goes on standing for its name if
    /// the new settings could have made it: clients may keep addresses for long. (For the same
    /// reason none is forgotten when the user asks for new circuits.)
    ///
    /// The error is that of [`Names::new`].
    pub fn renewed(&self, settings: &Settings) -> Result<Names, (&'static str, String)> {
        let names = Names::new(settings)?;
        let still = |name: &str, ip| names.automaps(name) && !names.map.has(ip);
        names.virtuals.take_over(&self.virtuals, still);
        Ok(names)
    }

    /// Whether something else is known to be meant by this address, so that whoever asks for it has
    /// not looked up a name elsewhere: what tor(1) `SafeSocks` makes an exception for.
    pub fn covers(&self, ip: IpAddr) -> bool {
        self.map.has(ip) || self.virtuals.knows(ip)
    }

    /// Puts in what the request's name stands for. `flags` are those of the port it came in on.
    ///
    /// Gives [`Failure::DestinationInvalid`] for `.exit` names and for virtual addresses that stand
    /// for nothing, and for a name to be automapped that is no address of an onion service although
    /// it ends in `.onion`, [`Failure::AddressInvalid`].
    pub fn rewrite(&self, request: &Request, flags: &Flags) -> Result<Rewritten, Failure> {
        let asked = text(&request.address);
        if asked.ends_with(".exit") {
            return Err(Failure::DestinationInvalid);
        }
        if request.command == Command::ResolvePtr {
            // C tor knows no way back from an address to the name it stands for: it would tell one
            // client what another has looked up.
            return match is_virtual(&self.virtuals, &asked) {
                true => Err(Failure::PrivateAddress),
                false => Ok(Rewritten::Request(request.clone())),
            };
        }
        let mut meant = self
            .map
            .rewrite(asked.clone())
            .map_err(|TooLong| Failure::DestinationInvalid)?;
        if request.command == Command::Resolve && self.automaps(&meant) {
            Target::parse(&address(&meant))?;
            let v6 = wants_v6(request, flags);
            let ip = self.virtuals.address(&meant, v6, |ip| self.map.has(ip));
            let ip = ip.ok_or(Failure::Internal)?;
            return Ok(Rewritten::Answer(Answer::Ip(ip)));
        }
        if let Some(name) = ip(&meant).and_then(|ip| self.virtuals.name(ip)) {
            meant = name;
        }
        if is_virtual(&self.virtuals, &meant) {
            return Err(Failure::DestinationInvalid);
        }
        let address = match meant == asked {
            true => request.address.clone(),
            false => address(&meant),
        };
        Ok(Rewritten::Request(Request {
            address,
            ..request.clone()
        }))
    }

    /// Whether a name gets an address when it is looked up.
    fn automaps(&self, name: &str) -> bool {
        ip(name).is_none() && self.suffixes.iter().any(|end| name.ends_with(end.as_str()))
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

/// Whether a look-up is to be answered with an IPv6 address, when either would do for us.
///
/// As in C tor a SOCKS4 client gets IPv4 and a DNS client what it asks for, others IPv6 unless the
/// port has `NoPreferIPv6Automap`. Unlike C tor, nobody gets a family that the port does not carry
/// if it carries the other.
fn wants_v6(request: &Request, flags: &Flags) -> bool {
    match (request.protocol, request.family) {
        (Protocol::Socks4, _) | (_, Some(Family::V4Only)) => false,
        (_, Some(Family::V6Only)) => true,
        _ => match (flags.ipv4_traffic, flags.ipv6_traffic) {
            (true, false) => false,
            (false, true) => true,
            _ => flags.prefer_ipv6 || flags.prefer_ipv6_automap,
        },
    }
}

/// Whether an address is one of those that only ever stand for names; C tor's own names of that
/// kind end in `.virtual`.
fn is_virtual(virtuals: &Virtuals, address: &str) -> bool {
    address.ends_with(".virtual") || ip(address).is_some_and(|ip| virtuals.contains(ip))
}

/// An address as text: an IP address without brackets, a name in lower case.
fn text(address: &Address) -> String {
    match address {
        Address::Ip(ip) => ip.to_string(),
        Address::Name(name) => canonical(name),
    }
}

/// The one spelling that addresses are compared in.
fn canonical(name: &str) -> String {
    match ip(name) {
        Some(ip) => ip.to_string(),
        None => name.to_ascii_lowercase(),
    }
}

/// The way back from [`text`].
fn address(text: &str) -> Address {
    match ip(text) {
        Some(ip) => Address::Ip(ip),
        None => Address::Name(text.into()),
    }
}

/// An IP address, with or without brackets.
fn ip(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
