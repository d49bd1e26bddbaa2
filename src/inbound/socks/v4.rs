//! SOCKS4 and SOCKS4a: one message, one reply.
//!
//! `04 command port(2) ip(4) user 00 [name 00]`. The name follows if the IP address is 0.0.0.x with x not
//! zero (SOCKS4a). All refusals are the same eight bytes. The checks and their order follow C tor's
//! `parse_socks4_request`.

use std::net::{IpAddr, Ipv4Addr};

use super::name;
use super::reply::{GENERAL_FAILURE, connect_reply};
use super::request::command::{BIND, CONNECT, RESOLVE, RESOLVE_PTR};
use super::request::{SocksCredentials, SocksRequest, Version};
use super::step::{HandshakeError, HandshakeOptions, HandshakeStep};
use crate::request::{Address, Command};

/// The first byte of a SOCKS4 request.
pub(super) const VERSION: u8 = 4;

/// The length of the fields before the user id, in bytes.
const HEAD_LEN: usize = 8;

/// A request must be complete within this many bytes (C tor's `MAX_SOCKS_MESSAGE_LEN`); otherwise the client is
/// refused.
const MAX_REQUEST_LEN: usize = 512;

/// The longest SOCKS4a host name in bytes, without its zero byte (which C tor's `MAX_SOCKS_ADDR_LEN` includes).
const MAX_NAME_LEN: usize = 255;

/// Reads a SOCKS4 or SOCKS4a request; `input` has at least one byte.
pub(super) fn read_request(input: &[u8], options: &HandshakeOptions) -> HandshakeStep {
    match parse(input) {
        Ok(Some((consumed, request))) => HandshakeStep::Done { consumed, request },
        Ok(None) => HandshakeStep::NeedMore,
        Err(error) => HandshakeStep::Refuse {
            reply: connect_reply(Version::V4, GENERAL_FAILURE, options.client),
            error,
        },
    }
}

/// Returns the request and its length in bytes, or `None` if it is incomplete.
fn parse(input: &[u8]) -> Result<Option<(usize, SocksRequest)>, HandshakeError> {
    let Some((&[_, command, p0, p1, a, b, c, d], rest)) = input.split_first_chunk::<HEAD_LEN>()
    else {
        return Ok(None);
    };
    // The only fault that C tor detects before the request is complete.
    if !matches!(command, CONNECT | BIND | RESOLVE | RESOLVE_PTR) {
        return Err(HandshakeError::UnknownCommand(command));
    }
    let port = u16::from_be_bytes([p0, p1]);
    let ip = Ipv4Addr::new(a, b, c, d);
    let is_4a = matches!(ip.octets(), [0, 0, 0, x] if x != 0);

    let within_limit = &rest[..rest.len().min(MAX_REQUEST_LEN - HEAD_LEN)];
    let mut fields = within_limit.split(|&byte| byte == 0);
    let expected = if is_4a { 2 } else { 1 };
    let zeros = within_limit.iter().filter(|&&byte| byte == 0).count();
    if zeros < expected {
        return if input.len() < MAX_REQUEST_LEN {
            Ok(None)
        } else {
            Err(HandshakeError::TooLong)
        };
    }
    let user = fields.next().unwrap_or_default();
    let hostname = if is_4a { fields.next() } else { None };
    let consumed = HEAD_LEN + user.len() + 1 + hostname.map_or(0, |name| name.len() + 1);

    if ip.is_unspecified() {
        return Err(HandshakeError::ZeroIp);
    }
    if port == 0 && command != RESOLVE {
        return Err(HandshakeError::ZeroPort);
    }
    if hostname.is_some_and(|name| name.len() > MAX_NAME_LEN) {
        return Err(HandshakeError::TooLong);
    }
    let command = match command {
        CONNECT => Command::Connect,
        RESOLVE => Command::Resolve,
        other => return Err(HandshakeError::UnsupportedCommand(other)),
    };
    let address = match hostname {
        None => Address::Ip(IpAddr::V4(ip)),
        Some(hostname) => name::parse(hostname).map_err(|_| HandshakeError::InvalidHostname)?,
    };
    let credentials = match user {
        [] => SocksCredentials::None,
        user => SocksCredentials::Socks4User(user.to_vec()),
    };
    let version = if is_4a { Version::V4a } else { Version::V4 };
    Ok(Some((
        consumed,
        SocksRequest {
            version,
            command,
            address,
            port,
            credentials,
            raw_ip: !is_4a,
        },
    )))
}
