//! The story of one connection, told to a network that answers as planned.

use std::time::Duration;

use onionport::failure::Failure;
use onionport::gateway::Origin;
use onionport::isolation::Isolation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::support::ONION;
use crate::support::client::{Client, End};
use crate::support::hex::{bytes, show, socks5_request};
use crate::support::random::Random;
use crate::support::scripted::{Plan, Scripted, TIMEOUT};
use crate::support::serve::{Port, Served, V4, V6};

/// SOCKS5 without authentication; the answer is `05 00`.
const GREETING: &str = "05 01 00";
/// CONNECT to good.example, port 80.
const CONNECT_GOOD: &str = "05 01 00 03 0c 676f6f642e6578616d706c65 0050";
/// The key of its plan.
const GOOD: &str = "good.example:80";
/// The answer to an IPv4 client whose stream is open.
const SUCCEEDED: &str = "05 00 00 01 00000000 0000";

/// A port whose network knows good.example.
fn port(plan: Plan) -> Port {
    Port::new("", [(GOOD, plan)])
}

/// A client that has asked for good.example.
async fn asking(port: &Port) -> (Client, Served) {
    let (mut client, served) = port.client(V4);
    client.send(GREETING).await;
    client.expect("05 00").await;
    client.send(CONNECT_GOOD).await;
    (client, served)
}

// --- Refusals ---

/// What proposal 304 and C tor say for a failure: with `ExtendedErrors`, and without. Written down
/// a second time, so that a slip in the program's table does not go unseen.
fn codes(failure: Failure) -> (u8, u8) {
    use Failure as F;
    match failure {
        F::DescriptorNotFound => (0xf0, 0x04),
        F::DescriptorInvalid => (0xf1, 0x04),
        F::IntroductionFailed => (0xf2, 0x04),
        F::RendezvousFailed => (0xf3, 0x06),
        F::ClientAuthMissing => (0xf4, 0x01),
        F::ClientAuthWrong => (0xf5, 0x01),
        F::AddressInvalid => (0xf6, 0x01),
        F::IntroductionTimedOut => (0xf7, 0x04),
        F::DirectoriesUnreachable
        | F::NameNotResolved
        | F::NoSuchFamily
        | F::NoRoute
        | F::OnionNotResolvable => (0x04, 0x04),
        F::DirectoriesTimedOut | F::ConnectionTimedOut | F::NotBootstrapped | F::DeadlinePassed => {
            (0x06, 0x06)
        }
        F::ConnectionRefused | F::StreamClosed | F::ConnectionReset => (0x05, 0x05),
        F::ExitPolicyRefused | F::TrafficForbidden => (0x02, 0x02),
        F::ClientAuthUnreadable
        | F::StreamFailed
        | F::CircuitDestroyed
        | F::RelayHibernating
        | F::RelayInternal
        | F::RelayBusy
        | F::ProtocolViolation
        | F::NotDirectory
        | F::DestinationInvalid
        | F::PrivateAddress
        | F::NoCircuit
        | F::ClockSkewed
        | F::Internal => (0x01, 0x01),
    }
}

#[tokio::test]
async fn every_failure_has_its_reply_in_every_protocol() {
    // Requests for fails.example, port 80, and for 192.0.2.1; "XX" is where the code stands.
    let cases = [
        (
            V4,
            "05 01 00 03 0d 6661696c732e6578616d706c65 0050",
            "05 XX 00 01 00000000 0000",
        ),
        (V4, "05 01 00 01 c0000201 0050", "05 XX 00 01 00000000 0000"),
        (
            V6,
            "05 01 00 03 0d 6661696c732e6578616d706c65 0050",
            "05 XX 00 04 00*16 0000",
        ),
        (
            Origin::Unix,
            "05 01 00 03 0d 6661696c732e6578616d706c65 0050",
            "05 XX 00 04 00*16 0000",
        ),
        (V4, "04 01 0050 c0000201 00", "00 5b 0000 00000000"),
        (
            V4,
            "04 01 0050 00000001 00 6661696c732e6578616d706c65 00",
            "00 5b 0000 00000000",
        ),
        (
            V4,
            "05 f0 00 03 0d 6661696c732e6578616d706c65 0000",
            "05 04 00 00 00000000 0000",
        ),
        (
            Origin::Unix,
            "05 f0 00 03 0d 6661696c732e6578616d706c65 0000",
            "05 04 00 00 00000000 0000",
        ),
        (V4, "05 f1 00 01 c0000201 0000", "05 04 00 00 00000000 0000"),
        (
            V4,
            "04 f0 0000 00000001 00 6661696c732e6578616d706c65 00",
            "00 5b 0000 00000000",
        ),
    ];
    for &failure in Failure::ALL {
        let (extended, plain) = codes(failure);
        for (flags, code) in [("ExtendedErrors", extended), ("", plain)] {
            let targets = [
                "fails.example:80",
                "192.0.2.1:80",
                "fails.example",
                "192.0.2.1",
            ];
            let port = Port::new(flags, targets.map(|t| (t, Plan::Fail(failure))));
            for (origin, request, reply) in &cases {
                let (mut client, served) = port.client(*origin);
                if request.starts_with("05") {
                    client.send(GREETING).await;
                    client.expect("05 00").await;
                }
                client.send(request).await;
                let expected = bytes(&reply.replace("XX", &format!("{code:02x}")));
                let (got, end) = client.rest().await;
                assert!(
                    got == expected && end == End::Closed,
                    "{failure:?} on a port with {flags:?}, {origin:?} asking {request}: {} ({end:?})",
                    show(&got)
                );
                drop(client);
                served.end().await;
            }
            assert_eq!(port.tor.calls().len(), cases.len(), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn an_onion_failure_carries_its_own_code_only_where_the_port_says_so() {
    let onion = format!("{ONION}:80");
    let plans = || [(onion.clone(), Plan::Fail(Failure::DescriptorNotFound))];
    for (flags, code) in [
        ("ExtendedErrors", "f0"),
        ("", "04"),
        ("NoExtendedErrors", "04"),
    ] {
        let port = Port::new(flags, plans());
        let (mut client, _served) = port.client(V4);
        client.send(GREETING).await;
        client.expect("05 00").await;
        client.send_bytes(&socks5_request(1, ONION, 80)).await;
        client
            .expect(&format!("05 {code} 00 01 00000000 0000"))
            .await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn what_needs_no_network_is_answered_without_it() {
    let general = "05 01 00 01 00000000 0000";
    let bad_onion = "05 f6 00 01 00000000 0000";
    let forbidden = "05 02 00 01 00000000 0000";
    let no_address = "05 04 00 00 00000000 0000";
    let socks4 = "00 5b 0000 00000000";
    let cases = [
        // Private addresses and names.
        ("", "05 01 00 01 7f000001 0050", general),
        ("", "05 01 00 01 0a000001 0050", general),
        ("", "05 01 00 01 c0a80101 0050", general),
        ("", "05 01 00 04 00*15 01 0050", general),
        ("", "05 01 00 04 00*10 ffff 7f000001 0050", general),
        ("", "05 01 00 03 09 6c6f63616c686f7374 0050", general),
        (
            "",
            "05 01 00 03 0d 7072696e7465722e6c6f63616c 0050",
            general,
        ),
        ("", "04 01 0050 7f000001 00", socks4),
        ("", "05 f0 00 03 09 6c6f63616c686f7374 0000", no_address),
        ("", "05 f1 00 01 7f000001 0000", no_address),
        ("", "05 f1 00 04 fd00 00*13 01 0000", no_address),
        // Port 0.
        ("", "05 01 00 03 0c 676f6f642e6578616d706c65 0000", general),
        ("", "05 01 00 01 c0000201 0000", general),
        // x.exit
        ("", "05 01 00 03 06 782e65786974 0050", general),
        ("", "05 f0 00 03 06 782e65786974 0000", no_address),
        // foo.onion, also with port 0, with a dot at its end, and where onions are forbidden.
        ("", "05 01 00 03 09 666f6f2e6f6e696f6e 0050", general),
        (
            "ExtendedErrors",
            "05 01 00 03 09 666f6f2e6f6e696f6e 0050",
            bad_onion,
        ),
        (
            "ExtendedErrors",
            "05 01 00 03 09 666f6f2e6f6e696f6e 0000",
            bad_onion,
        ),
        (
            "ExtendedErrors",
            "05 01 00 03 0a 666f6f2e6f6e696f6e2e 0050",
            bad_onion,
        ),
        (
            "ExtendedErrors NoOnionTraffic",
            "05 01 00 03 09 666f6f2e6f6e696f6e 0050",
            bad_onion,
        ),
        (
            "ExtendedErrors",
            "04 01 0050 00000001 00 666f6f2e6f6e696f6e 00",
            socks4,
        ),
        ("", "05 f0 00 03 09 666f6f2e6f6e696f6e 0000", no_address),
        // What the port does not carry.
        ("NoIPv4Traffic", "05 01 00 01 c0000201 0050", forbidden),
        (
            "NoIPv6Traffic",
            "05 01 00 04 20010db8 00*11 01 0050",
            forbidden,
        ),
        ("NoDNSRequest", CONNECT_GOOD, forbidden),
        ("OnionTrafficOnly", CONNECT_GOOD, forbidden),
        ("OnionTrafficOnly ExtendedErrors", CONNECT_GOOD, forbidden),
        // An address is its own answer.
        ("", "05 f0 00 01 01020304 0000", "05 00 00 01 01020304 0000"),
        ("", "04 f0 0000 01020304 00", "00 5a 0000 01020304"),
    ];
    for (flags, request, reply) in cases {
        let port = Port::new::<&str>(flags, []);
        let (mut client, served) = port.client(V4);
        if request.starts_with("05") {
            client.send(GREETING).await;
            client.expect("05 00").await;
        }
        client.send(request).await;
        let (got, end) = client.rest().await;
        assert!(
            got == bytes(reply) && end == End::Closed,
            "{flags:?} {request}: {} ({end:?})",
            show(&got)
        );
        drop(client);
        served.end().await;
        assert_eq!(
            port.tor.calls().len(),
            0,
            "{flags:?} {request} reached the network"
        );
    }
}

#[tokio::test]
async fn private_destinations_and_private_answers_are_allowed_each_by_itself() {
    let general = "05 01 00 01 00000000 0000";
    let no_address = "05 04 00 00 00000000 0000";
    let private_answer = "05 00 00 01 0a000001 0000";
    // Whether destinations are allowed, and answers; what becomes of a CONNECT to 10.0.0.1, of a
    // RESOLVE that finds 10.0.0.1, and of a RESOLVE_PTR of it.
    let cases = [
        (false, false, general, no_address, no_address),
        (true, false, SUCCEEDED, no_address, no_address),
        (
            false,
            true,
            general,
            private_answer,
            "05 00 00 03 01 61 0000",
        ),
    ];
    for (destinations, answers, connect, resolve, resolve_ptr) in cases {
        let conversations = [
            ("05 01 00 01 0a000001 0050", connect),
            ("05 f0 00 03 0c 676f6f642e6578616d706c65 0000", resolve),
            ("05 f1 00 01 0a000001 0000", resolve_ptr),
        ];
        for (request, reply) in conversations {
            let plans = [
                ("10.0.0.1:80", Plan::Open),
                ("good.example", Plan::Addresses(vec![[10, 0, 0, 1].into()])),
                ("10.0.0.1", Plan::Names(vec!["a".to_owned()])),
            ];
            let port = Port::new("", plans).with_private(destinations, answers);
            let (mut client, _served) = port.client(V4);
            client.send(GREETING).await;
            client.expect("05 00").await;
            client.send(request).await;
            client.expect(reply).await;
        }
    }
}

#[tokio::test]
async fn a_good_onion_is_forbidden_where_the_port_says_so() {
    let port = Port::new::<&str>("NoOnionTraffic ExtendedErrors", []);
    let (mut client, _served) = port.client(V4);
    client.send(GREETING).await;
    client.expect("05 00").await;
    client.send_bytes(&socks5_request(1, ONION, 80)).await;
    client.expect("05 02 00 01 00000000 0000").await;
    client.expect_end().await;
    assert_eq!(port.tor.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_stays_is_let_go_soon() {
    let port = port(Plan::Fail(Failure::ConnectionRefused));
    let (mut client, served) = asking(&port).await;
    client.expect("05 05 00 01 00000000 0000").await;
    served.end_within(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_is_still_talking_is_heard_out() {
    // A socket closed over unread bytes is reset, and the reply may be lost with it.
    for (request, reply) in [
        (CONNECT_GOOD, "05 05 00 01 00000000 0000"),
        ("05 02 00 01 c0000201 0050", "05 07 00 01 00000000 0000"),
        ("05 f0 00 01 01020304 0000", "05 00 00 01 01020304 0000"),
    ] {
        let port = port(Plan::Fail(Failure::ConnectionRefused));
        let (mut client, served) = port.client(V4);
        client.send(GREETING).await;
        client.expect("05 00").await;
        client.send(request).await;
        client.send_bytes(&[0x61; 40_000]).await;
        client.expect(reply).await;
        client.expect_end().await;
        drop(client);
        served.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_never_stops_talking_is_cut_off() {
    let port = port(Plan::Fail(Failure::ConnectionRefused));
    let (mut client, served) = asking(&port).await;
    let mut sent: u32 = 0;
    while client.try_send(&[0x61; 1000]).await.is_ok() {
        sent += 1;
        assert!(sent < 1000, "a megabyte was listened to");
    }
    served.end().await;
}

// --- Success ---

#[tokio::test]
async fn success_is_told_in_the_form_that_the_client_knows() {
    let good4 = "04 01 0050 00000001 00 676f6f642e6578616d706c65 00";
    let cases = [
        (V4, CONNECT_GOOD, SUCCEEDED),
        (V6, CONNECT_GOOD, "05 00 00 04 00*16 0000"),
        (Origin::Unix, CONNECT_GOOD, "05 00 00 04 00*16 0000"),
        (V4, good4, "00 5a 0000 00000000"),
        (Origin::Unix, good4, "00 5a 0000 00000000"),
    ];
    for (origin, request, reply) in cases {
        let port = port(Plan::Open);
        let (mut client, served) = port.client(origin);
        if request.starts_with("05") {
            client.send(GREETING).await;
            client.expect("05 00").await;
        }
        client.send(request).await;
        client.expect(reply).await;
        let mut far = port.tor.far_end().await;
        far.send_bytes(b"hello").await;
        client.expect_bytes(b"hello").await;
        client.send_bytes(b"good day").await;
        far.expect_bytes(b"good day").await;
        drop(far);
        client.expect_end().await;
        drop(client);
        served.end().await;
    }
}

#[tokio::test]
async fn a_look_up_is_answered_with_what_was_found() {
    let addresses = |texts: &[&str]| {
        Plan::Addresses(
            texts
                .iter()
                .map(|ip| ip.parse().expect("an address"))
                .collect(),
        )
    };
    let failed = "05 04 00 00 00000000 0000";
    let v4 = "05 00 00 01 c0000201 0000";
    let v6 = "05 00 00 04 20010db8 00*11 01 0000";
    let name = "05 f0 00 03 0c 676f6f642e6578616d706c65 0050";
    let name4 = "04 f0 0000 00000001 00 676f6f642e6578616d706c65 00";
    let both = &["2001:db8::1", "192.0.2.1"];
    let cases = [
        ("", addresses(both), name, v4),
        ("PreferIPv6", addresses(both), name, v6),
        ("NoIPv4Traffic", addresses(both), name, v6),
        ("", addresses(&["2001:db8::1"]), name, v6),
        ("NoIPv6Traffic", addresses(&["2001:db8::1"]), name, failed),
        ("", addresses(&[]), name, failed),
        // An exit that answers with a private address attacks the client's own network.
        ("", addresses(&["10.0.0.1", "127.0.0.1"]), name, failed),
        ("", addresses(&["10.0.0.1", "192.0.2.1"]), name, v4),
        ("", addresses(both), name4, "00 5a 0000 c0000201"),
        (
            "",
            addresses(&["2001:db8::1"]),
            name4,
            "00 5b 0000 00000000",
        ),
    ];
    for (flags, plan, request, reply) in cases {
        let port = Port::new(flags, [("good.example", plan)]);
        let (mut client, _served) = port.client(V4);
        if request.starts_with("05") {
            client.send(GREETING).await;
            client.expect("05 00").await;
        }
        client.send(request).await;
        client.expect(reply).await;
        client.expect_end().await;
    }
    let names = |names: &[&str]| Plan::Names(names.iter().map(|&n| n.to_owned()).collect());
    let long = "a".repeat(256);
    let cases = [
        (names(&["a.bc", "d.ef"]), "05 00 00 03 04 612e6263 0000"),
        (names(&[]), failed),
        (names(&[&long]), failed),
    ];
    for (plan, reply) in cases {
        let port = Port::new("", [("192.0.2.1", plan)]);
        let (mut client, _served) = port.client(V4);
        client.send(GREETING).await;
        client.expect("05 00").await;
        client.send("05 f1 00 01 c0000201 0000").await;
        client.expect(reply).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn the_network_is_asked_for_what_the_client_meant() {
    let onion = format!("{ONION}:80");
    let shouted = ONION.to_uppercase();
    let below = format!("www.{ONION}");
    let cases = [
        ("Good.Example", GOOD),
        ("good.example.", GOOD),
        ("a_b.example", "a_b.example:80"),
        ("[2001:DB8::1]", "2001:db8::1:80"),
        ("2001:db8:0::1", "2001:db8::1:80"),
        ("192.0.2.1", "192.0.2.1:80"),
        (ONION, &onion),
        (&shouted, &onion),
        (&below, &onion),
    ];
    for (host, target) in cases {
        let port = Port::new("", [(target, Plan::Fail(Failure::ConnectionRefused))]);
        let (mut client, _served) = port.client(V4);
        client.send(GREETING).await;
        client.expect("05 00").await;
        client.send_bytes(&socks5_request(1, host, 80)).await;
        client.expect("05 05 00 01 00000000 0000").await;
        let asked: Vec<String> = port
            .tor
            .calls()
            .into_iter()
            .map(|call| call.target)
            .collect();
        assert_eq!(asked, [target], "{host}");
    }
}

#[tokio::test]
async fn a_conversation_in_single_bytes_is_the_same_conversation() {
    let port = port(Plan::Open);
    let (client, served) = port.client_with(1, V4);
    let mut client = client;
    for byte in bytes(GREETING) {
        client.send_bytes(&[byte]).await;
    }
    client.expect("05 00").await;
    for byte in bytes(CONNECT_GOOD) {
        client.send_bytes(&[byte]).await;
    }
    client.expect(SUCCEEDED).await;
    drop(port.tor.far_end().await);
    client.expect_end().await;
    drop(client);
    served.end().await;
}

// --- What the client says before it has an answer ---

#[tokio::test]
async fn data_behind_the_request_reaches_the_stream_whole_and_in_order() {
    let port = port(Plan::Held);
    let (mut client, _served) = port.client(V4);
    // Greeting, request and data in one piece, more data later, all before the answer.
    client
        .send(&format!("{GREETING} {CONNECT_GOOD} 6f6e6520"))
        .await;
    client.expect("05 00").await;
    port.tor.wait_for_running(1).await;
    client.send_bytes(b"two ").await;
    client.send_bytes(b"three ").await;
    port.tor.release();
    let mut far = port.tor.far_end().await;
    client.expect(SUCCEEDED).await;
    client.send_bytes(b"four").await;
    far.expect_bytes(b"one two three four").await;
}

#[tokio::test]
async fn data_behind_a_socks4_request_reaches_the_stream() {
    let port = port(Plan::Open);
    let (mut client, _served) = port.client(V4);
    client
        .send("04 01 0050 00000001 00 676f6f642e6578616d706c65 00 474554202f")
        .await;
    client.expect("00 5a 0000 00000000").await;
    port.tor.far_end().await.expect_bytes(b"GET /").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_too_much_too_early_is_held_back_and_loses_nothing() {
    /// What the program keeps for it, and the pipe between them.
    const LIMIT: usize = 16 * 1024;
    const PIPE: usize = 4096;
    let data = Random::new(1).bytes(300_000);
    let port = port(Plan::Held);
    let (mut client, _served) = port.client_with(PIPE, V4);
    client.send(GREETING).await;
    client.expect("05 00").await;
    client.send(CONNECT_GOOD).await;
    let mut client = client.into_stream();
    let mut taken = 0;
    // The clock moves only when nobody can do anything any more.
    while taken < data.len()
        && let Ok(written) = timeout(Duration::from_secs(1), client.write(&data[taken..])).await
    {
        taken += written.expect("still connected");
    }
    assert!(
        (LIMIT..=LIMIT + PIPE).contains(&taken),
        "{taken} bytes were taken"
    );
    port.tor.release();
    let mut far = port.tor.far_end().await;
    let mut client = Client::over(client);
    tokio::join!(client.send_bytes(&data[taken..]), far.expect_bytes(&data));
}

// --- Ends ---

#[tokio::test(start_paused = true)]
async fn a_client_that_has_finished_its_question_still_gets_the_answer() {
    let port = port(Plan::Open);
    let (mut client, served) = asking(&port).await;
    client.expect(SUCCEEDED).await;
    client.send_bytes(b"question").await;
    client.finish().await;
    let mut far = port.tor.far_end().await;
    far.expect_bytes(b"question").await;
    sleep(Duration::from_secs(3)).await;
    far.send_bytes(b"answer").await;
    client.expect_bytes(b"answer").await;
    drop(far);
    client.expect_end().await;
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_may_finish_while_its_request_is_still_under_way() {
    let port = port(Plan::Held);
    let (mut client, served) = asking(&port).await;
    client.send_bytes(b"question").await;
    client.finish().await;
    port.tor.wait_for_running(1).await;
    sleep(Duration::from_secs(30)).await;
    port.tor.release();
    let mut far = port.tor.far_end().await;
    far.expect_bytes(b"question").await;
    far.send_bytes(b"answer").await;
    drop(far);
    client.expect(SUCCEEDED).await;
    client.expect_bytes(b"answer").await;
    client.expect_end().await;
    served.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_closes_ends_the_connection_of_a_client_that_stays() {
    let port = port(Plan::Open);
    let (mut client, served) = asking(&port).await;
    client.expect(SUCCEEDED).await;
    let mut far = port.tor.far_end().await;
    far.send_bytes(b"bye").await;
    drop(far);
    client.expect_bytes(b"bye").await;
    client.expect_end().await;
    served.end().await;
}

#[tokio::test]
async fn the_end_of_an_answer_is_not_lost_to_a_client_that_talks_on() {
    // A socket that is closed before the client has read everything is reset by whatever the client
    // still says, and what it has not read is lost.
    let answer: &'static [u8] = Random::new(8).bytes(500_000).leak();
    let port = port(Plan::Open);
    let (mut client, served) = port.tcp_client().await;
    say(&mut client, GREETING).await;
    hear(&mut client, "05 00").await;
    say(&mut client, CONNECT_GOOD).await;
    hear(&mut client, SUCCEEDED).await;
    let mut far = port.tor.far_end().await;
    far.send_bytes(answer).await;
    drop(far);
    // Until the program has seen the end of the stream; it has nothing to show for that, unless it
    // hangs up at once.
    for _ in 0..20 {
        if served.is_over() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    // It fails if it comes too late, and that is the point.
    let _ = client.write_all(b"and another thing").await;
    sleep(Duration::from_millis(10)).await;
    let (heard, _) = Client::over(client).rest().await;
    assert!(heard == answer, "{} of {} bytes", heard.len(), answer.len());
    served.end().await;
}

#[tokio::test]
async fn a_client_that_breaks_off_takes_its_request_with_it() {
    let port = port(Plan::Never);
    let (mut client, served) = port.tcp_client().await;
    say(&mut client, GREETING).await;
    hear(&mut client, "05 00").await;
    say(&mut client, CONNECT_GOOD).await;
    port.tor.wait_for_running(1).await;
    assert!(!served.is_over());
    client.set_zero_linger().expect("set");
    drop(client);
    port.tor.wait_for_running(0).await;
    served.end().await;
}

async fn say(client: &mut TcpStream, hex: &str) {
    client.write_all(&bytes(hex)).await.expect("written");
}

async fn hear(client: &mut TcpStream, hex: &str) {
    let expected = bytes(hex);
    let mut heard = vec![0; expected.len()];
    let read = timeout(crate::support::LIMIT, client.read_exact(&mut heard)).await;
    read.expect("in time").expect("read");
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_handshake_asks_for_nothing() {
    for whole in [
        format!("05 01 02 01 02 6d65 03 796f75 {CONNECT_GOOD}"),
        "04 01 0050 00000001 6d65 00 676f6f642e6578616d706c65 00".to_owned(),
    ] {
        let whole = bytes(&whole);
        for length in 0..whole.len() {
            let port = port(Plan::Open);
            let (mut client, served) = port.client(V4);
            client.send_bytes(&whole[..length]).await;
            client.finish().await;
            let (got, end) = client.rest().await;
            assert_eq!(end, End::Closed, "after {length} bytes");
            let answers = [&[][..], &[5, 2], &[5, 2, 1, 0]];
            assert!(
                answers.contains(&&got[..]),
                "after {length} bytes: {}",
                show(&got)
            );
            served.end().await;
            assert_eq!(port.tor.calls().len(), 0, "after {length} bytes");
        }
    }
}

// --- Deadlines ---

#[tokio::test(start_paused = true)]
async fn a_handshake_that_takes_too_long_is_closed_without_a_word() {
    for (said, answer) in [
        ("", ""),
        ("05", ""),
        ("05 02 00", ""),
        (GREETING, "05 00"),
        ("05 01 00 05 01 00 03 0c 676f", "05 00"),
        ("05 01 02 01 02 6d", "05 02"),
        ("04 01 0050 0000", ""),
    ] {
        let port = port(Plan::Open).with_timeout(Duration::from_secs(7));
        let begun = Instant::now();
        let (client, served) = port.client(V4);
        let mut client = client.patient();
        client.send(said).await;
        client.expect(answer).await;
        client.expect_end().await;
        let took = begun.elapsed().as_secs_f32();
        assert!((7.0..7.1).contains(&took), "{said}: {took} s");
        served.end().await;
        assert_eq!(port.tor.calls().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_gain_time_by_talking() {
    let port = port(Plan::Open).with_timeout(Duration::from_secs(7));
    let begun = Instant::now();
    let (client, served) = port.client(V4);
    let mut client = client.patient();
    for byte in bytes("05 01 00 05 01 00 03 ff 61*255 0050") {
        sleep(Duration::from_secs(1)).await;
        if client.try_send(&[byte]).await.is_err() {
            break;
        }
    }
    let (got, _) = client.rest().await;
    assert_eq!(show(&got), "05 00");
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    served.end().await;
    assert_eq!(port.tor.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_given_all_of_the_timeout_however_slow_the_handshake_was() {
    let requests = [
        CONNECT_GOOD,
        "05 f0 00 03 0c 676f6f642e6578616d706c65 0000",
        "05 f1 00 01 c0000201 0000",
    ];
    for request in requests {
        let port = Port::new(
            "",
            [GOOD, "good.example", "192.0.2.1"].map(|t| (t, Plan::Fail(Failure::DeadlinePassed))),
        );
        let (mut client, _served) = port.client(V4);
        sleep(Duration::from_secs(30)).await;
        client.send(GREETING).await;
        client.expect("05 00").await;
        sleep(Duration::from_secs(30)).await;
        let asked = Instant::now();
        client.send(request).await;
        client.take(10).await;
        let calls = port.tor.calls();
        assert_eq!(calls.len(), 1, "{request}");
        assert_eq!(calls[0].at, asked, "{request}");
        assert_eq!(calls[0].deadline - asked, TIMEOUT, "{request}");
    }
}

// --- Who may share a circuit ---

/// Someone who asks for something.
struct Asker {
    flags: &'static str,
    /// The number of the port's line.
    port: usize,
    origin: Origin,
    /// SOCKS5: user name and password in hex; SOCKS4: the user name.
    conversation: &'static str,
}

const TO_A: &str = "05 01 00 / 05 01 00 03 01 61 0050";

impl Asker {
    fn new(flags: &'static str, conversation: &'static str) -> Self {
        Asker {
            flags,
            port: 0,
            origin: V4,
            conversation,
        }
    }

    /// What the network is told about who may share with this request.
    async fn isolation(&self) -> Isolation {
        let port = Port::before(Scripted::new::<&str>([]).into(), self.flags, self.port);
        let (mut client, _served) = port.client(self.origin);
        let parts: Vec<&str> = self.conversation.split('/').collect();
        for (number, part) in parts.iter().enumerate() {
            client.send(part).await;
            if number + 1 < parts.len() {
                client.take(2).await;
            }
        }
        // The plan has no such target, so it fails; whoever asked has been noted by then.
        let (answer, _) = client.rest().await;
        assert!(
            answer.len() >= 8,
            "{}: {}",
            self.conversation,
            show(&answer)
        );
        let calls = port.tor.calls();
        assert_eq!(calls.len(), 1, "{}", self.conversation);
        calls[0].isolation.clone()
    }
}

#[tokio::test]
async fn streams_share_circuits_exactly_when_the_flags_of_their_ports_allow_it() {
    // me:you, me:them, we:you, and "me" without a password.
    let me_you = "05 01 02 / 01 02 6d65 03 796f75 / 05 01 00 03 01 61 0050";
    let me_them = "05 01 02 / 01 02 6d65 04 7468656d / 05 01 00 03 01 61 0050";
    let we_you = "05 01 02 / 01 02 7765 03 796f75 / 05 01 00 03 01 61 0050";
    let me = "05 01 02 / 01 02 6d65 00 / 05 01 00 03 01 61 0050";
    let nobody = "05 01 02 / 01 00 00 / 05 01 00 03 01 61 0050";
    let me4 = "04 01 0050 00000001 6d65 00 61 00";
    let nobody4 = "04 01 0050 00000001 00 61 00";
    // Where the user name ends and the password begins makes a difference.
    let ab_c = "05 01 02 / 01 02 6162 01 63 / 05 01 00 03 01 61 0050";
    let a_bc = "05 01 02 / 01 01 61 02 6263 / 05 01 00 03 01 61 0050";
    let token_1 = "05 01 02 / 01 09 3c746f725330583e30 01 31 / 05 01 00 03 01 61 0050";
    let token_2 = "05 01 02 / 01 09 3c746f725330583e30 01 32 / 05 01 00 03 01 61 0050";
    let other_port = "05 01 00 / 05 01 00 03 01 61 0051";
    let other_host = "05 01 00 / 05 01 00 03 01 62 0050";
    let same_host = "05 01 00 / 05 01 00 03 01 41 0050";
    let look_up = "05 01 00 / 05 f0 00 03 01 61 0000";

    let at = |asker: Asker, host: [u8; 4]| Asker {
        origin: Origin::Ip(host.into()),
        ..asker
    };
    let unix = |asker: Asker| Asker {
        origin: Origin::Unix,
        ..asker
    };
    let on = |asker: Asker, port: usize| Asker { port, ..asker };
    let plain = |conversation| Asker::new("", conversation);
    let with = Asker::new;
    let [here, there] = [[127, 0, 0, 1], [127, 0, 0, 2]];
    let cases = [
        // The defaults: client, user and password, port line.
        (true, plain(TO_A), plain(TO_A)),
        (true, plain(me_you), plain(me_you)),
        (false, plain(me_you), plain(me_them)),
        (false, plain(me_you), plain(we_you)),
        (false, plain(me_you), plain(me)),
        (false, plain(me_you), plain(TO_A)),
        (false, plain(ab_c), plain(a_bc)),
        (false, plain(token_1), plain(token_2)),
        (true, plain(nobody), plain(TO_A)),
        (true, plain(me), plain(me4)),
        (true, plain(nobody4), plain(TO_A)),
        (false, plain(me4), plain(nobody4)),
        (false, at(plain(TO_A), here), at(plain(TO_A), there)),
        (true, at(plain(TO_A), there), at(plain(TO_A), there)),
        (true, unix(plain(TO_A)), unix(plain(TO_A))),
        (false, unix(plain(me)), unix(plain(TO_A))),
        (true, plain(TO_A), plain(other_port)),
        (true, plain(TO_A), plain(other_host)),
        (true, plain(TO_A), plain(look_up)),
        (false, on(plain(TO_A), 0), on(plain(TO_A), 1)),
        // Each switched off.
        (
            true,
            with("NoIsolateSOCKSAuth", me_you),
            with("NoIsolateSOCKSAuth", we_you),
        ),
        (
            true,
            at(with("NoIsolateClientAddr", TO_A), here),
            at(with("NoIsolateClientAddr", TO_A), there),
        ),
        // Each switched on.
        (
            false,
            with("IsolateDestPort", TO_A),
            with("IsolateDestPort", other_port),
        ),
        (
            true,
            with("IsolateDestPort", TO_A),
            with("IsolateDestPort", other_host),
        ),
        (
            false,
            with("IsolateDestAddr", TO_A),
            with("IsolateDestAddr", other_host),
        ),
        (
            true,
            with("IsolateDestAddr", TO_A),
            with("IsolateDestAddr", same_host),
        ),
        (
            true,
            with("IsolateDestAddr", TO_A),
            with("IsolateDestAddr", look_up),
        ),
        (
            false,
            with("IsolateClientProtocol", TO_A),
            with("IsolateClientProtocol", nobody4),
        ),
        // Groups of ports; the stricter of two ports decides.
        (
            true,
            on(with("SessionGroup=7", TO_A), 0),
            on(with("SessionGroup=7", TO_A), 1),
        ),
        (
            false,
            on(with("SessionGroup=7", TO_A), 0),
            on(with("SessionGroup=8", TO_A), 1),
        ),
        (
            false,
            on(with("SessionGroup=1", TO_A), 0),
            on(plain(TO_A), 1),
        ),
        (
            false,
            on(with("SessionGroup=7 IsolateDestPort", TO_A), 0),
            on(with("SessionGroup=7", other_port), 1),
        ),
        (
            false,
            on(with("SessionGroup=7", me_you), 0),
            on(with("SessionGroup=7 NoIsolateSOCKSAuth", we_you), 1),
        ),
    ];
    for (shared, one, other) in &cases {
        let (a, b) = (one.isolation().await, other.isolation().await);
        let whose = format!(
            "{:?} {} and {:?} {}",
            one.flags, one.conversation, other.flags, other.conversation
        );
        assert_eq!(a.compatible(&b), *shared, "{whose}");
        assert_eq!(b.compatible(&a), *shared, "the other way round: {whose}");
    }
}

#[tokio::test]
async fn circuits_are_kept_alive_only_for_a_user_on_a_port_that_says_so() {
    let me = "05 01 02 / 01 02 6d65 00 / 05 01 00 03 01 61 0050";
    for (flags, conversation, kept) in [
        ("KeepAliveIsolateSOCKSAuth", me, true),
        ("KeepAliveIsolateSOCKSAuth", TO_A, false),
        ("", me, false),
    ] {
        let isolation = Asker::new(flags, conversation).isolation().await;
        assert_eq!(isolation.keeps_alive(), kept, "{flags:?} {conversation}");
    }
}
