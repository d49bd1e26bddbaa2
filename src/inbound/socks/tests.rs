//! Runs the wire vectors of `tests/data/socks_vectors.txt` through the handshake, split in every way, and checks
//! properties of any input.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::reply::{HOST_UNREACHABLE, failure_reply, resolve_reply};
use super::*;
use crate::request::{Address, Answer, ClientAddr, Command};

const VECTORS: &str = include_str!("../../../tests/data/socks_vectors.txt");

/// Fewer mean that the file is truncated.
const MIN_VECTORS: usize = 200;

/// A line of the file, without C tor's columns.
struct Vector {
    name: &'static str,
    options: Options,
    sent: Vec<Vec<u8>>,
    /// The handshake's reply to each part sent.
    replies: Vec<Vec<u8>>,
    /// Whether the last reply continues with bytes that are not in the file.
    open_ended: bool,
    /// The reply of a later stage.
    later: Option<Vec<u8>>,
    closed: bool,
    outcome: String,
}

fn vectors() -> Vec<Vector> {
    let lines = VECTORS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(vector).collect()
}

fn vector(line: &'static str) -> Vector {
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
struct Options {
    handshake: HandshakeOptions,
    safe_socks: bool,
}

fn options(flag: &str) -> Options {
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
fn bytes(fields: &str) -> Vec<u8> {
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
enum End {
    More,
    Refused(HandshakeError),
    Request(SocksRequest),
}

#[derive(Debug, PartialEq)]
struct Conversation {
    /// The replies, one for each part.
    replies: Vec<Vec<u8>>,
    end: End,
    consumed: usize,
}

/// Passes the parts to a handshake one by one, and executes its steps.
fn converse<'a>(options: Options, parts: impl IntoIterator<Item = &'a [u8]>) -> Conversation {
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
    fn all(&self) -> Vec<u8> {
        self.sent.concat()
    }

    /// Checks a conversation in which the client did not wait for replies.
    fn check(&self, talk: &Conversation, cut: &str) {
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

#[test]
fn the_file_of_vectors_is_complete_and_its_names_are_unique() {
    let mut names: Vec<&str> = vectors().iter().map(|vector| vector.name).collect();
    assert!(names.len() >= MIN_VECTORS, "{} vectors", names.len());
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn each_vector_gets_its_replies_part_by_part() {
    for vector in vectors() {
        let talk = converse(vector.options, vector.sent.iter().map(Vec::as_slice));
        vector.check(&talk, "in parts");
        if !vector.open_ended {
            assert_eq!(talk.replies, vector.replies, "{}", vector.name);
        }
    }
}

#[test]
fn each_vector_gets_its_replies_if_sent_at_once() {
    for vector in vectors() {
        let all = vector.all();
        vector.check(&converse(vector.options, [all.as_slice()]), "at once");
    }
}

#[test]
fn each_vector_gets_its_replies_if_sent_byte_by_byte() {
    for vector in vectors() {
        let all = vector.all();
        vector.check(&converse(vector.options, all.chunks(1)), "byte by byte");
    }
}

#[test]
fn each_vector_gets_its_replies_if_split_at_any_byte() {
    for vector in vectors() {
        let all = vector.all();
        for at in 0..=all.len() {
            let (before, after) = all.split_at(at);
            vector.check(
                &converse(vector.options, [before, after]),
                &format!("split at {at}"),
            );
        }
    }
}

#[test]
fn a_truncated_vector_gives_no_request() {
    for vector in vectors() {
        let all = vector.all();
        let whole = converse(vector.options, [all.as_slice()]);
        for at in 0..all.len() {
            let talk = converse(vector.options, [&all[..at]]);
            match talk.end {
                End::More => {}
                End::Refused(_) => assert_eq!(talk.end, whole.end, "{} cut at {at}", vector.name),
                End::Request(_) => assert!(at >= whole.consumed, "{} cut at {at}", vector.name),
            }
        }
    }
}

#[test]
fn only_a_refusal_or_a_later_reply_closes_the_connection() {
    for vector in vectors() {
        let refused = vector.outcome.starts_with("refused");
        assert_eq!(
            vector.closed,
            refused || vector.later.is_some(),
            "{}",
            vector.name
        );
    }
}

/// C tor's replies from later stages are those that the functions of [`reply`] build.
#[test]
fn the_replies_of_later_stages_are_those_of_c_tor() {
    for vector in vectors() {
        let Some(later) = &vector.later else { continue };
        let talk = converse(vector.options, vector.sent.iter().map(Vec::as_slice));
        let End::Request(request) = talk.end else {
            panic!("{}: no request", vector.name)
        };
        let reply = match (request.command, request.address) {
            (Command::Resolve, Address::Ip(ip)) if later[1] != HOST_UNREACHABLE => {
                resolve_reply(request.version, &Answer::Ip(ip))
            }
            (command, _) => failure_reply(
                request.version,
                command,
                later[1],
                vector.options.handshake.client,
            ),
        };
        assert_eq!(&reply, later, "{}", vector.name);
    }
}

fn plain() -> Options {
    options("plain")
}

#[test]
fn a_step_after_the_end_is_refused() {
    for first in ["04 01 0050 01020304 00", "ff ff"] {
        let mut handshake = Handshake::new(plain().handshake);
        handshake.step(&bytes(first));
        for input in ["", "05", "05 01 00", "474554"] {
            let over = HandshakeStep::Refuse {
                reply: Vec::new(),
                error: HandshakeError::HandshakeOver,
            };
            assert_eq!(handshake.step(&bytes(input)), over);
        }
    }
}

#[test]
fn a_step_that_needs_more_consumes_nothing() {
    let mut handshake = Handshake::new(plain().handshake);
    assert_eq!(handshake.step(&bytes("05 02 00")), HandshakeStep::NeedMore);
    let method_chosen = HandshakeStep::Send {
        consumed: 4,
        reply: [0x05, 0x02],
    };
    assert_eq!(handshake.step(&bytes("05 02 0002")), method_chosen);
}

#[test]
fn only_binary_addresses_are_unsafe_and_not_in_resolve_ptr() {
    let unsafe_requests = [
        "04 01 0050 01020304 00",
        "05 01 00 05 01 00 01 01020304 0050",
        "05 01 00 05 f0 00 01 01020304 0050",
    ];
    let safe_requests = [
        "04 01 0050 00000001 00 312e322e332e34 00",
        "05 01 00 05 01 00 03 07 312e322e332e34 0050",
        "05 01 00 05 f1 00 01 01020304 0050",
    ];
    for (requests, is_unsafe) in [(unsafe_requests, true), (safe_requests, false)] {
        for sent in requests {
            let End::Request(request) = converse(plain(), [bytes(sent).as_slice()]).end else {
                panic!("{sent}")
            };
            assert_eq!(request.is_unsafe(), is_unsafe, "{sent}");
        }
    }
}

#[test]
fn debug_output_contains_no_credentials() {
    let secret = b"hunter2".to_vec();
    let both = SocksCredentials::Socks5 {
        user: secret.clone(),
        password: secret.clone(),
    };
    assert_eq!(
        format!("{both:?} {:?}", SocksCredentials::Socks4User(secret)),
        "Socks5(..) Socks4User(..)"
    );
}

#[test]
fn the_family_of_a_client_is_that_of_its_address() {
    assert_eq!(
        ClientFamily::from(ClientAddr::Ip(Ipv4Addr::LOCALHOST.into())),
        ClientFamily::V4
    );
    for other in [ClientAddr::Ip(Ipv6Addr::LOCALHOST.into()), ClientAddr::Unix] {
        assert_eq!(ClientFamily::from(other), ClientFamily::Other);
    }
}

fn any_options() -> impl Strategy<Value = Options> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(prefer_no_auth, safe_socks, v4)| {
        Options {
            handshake: HandshakeOptions {
                prefer_no_auth,
                client: if v4 {
                    ClientFamily::V4
                } else {
                    ClientFamily::Other
                },
            },
            safe_socks,
        }
    })
}

/// Generates almost valid input: pieces of real messages, some with a changed byte.
fn near_messages() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<Vec<u8>> = vectors()
        .iter()
        .map(Vector::all)
        .filter(|all| all.len() < 80)
        .collect();
    let piece = proptest::sample::select(pieces);
    let broken = (
        piece,
        any::<proptest::sample::Index>(),
        any::<u8>(),
        any::<bool>(),
    )
        .prop_map(|(mut piece, at, byte, breaks)| {
            if breaks {
                let at = at.index(piece.len());
                piece[at] = byte;
            }
            piece
        });
    proptest::collection::vec(broken, 1..5).prop_map(|pieces| pieces.concat())
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..700),
        near_messages()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_outcome_does_not_depend_on_how_the_input_is_split(
        options in any_options(),
        sent in any_bytes(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let whole = converse(options, [sent.as_slice()]);
        prop_assert!(whole.consumed <= sent.len());

        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len() + 1)).collect();
        at.extend([0, sent.len()]);
        at.sort_unstable();
        let parts = converse(options, at.windows(2).map(|cut| &sent[cut[0]..cut[1]]));
        prop_assert_eq!(parts.replies.concat(), whole.replies.concat());
        prop_assert_eq!((parts.end, parts.consumed), (whole.end, whole.consumed));
    }

    #[test]
    fn a_request_has_the_documented_properties(options in any_options(), sent in near_messages()) {
        if let End::Request(request) = converse(options, [sent.as_slice()]).end {
            prop_assert!(!(options.safe_socks && request.is_unsafe()));
            prop_assert!(request.version == Version::V5 || request.port != 0 || request.command == Command::Resolve);
            prop_assert!(request.command != Command::ResolvePtr || matches!(request.address, Address::Ip(_)));
            if let Address::Name(name) = &request.address {
                prop_assert!((1..=255).contains(&name.len()));
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
            }
        }
    }
}
