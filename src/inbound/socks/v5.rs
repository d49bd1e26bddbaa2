//! Reading SOCKS5 (RFC 1928) and its user name and password (RFC 1929): greeting, perhaps credentials, request.
//!
//! A refusal's length is C tor's: a message that is a SOCKS5 request is answered with 10 bytes, anything else in
//! its place with an address of the client's own family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::reply::{
    ADDRESS_TYPE_NOT_SUPPORTED, COMMAND_NOT_SUPPORTED, GENERAL_FAILURE, connect_reply,
    resolve_failure,
};
use super::{
    Address, BIND, CONNECT, ClientFamily, Command, Credentials, HandshakeOptions, Malformed,
    RESOLVE, RESOLVE_PTR, Request, Step, UDP_ASSOCIATE, Version, name,
};

/// The first byte of a SOCKS5 greeting and of a request.
pub(super) const VERSION: u8 = 5;
/// The first byte of a user name and password message.
pub(super) const AUTH_VERSION: u8 = 1;

/// Method "no authentication required".
const NO_AUTH: u8 = 0x00;
/// Method "user name and password".
const USER_PASSWORD: u8 = 0x02;
/// Answer to a greeting: no acceptable method.
const NO_ACCEPTABLE_METHOD: u8 = 0xFF;

/// Proposal 351: user names that start so belong to Tor.
const EXTENDED_AUTH: &[u8] = b"<torS0X>";
/// The one such user name known here: the password is an isolation token.
const EXTENDED_AUTH_ISOLATION: &[u8] = b"<torS0X>0";

/// A SOCKS5 client after its greeting was answered.
#[derive(Debug)]
pub(super) struct Session {
    /// The method answered was user name and password.
    auth_agreed: bool,
    /// What the user name and password message held, once it has come.
    credentials: Option<Credentials>,
}

/// Reads a greeting, `05 n methods(n)`. `Err` holds the step that does not lead on to a session.
pub(super) fn methods(input: &[u8], options: &HandshakeOptions) -> Result<(Step, Session), Step> {
    let Some((&[_, count], rest)) = input.split_first_chunk::<2>() else {
        return Err(Step::NeedMore);
    };
    if count == 0 {
        return Err(Step::refuse(Malformed::NoMethods));
    }
    let Some(offered) = rest.get(..usize::from(count)) else {
        return Err(Step::NeedMore);
    };
    let no_auth = offered.contains(&NO_AUTH);
    let auth_agreed = offered.contains(&USER_PASSWORD) && !(no_auth && options.prefer_no_auth);
    if !no_auth && !auth_agreed {
        let reply = vec![VERSION, NO_ACCEPTABLE_METHOD];
        return Err(Step::Refuse {
            reply,
            why: Malformed::NoAcceptableMethod,
        });
    }
    let chosen = if auth_agreed { USER_PASSWORD } else { NO_AUTH };
    let step = Step::Send {
        consumed: 2 + offered.len(),
        reply: [VERSION, chosen],
    };
    Ok((
        step,
        Session {
            auth_agreed,
            credentials: None,
        },
    ))
}

/// Reads a user name and password that come before any greeting. C tor waits for all of it, then closes.
pub(super) fn early_auth(input: &[u8]) -> Step {
    match split_auth(input) {
        None => Step::NeedMore,
        Some(_) => Step::refuse(Malformed::AuthBeforeMethods),
    }
}

/// Splits `01 ulen user plen password` into user and password, if it is all there.
fn split_auth(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, user_len], rest) = input.split_first_chunk::<2>()?;
    let (user, rest) = rest.split_at_checked(usize::from(user_len))?;
    let (&password_len, rest) = rest.split_first()?;
    Some((user, rest.get(..usize::from(password_len))?))
}

impl Session {
    /// Reads the message behind the greeting; `input` has at least two bytes.
    pub(super) fn next(&mut self, input: &[u8], options: &HandshakeOptions) -> Step {
        match (&self.credentials, input[0]) {
            // Some clients send a user name although "no authentication" was agreed on; C tor takes it.
            (None, AUTH_VERSION) => self.auth(input, options),
            (None, other) if self.auth_agreed => {
                Step::refuse_general(Malformed::NotAuth(other), options)
            }
            (_, VERSION) => self.request(input, options),
            // A second user name reads as a broken request, and is answered as one.
            (Some(_), AUTH_VERSION) => {
                refuse(GENERAL_FAILURE, Malformed::NotARequest(AUTH_VERSION))
            }
            // C tor would also take a SOCKS4 request here and keep the user name; nobody can mean that.
            (_, other) => Step::refuse_general(Malformed::NotARequest(other), options),
        }
    }

    fn auth(&mut self, input: &[u8], options: &HandshakeOptions) -> Step {
        let Some((user, password)) = split_auth(input) else {
            return Step::NeedMore;
        };
        if user.starts_with(EXTENDED_AUTH) && user != EXTENDED_AUTH_ISOLATION {
            return Step::refuse_general(Malformed::UnknownAuthFormat, options);
        }
        self.credentials = Some(match (user, password) {
            // RFC 1929 forbids empty fields, but clients send them.
            ([], []) => Credentials::None,
            _ => Credentials::Socks5 {
                user: user.to_vec(),
                password: password.to_vec(),
            },
        });
        Step::Send {
            consumed: 3 + user.len() + password.len(),
            reply: [AUTH_VERSION, 0],
        }
    }

    /// Reads a request, `05 command 00 type address port(2)`.
    fn request(&mut self, input: &[u8], options: &HandshakeOptions) -> Step {
        let message = match Message::read(input) {
            Ok(Some(message)) => message,
            Ok(None) => return Step::NeedMore,
            Err(why) => return refuse(GENERAL_FAILURE, why),
        };
        let command = match message.command {
            CONNECT => Command::Connect,
            RESOLVE => Command::Resolve,
            RESOLVE_PTR => Command::ResolvePtr,
            other => return refuse(COMMAND_NOT_SUPPORTED, Malformed::UnsupportedCommand(other)),
        };
        let raw_ip = matches!(message.address, RawAddress::Ip(_));
        let address = match message.address {
            RawAddress::Ip(ip) => Ok(Address::Ip(ip)),
            RawAddress::Name(written) => name::parse(written),
        };
        let address = match (command, address) {
            (Command::ResolvePtr, Err(_) | Ok(Address::Name(_))) => {
                return refuse(ADDRESS_TYPE_NOT_SUPPORTED, Malformed::PtrOfName);
            }
            (_, Ok(address)) => address,
            (_, Err(name::Invalid::Form)) => {
                return refuse(GENERAL_FAILURE, Malformed::InvalidHostname);
            }
            // C tor sees these one stage later, hence the other shapes of the same answer.
            (Command::Resolve, Err(name::Invalid::Brackets)) => {
                return Step::Refuse {
                    reply: resolve_failure(Version::V5),
                    why: Malformed::InvalidHostname,
                };
            }
            (_, Err(name::Invalid::Brackets)) => {
                return Step::refuse_general(Malformed::InvalidHostname, options);
            }
        };
        let request = Request {
            version: Version::V5,
            command,
            address,
            port: message.port,
            credentials: self.credentials.take().unwrap_or_default(),
            raw_ip,
        };
        Step::Done {
            consumed: message.len,
            request,
        }
    }
}

/// Refuses a message that is a SOCKS5 request: always 10 bytes.
fn refuse(code: u8, why: Malformed) -> Step {
    Step::Refuse {
        reply: connect_reply(Version::V5, code, ClientFamily::V4),
        why,
    }
}

/// A request's fields, before they are given a meaning.
struct Message<'a> {
    command: u8,
    address: RawAddress<'a>,
    port: u16,
    len: usize,
}

enum RawAddress<'a> {
    Ip(IpAddr),
    Name(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Each byte is judged as soon as it is there, so a bad one is refused before the request is complete.
    fn read(input: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = Fields {
            left: input.get(1..).unwrap_or_default(),
        };
        let Some([command]) = fields.take() else {
            return Ok(None);
        };
        if !matches!(
            command,
            CONNECT | BIND | UDP_ASSOCIATE | RESOLVE | RESOLVE_PTR
        ) {
            return Err(Malformed::UnknownCommand(command));
        }
        let Some([reserved]) = fields.take() else {
            return Ok(None);
        };
        if reserved != 0 {
            return Err(Malformed::ReservedNotZero(reserved));
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
            other => return Err(Malformed::UnknownAddressType(other)),
        };
        let (Some(address), Some(port)) = (address, fields.take()) else {
            return Ok(None);
        };
        let len = input.len() - fields.left.len();
        Ok(Some(Self {
            command,
            address,
            port: u16::from_be_bytes(port),
            len,
        }))
    }
}

/// What is left to read of a message.
struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The next `N` bytes, if they are there.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, left) = self.left.split_first_chunk::<N>()?;
        self.left = left;
        Some(*field)
    }

    /// The next `len` bytes, if they are there.
    fn take_slice(&mut self, len: u8) -> Option<&'a [u8]> {
        let (field, left) = self.left.split_at_checked(usize::from(len))?;
        self.left = left;
        Some(field)
    }
}
