//! The wire vectors of `tests/data/socks_vectors.txt`, and the caller that runs them.

use crate::inbound::socks::{
    ClientFamily, Handshake, HandshakeError, HandshakeOptions, HandshakeStep, MAX_MESSAGE_LEN,
    SocksRequest,
};
use crate::request::{Address, Command};

const VECTORS: &str = include_str!("../../../../tests/data/socks_vectors.txt");

/// A line of the file, without C tor's columns.
pub(super) struct Vector {
    pub(super) name: &'static str,
    pub(super) options: Options,
    pub(super) sent: Vec<Vec<u8>>,
    /// The handshake's reply to each part sent.
    pub(super) replies: Vec<Vec<u8>>,
    /// Whether the last reply continues with bytes that are not in the file.
    pub(super) open_ended: bool,
    /// The reply of a later stage.
    pub(super) later: Option<Vec<u8>>,
    pub(super) closed: bool,
    pub(super) outcome: String,
}

pub(super) fn vectors() -> Vec<Vector> {
    let lines = VECTORS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(parse_line).collect()
}

fn parse_line(line: &'static str) -> Vector {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let &[name, flag, sent, expected, end, outcome, ..] = &fields[..] else {
        panic!("too few fields: {line}");
    };
    let (expected, later) = match expected.split_once('+') {
        Some((expected, later)) => (expected, Some(bytes(later))),
        None => (expected, None),
    };
    let open_ended = expected.ends_with("..");
    let expected = expected.trim_end_matches("..");
    Vector {
        name,
        options: options(flag),
        sent: sent.split('/').map(bytes).collect(),
        replies: expected.split('/').map(bytes).collect(),
        open_ended,
        later,
        closed: end == "closed",
        outcome: outcome.to_owned(),
    }
}

/// The options of a port: those of the handshake, and `SafeSocks`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) handshake: HandshakeOptions,
    pub(super) safe_socks: bool,
}

pub(super) fn options(flag: &str) -> Options {
    let known = [
        "plain",
        "ExtendedErrors",
        "PreferSOCKSNoAuth",
        "SafeSocks",
        "IPv6Client",
        "UnixClient",
        "NoIPv4Traffic",
        "NoIPv6Traffic",
        "NoDNSRequest",
        "NoOnionTraffic",
        "OnionTrafficOnly",
    ];
    assert!(known.contains(&flag), "unknown option {flag}");
    Options {
        handshake: HandshakeOptions {
            prefer_no_auth: flag == "PreferSOCKSNoAuth",
            client: if flag.ends_with("Client") {
                ClientFamily::Other
            } else {
                ClientFamily::V4
            },
        },
        safe_socks: flag == "SafeSocks",
    }
}

/// Parses hex digits; `61*255` repeats a byte.
pub(super) fn bytes(fields: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for field in fields.split_whitespace() {
        let (hex, times) = field
            .split_once('*')
            .map_or((field, 1), |(hex, times)| (hex, times.parse().unwrap()));
        let once: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect();
        all.extend(once.repeat(times));
    }
    all
}

/// How a conversation ended.
#[derive(Debug, PartialEq)]
pub(super) enum End {
    More,
    Refused(HandshakeError),
    Request(SocksRequest),
}

#[derive(Debug, PartialEq)]
pub(super) struct Conversation {
    /// The replies, one for each part.
    pub(super) replies: Vec<Vec<u8>>,
    pub(super) end: End,
    pub(super) consumed: usize,
}

/// Passes the parts to a handshake one by one, and executes its steps.
pub(super) fn converse<'a>(
    options: Options,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> Conversation {
    let mut handshake = Handshake::new(options.handshake);
    let mut talk = Conversation {
        replies: Vec::new(),
        end: End::More,
        consumed: 0,
    };
    let mut input = Vec::new();
    for part in parts {
        input.extend_from_slice(part);
        talk.replies.push(Vec::new());
        let sent = talk.replies.last_mut().unwrap();
        loop {
            let step = match handshake.step(&input) {
                HandshakeStep::Done { request, .. }
                    if options.safe_socks && request.is_unsafe() =>
                {
                    HandshakeStep::refuse_unsafe_ip(request.version)
                }
                step => step,
            };
            match step {
                HandshakeStep::NeedMore => {
                    assert!(
                        input.len() < MAX_MESSAGE_LEN,
                        "needs more than the longest message"
                    );
                    break;
                }
                HandshakeStep::Send { consumed, reply } => {
                    assert!((1..=input.len()).contains(&consumed));
                    input.drain(..consumed);
                    talk.consumed += consumed;
                    sent.extend(reply);
                }
                HandshakeStep::Done { consumed, request } => {
                    assert!((1..=input.len()).contains(&consumed));
                    talk.consumed += consumed;
                    talk.end = End::Request(request);
                    return talk;
                }
                HandshakeStep::Refuse { reply, error } => {
                    sent.extend(reply);
                    talk.end = End::Refused(error);
                    return talk;
                }
            }
        }
    }
    talk
}

/// Formats the end as in the column `outcome` of the file.
fn describe(talk: &Conversation, sent: usize) -> String {
    let request = match &talk.end {
        End::More => return "more".to_owned(),
        End::Refused(error) => return format!("refused {error:?}"),
        End::Request(request) => request,
    };
    let command = match request.command {
        Command::Connect => "CONNECT",
        Command::Resolve => "RESOLVE",
        Command::ResolvePtr => "RESOLVE_PTR",
    };
    let address = match &request.address {
        Address::Ip(ip) => format!("ip:{ip}"),
        Address::Name(name) => format!("name:{name}"),
    };
    let mut text = format!("{:?} {command} {address} {}", request.version, request.port);
    let SocksRequest { credentials, .. } = request;
    for (key, value) in [
        ("user", credentials.user()),
        ("password", credentials.password()),
    ] {
        match value {
            [] => {}
            [first, rest @ ..] if rest.len() > 100 && rest.iter().all(|byte| byte == first) => {
                text += &format!(" {key}={first:02x}*{}", value.len());
            }
            _ => {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                text += &format!(" {key}={hex}");
            }
        }
    }
    if sent > talk.consumed {
        text += &format!(" left={}", sent - talk.consumed);
    }
    text
}

impl Vector {
    pub(super) fn all(&self) -> Vec<u8> {
        self.sent.concat()
    }

    /// Checks a conversation in which the client did not wait for replies.
    pub(super) fn check(&self, talk: &Conversation, cut: &str) {
        let (replies, expected) = (talk.replies.concat(), self.replies.concat());
        if self.open_ended {
            assert!(
                replies.starts_with(&expected),
                "{} {cut}: {replies:02x?}",
                self.name
            );
        } else {
            assert_eq!(replies, expected, "{} {cut}", self.name);
        }
        assert_eq!(
            describe(talk, self.all().len()),
            self.outcome,
            "{} {cut}",
            self.name
        );
    }
}
