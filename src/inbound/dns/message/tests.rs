use super::*;
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    data_encoding::HEXLOWER
        .decode(hex.as_bytes())
        .unwrap_or_else(|error| panic!("{hex}: {error}"))
}

fn to_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Builds the header of a message with `questions` questions.
fn header(flags: u16, questions: u16) -> Vec<u8> {
    let mut bytes = vec![0x43, 0x21];
    for number in [flags, questions, 0, 0, 0] {
        bytes.extend(number.to_be_bytes());
    }
    bytes
}

/// Builds a question.
fn question(name: &str, kind: u16, class: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("label of at most 255 bytes"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(class.to_be_bytes());
    bytes
}

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const IN: u16 = 1;

fn parse(parts: &[Vec<u8>]) -> Option<DnsQuery> {
    DnsQuery::parse(&parts.concat())
}

fn lookup(name: &str, kind: u16) -> Result<DnsLookup, ResponseCode> {
    let query = parse(&[header(0x0100, 1), question(name, kind, IN)]);
    query.expect("well-formed query").lookup()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("IP address")
}

/// The expected replies were recorded from C tor.
#[test]
fn replies_are_those_of_c_tor_byte_for_byte() {
    let good = Answer::Ip(ip("127.0.0.1"));
    let name = Answer::Name("good.test".to_owned());
    let cases = [
        (
            vec![header(0x0100, 1), question("GoOd.TesT", A, IN)],
            Ok(&good),
            "43218180000100010000000004476f4f6404546573540000010001
             c00c000100010000003c00047f000001",
        ),
        (
            vec![
                header(0x0100, 1),
                question("7.2.0.192.in-addr.arpa", PTR, IN),
            ],
            Ok(&name),
            "4321818000010001000000000137013201300331393207696e2d6164
             64720461727061 00000c0001c00c000c00010000003c000b04676f6f64047465737400",
        ),
        (
            vec![header(0x0100, 1), question("none.test", A, IN)],
            Err(ResponseCode::NXDomain),
            "432181830001000000000000046e6f6e6504746573740000010001",
        ),
        (
            vec![header(0x0100, 1), question("good.test", TXT, IN)],
            Err(ResponseCode::NotImp),
            "43218184000100000000000004676f6f6404746573740000100001",
        ),
        // Class 3, CHAOS.
        (
            vec![header(0x0100, 1), question("good.test", A, 3)],
            Err(ResponseCode::NotImp),
            "43218184000100000000000004676f6f6404746573740000010003",
        ),
        // The name has no address of this family.
        (
            vec![header(0x0100, 1), question("good.test", AAAA, IN)],
            Err(ResponseCode::NoError),
            "43218180000100000000000004676f6f64047465737400001c0001",
        ),
        // The root.
        (
            vec![header(0x0100, 1), question("", A, IN)],
            Err(ResponseCode::NXDomain),
            "4321818300010000000000000000010001",
        ),
        // Several questions: the first that can be answered is.
        (
            vec![
                header(0x0100, 2),
                question("good.test", A, IN),
                question("six.test", AAAA, IN),
            ],
            Ok(&good),
            "43218180000200010000000004676f6f640474657374000001000103736978c011001c0001
             c00c000100010000003c00047f000001",
        ),
        // Opcode, AA and TC of a query are ignored; RD and CD are copied to the reply.
        (
            vec![header(0x2f00, 1), question("good.test", A, IN)],
            Ok(&good),
            "43218180000100010000000004676f6f6404746573740000010001
             c00c000100010000003c00047f000001",
        ),
        (
            vec![header(0x0030, 1), question("good.test", A, IN)],
            Ok(&good),
            "43218090000100010000000004676f6f6404746573740000010001
             c00c000100010000003c00047f000001",
        ),
        // Bytes behind the questions are ignored.
        (
            vec![
                header(0x0100, 1),
                question("good.test", A, IN),
                vec![0x41; 1600],
            ],
            Ok(&good),
            "43218180000100010000000004676f6f6404746573740000010001
             c00c000100010000003c00047f000001",
        ),
    ];
    for (parts, answer, expected) in cases {
        let datagram = parts.concat();
        let query = parse(&parts).unwrap_or_else(|| panic!("{}", to_hex(&datagram)));
        let reply = match answer {
            Ok(answer) => query.answer(answer),
            Err(code) => query.refuse(code),
        };
        assert_eq!(
            to_hex(&reply),
            to_hex(&bytes(expected)),
            "{}",
            to_hex(&datagram)
        );
    }
}

/// C tor replies to none of these either (the first two crash it).
#[test]
fn malformed_queries_get_no_reply() {
    let good = question("good.test", A, IN);
    let name = |bytes: &[u8]| [bytes, b"\0\0\x01\0\x01"].concat();
    for (what, parts) in [
        ("nothing", vec![]),
        ("a cut header", vec![header(0x0100, 1)[..11].to_vec()]),
        ("no questions", vec![header(0x0100, 0)]),
        (
            "a question that the header does not count",
            vec![header(0x0100, 0), good.clone()],
        ),
        ("an answer", vec![header(0x8100, 1), good.clone()]),
        (
            "a cut question",
            vec![header(0x0100, 1), good[..14].to_vec()],
        ),
        (
            "one question too few",
            vec![header(0x0100, 2), good.clone()],
        ),
        (
            "far too few questions",
            vec![header(0x0100, u16::MAX), good.clone()],
        ),
        (
            "a name that points to itself",
            vec![header(0x0100, 1), vec![0xc0, 12, 0, 1, 0, 1]],
        ),
        (
            "a label of 64 bytes",
            vec![header(0x0100, 1), name(&[&[64][..], &[b'x'; 64]].concat())],
        ),
        (
            "a reserved label type",
            vec![header(0x0100, 1), name(&[0x80, b'x'])],
        ),
        (
            "a name of 257 bytes",
            vec![
                header(0x0100, 1),
                name(&[&[63][..], &[b'x'; 63]].concat().repeat(4)),
            ],
        ),
    ] {
        assert!(parse(&parts).is_none(), "{what}");
    }
}

#[test]
fn queries_become_lookups_or_response_codes() {
    let expected = DnsLookup {
        command: Command::Resolve,
        address: Address::Name("Good.Test".into()),
        family: Some(Family::V4Only),
    };
    assert_eq!(lookup("Good.Test", A), Ok(expected));
    let ipv6 = lookup("a_b.-c.test", AAAA).expect("lookup");
    assert_eq!(ipv6.family, Some(Family::V6Only));
    let literal = lookup("192.0.2.1", A).expect("lookup");
    assert_eq!(literal.address, Address::Ip(ip("192.0.2.1")));
    assert_eq!(lookup("good.test", TXT), Err(ResponseCode::NotImp));
    for name in ["bad!name.test", "a b.test"] {
        assert_eq!(lookup(name, A), Err(ResponseCode::ServFail), "{name}");
    }
    for label in [&b"\x04go\xffd"[..], b"\x04go\0d", b"\x04go.d"] {
        let parts = [header(0x0100, 1), [label, b"\0\0\x01\0\x01"].concat()];
        let query = parse(&parts).expect("well-formed query");
        assert_eq!(query.lookup(), Err(ResponseCode::ServFail), "{label:?}");
    }
}

#[test]
fn reverse_names_become_addresses() {
    let six = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.d.0.1.0.0.2.ip6.arpa";
    for (name, address) in [
        ("7.2.0.192.in-addr.arpa", "192.0.2.7"),
        ("7.2.0.192.IN-ADDR.Arpa", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        (six, "2001:db8::7"),
    ] {
        let lookup = lookup(name, PTR).expect(name);
        assert_eq!(lookup.command, Command::ResolvePtr);
        assert_eq!(lookup.address, Address::Ip(ip(address)), "{name}");
    }
    for name in [
        "good.test",
        "2.0.192.in-addr.arpa",
        "1.7.2.0.192.in-addr.arpa",
        "256.2.0.192.in-addr.arpa",
        "7.2..192.in-addr.arpa",
        "in-addr.arpa",
        "",
        &six[2..],
        &format!("0.{six}"),
        &six.replace("8.B", "8.g"),
        &six.replace("8.B", "8B"),
    ] {
        assert_eq!(lookup(name, PTR), Err(ResponseCode::ServFail), "{name}");
    }
}

#[test]
fn a_name_that_a_message_cannot_hold_is_servfail() {
    let parts = [
        header(0x0100, 1),
        question("7.2.0.192.in-addr.arpa", PTR, IN),
    ];
    let query = parse(&parts).expect("well-formed query");
    for name in [
        String::new(),
        "x".repeat(64),
        "x.".repeat(200),
        "a..b".to_owned(),
    ] {
        let reply = query.answer(&Answer::Name(name.clone()));
        assert_eq!(reply[3] & 0x0f, 2, "{name:?}: {}", to_hex(&reply));
    }
    let odd = query.answer(&Answer::Name("a b!.\u{e9}.test".to_owned()));
    assert_eq!(odd[3] & 0x0f, 0, "{}", to_hex(&odd));
}

#[test]
fn no_reply_is_longer_than_512_bytes() {
    let long = question(
        &["x".repeat(60), "y".repeat(60), "z".repeat(60)].join("."),
        A,
        IN,
    );
    let other = question(&"w".repeat(63), TXT, IN);
    for count in 1..12u16 {
        let mut parts = vec![header(0x0100, count), long.clone()];
        parts.extend((1..count).map(|number| {
            let mut question = other.clone();
            question[1] = b'a' + u8::try_from(number).expect("small");
            question
        }));
        let query = parse(&parts).expect("well-formed query");
        let reply = query.answer(&Answer::Ip(ip("192.0.2.1")));
        assert!(reply.len() <= MAX_REPLY_LEN);
        let message = Message::from_vec(&reply).expect("well-formed reply");
        let all = usize::from(count);
        assert_eq!(message.metadata.truncation, message.answers.is_empty());
        match message.metadata.truncation {
            false => assert_eq!(message.queries.len(), all),
            true => assert!((1..=all).contains(&message.queries.len())),
        }
        assert_eq!(
            message.metadata.truncation,
            count > 5,
            "{count}: {}",
            reply.len()
        );
    }
}

/// The most expensive datagram: a name of 127 labels, and questions that point to it. Without a limit it
/// takes 25 ms of CPU time.
#[test]
fn too_many_questions_are_not_read() {
    let name = vec!["x"; 127].join(".");
    let pointer = [0xc0, 12, 0, 0xff, 0, 1];
    for count in [MAX_QUESTIONS, MAX_QUESTIONS + 1, 205] {
        let more = pointer.repeat(usize::from(count) - 1);
        let parts = [header(0x0100, count), question(&name, A, IN), more];
        let query = parse(&parts).expect("well-formed query");
        assert!(query.questions.len() <= usize::from(MAX_QUESTIONS));
        let refused = query.refuse(ResponseCode::Refused);
        if count == MAX_QUESTIONS {
            assert!(query.lookup().is_ok());
            assert_eq!(refused[2..6], [0x81, 0x85, 0, 16]);
            continue;
        }
        assert_eq!(query.lookup(), Err(ResponseCode::FormErr));
        // Only a header, with the bit for truncation.
        assert_eq!(to_hex(&refused), "432183850000000000000000", "{count}");
    }
}

#[test]
fn a_truncated_reply_keeps_the_chosen_question() {
    for chosen in 0..9usize {
        let parts: Vec<_> = (0..9usize)
            .map(|number| {
                let name = format!("{}.test", number.to_string().repeat(60));
                question(&name, if number == chosen { A } else { TXT }, IN)
            })
            .collect();
        let query = parse(&[header(0x0100, 9), parts.concat()]).expect("well-formed query");
        for reply in [
            query.answer(&Answer::Ip(ip("192.0.2.1"))),
            query.refuse(ResponseCode::ServFail),
        ] {
            let message = Message::from_vec(&reply).expect("well-formed reply");
            assert!(message.metadata.truncation && message.answers.is_empty());
            assert_eq!(message.queries, [query.questions[chosen].clone()]);
        }
    }
}

proptest! {
    #[test]
    fn any_query_gets_a_well_formed_reply(mut datagram in proptest::collection::vec(any::<u8>(), 0..600), few in any::<bool>()) {
        if few && datagram.len() > 5 {
            // Random counts are nearly always too large.
            datagram[2] &= 0x7f;
            datagram[4] = 0;
            datagram[5] %= 4;
        }
        if let Some(query) = DnsQuery::parse(&datagram) {
            let _ = query.lookup();
            for reply in [
                query.refuse(ResponseCode::ServFail),
                query.answer(&Answer::Ip(ip("192.0.2.1"))),
                query.answer(&Answer::Name("good.test".to_owned())),
            ] {
                prop_assert!((12..=MAX_REPLY_LEN).contains(&reply.len()));
                prop_assert_eq!(&reply[..2], &datagram[..2]);
                prop_assert_eq!(reply[2] & 0x80, 0x80);
            }
        }
    }

    #[test]
    fn every_address_is_parsed_from_its_reverse_name(bits in any::<u128>(), v6 in any::<bool>()) {
        let (name, address) = if v6 {
            let nibbles: Vec<String> =
                (0..32).map(|n| format!("{:x}", bits >> (4 * n) & 0xf)).collect();
            (format!("{}.ip6.arpa", nibbles.join(".")), IpAddr::from(Ipv6Addr::from(bits)))
        } else {
            let ip = Ipv4Addr::from((bits & 0xffff_ffff) as u32);
            let [a, b, c, d] = ip.octets();
            (format!("{d}.{c}.{b}.{a}.in-addr.arpa"), IpAddr::from(ip))
        };
        prop_assert_eq!(parse_reverse_name(&name), Some(address));
    }
}
