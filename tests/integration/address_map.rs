//! Mapped names and virtual addresses: from the request of a SOCKS client to the request that reaches the
//! network.

use arc_swap::ArcSwap;

use onionport::config::PlaintextPorts;
use onionport::config::address_map::AddressMapSettings;
use onionport::request::address_map::AddressMap;
use onionport::request::dispatch::SharedState;
use onionport::request::safe_socks::SafeSocks;

use crate::support::ONION;
use crate::support::hex::{bytes, socks5_request};
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4};
use crate::support::socks::{SUCCEEDED, greet, send_request};

/// The reply "general failure".
const GENERAL_FAILURE: &str = "05 01 00 01 00000000 0000";
const CONNECT: u8 = 0x01;
const RESOLVE: u8 = 0xF0;

/// The state that all ports share, with these `MapAddress` lines and with automapping.
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

/// Sends a SOCKS5 request, and returns the reply. Unless it opens a stream, the connection has to end after
/// it.
async fn request(port: &Port, request: &[u8]) -> Vec<u8> {
    let (mut client, _served) = port.client(V4);
    greet(&mut client).await;
    client.send_bytes(request).await;
    let (mut reply, _) = client.read(4).await;
    let address_len = match reply[3] {
        0x04 => 16,
        _ => 4,
    };
    reply.extend(client.read(address_len + 2).await.0);
    let is_open = request[1] == CONNECT && reply[1] == 0;
    if !is_open {
        client.expect_end().await;
    }
    reply
}

/// A CONNECT to the IPv6 address in a reply to RESOLVE, port 80.
fn connect_to_result(reply: &[u8]) -> Vec<u8> {
    [&[5, 1, 0, 4], &reply[4..20], &[0, 80]].concat()
}

#[tokio::test]
async fn a_mapped_name_or_address_reaches_the_network_as_its_target() {
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
        send_request(&mut client, request).await;
        client.expect(SUCCEEDED).await;
        assert_eq!(port.tor.targets().last().map(String::as_str), Some(target));
    }
}

#[tokio::test]
async fn isolation_uses_the_requested_name_instead_of_its_target() {
    let plans = [("good.example:80", Plan::Open)];
    let lines = ["a.example good.example", "b.example good.example"];
    let port = Port::new("IsolateDestAddr", plans).with_shared(shared(&lines, false));
    for host in ["a.example", "b.example", "A.example"] {
        request(&port, &socks5_request(CONNECT, host, 80)).await;
    }
    let calls = port.tor.calls();
    let compatible = |a: usize, b: usize| calls[a].isolation.is_compatible(&calls[b].isolation);
    assert!(!compatible(0, 1) && compatible(0, 2));
}

#[tokio::test]
async fn a_virtual_address_leads_back_to_its_name() {
    let onion = format!("{ONION}:80");
    let port = Port::new("", [(onion.as_str(), Plan::Open)]).with_shared(shared(&[], false));
    let reply = request(&port, &socks5_request(RESOLVE, ONION, 0)).await;
    assert_eq!(&reply[..4], [5, 0, 0, 4], "an IPv6 address");
    assert_eq!(reply.len(), 22);
    assert!(port.tor.targets().is_empty());
    assert_eq!(
        request(&port, &socks5_request(RESOLVE, ONION, 0)).await,
        reply
    );
    let (mut client, _served) = port.client(V4);
    greet(&mut client).await;
    client.send_bytes(&connect_to_result(&reply)).await;
    client.expect(SUCCEEDED).await;
    assert_eq!(port.tor.targets(), [onion]);
}

#[tokio::test]
async fn virtual_addresses_without_a_name_never_reach_the_network() {
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
        let reply = request(&port, &socks5_request(CONNECT, host, 80)).await;
        assert_eq!(reply, bytes(GENERAL_FAILURE), "{host}");
    }
    for host in ["foo.onion", "127.192.0.1", "a.virtual"] {
        let reply = request(&port, &socks5_request(RESOLVE, host, 0)).await;
        assert_eq!(reply, [5, 4, 0, 0, 0, 0, 0, 0, 0, 0], "{host}");
    }
    assert!(port.tor.targets().is_empty());
}

#[tokio::test]
async fn safe_socks_accepts_addresses_that_are_mapped_to_names() {
    let plans = [
        ("good.example:80".to_owned(), Plan::Open),
        (format!("{ONION}:80"), Plan::Open),
    ];
    let port = Port::new("", plans).with_shared(shared(&["192.0.2.9 good.example"], true));
    let refused = request(&port, &[5, 1, 0, 1, 192, 0, 2, 8, 0, 80]).await;
    assert_eq!(refused[1], 0x02);
    let mapped = request(&port, &[5, 1, 0, 1, 192, 0, 2, 9, 0, 80]).await;
    assert_eq!(mapped[1], 0x00);
    let looked_up = request(&port, &socks5_request(RESOLVE, ONION, 0)).await;
    let connect = connect_to_result(&looked_up);
    assert_eq!(request(&port, &connect).await[1], 0x00);
    assert_eq!(
        port.tor.targets(),
        ["good.example:80", &format!("{ONION}:80")]
    );
}
