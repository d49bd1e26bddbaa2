//! Names that stand for others, from a SOCKS client's bytes to what the network is asked.

use arc_swap::ArcSwap;

use onionport::config::PlaintextPorts;
use onionport::config::address_map::AddressMapSettings;
use onionport::request::address_map::AddressMap;
use onionport::request::dispatch::SharedState;
use onionport::request::safe_socks::SafeSocks;

use crate::support::ONION;
use crate::support::hex::socks5_request;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4};

const GREETING: &str = "05 01 00";
const SUCCEEDED: &str = "05 00 00 01 00000000 0000";
const GENERAL: &str = "05 01 00 01 00000000 0000";
const CONNECT: u8 = 0x01;
const RESOLVE: u8 = 0xF0;

/// What all ports have in common where these lines are configured, and names are automapped.
pub fn shared(map: &[&str], safe_socks: bool) -> SharedState {
    let settings = AddressMapSettings {
        map: map.iter().map(|&line| line.to_owned()).collect(),
        automap: true,
        ..AddressMapSettings::default()
    };
    SharedState {
        address_map: ArcSwap::from_pointee(AddressMap::new(&settings).expect("good settings")),
        safe_socks: ArcSwap::from_pointee(SafeSocks::new(
            safe_socks,
            false,
            PlaintextPorts::default(),
        )),
        ..SharedState::default()
    }
}

/// Asks a port, and gives the reply in full.
async fn ask(port: &Port, request: &[u8]) -> Vec<u8> {
    let (mut client, _served) = port.client(V4);
    client.send(GREETING).await;
    client.expect("05 00").await;
    client.send_bytes(request).await;
    client.finish().await;
    client.read_to_end().await.0
}

fn targets(port: &Port) -> Vec<String> {
    let calls = port.tor.calls();
    calls.into_iter().map(|call| call.target).collect()
}

#[tokio::test]
async fn the_network_is_asked_for_what_is_meant() {
    let onion = format!("{ONION}:443");
    let plans = [("good.example:80", Plan::Open), (&onion, Plan::Open)];
    let lines = [
        "192.0.2.9 good.example",
        &format!("*.short.example {ONION}"),
    ];
    let port = Port::new("", plans).with_shared(shared(&lines, false));
    for (request, target) in [
        ("05 01 00 01 c0000209 0050", "good.example:80"),
        (
            "05 01 00 03 0f 612e73686f72742e6578616d706c65 01bb",
            &*onion,
        ),
    ] {
        let (mut client, _served) = port.client(V4);
        client.send(GREETING).await;
        client.expect("05 00").await;
        client.send(request).await;
        client.expect(SUCCEEDED).await;
        assert_eq!(targets(&port).last().map(String::as_str), Some(target));
    }
}

#[tokio::test]
async fn isolation_goes_by_what_was_asked_for() {
    let plans = [("good.example:80", Plan::Open)];
    let lines = ["a.example good.example", "b.example good.example"];
    let port = Port::new("IsolateDestAddr", plans).with_shared(shared(&lines, false));
    for host in ["a.example", "b.example", "A.example"] {
        ask(&port, &socks5_request(CONNECT, host, 80)).await;
    }
    let calls = port.tor.calls();
    let together = |a: usize, b: usize| calls[a].isolation.is_compatible(&calls[b].isolation);
    assert!(!together(0, 1) && together(0, 2));
}

#[tokio::test]
async fn a_virtual_address_is_given_and_taken_back_on_every_port() {
    let onion = format!("{ONION}:80");
    let port = Port::new("", [(onion.as_str(), Plan::Open)]).with_shared(shared(&[], false));
    let reply = ask(&port, &socks5_request(RESOLVE, ONION, 0)).await;
    assert_eq!(&reply[..4], [5, 0, 0, 4], "an IPv6 address");
    assert_eq!(reply.len(), 22);
    assert!(targets(&port).is_empty());
    assert_eq!(ask(&port, &socks5_request(RESOLVE, ONION, 0)).await, reply);
    let mut connect = vec![5, 1, 0, 4];
    connect.extend(&reply[4..20]);
    connect.extend([0, 80]);
    let (mut client, _served) = port.client(V4);
    client.send(GREETING).await;
    client.expect("05 00").await;
    client.send_bytes(&connect).await;
    client.expect(SUCCEEDED).await;
    assert_eq!(targets(&port), [onion]);
}

#[tokio::test]
async fn what_stands_for_nothing_never_reaches_the_network() {
    let port = Port::new::<&str>("", [])
        .with_shared(shared(&["tovirt.example 127.200.0.1"], false))
        .with_private(true, true);
    for host in [
        "127.192.0.1",
        "fe80::1",
        "a.virtual",
        "tovirt.example",
        "a.exit",
    ] {
        let reply = ask(&port, &socks5_request(CONNECT, host, 80)).await;
        let expected = crate::support::hex::bytes(GENERAL);
        assert_eq!(reply, expected, "{host}");
    }
    for host in ["foo.onion", "127.192.0.1", "a.virtual"] {
        let reply = ask(&port, &socks5_request(RESOLVE, host, 0)).await;
        assert_eq!(reply, [5, 4, 0, 0, 0, 0, 0, 0, 0, 0], "{host}");
    }
    assert!(targets(&port).is_empty());
}

#[tokio::test]
async fn safe_socks_lets_addresses_pass_that_stand_for_names() {
    let plans = [
        ("good.example:80".to_owned(), Plan::Open),
        (format!("{ONION}:80"), Plan::Open),
    ];
    let port = Port::new("", plans).with_shared(shared(&["192.0.2.9 good.example"], true));
    let refused = ask(&port, &[5, 1, 0, 1, 192, 0, 2, 8, 0, 80]).await;
    assert_eq!(refused[1], 0x02);
    let covered = ask(&port, &[5, 1, 0, 1, 192, 0, 2, 9, 0, 80]).await;
    assert_eq!(covered[1], 0x00);
    let looked_up = ask(&port, &socks5_request(RESOLVE, ONION, 0)).await;
    let mut connect = vec![5, 1, 0, 4];
    connect.extend(&looked_up[4..20]);
    connect.extend([0, 80]);
    assert_eq!(ask(&port, &connect).await[1], 0x00);
    assert_eq!(targets(&port), ["good.example:80", &format!("{ONION}:80")]);
}
