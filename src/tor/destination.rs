//! The requests that the network can serve.

use std::net::IpAddr;

use super::onion_address::OnionAddress;

/// Which addresses of a host name an exit may use, and which it tries first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Only IPv4.
    V4Only,
    /// IPv4 first, then IPv6.
    V4Preferred,
    /// IPv6 first, then IPv4.
    V6Preferred,
    /// Only IPv6.
    V6Only,
}

/// A request that the port's rules permit. The network accepts nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermittedRequest {
    /// A stream to an onion service.
    Onion {
        /// The service's address.
        service: OnionAddress,
        /// Its virtual port.
        port: u16,
    },
    /// A stream through an exit.
    Exit {
        /// A host name, or an IP address as text.
        host: String,
        /// The port.
        port: u16,
        /// Which of the host's addresses to use.
        family: Family,
    },
    /// A lookup of a name by an exit.
    Resolve {
        /// The name.
        host: String,
        /// Which of the addresses to return.
        family: Family,
    },
    /// A reverse lookup of an IP address by an exit.
    ResolvePtr(IpAddr),
    /// A lookup of an IP address in text form, which needs no exit.
    Literal(IpAddr),
}
