//! A SOCKS request: the result of a handshake.

use std::fmt;

use crate::request::{Address, Command, Request};
use crate::tor::destination::Family;
use crate::tor::isolation::{ClientCredentials, Protocol};

/// A client's request, parsed but not checked against the port's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocksRequest {
    /// The protocol of the request, and so of the reply.
    pub version: Version,
    /// What to do with the address.
    pub command: Command,
    /// The destination.
    pub address: Address,
    /// The destination's port. Meaningless for RESOLVE and RESOLVE_PTR. May be 0 for a SOCKS5 CONNECT.
    pub port: u16,
    /// The client's credentials; used for isolation only.
    pub credentials: SocksCredentials,
    /// Whether the address was sent in binary (SOCKS4; SOCKS5 ATYP 1 and 4), so that the client may
    /// have resolved a name by itself.
    pub raw_ip: bool,
}

impl SocksRequest {
    /// Whether the client may have leaked a name to its own resolver: `SafeSocks` refuses such requests,
    /// `TestSocks` logs them, and C tor warns about them. Neither an IP address written as a host name
    /// nor RESOLVE_PTR is unsafe.
    pub(crate) fn is_unsafe(&self) -> bool {
        self.raw_ip && self.command != Command::ResolvePtr
    }
}

impl From<&SocksRequest> for Request {
    fn from(request: &SocksRequest) -> Self {
        Request {
            command: request.command,
            address: request.address.clone(),
            port: request.port,
            protocol: match request.version {
                Version::V4 | Version::V4a => Protocol::Socks4,
                Version::V5 => Protocol::Socks5,
            },
            // Like C tor, isolates by user name and password alone: a SOCKS4 user and the same SOCKS5
            // user without a password may share circuits.
            credentials: ClientCredentials::new(
                request.credentials.user(),
                request.credentials.password(),
            ),
            // A SOCKS4 reply can hold an IPv4 address only.
            family: match (request.command, request.version) {
                (Command::Resolve, Version::V4 | Version::V4a) => Some(Family::V4Only),
                _ => None,
            },
        }
    }
}

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// SOCKS4: an IPv4 address.
    V4,
    /// SOCKS4a: SOCKS4 with a host name.
    V4a,
    /// SOCKS5 (RFC 1928).
    V5,
}

/// The credentials that isolate a client's streams. As in C tor, an empty user name without a password
/// counts as nothing.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum SocksCredentials {
    /// Nothing.
    #[default]
    None,
    /// The user id of a SOCKS4 request; never empty.
    Socks4User(Vec<u8>),
    /// User name and password (RFC 1929); one of them may be empty.
    ///
    /// The user name `<torS0X>0` marks the password as an isolation token (proposal 351). It is kept
    /// as received, because it isolates like any other pair.
    Socks5 {
        /// The user name.
        user: Vec<u8>,
        /// The password.
        password: Vec<u8>,
    },
}

impl SocksCredentials {
    /// The user name; empty if there is none.
    pub fn user(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Socks4User(user) | Self::Socks5 { user, .. } => user,
        }
    }

    /// The password; empty if there is none.
    pub fn password(&self) -> &[u8] {
        match self {
            Self::None | Self::Socks4User(_) => &[],
            Self::Socks5 { password, .. } => password,
        }
    }
}

impl fmt::Debug for SocksCredentials {
    /// Writes the variant only: user names and passwords are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Socks4User(_) => "Socks4User(..)",
            Self::Socks5 { .. } => "Socks5(..)",
        })
    }
}

/// The command numbers of SOCKS4 and SOCKS5.
pub(super) mod command {
    pub(crate) const CONNECT: u8 = 0x01;
    /// Refused as unsupported.
    pub(crate) const BIND: u8 = 0x02;
    /// SOCKS5 only; refused as unsupported.
    pub(crate) const UDP_ASSOCIATE: u8 = 0x03;
    /// Tor's extension (socks-extensions).
    pub(crate) const RESOLVE: u8 = 0xF0;
    /// Tor's extension (socks-extensions); supported over SOCKS5 only.
    pub(crate) const RESOLVE_PTR: u8 = 0xF1;
}
