//! Reading SOCKS4 and SOCKS4a: one message, one answer.
//!
//! `04 command port(2) ip(4) user 00 [name 00]`; the name follows when the IP is 0.0.0.x with x not zero (SOCKS4a).
//! Every refusal is the same eight bytes. Order and conditions follow C tor's `parse_socks4_request`.

use std::net::{IpAddr, Ipv4Addr};

use super::reply::{GENERAL_FAILURE, connect_reply};
use super::{
    Address, BIND, CONNECT, Command, Credentials, HandshakeOptions, Malformed, RESOLVE,
    RESOLVE_PTR, Request, Step, Version, name,
};

/// The first byte of a SOCKS4 request.
pub(super) const VERSION: u8 = 4;

/// The fields before the user id.
const HEAD_LEN: usize = 8;

/// A request must be complete within this many bytes (C tor's `MAX_SOCKS_MESSAGE_LEN`). A client that is still
/// talking then is refused.
const MAX_REQUEST_LEN: usize = 512;

/// The longest SOCKS4a host name, without its zero byte (C tor's `MAX_SOCKS_ADDR_LEN` counts it).
const MAX_NAME_LEN: usize = 255;

/// Reads a SOCKS4 or SOCKS4a request; `input` has at least one byte.
pub(super) fn request(input: &[u8], options: &HandshakeOptions) -> Step {
    match parse(input) {
        Ok(Some((consumed, request))) => Step::Done { consumed, request },
        Ok(None) => Step::NeedMore,
        Err(why) => Step::Refuse {
            reply: connect_reply(Version::V4, GENERAL_FAILURE, options.client),
            why,
        },
    }
}

fn parse(input: &[u8]) -> Result<Option<(usize, Request)>, Malformed> {
    let Some((&[_, command, p0, p1, a, b, c, d], rest)) = input.split_first_chunk::<HEAD_LEN>()
    else {
        return Ok(None);
    };
    // The one fault C tor sees before the request is complete.
    if !matches!(command, CONNECT | BIND | RESOLVE | RESOLVE_PTR) {
        return Err(Malformed::UnknownCommand(command));
    }
    let port = u16::from_be_bytes([p0, p1]);
    let ip = Ipv4Addr::new(a, b, c, d);
    let is_4a = matches!(ip.octets(), [0, 0, 0, x] if x != 0);

    let within_limit = &rest[..rest.len().min(MAX_REQUEST_LEN - HEAD_LEN)];
    let mut fields = within_limit.split(|&byte| byte == 0);
    let wanted = if is_4a { 2 } else { 1 };
    let zeros = within_limit.iter().filter(|&&byte| byte == 0).count();
    if zeros < wanted {
        return if input.len() < MAX_REQUEST_LEN {
            Ok(None)
        } else {
            Err(Malformed::TooLong)
        };
    }
    let user = fields.next().unwrap_or_default();
    let hostname = if is_4a { fields.next() } else { None };
    let consumed = HEAD_LEN + user.len() + 1 + hostname.map_or(0, |name| name.len() + 1);

    if ip.is_unspecified() {
        return Err(Malformed::ZeroIp);
    }
    if port == 0 && command != RESOLVE {
        return Err(Malformed::ZeroPort);
    }
    if hostname.is_some_and(|name| name.len() > MAX_NAME_LEN) {
        return Err(Malformed::TooLong);
    }
    let command = match command {
        CONNECT => Command::Connect,
        RESOLVE => Command::Resolve,
        other => return Err(Malformed::UnsupportedCommand(other)),
    };
    let address = match hostname {
        None => Address::Ip(IpAddr::V4(ip)),
        Some(written) => name::parse(written).map_err(|_| Malformed::InvalidHostname)?,
    };
    let credentials = match user {
        [] => Credentials::None,
        user => Credentials::Socks4User(user.to_vec()),
    };
    let version = if is_4a { Version::V4a } else { Version::V4 };
    Ok(Some((
        consumed,
        Request {
            version,
            command,
            address,
            port,
            credentials,
            raw_ip: !is_4a,
        },
    )))
}
