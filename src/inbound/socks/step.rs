//! The steps of a handshake, and why a client is refused.

use std::fmt;

use super::reply::{ClientFamily, GENERAL_FAILURE, NOT_ALLOWED, connect_reply};
use super::request::{SocksRequest, Version};

/// The settings of the port and the client's address family, as far as the handshake depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeOptions {
    /// `PreferSOCKSNoAuth`: choose "no authentication" when the client offers both methods.
    pub prefer_no_auth: bool,
    /// The family of the client's address; determines the length of some SOCKS5 refusals.
    pub client: ClientFamily,
}

/// What the caller has to do next. Only steps with a `consumed` field consume input.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeStep {
    /// Read more from the client, then call again with everything not consumed yet. At end of file,
    /// close the connection without a reply.
    NeedMore,
    /// Drop `consumed` bytes, send `reply` (the chosen method, or the result of the authentication),
    /// and call again.
    Send {
        /// How many bytes of the input this step used; at least 1.
        consumed: usize,
        /// The bytes to send.
        reply: [u8; 2],
    },
    /// The handshake is complete. The reply is sent when the request has an outcome.
    Done {
        /// How many bytes of the input belong to the handshake; the rest is optimistic data.
        consumed: usize,
        /// The request.
        request: SocksRequest,
    },
    /// Send `reply`, which may be empty, and close the connection. The rest of the input is discarded.
    Refuse {
        /// The bytes to send.
        reply: Vec<u8>,
        /// The reason, for the log.
        error: HandshakeError,
    },
}

impl HandshakeStep {
    /// Refuses an unsafe request ([`SocksRequest::is_unsafe`]) on a port with `SafeSocks`.
    ///
    /// The caller decides this after the handshake, because addresses that a `MapAddress` line covers
    /// are exempt.
    pub(crate) fn refuse_unsafe_ip(version: Version) -> Self {
        Self::Refuse {
            reply: connect_reply(version, NOT_ALLOWED, ClientFamily::V4),
            error: HandshakeError::UnsafeIp,
        }
    }

    /// Refuses without a reply.
    pub(super) fn refuse_silently(error: HandshakeError) -> Self {
        Self::Refuse {
            reply: Vec::new(),
            error,
        }
    }

    /// Refuses a SOCKS5 message that C tor cannot parse. The reply has a zero address of the client's
    /// family: 10 or 22 bytes.
    pub(super) fn refuse_with_client_family(
        error: HandshakeError,
        options: &HandshakeOptions,
    ) -> Self {
        Self::Refuse {
            reply: connect_reply(Version::V5, GENERAL_FAILURE, options.client),
            error,
        }
    }
}

/// Why a client was refused during the handshake. Always a fault of the client, except for
/// [`HandshakeError::HandshakeOver`].
///
/// Each variant gives the SOCKS5 reply code, and the SOCKS4 one where it can occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The client speaks HTTP. Answered with a page that names the right setting.
    Http,
    /// The first byte belongs to no supported protocol. No reply.
    UnknownProtocol(u8),
    /// A SOCKS5 greeting without any method. No reply.
    NoMethods,
    /// A SOCKS5 greeting with neither "no authentication" nor "user name and password". `05 FF`.
    NoAcceptableMethod,
    /// User name and password before a greeting. No reply.
    AuthBeforeMethods,
    /// A message that starts with this byte, where user name and password were agreed on. `01`.
    NotAuth(u8),
    /// A user name that starts with `<torS0X>` but is not `<torS0X>0`: an unknown format (proposal 351).
    /// `01`.
    UnknownAuthFormat,
    /// A message that starts with this byte, where a SOCKS5 request was due. `01`.
    NotARequest(u8),
    /// An undefined command number. `01`, SOCKS4 `5B`.
    UnknownCommand(u8),
    /// BIND or UDP ASSOCIATE, or RESOLVE_PTR over SOCKS4. `07`, SOCKS4 `5B`.
    UnsupportedCommand(u8),
    /// The reserved byte of a SOCKS5 request is not zero. `01`.
    ReservedNotZero(u8),
    /// An undefined address type. `01`, as in C tor.
    UnknownAddressType(u8),
    /// A host name that breaks the rules of [`super::name`]. `01`, SOCKS4 `5B`.
    InvalidHostname,
    /// RESOLVE_PTR of something other than an IP address. `08`.
    PtrOfName,
    /// An IP address, on a port with `SafeSocks`. `02`, SOCKS4 `5B`.
    UnsafeIp,
    /// A SOCKS4 request for port 0. `5B`.
    ZeroPort,
    /// A SOCKS4 request for 0.0.0.0. `5B`.
    ZeroIp,
    /// A SOCKS4 request with a user id or host name that is too long. `5B`.
    TooLong,
    /// [`super::Handshake::step`] was called after the end: a bug of the caller. No reply.
    HandshakeOver,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => write!(f, "the client speaks HTTP to a SOCKS port"),
            Self::UnknownProtocol(byte) => write!(f, "not SOCKS: the first byte is {byte:#04x}"),
            Self::NoMethods => write!(f, "SOCKS5 greeting without a method"),
            Self::NoAcceptableMethod => {
                write!(f, "SOCKS5 greeting with neither method 00 nor 02")
            }
            Self::AuthBeforeMethods => write!(f, "SOCKS5 user name before the greeting"),
            Self::NotAuth(byte) => write!(
                f,
                "SOCKS5 user name message starts with {byte:#04x}, not 0x01"
            ),
            Self::UnknownAuthFormat => write!(f, "unknown <torS0X> format in the user name"),
            Self::NotARequest(byte) => {
                write!(f, "SOCKS5 request starts with {byte:#04x}, not 0x05")
            }
            Self::UnknownCommand(byte) => write!(f, "unknown command {byte:#04x}"),
            Self::UnsupportedCommand(byte) => write!(f, "unsupported command {byte:#04x}"),
            Self::ReservedNotZero(byte) => write!(f, "reserved byte is {byte:#04x}, not 0"),
            Self::UnknownAddressType(byte) => write!(f, "unknown address type {byte:#04x}"),
            Self::InvalidHostname => write!(f, "malformed host name"),
            Self::PtrOfName => write!(f, "RESOLVE_PTR of something other than an IP address"),
            Self::UnsafeIp => write!(
                f,
                "an IP address instead of a host name, refused by SafeSocks"
            ),
            Self::ZeroPort => write!(f, "SOCKS4 request for port 0"),
            Self::ZeroIp => write!(f, "SOCKS4 request for 0.0.0.0"),
            Self::TooLong => write!(f, "SOCKS4 request too long"),
            Self::HandshakeOver => write!(f, "handshake continued after its end"),
        }
    }
}

impl std::error::Error for HandshakeError {}
