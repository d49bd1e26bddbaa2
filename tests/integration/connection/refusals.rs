//! The replies to refused requests, and how a refused client is closed.

use std::time::Duration;

use onionport::failure::Failure;
use onionport::request::ClientAddr;
use tokio::time::{Instant, sleep};

use super::{connect_good, port};
use crate::support::ONION;
use crate::support::client::End;
use crate::support::hex::{bytes, show, socks5_request};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4, V6};
use crate::support::socks::{CONNECT_GOOD, SUCCEEDED, greet, send_request};

/// The reply codes of a failure, with and without `ExtendedErrors`, from proposal 304 and C tor. This is a
/// second, independent copy of the program's table, so that a mistake there is noticed.
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
    // Requests for fails.example, port 80, and for 192.0.2.1. "XX" stands for the code.
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
            ClientAddr::Unix,
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
            ClientAddr::Unix,
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
            for (client_addr, request, reply) in &cases {
                let (mut client, served) = port.client(*client_addr);
                send_request(&mut client, request).await;
                let expected = bytes(&reply.replace("XX", &format!("{code:02x}")));
                let (got, end) = client.read_to_end().await;
                assert!(
                    got == expected && end == End::Closed,
                    "{failure:?}, port with {flags:?}, {client_addr:?}, {request}: {} ({end:?})",
                    show(&got)
                );
                drop(client);
                served.wait().await;
            }
            assert_eq!(port.tor.calls().len(), cases.len(), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn an_onion_failure_has_its_own_code_only_with_extended_errors() {
    let onion = format!("{ONION}:80");
    let plans = || [(onion.clone(), Plan::Fail(Failure::DescriptorNotFound))];
    for (flags, code) in [
        ("ExtendedErrors", "f0"),
        ("", "04"),
        ("NoExtendedErrors", "04"),
    ] {
        let port = Port::new(flags, plans());
        let (mut client, _served) = port.client(V4);
        greet(&mut client).await;
        client.send_bytes(&socks5_request(1, ONION, 80)).await;
        client
            .expect(&format!("05 {code} 00 01 00000000 0000"))
            .await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn requests_that_need_no_network_are_answered_without_it() {
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
        // x.exit.
        ("", "05 01 00 03 06 782e65786974 0050", general),
        ("", "05 f0 00 03 06 782e65786974 0000", no_address),
        // foo.onion, also with port 0, with a trailing dot, and where the port forbids onion traffic.
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
        // Traffic that the port forbids.
        ("NoIPv4Traffic", "05 01 00 01 c0000201 0050", forbidden),
        (
            "NoIPv6Traffic",
            "05 01 00 04 20010db8 00*11 01 0050",
            forbidden,
        ),
        ("NoDNSRequest", CONNECT_GOOD, forbidden),
        ("OnionTrafficOnly", CONNECT_GOOD, forbidden),
        ("OnionTrafficOnly ExtendedErrors", CONNECT_GOOD, forbidden),
        // An IP address resolves to itself.
        ("", "05 f0 00 01 01020304 0000", "05 00 00 01 01020304 0000"),
        ("", "04 f0 0000 01020304 00", "00 5a 0000 01020304"),
    ];
    for (flags, request, reply) in cases {
        let port = Port::new::<&str>(flags, []);
        let (mut client, served) = port.client(V4);
        send_request(&mut client, request).await;
        let (got, end) = client.read_to_end().await;
        assert!(
            got == bytes(reply) && end == End::Closed,
            "{flags:?} {request}: {} ({end:?})",
            show(&got)
        );
        drop(client);
        served.wait().await;
        assert_eq!(
            port.tor.calls().len(),
            0,
            "{flags:?} {request} reached the network"
        );
    }
}

#[tokio::test]
async fn private_destinations_and_private_answers_are_allowed_separately() {
    let general = "05 01 00 01 00000000 0000";
    let no_address = "05 04 00 00 00000000 0000";
    let private_answer = "05 00 00 01 0a000001 0000";
    // Whether private destinations are allowed, and private answers; then the replies to a CONNECT to
    // 10.0.0.1, to a RESOLVE that finds 10.0.0.1, and to a RESOLVE_PTR of it.
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
        let requests = [
            ("05 01 00 01 0a000001 0050", connect),
            ("05 f0 00 03 0c 676f6f642e6578616d706c65 0000", resolve),
            ("05 f1 00 01 0a000001 0000", resolve_ptr),
        ];
        for (request, reply) in requests {
            let plans = [
                ("10.0.0.1:80", Plan::Open),
                ("good.example", Plan::Addresses(vec![[10, 0, 0, 1].into()])),
                ("10.0.0.1", Plan::Names(vec!["a".to_owned()])),
            ];
            let port = Port::new("", plans).with_private(destinations, answers);
            let (mut client, _served) = port.client(V4);
            send_request(&mut client, request).await;
            client.expect(reply).await;
        }
    }
}

#[tokio::test]
async fn a_valid_onion_address_is_refused_by_a_port_without_onion_traffic() {
    let port = Port::new::<&str>("NoOnionTraffic ExtendedErrors", []);
    let (mut client, _served) = port.client(V4);
    greet(&mut client).await;
    client.send_bytes(&socks5_request(1, ONION, 80)).await;
    client.expect("05 02 00 01 00000000 0000").await;
    client.expect_end().await;
    assert_eq!(port.tor.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_stays_is_soon_disconnected() {
    let port = port(Plan::Fail(Failure::ConnectionRefused));
    let (mut client, served) = connect_good(&port).await;
    client.expect("05 05 00 01 00000000 0000").await;
    served.wait_within(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_is_still_sending_gets_its_reply() {
    // Closing a socket with unread data resets the connection, and the client may lose the reply.
    for (request, reply) in [
        (CONNECT_GOOD, "05 05 00 01 00000000 0000"),
        ("05 02 00 01 c0000201 0050", "05 07 00 01 00000000 0000"),
        ("05 f0 00 01 01020304 0000", "05 00 00 01 01020304 0000"),
    ] {
        let port = port(Plan::Fail(Failure::ConnectionRefused));
        let (mut client, served) = port.client(V4);
        send_request(&mut client, request).await;
        client.send_bytes(&[0x61; 40_000]).await;
        client.expect(reply).await;
        client.expect_end().await;
        drop(client);
        served.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_never_stops_sending_is_disconnected() {
    /// `LINGERING_TOTAL` of `lingering_close.rs`.
    const LINGER: Duration = Duration::from_secs(30);
    let port = port(Plan::Fail(Failure::ConnectionRefused));
    let (mut client, served) = connect_good(&port).await;
    let begun = Instant::now();
    while client.try_send(&[0x61; 1000]).await.is_ok() {
        assert!(begun.elapsed() <= LINGER, "the program still reads");
        sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() >= LINGER, "{:?}", begun.elapsed());
    served.wait().await;
}
