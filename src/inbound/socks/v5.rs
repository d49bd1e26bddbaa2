//! SOCKS5 (RFC 1928): greeting, perhaps user name and password (RFC 1929), request.
//!
//! Refusals have the same length as C tor's: 10 bytes for a message that is a SOCKS5 request, and for anything
//! else in its place a reply with an address of the client's own family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::{self, InvalidName};
use super::reply::{
    ADDRESS_TYPE_NOT_SUPPORTED, COMMAND_NOT_SUPPORTED, ClientFamily, GENERAL_FAILURE,
    connect_reply, resolve_failure,
};
use super::request::command::{BIND, CONNECT, RESOLVE, RESOLVE_PTR, UDP_ASSOCIATE};
use super::request::{SocksCredentials, SocksRequest, Version};
use super::step::{HandshakeError, HandshakeOptions, HandshakeStep};
use crate::request::{Address, Command};

/// The first byte of a SOCKS5 greeting and of a request.
pub(super) const VERSION: u8 = 5;
/// The first byte of a message with user name and password.
pub(super) const AUTH_VERSION: u8 = 1;

/// Method "no authentication required".
const NO_AUTH: u8 = 0x00;
/// Method "user name and password".
const USER_PASSWORD: u8 = 0x02;
/// The reply to a greeting without an acceptable method.
const NO_ACCEPTABLE_METHOD: u8 = 0xFF;

/// The prefix of user names that are reserved for Tor (proposal 351).
const EXTENDED_AUTH: &[u8] = b"<torS0X>";
/// The only supported one of them: the password is an isolation token.
const EXTENDED_AUTH_ISOLATION: &[u8] = b"<torS0X>0";

/// The state of a SOCKS5 handshake after the reply to the greeting.
#[derive(Debug)]
pub(super) struct Socks5Handshake {
    /// Whether the chosen method is user name and password.
    auth_agreed: bool,
    /// The credentials, once received.
    credentials: Option<SocksCredentials>,
}

/// Reads a greeting, `05 n methods(n)`. `Err` holds the step of a greeting that is incomplete or refused.
pub(super) fn read_greeting(
    input: &[u8],
    options: &HandshakeOptions,
) -> Result<(HandshakeStep, Socks5Handshake), HandshakeStep> {
    let Some((&[_, count], rest)) = input.split_first_chunk::<2>() else {
        return Err(HandshakeStep::NeedMore);
    };
    if count == 0 {
        return Err(HandshakeStep::refuse_silently(HandshakeError::NoMethods));
    }
    let Some(offered) = rest.get(..usize::from(count)) else {
        return Err(HandshakeStep::NeedMore);
    };
    let no_auth = offered.contains(&NO_AUTH);
    let auth_agreed = offered.contains(&USER_PASSWORD) && !(no_auth && options.prefer_no_auth);
    if !no_auth && !auth_agreed {
        return Err(HandshakeStep::Refuse {
            reply: vec![VERSION, NO_ACCEPTABLE_METHOD],
            error: HandshakeError::NoAcceptableMethod,
        });
    }
    let chosen = if auth_agreed { USER_PASSWORD } else { NO_AUTH };
    let step = HandshakeStep::Send {
        consumed: 2 + offered.len(),
        reply: [VERSION, chosen],
    };
    let handshake = Socks5Handshake {
        auth_agreed,
        credentials: None,
    };
    Ok((step, handshake))
}

/// Reads user name and password without a greeting before them. Like C tor, waits for the whole message, then
/// refuses it.
pub(super) fn read_premature_auth(input: &[u8]) -> HandshakeStep {
    match split_auth(input) {
        None => HandshakeStep::NeedMore,
        Some(_) => HandshakeStep::refuse_silently(HandshakeError::AuthBeforeMethods),
    }
}

/// Splits `01 ulen user plen password` into user and password. Returns `None` if the message is incomplete.
fn split_auth(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, user_len], rest) = input.split_first_chunk::<2>()?;
    let (user, rest) = rest.split_at_checked(usize::from(user_len))?;
    let (&password_len, rest) = rest.split_first()?;
    Some((user, rest.get(..usize::from(password_len))?))
}

impl Socks5Handshake {
    /// Reads a message after the greeting; `input` has at least two bytes.
    pub(super) fn step(&mut self, input: &[u8], options: &HandshakeOptions) -> HandshakeStep {
        match (&self.credentials, input[0]) {
            // Some clients send a user name although "no authentication" was chosen; C tor accepts it.
            (None, AUTH_VERSION) => self.read_auth(input, options),
            (None, other) if self.auth_agreed => {
                HandshakeStep::refuse_with_client_family(HandshakeError::NotAuth(other), options)
            }
            (_, VERSION) => self.read_request(input, options),
            // C tor parses a second user name as a malformed request.
            (Some(_), AUTH_VERSION) => {
                refuse_with_ipv4(GENERAL_FAILURE, HandshakeError::NotARequest(AUTH_VERSION))
            }
            // C tor also accepts a SOCKS4 request here, and keeps the user name; no client needs that.
            (_, other) => HandshakeStep::refuse_with_client_family(
                HandshakeError::NotARequest(other),
                options,
            ),
        }
    }

    fn read_auth(&mut self, input: &[u8], options: &HandshakeOptions) -> HandshakeStep {
        let Some((user, password)) = split_auth(input) else {
            return HandshakeStep::NeedMore;
        };
        if user.starts_with(EXTENDED_AUTH) && user != EXTENDED_AUTH_ISOLATION {
            return HandshakeStep::refuse_with_client_family(
                HandshakeError::UnknownAuthFormat,
                options,
            );
        }
        self.credentials = Some(match (user, password) {
            // RFC 1929 forbids empty fields, but clients send them.
            ([], []) => SocksCredentials::None,
            _ => SocksCredentials::Socks5 {
                user: user.to_vec(),
                password: password.to_vec(),
            },
        });
        HandshakeStep::Send {
            consumed: 3 + user.len() + password.len(),
            reply: [AUTH_VERSION, 0],
        }
    }

    /// Reads a request, `05 command 00 type address port(2)`.
    fn read_request(&mut self, input: &[u8], options: &HandshakeOptions) -> HandshakeStep {
        let raw = match RawRequest::parse(input) {
            Ok(Some(raw)) => raw,
            Ok(None) => return HandshakeStep::NeedMore,
            Err(error) => return refuse_with_ipv4(GENERAL_FAILURE, error),
        };
        let command = match raw.command {
            CONNECT => Command::Connect,
            RESOLVE => Command::Resolve,
            RESOLVE_PTR => Command::ResolvePtr,
            other => {
                let error = HandshakeError::UnsupportedCommand(other);
                return refuse_with_ipv4(COMMAND_NOT_SUPPORTED, error);
            }
        };
        let raw_ip = matches!(raw.address, RawAddress::Ip(_));
        let address = match raw.address {
            RawAddress::Ip(ip) => Ok(Address::Ip(ip)),
            RawAddress::Name(text) => name::parse(text),
        };
        let address = match (command, address) {
            (Command::ResolvePtr, Err(_) | Ok(Address::Name(_))) => {
                return refuse_with_ipv4(ADDRESS_TYPE_NOT_SUPPORTED, HandshakeError::PtrOfName);
            }
            (_, Ok(address)) => address,
            (_, Err(InvalidName::Form)) => {
                return refuse_with_ipv4(GENERAL_FAILURE, HandshakeError::InvalidHostname);
            }
            // C tor refuses these in a later stage, so the replies have other forms.
            (Command::Resolve, Err(InvalidName::Brackets)) => {
                return HandshakeStep::Refuse {
                    reply: resolve_failure(Version::V5),
                    error: HandshakeError::InvalidHostname,
                };
            }
            (_, Err(InvalidName::Brackets)) => {
                return HandshakeStep::refuse_with_client_family(
                    HandshakeError::InvalidHostname,
                    options,
                );
            }
        };
        let request = SocksRequest {
            version: Version::V5,
            command,
            address,
            port: raw.port,
            credentials: self.credentials.take().unwrap_or_default(),
            raw_ip,
        };
        HandshakeStep::Done {
            consumed: raw.len,
            request,
        }
    }
}

/// Refuses a message that is a SOCKS5 request. The reply has a zero IPv4 address: always 10 bytes.
fn refuse_with_ipv4(code: u8, error: HandshakeError) -> HandshakeStep {
    HandshakeStep::Refuse {
        reply: connect_reply(Version::V5, code, ClientFamily::V4),
        error,
    }
}

/// The fields of a request, not interpreted yet.
struct RawRequest<'a> {
    command: u8,
    address: RawAddress<'a>,
    port: u16,
    len: usize,
}

enum RawAddress<'a> {
    Ip(IpAddr),
    Name(&'a [u8]),
}

impl<'a> RawRequest<'a> {
    /// Returns `None` if the request is incomplete. Checks each byte as soon as it is available, so an invalid
    /// one is refused before the request is complete.
    fn parse(input: &'a [u8]) -> Result<Option<Self>, HandshakeError> {
        let mut fields = FieldReader {
            rest: input.get(1..).unwrap_or_default(),
        };
        let Some([command]) = fields.take() else {
            return Ok(None);
        };
        if !matches!(
            command,
            CONNECT | BIND | UDP_ASSOCIATE | RESOLVE | RESOLVE_PTR
        ) {
            return Err(HandshakeError::UnknownCommand(command));
        }
        let Some([reserved]) = fields.take() else {
            return Ok(None);
        };
        if reserved != 0 {
            return Err(HandshakeError::ReservedNotZero(reserved));
        }
        let Some([address_type]) = fields.take() else {
            return Ok(None);
        };
        let address = match address_type {
            1 => fields
                .take()
                .map(|ip: [u8; 4]| RawAddress::Ip(IpAddr::V4(Ipv4Addr::from(ip)))),
            3 => fields
                .take()
                .and_then(|[len]| fields.take_slice(len))
                .map(RawAddress::Name),
            4 => fields
                .take()
                .map(|ip: [u8; 16]| RawAddress::Ip(IpAddr::V6(Ipv6Addr::from(ip)))),
            other => return Err(HandshakeError::UnknownAddressType(other)),
        };
        let (Some(address), Some(port)) = (address, fields.take()) else {
            return Ok(None);
        };
        let len = input.len() - fields.rest.len();
        Ok(Some(Self {
            command,
            address,
            port: u16::from_be_bytes(port),
            len,
        }))
    }
}

/// Takes a message apart, field by field.
struct FieldReader<'a> {
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    /// Takes the next `N` bytes, or returns `None` if there are fewer.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*field)
    }

    /// Takes the next `len` bytes, or returns `None` if there are fewer.
    fn take_slice(&mut self, len: u8) -> Option<&'a [u8]> {
        let (field, rest) = self.rest.split_at_checked(usize::from(len))?;
        self.rest = rest;
        Some(field)
    }
}
