//! Runs the wire vectors of `tests/data/socks_vectors.txt` through the handshake, split in every way, and checks
//! properties of any input.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::reply::{HOST_UNREACHABLE, failure_reply, resolve_reply};
use super::*;
use crate::request::{Address, Answer, ClientAddr, Command};
use vectors::{End, Options, Vector, bytes, converse, options, vectors};

mod vectors;

/// Fewer mean that the file is truncated.
const MIN_VECTORS: usize = 200;

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
