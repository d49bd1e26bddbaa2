//! Names that stand for others, and addresses that stand for names.
//!
//! The rules are C tor's (`connection_ap_handshake_rewrite`, addressmap.c), in this order: lines of
//! the configuration first, then a virtual address for a name that is looked up, or the name for a
//! virtual address. No virtual address ever reaches the network.

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

/// What names stand for. One for all ports: a name has the same address on each.
#[derive(Debug, Default)]
pub struct AddressMap {
    map: Mapping,
    /// The ends of the names that get an address when they are looked up, in lower case; the empty
    /// one fits all names.
    suffixes: Vec<String>,
    automap: Automap,
}

/// What a request is, once its names are put in.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// The request to serve.
    Request(Request),
    /// The answer: the network needs not be asked.
    Answer(Answer),
}

impl AddressMap {
    /// The names that these settings give. The error names the key of the configuration, and says
    /// what is wrong and what to do.
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

    /// The names that other settings give. As in C tor an address goes on standing for its name if
    /// the new settings could have made it: clients may keep addresses for long. (For the same
    /// reason none is forgotten when the user asks for new circuits.)
    ///
    /// The error is that of [`AddressMap::new`].
    pub fn renewed(
        &self,
        settings: &AddressMapSettings,
    ) -> Result<AddressMap, (&'static str, String)> {
        let names = AddressMap::new(settings)?;
        let still = |name: &str, ip| names.automaps(name) && !names.map.has(ip);
        names.automap.take_over(&self.automap, still);
        Ok(names)
    }

    /// Whether something else is known to be meant by this address, so that whoever asks for it has
    /// not looked up a name elsewhere: what tor(1) `SafeSocks` makes an exception for.
    pub fn covers(&self, ip: IpAddr) -> bool {
        self.map.has(ip) || self.automap.knows(ip)
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
            return match is_virtual(&self.automap, &asked) {
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
            let ip = self.automap.address(&meant, v6, |ip| self.map.has(ip));
            let ip = ip.ok_or(Failure::Internal)?;
            return Ok(Rewritten::Answer(Answer::Ip(ip)));
        }
        if let Some(name) = parse_ip(&meant).and_then(|ip| self.automap.name(ip)) {
            meant = name;
        }
        if is_virtual(&self.automap, &meant) {
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
        parse_ip(name).is_none() && self.suffixes.iter().any(|end| name.ends_with(end.as_str()))
    }
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
fn is_virtual(automap: &Automap, address: &str) -> bool {
    address.ends_with(".virtual") || parse_ip(address).is_some_and(|ip| automap.contains(ip))
}

/// An address as text: an IP address without brackets, a name in lower case.
fn text(address: &Address) -> String {
    match address {
        Address::Ip(ip) => ip.to_string(),
        Address::Name(name) => canonicalize(name),
    }
}

/// The way back from [`text`].
fn address(text: &str) -> Address {
    match parse_ip(text) {
        Some(ip) => Address::Ip(ip),
        None => Address::Name(text.into()),
    }
}

#[cfg(test)]
mod tests;
