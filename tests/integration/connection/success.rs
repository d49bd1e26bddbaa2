//! The replies to streams and lookups that succeed, and the requests that reach the network.

use onionport::failure::Failure;
use onionport::request::ClientAddr;
use onionport::tor::destination::Family;

use super::port;
use crate::support::ONION;
use crate::support::hex::{bytes, socks5_request};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4, V6};
use crate::support::socks::{CONNECT_GOOD, GOOD, GREETING, SUCCEEDED, greet, send_request};

#[tokio::test]
async fn the_reply_to_an_open_stream_has_the_form_of_the_clients_protocol() {
    let good4 = "04 01 0050 00000001 00 676f6f642e6578616d706c65 00";
    let cases = [
        (V4, CONNECT_GOOD, SUCCEEDED),
        (V6, CONNECT_GOOD, "05 00 00 04 00*16 0000"),
        (ClientAddr::Unix, CONNECT_GOOD, "05 00 00 04 00*16 0000"),
        (V4, good4, "00 5a 0000 00000000"),
        (ClientAddr::Unix, good4, "00 5a 0000 00000000"),
    ];
    for (client_addr, request, reply) in cases {
        let port = port(Plan::Open);
        let (mut client, served) = port.client(client_addr);
        send_request(&mut client, request).await;
        client.expect(reply).await;
        let mut far = port.tor.accept_stream().await;
        far.send_bytes(b"hello").await;
        client.expect_bytes(b"hello").await;
        client.send_bytes(b"good day").await;
        far.expect_bytes(b"good day").await;
        drop(far);
        client.expect_end().await;
        drop(client);
        served.wait().await;
    }
}

#[tokio::test]
async fn a_lookup_is_answered_with_its_result() {
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
        // A private address is not passed on: it would direct the client to its own network.
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
        send_request(&mut client, request).await;
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
        send_request(&mut client, "05 f1 00 01 c0000201 0000").await;
        client.expect(reply).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn host_names_are_normalized_before_the_network_is_used() {
    let onion = format!("{ONION}:80");
    let upper_case = ONION.to_uppercase();
    let subdomain = format!("www.{ONION}");
    let cases = [
        ("Good.Example", GOOD),
        ("good.example.", GOOD),
        ("a_b.example", "a_b.example:80"),
        ("[2001:DB8::1]", "2001:db8::1:80"),
        ("2001:db8:0::1", "2001:db8::1:80"),
        ("192.0.2.1", "192.0.2.1:80"),
        (ONION, &onion),
        (&upper_case, &onion),
        (&subdomain, &onion),
    ];
    for (host, target) in cases {
        let port = Port::new("", [(target, Plan::Fail(Failure::ConnectionRefused))]);
        let (mut client, _served) = port.client(V4);
        greet(&mut client).await;
        client.send_bytes(&socks5_request(1, host, 80)).await;
        client.expect("05 05 00 01 00000000 0000").await;
        assert_eq!(port.tor.targets(), [target], "{host}");
    }
}

#[tokio::test]
async fn the_address_family_follows_from_the_flags_of_the_port() {
    use Family::{V4Only, V4Preferred, V6Only, V6Preferred};
    let cases = [
        ("", "good.example", Some(V4Preferred)),
        ("PreferIPv6", "good.example", Some(V6Preferred)),
        ("NoIPv6Traffic", "good.example", Some(V4Only)),
        ("NoIPv6Traffic PreferIPv6", "good.example", Some(V4Only)),
        ("", "192.0.2.1", Some(V4Only)),
        ("PreferIPv6", "192.0.2.1", Some(V4Only)),
        ("", "2001:db8::1", Some(V6Only)),
        ("NoIPv4Traffic", "2001:db8::1", Some(V6Only)),
        ("PreferIPv6", ONION, None),
    ];
    for (flags, host, family) in cases {
        let target = format!("{host}:80");
        let port = Port::new(flags, [(target, Plan::Fail(Failure::ConnectionRefused))]);
        let (mut client, _served) = port.client(V4);
        greet(&mut client).await;
        client.send_bytes(&socks5_request(1, host, 80)).await;
        client.expect("05 05 00 01 00000000 0000").await;
        let families: Vec<_> = port.tor.calls().iter().map(|call| call.family).collect();
        assert_eq!(families, [family], "{flags}: {host}");
    }
}

/// An exit that gets a name may use IPv4, even if the request forbids it.
#[tokio::test]
async fn an_exit_gets_an_address_instead_of_a_name_where_ipv4_is_forbidden() {
    let v4 = || "192.0.2.1".parse().expect("an address");
    let v6 = || "2001:db8::1".parse().expect("an address");
    let only_v4 = "05 04 00 01 00000000 0000";
    for (addresses, expected, reply) in [
        (
            vec![v4(), v6()],
            &["good.example", "2001:db8::1:80"][..],
            SUCCEEDED,
        ),
        (vec![v4()], &["good.example"], only_v4),
        (vec![], &["good.example"], only_v4),
    ] {
        for flags in ["NoIPv4Traffic", "NoIPv4Traffic PreferIPv6"] {
            let plans = [
                ("good.example", Plan::Addresses(addresses.clone())),
                ("2001:db8::1:80", Plan::Open),
            ];
            let port = Port::new(flags, plans);
            let (mut client, _served) = port.client(V4);
            send_request(&mut client, CONNECT_GOOD).await;
            client.expect(reply).await;
            assert_eq!(port.tor.targets(), expected, "{flags}: {addresses:?}");
            let calls = port.tor.calls();
            let family = calls.get(1).map(|call| call.family);
            assert!(matches!(family, None | Some(Some(Family::V6Only))));
        }
    }
}

#[tokio::test]
async fn a_handshake_may_arrive_in_single_bytes() {
    let port = port(Plan::Open);
    let (mut client, served) = port.client_with(1, V4);
    for byte in bytes(GREETING) {
        client.send_bytes(&[byte]).await;
    }
    client.expect("05 00").await;
    for byte in bytes(CONNECT_GOOD) {
        client.send_bytes(&[byte]).await;
    }
    client.expect(SUCCEEDED).await;
    drop(port.tor.accept_stream().await);
    client.expect_end().await;
    drop(client);
    served.wait().await;
}
