//! What a client asks for, whatever protocol it spoke.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroize as _;

use crate::isolation::Protocol;
use crate::policy::Family;

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
    pub credentials: Option<Secret>,
    /// The addresses the client itself wants to have used; the port's flags may narrow it.
    pub family: Option<Family>,
}

/// A user name and password, or what stands for them: never to be shown, and wiped with its last copy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<Login>);

#[derive(PartialEq, Eq, Hash)]
struct Login {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Drop for Login {
    fn drop(&mut self) {
        self.user.zeroize();
        self.password.zeroize();
    }
}

impl Secret {
    /// Both parts; `None` if both are empty, which counts as nothing said.
    pub fn new(user: &[u8], password: &[u8]) -> Option<Secret> {
        (!user.is_empty() || !password.is_empty()).then(|| {
            Secret(Arc::new(Login {
                user: user.to_vec(),
                password: password.to_vec(),
            }))
        })
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([scrubbed])")
    }
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
