//! Redirected connections, with a scripted network. `tests/network/transparent.rs` compares this port
//! with that of C tor.

use std::net::SocketAddr;

use onionport::config::TransProxyType;
use onionport::failure::Failure;
use onionport::inbound::transparent::{Redirection, connect_and_relay, serve, set_transparent};
use onionport::request::ClientAddr;
use socket2::{Domain, Socket, Type};
use tokio::io::duplex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::client::{Client, End};
use crate::support::namespace;
use crate::support::scripted::Plan;
use crate::support::serve::{Port, V4};
use crate::support::{LIMIT, ONION};

/// A client whose connection was redirected from `destination`.
fn client(port: &Port, destination: &str) -> (Client, JoinHandle<()>) {
    let destination: SocketAddr = destination.parse().expect("an address and a port");
    let (near, far) = duplex(1024);
    let dispatcher = port.dispatcher();
    let served = tokio::spawn(async move {
        connect_and_relay(&dispatcher, near, V4, destination).await;
    });
    (Client::over(far), served)
}

#[tokio::test]
async fn bytes_are_relayed_both_ways_and_nothing_is_added() {
    for (destination, target) in [
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("[2001:db8::1]:443", "2001:db8::1:443"),
    ] {
        let port = Port::new("", [(target, Plan::OpenLater)]);
        let (mut client, served) = client(&port, destination);
        // Sent before the stream is open.
        client.send_bytes(b"early ").await;
        port.tor.wait_for_running(1).await;
        port.tor.release();
        let mut far = port.tor.accept_stream().await;
        far.expect_bytes(b"early ").await;
        client.send_bytes(b"and late").await;
        far.expect_bytes(b"and late").await;
        far.send_bytes(b"answer").await;
        client.expect_bytes(b"answer").await;
        drop(far);
        client.expect_end().await;
        drop(client);
        timeout(LIMIT, served)
            .await
            .expect("an end in time")
            .expect("no panic");
        assert_eq!(port.tor.calls()[0].target, target);
    }
}

#[tokio::test]
async fn a_failed_request_is_closed_without_a_reply() {
    for &failure in Failure::ALL {
        let port = Port::new("ExtendedErrors", [("192.0.2.1:80", Plan::Fail(failure))]);
        let (mut client, _served) = client(&port, "192.0.2.1:80");
        client.send_bytes(b"hello").await;
        client.expect_end().await;
    }
    // Private and invalid destinations do not reach the network.
    let port = Port::new::<&str>("", []);
    for destination in ["127.0.0.1:80", "10.0.0.1:80", "192.0.2.1:0", "[fe80::1]:80"] {
        let (mut client, _served) = client(&port, destination);
        client.expect_end().await;
    }
    assert!(port.tor.calls().is_empty());
}

#[tokio::test]
async fn a_virtual_address_leads_to_its_name() {
    let onion = format!("{ONION}:80");
    let map = [&*format!("127.192.0.10 {ONION}")];
    let port = Port::new("", [(onion.as_str(), Plan::Open)])
        .with_shared(crate::address_map::shared(&map, false));
    let (mut client, _served) = client(&port, "127.192.0.10:80");
    client.send_bytes(b"hello").await;
    let mut far = port.tor.accept_stream().await;
    far.expect_bytes(b"hello").await;
    assert_eq!(port.tor.calls()[0].target, onion);
}

/// A connection to the port itself has no other destination, whatever the system reports.
#[tokio::test]
async fn a_connection_that_was_not_redirected_is_closed() {
    let port = Port::new::<&str>("", []).with_private(true, true);
    for (kind, listen_addr) in [
        (TransProxyType::Default, "127.0.0.1:0"),
        (TransProxyType::Tproxy, "127.0.0.1:0"),
        (TransProxyType::Default, "0.0.0.0:0"),
        (TransProxyType::Tproxy, "0.0.0.0:0"),
        (TransProxyType::Default, "[::]:0"),
        (TransProxyType::Tproxy, "[::]:0"),
    ] {
        let listener = Listener::bind(listen_addr, kind).await;
        // Two addresses of this computer; the second only reaches wildcard listeners.
        for ip in ["127.0.0.1", "127.0.0.2"] {
            let to = format!("{ip}:{}", listener.redirection.port.port());
            if listen_addr == "127.0.0.1:0" && ip == "127.0.0.2" {
                continue;
            }
            let (mut client, served) = listener.connect(&port, &to).await;
            let _ = client.try_send(b"hello").await;
            let (received, end) = client.read_to_end().await;
            assert!(
                received.is_empty() && end != End::Open,
                "{listen_addr} {to}"
            );
            served.await.expect("no panic");
        }
    }
    assert!(port.tor.calls().is_empty());
}

/// The listener of a transparent port.
struct Listener {
    listener: TcpListener,
    redirection: Redirection,
}

impl Listener {
    async fn bind(address: &str, kind: TransProxyType) -> Listener {
        let listener = TcpListener::bind(address).await.expect("a free port");
        Listener::new(listener, kind)
    }

    fn new(listener: TcpListener, kind: TransProxyType) -> Listener {
        let port = listener.local_addr().expect("bound");
        Listener {
            listener,
            redirection: Redirection { kind, port },
        }
    }

    /// Connects a client to `to`, and serves the connection that arrives here.
    async fn connect(&self, port: &Port, to: &str) -> (Client, JoinHandle<()>) {
        let connecting = timeout(LIMIT, TcpStream::connect(to)).await;
        let client = connecting.expect("in time").expect("connected");
        let accepting = timeout(LIMIT, self.listener.accept()).await;
        let (near, peer) = accepting.expect("in time").expect("accepted");
        let (dispatcher, redirection) = (port.dispatcher(), self.redirection);
        let serving = tokio::spawn(async move {
            serve(&dispatcher, near, ClientAddr::from(peer), redirection).await;
        });
        (Client::over(client), serving)
    }
}

const RULES: &str = "
table ip redirected {
    chain out {
        type nat hook output priority -100;
        ip protocol tcp ip daddr 192.0.2.0/24 redirect to :9040
    }
}
table ip6 redirected {
    chain out {
        type nat hook output priority -100;
        meta l4proto tcp ip6 daddr 2001:db8:1::/48 redirect to :9040
    }
}
table ip diverted {
    chain out {
        type route hook output priority mangle;
        ip daddr 203.0.113.0/24 meta mark set 1
    }
    chain in {
        type filter hook prerouting priority mangle;
        ip protocol tcp ip daddr 203.0.113.0/24 tproxy to :9042
    }
}
";
/// Addresses and routes of the namespace: connections need source addresses.
const ROUTES: &str = "
    ip link set lo up &&
    ip addr add 172.31.0.1/32 dev lo &&
    ip -6 addr add fd00::1/128 dev lo &&
    ip route add default dev lo &&
    ip -6 route add default dev lo &&
    ip rule add fwmark 1 lookup 100 &&
    ip route add local 0.0.0.0/0 dev lo table 100";

/// A service manager may pass dual-stack sockets.
#[test]
fn a_dual_stack_port_finds_the_original_destinations() {
    if namespace::is_inside() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(check_in_namespace());
    }
    namespace::run_inside(
        a_dual_stack_port_finds_the_original_destinations,
        &format!("{ROUTES} && nft -f - <<END\n{RULES}END"),
    );
}

async fn check_in_namespace() {
    let targets = [
        "192.0.2.9:80",
        "2001:db8:1::9:80",
        "203.0.113.9:80",
        "203.0.113.9:9042",
    ];
    let port = Port::new("", targets.map(|target| (target, Plan::Open)));
    let redirected = Listener::bind("[::]:9040", TransProxyType::Default).await;
    let diverted = Listener::new(tproxy_listener("0.0.0.0:9042"), TransProxyType::Tproxy);
    for (listener, to) in [
        (&redirected, "192.0.2.9:80"),
        (&redirected, "[2001:db8:1::9]:80"),
        (&diverted, "203.0.113.9:80"),
        // The port number is the listener's own, the address is not.
        (&diverted, "203.0.113.9:9042"),
    ] {
        let (mut client, _serving) = listener.connect(&port, to).await;
        client.send_bytes(b"hello").await;
        let mut far = port.tor.accept_stream().await;
        far.expect_bytes(b"hello").await;
        let calls = port.tor.calls();
        let target = to.replace(['[', ']'], "");
        assert_eq!(calls.last().expect("a call").target, target);
    }
    for (listener, to) in [
        (&redirected, "172.31.0.1:9040"),
        (&redirected, "[fd00::1]:9040"),
        (&diverted, "172.31.0.1:9042"),
    ] {
        let (client, serving) = listener.connect(&port, to).await;
        timeout(LIMIT, serving)
            .await
            .expect("an end in time")
            .expect("no panic");
        drop(client);
    }
    assert_eq!(port.tor.calls().len(), targets.len());
}

/// A listener for TPROXY connections, whose local address is their original destination.
fn tproxy_listener(address: &str) -> TcpListener {
    let address: SocketAddr = address.parse().expect("an address and a port");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    set_transparent(&socket, address).expect("permitted in the namespace");
    socket.bind(&address.into()).expect("a free port");
    socket.listen(16).expect("listening");
    socket.set_nonblocking(true).expect("set");
    TcpListener::from_std(socket.into()).expect("in a runtime")
}
