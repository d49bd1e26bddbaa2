//! Mapped names and virtual addresses.
//!
//! The rules are C tor's (`connection_ap_handshake_rewrite`, addressmap.c), applied in this order: the
//! `MapAddress` lines of the configuration; then a lookup of a name may be answered with a virtual
//! address, and a virtual address is replaced by its name. No virtual address ever reaches the network.
//!
//! [`automap`] holds the virtual addresses in use.

use std::net::IpAddr;

use crate::config::address_map::{
    AddressMapSettings, Mapping, ParsedAddressMap, TooLong, canonicalize, parse_ip,
};
use crate::config::port_line::Flags;
use crate::failure::Failure;
use crate::request::target::Target;
use crate::request::{Address, Answer, Command, Request};
use crate::tor::destination::Family;
use crate::tor::isolation::Protocol;

mod automap;

use automap::Automap;

/// Mapped names and virtual addresses. All ports share one map, so that a name has the same virtual
/// address on each.
#[derive(Debug, Default)]
pub struct AddressMap {
    map: Mapping,
    /// The suffixes of names whose lookups get a virtual address, in lower case; the empty one
    /// matches all names.
    suffixes: Vec<String>,
    automap: Automap,
}

/// What the address map makes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// A request to serve in its place.
    Request(Request),
    /// The answer, without using the network.
    Answer(Answer),
}

impl AddressMap {
    /// Builds the map.
    ///
    /// # Errors
    /// The key of the configuration whose value is wrong, and one line with the problem and the remedy.
    pub fn new(settings: &AddressMapSettings) -> Result<AddressMap, (&'static str, String)> {
        let ParsedAddressMap {
            map,
            suffixes,
            network_v4,
            network_v6,
        } = settings.parse()?;
        Ok(AddressMap {
            map,
            suffixes: match settings.automap {
                true => suffixes,
                false => Vec::new(),
            },
            automap: Automap::new(network_v4, network_v6),
        })
    }

    /// Builds the map for other settings, with the virtual addresses of this one that the new settings
    /// could have created. As in C tor, they outlive a reload and a new identity, because clients may
    /// keep addresses for long.
    ///
    /// # Errors
    /// Those of [`AddressMap::new`].
    pub(crate) fn rebuild(
        &self,
        settings: &AddressMapSettings,
    ) -> Result<AddressMap, (&'static str, String)> {
        let new = AddressMap::new(settings)?;
        let is_allowed = |name: &str, ip| new.is_automapped(name) && !new.map.has(ip);
        new.automap.copy_from(&self.automap, is_allowed);
        Ok(new)
    }

    /// Whether the map replaces this address. A client that requests it has not used a resolver
    /// outside Tor, so tor(1) `SafeSocks` exempts it.
    pub(crate) fn is_mapped(&self, ip: IpAddr) -> bool {
        self.map.has(ip) || self.automap.has_address(ip)
    }

    /// Applies the map to a request. `flags` are those of the port that it came in on.
    ///
    /// # Errors
    /// [`Failure::DestinationInvalid`] for `.exit` names, for virtual addresses without a name, and for
    /// names that become too long; [`Failure::PrivateAddress`] for the name of a virtual address;
    /// [`Failure::AddressInvalid`] for a name to be automapped that ends in `.onion` and is not the
    /// address of an onion service.
    pub(crate) fn rewrite(&self, request: &Request, flags: &Flags) -> Result<Rewritten, Failure> {
        let written = to_text(&request.address);
        if written.ends_with(".exit") {
            return Err(Failure::DestinationInvalid);
        }
        if request.command == Command::ResolvePtr {
            // As in C tor, a virtual address is not resolved to its name: that would show one client
            // what another has looked up.
            return match is_virtual(&self.automap, &written) {
                true => Err(Failure::PrivateAddress),
                false => Ok(Rewritten::Request(request.clone())),
            };
        }
        let mut mapped = self
            .map
            .rewrite(written.clone())
            .map_err(|TooLong| Failure::DestinationInvalid)?;
        if request.command == Command::Resolve && self.is_automapped(&mapped) {
            Target::parse(&from_text(&mapped))?;
            let v6 = wants_v6(request, flags);
            let is_taken = |ip| self.map.has(ip);
            let ip = self.automap.find_or_assign(&mapped, v6, is_taken);
            let ip = ip.ok_or(Failure::Internal)?;
            return Ok(Rewritten::Answer(Answer::Ip(ip)));
        }
        if let Some(name) = parse_ip(&mapped).and_then(|ip| self.automap.find_name(ip)) {
            mapped = name;
        }
        if is_virtual(&self.automap, &mapped) {
            return Err(Failure::DestinationInvalid);
        }
        let address = match mapped == written {
            true => request.address.clone(),
            false => from_text(&mapped),
        };
        Ok(Rewritten::Request(Request {
            address,
            ..request.clone()
        }))
    }

    /// Whether a lookup of `name` is answered with a virtual address.
    fn is_automapped(&self, name: &str) -> bool {
        parse_ip(name).is_none() && self.suffixes.iter().any(|end| name.ends_with(end.as_str()))
    }
}

/// Whether the virtual address for a lookup should be an IPv6 address.
///
/// As in C tor, SOCKS4 clients get IPv4, DNS clients the family they request, and others IPv6 unless
/// the port has `NoPreferIPv6Automap`. Unlike in C tor, a family that the port does not carry is
/// avoided if it carries the other.
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

/// Whether `address` is reserved for virtual addresses, or is one of the `.virtual` names that C tor
/// reserves.
fn is_virtual(automap: &Automap, address: &str) -> bool {
    address.ends_with(".virtual") || parse_ip(address).is_some_and(|ip| automap.is_in_networks(ip))
}

/// Converts an address to text: an IP address without brackets, a name in lower case.
fn to_text(address: &Address) -> String {
    match address {
        Address::Ip(ip) => ip.to_string(),
        Address::Name(name) => canonicalize(name),
    }
}

/// The inverse of [`to_text`].
fn from_text(text: &str) -> Address {
    match parse_ip(text) {
        Some(ip) => Address::Ip(ip),
        None => Address::Name(text.into()),
    }
}

#[cfg(test)]
mod tests;
