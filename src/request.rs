//! A client's request, whatever protocol it came in, and what is decided before the Tor network is used.
//!
//! Read in this order:
//!
//! | module | holds |
//! |---|---|
//! | [`dispatch`] | the path of a request through the modules below |
//! | [`address_map`] | replaces mapped names and virtual addresses (`MapAddress`, automap) |
//! | `target` | parses and checks the destination |
//! | [`policy`] | what a port's flags allow |
//! | [`safe_socks`] | requests that may give their user away |
//! | [`status`] | the state of the program, for the status page |
//!
//! Nothing here imports [`crate::inbound`] or [`crate::daemon`].

pub mod address_map;
pub mod dispatch;
pub mod policy;
pub mod safe_socks;
pub mod status;
pub(crate) mod target;

use std::net::{IpAddr, SocketAddr};

use crate::tor::destination::Family;
use crate::tor::isolation::{ClientCredentials, Protocol};

/// One request of one client, parsed but not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do with the address.
    pub command: Command,
    /// The destination, as the client wrote it.
    pub address: Address,
    /// The destination's port. Has no meaning for lookups.
    pub port: u16,
    /// The protocol that the request came in.
    pub protocol: Protocol,
    /// The client's user name and password, or what its protocol has in their place. They are not
    /// verified; only isolation uses them.
    pub credentials: Option<ClientCredentials>,
    /// The address families that the client accepts; the port's flags may narrow them.
    pub family: Option<Family>,
}

/// What to do with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Open a stream.
    Connect,
    /// Look up the address of a name (SOCKS command `F0`, Tor's socks-extensions.txt).
    Resolve,
    /// Look up the name of an address (`F1`, SOCKS5 only). The address is always an IP address.
    ResolvePtr,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address: sent in binary, or as text in place of a host name (IPv6 with or without
    /// brackets).
    Ip(IpAddr),
    /// A host name in the client's spelling: letters, digits, `-`, `_` and dots, at most 255 bytes,
    /// with at most one trailing dot. A name that ends in `.onion` need not be a valid onion address.
    Name(Box<str>),
}

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The address of a name.
    Ip(IpAddr),
    /// The name of an address.
    Name(String),
}

/// A client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddr {
    /// The IP address of a client over TCP or UDP, in canonical form.
    Ip(IpAddr),
    /// A client on a Unix socket, which has no address.
    Unix,
}

impl From<SocketAddr> for ClientAddr {
    /// Takes the address of a socket's peer. A dual-stack socket, such as a service manager may pass,
    /// shows IPv4 clients as `::ffff:192.0.2.1`; they become IPv4 addresses.
    fn from(peer: SocketAddr) -> ClientAddr {
        ClientAddr::Ip(peer.ip().to_canonical())
    }
}

impl ClientAddr {
    /// Returns the IP address, if there is one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            ClientAddr::Ip(ip) => Some(ip),
            ClientAddr::Unix => None,
        }
    }
}
