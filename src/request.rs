//! What a client asks for, whatever protocol it spoke, and what is decided before the network is asked.
//!
//! | module | holds |
//! |---|---|
//! | [`dispatch`] | the way of a request: read this first |
//! | [`address_map`] | names that stand for others |
//! | [`target`] | the destination, checked |
//! | [`policy`] | what a port may ask for |
//! | [`safe_socks`] | requests that may give their user away |
//! | [`status`] | how the program is doing |
//!
//! Nothing in here imports [`crate::inbound`] or [`crate::daemon`].

pub mod address_map;
pub mod dispatch;
pub mod policy;
pub mod safe_socks;
pub mod status;
pub mod target;

use std::net::{IpAddr, SocketAddr};

use crate::tor::destination::Family;
use crate::tor::isolation::{ClientCredentials, Protocol};

/// One request of one client, understood and not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do with the address.
    pub command: Command,
    /// The destination, as the client wrote it.
    pub address: Address,
    /// The destination's port. Means nothing for look-ups.
    pub port: u16,
    /// The protocol it was asked in.
    pub protocol: Protocol,
    /// Who the client says it is; used for isolation only.
    pub credentials: Option<ClientCredentials>,
    /// The addresses the client itself wants to have used; the port's flags may narrow it.
    pub family: Option<Family>,
}

/// What to do with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Open a stream.
    Connect,
    /// Look up a name (SOCKS command `F0`, socks-extensions).
    Resolve,
    /// Look up the name of an address (`F1`, SOCKS5 only). The address is always an IP.
    ResolvePtr,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address: given in binary, or written out as a host name (IPv6 with or without brackets).
    Ip(IpAddr),
    /// A host name in the client's own spelling: letters, digits, `-`, `_` and dots, at most 255 bytes, perhaps with
    /// one dot at the end. That it ends in `.onion` says nothing about its validity.
    Name(Box<str>),
}

/// The answer to a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address, for a name.
    Ip(IpAddr),
    /// A name, for an address.
    Name(String),
}

/// Where a client came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddr {
    /// Over TCP or UDP, from this address ([`ClientAddr::of`]).
    Ip(IpAddr),
    /// Over a unix socket.
    Unix,
}

impl ClientAddr {
    /// Where the peer of a socket came from. A socket that takes both families, such as a service
    /// manager hands over, shows IPv4 clients as `::ffff:192.0.2.1`: they are IPv4 clients all the
    /// same.
    pub fn of(peer: SocketAddr) -> ClientAddr {
        ClientAddr::Ip(peer.ip().to_canonical())
    }

    /// The address, if there is one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            ClientAddr::Ip(ip) => Some(ip),
            ClientAddr::Unix => None,
        }
    }
}
