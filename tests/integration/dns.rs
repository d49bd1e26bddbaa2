//! The DNS port, with a scripted network.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use onionport::config::access::Access;
use onionport::failure::Failure;
use onionport::inbound::dns::{self, MAX_QUERIES};
use onionport::request::dispatch::{Dispatcher, SharedState};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::hex::{bytes, show};
use crate::support::scripted::{Plan, ScriptedNetwork};
use crate::support::serve::Port;
use crate::support::{LIMIT, ONION};

// Record types, and response codes with the number of answers.
const A: u8 = 1;
const PTR: u8 = 12;
const AAAA: u8 = 28;

/// One answer, without an error.
const ANSWERED: (u8, u8) = (0, 1);
const NXDOMAIN: (u8, u8) = (3, 0);
const SERVFAIL: (u8, u8) = (2, 0);
/// No error, and no answer: the name exists, but has no record of this type.
const NO_DATA: (u8, u8) = (0, 0);
const NOT_IMPLEMENTED: (u8, u8) = (4, 0);
const REFUSED: (u8, u8) = (5, 0);

/// An open DNS port.
struct Server {
    port: Port,
    /// Held open: a reload would send another dispatcher here.
    _dispatcher: watch::Sender<Arc<Dispatcher<ScriptedNetwork>>>,
    client: UdpSocket,
    running: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Server {
    /// Opens a DNS port with the rules and the network of `port`.
    async fn start(port: Port) -> Server {
        let local = (Ipv4Addr::LOCALHOST, 0);
        let socket = UdpSocket::bind(local).await.expect("a free port");
        let client = UdpSocket::bind(local).await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        client.connect(address).await.expect("connected");
        let (dispatcher, current) = watch::channel(port.dispatcher());
        let running = tokio::spawn(dns::run(socket, current));
        Server {
            _dispatcher: dispatcher,
            port,
            client,
            running,
        }
    }

    async fn send(&self, datagram: &[u8]) {
        self.client.send(datagram).await.expect("sent");
    }

    async fn receive(&self) -> Vec<u8> {
        receive(&self.client).await
    }

    /// Sends one query and returns the reply.
    async fn query(&self, name: &str, kind: u8) -> Vec<u8> {
        self.send(&query(0x1234, name, kind)).await;
        self.receive().await
    }

    /// Sends one query and returns the response code and the number of answers.
    async fn code(&self, name: &str, kind: u8) -> (u8, u8) {
        code(&self.query(name, kind).await)
    }

    fn targets(&self) -> Vec<String> {
        self.port.tor.targets()
    }
}

/// Receives one datagram.
async fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 1500];
    let received = timeout(LIMIT, client.recv(&mut buffer)).await;
    let length = received.expect("a reply in time").expect("received");
    buffer[..length].to_vec()
}

/// Returns the response code of a reply and the number of its answers.
fn code(reply: &[u8]) -> (u8, u8) {
    (reply[3] & 0x0f, reply[7])
}

/// Builds a query with one question.
fn query(id: u16, name: &str, kind: u8) -> Vec<u8> {
    let mut datagram = id.to_be_bytes().to_vec();
    datagram.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        datagram.push(u8::try_from(label.len()).expect("a label"));
        datagram.extend(label.as_bytes());
    }
    datagram.extend([0, 0, kind, 0, 1]);
    datagram
}

/// A plan for a lookup that finds these addresses.
fn addresses(texts: &[&str]) -> Plan {
    let parse = |text: &&str| text.parse::<IpAddr>().expect("an address");
    Plan::Addresses(texts.iter().map(parse).collect())
}

#[tokio::test]
async fn lookups_use_the_network_and_replies_keep_the_spelling_of_the_query() {
    let plans = [
        ("good.example", addresses(&["192.0.2.1", "2001:db8::1"])),
        ("192.0.2.7", Plan::Names(vec!["good.example".to_owned()])),
    ];
    let server = Server::start(Port::new("", plans)).await;
    for (name, kind, reply) in [
        (
            "GoOd.example",
            A,
            "1234 8180 0001 0001 0000 0000 04476f4f64 076578616d706c65 00 0001 0001
             c00c 0001 0001 0000003c 0004 c0000201",
        ),
        (
            "good.example",
            AAAA,
            "1234 8180 0001 0001 0000 0000 04676f6f64 076578616d706c65 00 001c 0001
             c00c 001c 0001 0000003c 0010 20010db8 00*11 01",
        ),
        (
            "7.2.0.192.in-addr.arpa",
            PTR,
            "1234 8180 0001 0001 0000 0000 0137 0132 0130 03313932 07696e2d61646472 0461727061 00
             000c 0001 c00c 000c 0001 0000003c 000e 04676f6f64 076578616d706c65 00",
        ),
    ] {
        let received = server.query(name, kind).await;
        assert_eq!(show(&received), show(&bytes(reply)), "{name}");
    }
    assert_eq!(
        server.targets(),
        ["good.example", "good.example", "192.0.2.7"]
    );
}

#[tokio::test]
async fn every_failure_has_its_response_code() {
    for &failure in Failure::ALL {
        let plans = [("fails.example", Plan::Fail(failure))];
        let server = Server::start(Port::new("", plans)).await;
        let expected = match failure {
            Failure::NameNotResolved => NXDOMAIN,
            Failure::NoSuchFamily => NO_DATA,
            _ => SERVFAIL,
        };
        assert_eq!(
            server.code("fails.example", A).await,
            expected,
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn each_reason_for_not_answering_has_its_response_code() {
    let plans = [
        ("four.example", addresses(&["192.0.2.1"])),
        ("inside.example", addresses(&["10.0.0.1"])),
        ("none.example", addresses(&[])),
    ];
    let server = Server::start(Port::new("", plans)).await;
    assert_eq!(server.code("four.example", A).await, ANSWERED);
    assert_eq!(server.code("four.example", AAAA).await, NO_DATA);
    assert_eq!(server.code("inside.example", A).await, SERVFAIL);
    assert_eq!(server.code("none.example", A).await, NXDOMAIN);
    let requests = server.targets().len();
    // These need no network.
    for (name, kind, code) in [
        ("localhost", A, NXDOMAIN),
        ("printer.local", A, NXDOMAIN),
        ("1.0.0.10.in-addr.arpa", PTR, NXDOMAIN),
        ("1.0.192.127.in-addr.arpa", PTR, NXDOMAIN),
        ("four.example", PTR, SERVFAIL),
        (ONION, A, SERVFAIL),
        ("foo.onion", A, SERVFAIL),
        ("a.exit", A, SERVFAIL),
        ("192.0.2.1", AAAA, SERVFAIL),
        ("192.0.2.1", A, ANSWERED),
        ("bad!name.example", A, SERVFAIL),
        ("four.example", 16, NOT_IMPLEMENTED),
    ] {
        assert_eq!(server.code(name, kind).await, code, "{name} {kind}");
    }
    assert_eq!(server.targets().len(), requests);
}

#[tokio::test]
async fn the_flags_of_the_port_apply() {
    let plans = || [("good.example", addresses(&["192.0.2.1", "2001:db8::1"]))];
    let server = Server::start(Port::new("NoIPv6Traffic", plans())).await;
    assert_eq!(server.code("good.example", A).await, ANSWERED);
    assert_eq!(server.code("good.example", AAAA).await, SERVFAIL);
    let server = Server::start(Port::new("OnionTrafficOnly", plans())).await;
    assert_eq!(server.code("good.example", A).await, SERVFAIL);
    let server = Server::start(Port::new("IsolateDestAddr", plans())).await;
    server.query("good.example", A).await;
    server.query("GOOD.example", AAAA).await;
    let calls = server.port.tor.calls();
    assert!(calls[0].isolation.is_compatible(&calls[1].isolation));
}

#[tokio::test]
async fn an_onion_address_gets_a_virtual_address_of_each_family() {
    let port = Port::new::<&str>("", []).with_shared(crate::address_map::shared(&[], false));
    let server = Server::start(port).await;
    let ipv4 = server.query(ONION, A).await;
    assert_eq!(ipv4[ipv4.len() - 4], 127);
    let ipv6 = server.query(ONION, AAAA).await;
    assert_eq!(ipv6[ipv6.len() - 16], 0xfe);
    assert_eq!(server.query(ONION, A).await, ipv4);
    assert_eq!(server.code("foo.onion", A).await, SERVFAIL);
    assert!(server.targets().is_empty());
}

#[tokio::test]
async fn a_client_that_the_policy_does_not_admit_gets_refused() {
    let access = Access::parse(&["reject *".to_owned()]).expect("a valid policy");
    let shared = SharedState {
        access: ArcSwap::from_pointee(access),
        ..SharedState::default()
    };
    let server = Server::start(Port::new::<&str>("", []).with_shared(shared)).await;
    assert_eq!(server.code("good.example", A).await, REFUSED);
    assert!(server.targets().is_empty());
}

#[tokio::test]
async fn an_ipv4_client_of_a_dual_stack_socket_counts_as_ipv4() {
    let port = Port::new("", [("good.example", addresses(&["192.0.2.1"]))]);
    let dispatcher = port.dispatcher();
    let server = Server::start(port).await;
    server.query("good.example", A).await;
    let dual_stack = UdpSocket::bind("[::]:0").await.expect("a free port");
    let number = dual_stack.local_addr().expect("bound").port();
    let (_dispatcher, current) = watch::channel(dispatcher);
    let running = tokio::spawn(dns::run(dual_stack, current));
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let to = (Ipv4Addr::LOCALHOST, number);
    let sent = query(1, "good.example", A);
    client.send_to(&sent, to).await.expect("sent");
    let mut reply = [0; 512];
    let received = timeout(LIMIT, client.recv_from(&mut reply)).await;
    let (length, from) = received.expect("a reply in time").expect("received");
    assert_eq!(
        (&reply[length - 4..length], from),
        (&[192, 0, 2, 1][..], to.into())
    );
    let calls = server.port.tor.calls();
    assert!(calls[0].isolation.is_compatible(&calls[1].isolation));
    running.abort();
}

#[tokio::test]
async fn datagrams_that_are_not_queries_get_no_reply_and_do_no_harm() {
    let server = Server::start(Port::new("", [("good.example", addresses(&["192.0.2.1"]))])).await;
    let good = query(0x1234, "good.example", A);
    let mut response = good.clone();
    response[2] |= 0x80;
    let mut without_question = good.clone();
    without_question[5] = 0;
    for datagram in [
        &[][..],
        &good[..11],
        &good[..good.len() - 1],
        &response,
        &without_question,
        &[0xff; 1500],
    ] {
        server.send(datagram).await;
    }
    server.send(&query(0x5678, "good.example", A)).await;
    let first = server.receive().await;
    assert_eq!(first[..2], [0x56, 0x78], "{}", show(&first));
    assert_eq!(server.targets(), ["good.example"]);
}

/// A socket of another client, with its own loopback address.
async fn other_client(server: &Server, ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).await.expect("a loopback address");
    let address = server.client.peer_addr().expect("connected");
    socket.connect(address).await.expect("connected");
    socket
}

/// Sends queries that are never answered until a client has `number` of them in flight, besides `others`.
async fn flood(server: &Server, client: &UdpSocket, others: usize, number: usize) {
    let unanswered = query(1, "slow.example", A);
    for number in 1..=number {
        client.send(&unanswered).await.expect("sent");
        // One at a time: together they do not fit into the socket's buffer.
        server.port.tor.wait_for_running(others + number).await;
    }
}

#[tokio::test]
async fn a_client_with_unanswered_queries_leaves_room_for_others() {
    const SHARE: usize = MAX_QUERIES / 2;
    let plans = [
        ("slow.example", Plan::Never),
        ("good.example", addresses(&["192.0.2.1"])),
    ];
    let server = Server::start(Port::new("", plans)).await;
    let greedy = other_client(&server, "127.0.0.2").await;
    flood(&server, &greedy, 0, SHARE).await;
    for _ in 0..10 {
        let sent = query(0x5678, "good.example", A);
        greedy.send(&sent).await.expect("sent");
        let reply = receive(&greedy).await;
        assert_eq!((&reply[..2], reply[3] & 0xf), (&[0x56, 0x78][..], 2));
        // Another client has its own share.
        assert_eq!(server.code("good.example", A).await, ANSWERED);
    }
    flood(&server, &server.client, SHARE, SHARE / 2).await;
    assert_eq!(server.code("good.example", A).await, SERVFAIL);
    let third = other_client(&server, "127.0.0.3").await;
    let sent = query(1, "good.example", A);
    third.send(&sent).await.expect("sent");
    assert_eq!(code(&receive(&third).await), ANSWERED);
}

#[tokio::test]
async fn queries_in_flight_are_limited_and_slow_ones_do_not_block_others() {
    let plans = [
        ("slow.example", Plan::Never),
        ("good.example", addresses(&["192.0.2.1"])),
    ];
    let server = Server::start(Port::new("", plans)).await;
    // Each client may use half of what the clients before it have left.
    let mut running = 0;
    for client in 2.. {
        let share = (MAX_QUERIES - running) / 2;
        if share == 0 {
            break;
        }
        let greedy = other_client(&server, &format!("127.0.0.{client}")).await;
        flood(&server, &greedy, running, share).await;
        running += share;
        if running < MAX_QUERIES - 1 {
            assert_eq!(server.code("good.example", A).await, ANSWERED);
        }
    }
    assert_eq!(running, MAX_QUERIES - 1);
    assert_eq!(server.code("good.example", A).await, ANSWERED);
    flood(&server, &server.client, running, 1).await;
    for _ in 0..2 {
        assert_eq!(server.code("good.example", A).await, SERVFAIL);
    }
    let silence = timeout(
        Duration::from_millis(100),
        server.client.recv(&mut [0; 512]),
    )
    .await;
    assert!(silence.is_err());
}
