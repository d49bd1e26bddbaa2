//! Requests without a network.

use std::time::{Duration, Instant};

use crate::support::hex::socks5_request;
use crate::support::offline::{connect_socks5, request_bad_onion};
use crate::support::program::Program;
use crate::support::{LIMIT, ONION};

#[tokio::test]
async fn a_bad_onion_address_is_refused_at_once() {
    let daemon = Program::offline()
        .port("auto")
        .port("auto ExtendedErrors")
        .start();
    for (place, code) in daemon.addresses.iter().zip([0x01, 0xF6]) {
        let start = Instant::now();
        assert_eq!(request_bad_onion(place).await, code);
        // Far below the default deadline of 120 s.
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_request_that_needs_the_network_fails_with_06_at_the_deadline() {
    let program = Program::offline().port("auto").port("auto ExtendedErrors");
    let socket = program.folder().join("socks");
    let daemon = program
        .port(format!("unix:{} ExtendedErrors", socket.display()))
        .arguments(&["-o", "proxy.socks_timeout=2"])
        .start();
    let mut requests = tokio::task::JoinSet::new();
    let v4 = "05 06 00 01 00000000 0000";
    let replies = [v4, v4, "05 06 00 04 00*16 0000"];
    for (place, reply) in daemon.addresses.iter().zip(replies) {
        for host in [ONION, "name.example", "192.0.2.1"] {
            let place = place.clone();
            requests.spawn(async move {
                let mut client = connect_socks5(&place).await;
                let start = Instant::now();
                client.send_bytes(&socks5_request(1, host, 80)).await;
                client.expect(reply).await;
                let took = start.elapsed().as_secs_f32();
                let latest = 2.0 + LIMIT.as_secs_f32();
                assert!((1.9..latest).contains(&took), "{host} on {place}: {took} s");
                client.expect_end().await;
            });
        }
    }
    // RESOLVE fails with 04 instead.
    let place = daemon.addresses[0].clone();
    requests.spawn(async move {
        let mut client = connect_socks5(&place).await;
        client
            .send_bytes(&socks5_request(0xf0, "name.example", 0))
            .await;
        client.expect("05 04 00 00 00000000 0000").await;
        client.expect_end().await;
    });
    while let Some(request) = requests.join_next().await {
        request.expect("every request ends as expected");
    }
}

#[tokio::test]
async fn the_configured_address_filter_applies() {
    let onion = socks5_request(0x01, ONION, 80);
    let private = socks5_request(0x01, "10.0.0.1", 80);
    let reverse_lookup = socks5_request(0xf1, "10.0.0.1", 0);
    // An allowed request waits for the network until the deadline; a forbidden one fails at once.
    let not_connected = "05 06 00 01 00000000 0000";
    let not_found = "05 04 00 00 00000000 0000";
    let cases = [
        ("onion", true, &onion, not_connected),
        ("onion", false, &onion, "05 02 00 01 00000000 0000"),
        ("local", true, &private, not_connected),
        ("local", false, &private, "05 01 00 01 00000000 0000"),
        ("resolving_local", true, &reverse_lookup, not_found),
        ("resolving_local", false, &reverse_lookup, not_found),
    ];
    for (kind, allowed, request, reply) in cases {
        let option = format!("address_filter.allow_{kind}_addrs={allowed}");
        let daemon = Program::offline()
            .port("auto")
            .arguments(&["-o", "proxy.socks_timeout=2", "-o", &option])
            .start();
        let mut client = connect_socks5(&daemon.addresses[0]).await;
        let start = Instant::now();
        client.send_bytes(request).await;
        client.expect(reply).await;
        let waited = start.elapsed() > Duration::from_millis(1900);
        assert_eq!(waited, allowed, "{option}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn an_unfinished_handshake_is_closed_at_the_deadline() {
    let daemon = Program::offline()
        .port("auto")
        .config_lines("socks_timeout = \"1 s\"")
        .start();
    let mut client = connect_socks5(&daemon.addresses[0]).await;
    client.send("05 01 00").await;
    client.expect_end().await;
}
