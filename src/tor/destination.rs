//! What the network can be asked for.

use std::net::IpAddr;

use super::onion_address::OnionAddress;

/// The addresses an exit may use for a host name, and which it should try first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 alone.
    V4Only,
    /// Both, IPv4 first.
    V4Preferred,
    /// Both, IPv6 first.
    V6Preferred,
    /// IPv6 alone.
    V6Only,
}

/// A request that the port's rules allow. Only this gets to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// A stream to an onion service.
    Onion {
        /// The service.
        service: OnionAddress,
        /// Its virtual port.
        port: u16,
    },
    /// A stream through an exit.
    Exit {
        /// A host name, or an IP address as text.
        host: String,
        /// The port there.
        port: u16,
        /// Which addresses to use.
        family: Family,
    },
    /// A look-up of a name by an exit.
    Resolve {
        /// The name.
        host: String,
        /// Which of the answers to give.
        family: Family,
    },
    /// A look-up of an address by an exit.
    ResolvePtr(IpAddr),
    /// A look-up of what was an address already: no exit needs to be asked.
    Literal(IpAddr),
}
