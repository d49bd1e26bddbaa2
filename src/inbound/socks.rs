//! The SOCKS4, SOCKS4a and SOCKS5 handshake as a client of a Tor SOCKS port speaks it, without any I/O.
//!
//! [`Handshake::step`] looks at the bytes received so far and says what to do next: read more, send two bytes
//! and go on, hand a [`Request`] to the rest of the program, or refuse. Bytes behind what a step consumed
//! belong to the caller; behind a finished request they are the stream's first data. What a step says depends
//! only on the bytes, never on how they were cut into reads.
//!
//! The reference is C tor's `proto_socks.c`. The files: `v4.rs` and `v5.rs` read the two protocols, `name.rs`
//! holds the rules for host names, `reply.rs` builds every answer.
//!
//! # What is left to the caller
//! C tor answers some *parsed* requests with an error of the stream. These come out of here as requests,
//! because their answer depends on what only a later stage knows:
//! - **port 0**: refused (`01`), but a bad `.onion` with port 0 is still `F6` with extended errors. SOCKS4 forbids
//!   port 0 in the protocol itself, so that is refused here.
//! - **`.exit`**: `01`, after address mapping.
//! - **bad `.onion` names** that are host names (`a_b.onion`, `foo.onion`): `F6` with extended errors, else `01`.
//!   Those that are no host names at all (`-bad.onion`, `foo..onion`, `.onion`) are refused here with `01`,
//!   whatever the port's flags: C tor checks the form first.
//! - **private addresses**, `localhost`, `*.local`.
//! - RESOLVE and RESOLVE_PTR are answered by [`reply::resolve_failure`] whatever went wrong.

pub(crate) mod name;
pub mod reply;
#[cfg(test)]
mod tests;
mod v4;
mod v5;

use std::fmt;

use reply::{GENERAL_FAILURE, NOT_ALLOWED, connect_reply};

use crate::request;
use crate::request::ClientAddr;
pub use crate::request::{Address, Command};
use crate::tor::destination::Family;
use crate::tor::isolation::{ClientCredentials, Protocol};

/// The longest message of the handshake: user name and password of 255 bytes each (RFC 1929).
/// To this many bytes or more, [`Handshake::step`] never answers [`Step::NeedMore`], so a buffer of this size is enough.
pub const MAX_MESSAGE_LEN: usize = 513;

/// Command CONNECT (SOCKS4 and SOCKS5).
const CONNECT: u8 = 0x01;
/// Command BIND (SOCKS4 and SOCKS5): known, not served.
const BIND: u8 = 0x02;
/// Command UDP ASSOCIATE (SOCKS5): known, not served.
const UDP_ASSOCIATE: u8 = 0x03;
/// Command RESOLVE (socks-extensions, SOCKS4 and SOCKS5).
const RESOLVE: u8 = 0xF0;
/// Command RESOLVE_PTR (socks-extensions): served over SOCKS5 only.
const RESOLVE_PTR: u8 = 0xF1;

/// What the port's configuration and the client's socket say about a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeOptions {
    /// `PreferSOCKSNoAuth`: choose "no authentication" when the client offers both methods.
    pub prefer_no_auth: bool,
    /// The family of the client's address: it decides the length of some SOCKS5 refusals.
    pub client: ClientFamily,
}

/// The address family a client connects from. C tor's SOCKS5 replies carry an address of this family, always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFamily {
    /// IPv4: replies of 10 bytes, ATYP 1.
    V4,
    /// IPv6 and unix sockets: replies of 22 bytes, ATYP 4.
    Other,
}

impl From<ClientAddr> for ClientFamily {
    fn from(origin: ClientAddr) -> Self {
        match origin {
            ClientAddr::Ip(ip) if ip.is_ipv4() => Self::V4,
            ClientAddr::Ip(_) | ClientAddr::Unix => Self::Other,
        }
    }
}

/// One handshake with one client, from the first byte to the request.
#[derive(Debug)]
pub struct Handshake {
    options: HandshakeOptions,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing consumed yet: any protocol may come.
    Fresh,
    /// A SOCKS5 method has been chosen.
    Socks5(v5::Session),
    /// A request was handed out, or the client was refused.
    Over,
}

/// What to do next. Nothing is consumed unless the step says so.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read more from the client, then ask again with everything not yet consumed. An end of file here ends
    /// the connection without an answer.
    NeedMore,
    /// Drop `consumed` bytes, send `reply` (the chosen method, or the answer to a user name), and ask again.
    Send {
        /// How many bytes of the input this step used up; at least 1.
        consumed: usize,
        /// The bytes for the client.
        reply: [u8; 2],
    },
    /// The handshake is over: nothing is sent until the request's outcome is known.
    Done {
        /// How many bytes of the input belong to the handshake; those behind are the stream's first data.
        consumed: usize,
        /// What the client wants.
        request: Request,
    },
    /// Send `reply`, which may be empty, and close. The rest of the input is to be dropped.
    Refuse {
        /// The bytes for the client.
        reply: Vec<u8>,
        /// What was wrong, for the log.
        why: Malformed,
    },
}

impl Handshake {
    /// A handshake at its first byte.
    pub fn new(options: HandshakeOptions) -> Self {
        Self {
            options,
            state: State::Fresh,
        }
    }

    /// Takes everything received and not yet consumed, and says what to do next.
    ///
    /// Each message is told by its first byte (C tor's `parse_socks`), and nothing is looked at before there are
    /// two bytes. After [`Step::Done`] or [`Step::Refuse`] there is no next step: asking again is refused.
    pub fn step(&mut self, input: &[u8]) -> Step {
        let step = self.next(input);
        if matches!(step, Step::Done { .. } | Step::Refuse { .. }) {
            self.state = State::Over;
        }
        step
    }

    fn next(&mut self, input: &[u8]) -> Step {
        let &[first, _, ..] = input else {
            return match self.state {
                State::Over => Step::refuse(Malformed::HandshakeOver),
                State::Fresh | State::Socks5(_) => Step::NeedMore,
            };
        };
        match (&mut self.state, first) {
            (State::Over, _) => Step::refuse(Malformed::HandshakeOver),
            // GET, HEAD, PUT, POST, CONNECT: a browser that was told of an HTTP proxy.
            (_, b'G' | b'H' | b'P' | b'C') => Step::Refuse {
                reply: reply::not_an_http_proxy(),
                why: Malformed::Http,
            },
            (State::Fresh, v4::VERSION) => v4::request(input, &self.options),
            (State::Fresh, v5::VERSION) => match v5::methods(input, &self.options) {
                Ok((step, session)) => {
                    self.state = State::Socks5(session);
                    step
                }
                Err(step) => step,
            },
            (State::Fresh, v5::AUTH_VERSION) => v5::early_auth(input),
            (State::Fresh, other) => Step::refuse(Malformed::UnknownProtocol(other)),
            (State::Socks5(session), _) => session.next(input, &self.options),
        }
    }
}

impl Step {
    /// A close without an answer.
    fn refuse(why: Malformed) -> Self {
        Self::Refuse {
            reply: Vec::new(),
            why,
        }
    }

    /// A SOCKS5 refusal of a message C tor could not parse; its length follows the client's family.
    fn refuse_general(why: Malformed, options: &HandshakeOptions) -> Self {
        Self::Refuse {
            reply: connect_reply(Version::V5, GENERAL_FAILURE, options.client),
            why,
        }
    }
}

/// What a client asks for, once the handshake is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The protocol it was asked in, which is the protocol of the reply.
    pub version: Version,
    /// What to do with the address.
    pub command: Command,
    /// The destination.
    pub address: Address,
    /// The destination's port. Means nothing for RESOLVE and RESOLVE_PTR. May be 0 for a SOCKS5 CONNECT.
    pub port: u16,
    /// Who the client says it is; used for isolation only.
    pub credentials: Credentials,
    /// The client gave the address in binary (SOCKS4, ATYP 1, ATYP 4), so it may have resolved a name by itself.
    pub raw_ip: bool,
}

impl Request {
    /// Whether the client may have leaked a name to its own resolver: what `SafeSocks` refuses, `TestSocks` reports
    /// and C tor warns of. An IP written out as a host name is not unsafe, and neither is RESOLVE_PTR.
    pub fn is_unsafe(&self) -> bool {
        self.raw_ip && self.command != Command::ResolvePtr
    }

    /// What a port with `SafeSocks` does with an unsafe request. It is asked for after the handshake,
    /// because addresses that a `MapAddress` line covers are exempt.
    pub fn refuse_as_unsafe(&self) -> Step {
        Step::Refuse {
            reply: connect_reply(self.version, NOT_ALLOWED, ClientFamily::V4),
            why: Malformed::UnsafeIp,
        }
    }
}

impl From<&Request> for request::Request {
    /// What was asked, without how: C tor isolates by user name and password alone, so a SOCKS4 user
    /// and the same SOCKS5 user without a password may share.
    fn from(asked: &Request) -> Self {
        request::Request {
            command: asked.command,
            address: asked.address.clone(),
            port: asked.port,
            protocol: match asked.version {
                Version::V4 | Version::V4a => Protocol::Socks4,
                Version::V5 => Protocol::Socks5,
            },
            credentials: ClientCredentials::new(
                asked.credentials.user(),
                asked.credentials.password(),
            ),
            // A SOCKS4 reply has room for an IPv4 address alone.
            family: match (asked.command, asked.version) {
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

/// What the client sent along for isolation. An empty user name without a password counts as nothing sent, as in C tor.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// The user id of a SOCKS4 request; never empty.
    Socks4User(Vec<u8>),
    /// User name and password of RFC 1929. One of them may be empty. The user name `<torS0X>0` says that the password
    /// is an isolation token (proposal 351); it is kept as it came, since it isolates as any other pair does.
    Socks5 {
        /// The user name.
        user: Vec<u8>,
        /// The password.
        password: Vec<u8>,
    },
}

impl Credentials {
    /// The user name, empty if there is none. C tor isolates by user name and password alone, so a
    /// SOCKS4 user and the same SOCKS5 user without a password may share.
    pub fn user(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Socks4User(user) | Self::Socks5 { user, .. } => user,
        }
    }

    /// The password, empty if there is none.
    pub fn password(&self) -> &[u8] {
        match self {
            Self::None | Self::Socks4User(_) => &[],
            Self::Socks5 { password, .. } => password,
        }
    }
}

impl fmt::Debug for Credentials {
    /// Names the kind only: user names and passwords are secrets of the client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Socks4User(_) => "Socks4User(..)",
            Self::Socks5 { .. } => "Socks5(..)",
        })
    }
}

/// Why a client was refused during the handshake. It is the client's fault in every case but [`Malformed::HandshakeOver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It speaks HTTP. Answered with a page that says what to set.
    Http,
    /// The first byte belongs to no protocol known here. Closed without an answer.
    UnknownProtocol(u8),
    /// A SOCKS5 greeting that offers no method at all. Closed without an answer.
    NoMethods,
    /// A SOCKS5 greeting without "no authentication" and "user name and password". Answered `05 FF`.
    NoAcceptableMethod,
    /// User name and password before any greeting. Closed without an answer.
    AuthBeforeMethods,
    /// Something else than the user name and password that were agreed on. `01`.
    NotAuth(u8),
    /// A user name that starts with `<torS0X>` but is not `<torS0X>0`: a format not known here (proposal 351). `01`.
    UnknownAuthFormat,
    /// Where a SOCKS5 request was due, a message that starts with this byte. `01`.
    NotARequest(u8),
    /// A command number nobody defined. `01`, SOCKS4 `5B`.
    UnknownCommand(u8),
    /// BIND or UDP ASSOCIATE, or RESOLVE_PTR over SOCKS4. `07`, SOCKS4 `5B`.
    UnsupportedCommand(u8),
    /// The reserved byte of a SOCKS5 request is not zero. `01`.
    ReservedNotZero(u8),
    /// An address type nobody defined. `01`, as C tor answers.
    UnknownAddressType(u8),
    /// The host name breaks the rules. `01`, SOCKS4 `5B`.
    InvalidHostname,
    /// RESOLVE_PTR of something that is no IP address. `08`.
    PtrOfName,
    /// An IP address, and the port has `SafeSocks`. `02`, SOCKS4 `5B`.
    UnsafeIp,
    /// A SOCKS4 request for port 0. `5B`.
    ZeroPort,
    /// A SOCKS4 request for 0.0.0.0. `5B`.
    ZeroIp,
    /// A SOCKS4 request with a user id or host name beyond the limits. `5B`.
    TooLong,
    /// [`Handshake::step`] was called after the end: a fault of the caller. Closed without an answer.
    HandshakeOver,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => write!(f, "the client speaks HTTP to a SOCKS port"),
            Self::UnknownProtocol(byte) => write!(f, "no SOCKS version: first byte {byte:#04x}"),
            Self::NoMethods => write!(f, "SOCKS5 greeting offers no method"),
            Self::NoAcceptableMethod => write!(f, "SOCKS5 greeting offers neither 00 nor 02"),
            Self::AuthBeforeMethods => write!(f, "SOCKS5 user name sent before the greeting"),
            Self::NotAuth(byte) => write!(
                f,
                "SOCKS5 user name message starts with {byte:#04x}, not 0x01"
            ),
            Self::UnknownAuthFormat => {
                write!(f, "user name claims a <torS0X> format that is not known")
            }
            Self::NotARequest(byte) => {
                write!(f, "SOCKS5 request starts with {byte:#04x}, not 0x05")
            }
            Self::UnknownCommand(byte) => write!(f, "unknown command {byte:#04x}"),
            Self::UnsupportedCommand(byte) => write!(f, "unsupported command {byte:#04x}"),
            Self::ReservedNotZero(byte) => write!(f, "reserved byte is {byte:#04x}, not 0"),
            Self::UnknownAddressType(byte) => write!(f, "unknown address type {byte:#04x}"),
            Self::InvalidHostname => write!(f, "malformed host name"),
            Self::PtrOfName => write!(f, "RESOLVE_PTR of something that is no IP address"),
            Self::UnsafeIp => write!(
                f,
                "an IP address instead of a host name, refused by SafeSocks"
            ),
            Self::ZeroPort => write!(f, "SOCKS4 request for port 0"),
            Self::ZeroIp => write!(f, "SOCKS4 request for 0.0.0.0"),
            Self::TooLong => write!(f, "SOCKS4 request too long"),
            Self::HandshakeOver => write!(f, "handshake asked for another step after its end"),
        }
    }
}

impl std::error::Error for Malformed {}
