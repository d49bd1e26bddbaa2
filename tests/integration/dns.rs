//! The DNS port, with a network that answers as it is told.

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

/// An open DNS port.
struct Server {
    port: Port,
    /// Where a reload would put another one.
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
    async fn before(port: Port) -> Server {
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
        let mut buffer = [0; 1500];
        let received = timeout(LIMIT, self.client.recv(&mut buffer)).await;
        let length = received.expect("no answer").expect("received");
        buffer[..length].to_vec()
    }

    /// The answer to one question.
    async fn ask(&self, name: &str, kind: u8) -> Vec<u8> {
        self.send(&question(0x1234, name, kind)).await;
        self.receive().await
    }

    /// Its response code, and how many answers it has.
    async fn code(&self, name: &str, kind: u8) -> (u8, u8) {
        let reply = self.ask(name, kind).await;
        (reply[3] & 0x0f, reply[7])
    }

    fn targets(&self) -> Vec<String> {
        let calls = self.port.tor.calls();
        calls.into_iter().map(|call| call.target).collect()
    }
}

const A: u8 = 1;
const PTR: u8 = 12;
const AAAA: u8 = 28;
const NXDOMAIN: (u8, u8) = (3, 0);
const SERVFAIL: (u8, u8) = (2, 0);
const NO_DATA: (u8, u8) = (0, 0);

/// A datagram with one question.
fn question(id: u16, name: &str, kind: u8) -> Vec<u8> {
    let mut datagram = id.to_be_bytes().to_vec();
    datagram.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        datagram.push(u8::try_from(label.len()).expect("a label"));
        datagram.extend(label.as_bytes());
    }
    datagram.extend([0, 0, kind, 0, 1]);
    datagram
}

fn addresses(texts: &[&str]) -> Plan {
    let parse = |text: &&str| text.parse::<IpAddr>().expect("an address");
    Plan::Addresses(texts.iter().map(parse).collect())
}

#[tokio::test]
async fn look_ups_go_through_the_network_and_come_back_in_the_clients_spelling() {
    let plans = [
        ("good.example", addresses(&["192.0.2.1", "2001:db8::1"])),
        ("192.0.2.7", Plan::Names(vec!["good.example".to_owned()])),
    ];
    let server = Server::before(Port::new("", plans)).await;
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
        let answer = server.ask(name, kind).await;
        let reply: Vec<&str> = reply.split_whitespace().collect();
        assert_eq!(show(&answer), show(&bytes(&reply.join(" "))), "{name}");
    }
    assert_eq!(
        server.targets(),
        ["good.example", "good.example", "192.0.2.7"]
    );
}

#[tokio::test]
async fn every_failure_is_nxdomain_or_servfail() {
    for &failure in Failure::ALL {
        let plans = [("fails.example", Plan::Fail(failure))];
        let server = Server::before(Port::new("", plans)).await;
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
async fn what_the_answer_may_not_be_is_told_apart() {
    let plans = [
        ("four.example", addresses(&["192.0.2.1"])),
        ("inside.example", addresses(&["10.0.0.1"])),
        ("none.example", addresses(&[])),
    ];
    let server = Server::before(Port::new("", plans)).await;
    assert_eq!(server.code("four.example", A).await, (0, 1));
    assert_eq!(server.code("four.example", AAAA).await, NO_DATA);
    assert_eq!(server.code("inside.example", A).await, SERVFAIL);
    assert_eq!(server.code("none.example", A).await, NXDOMAIN);
    let asked = server.targets().len();
    // Without asking anybody.
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
        ("192.0.2.1", A, (0, 1)),
        ("bad!name.example", A, SERVFAIL),
        ("four.example", 16, (4, 0)),
    ] {
        assert_eq!(server.code(name, kind).await, code, "{name} {kind}");
    }
    assert_eq!(server.targets().len(), asked);
}

#[tokio::test]
async fn flags_hold_here_too() {
    let plans = || [("good.example", addresses(&["192.0.2.1", "2001:db8::1"]))];
    let server = Server::before(Port::new("NoIPv6Traffic", plans())).await;
    assert_eq!(server.code("good.example", A).await, (0, 1));
    assert_eq!(server.code("good.example", AAAA).await, SERVFAIL);
    let server = Server::before(Port::new("OnionTrafficOnly", plans())).await;
    assert_eq!(server.code("good.example", A).await, SERVFAIL);
    let server = Server::before(Port::new("IsolateDestAddr", plans())).await;
    server.ask("good.example", A).await;
    server.ask("GOOD.example", AAAA).await;
    let calls = server.port.tor.calls();
    assert!(calls[0].isolation.is_compatible(&calls[1].isolation));
}

#[tokio::test]
async fn an_onion_address_gets_one_of_each_family() {
    let port = Port::new::<&str>("", []).with_shared(crate::address_map::shared(&[], false));
    let server = Server::before(port).await;
    let four = server.ask(ONION, A).await;
    assert_eq!(four[four.len() - 4], 127);
    let six = server.ask(ONION, AAAA).await;
    assert_eq!(six[six.len() - 16], 0xfe);
    assert_eq!(server.ask(ONION, A).await, four);
    assert_eq!(server.code("foo.onion", A).await, SERVFAIL);
    assert!(server.targets().is_empty());
}

#[tokio::test]
async fn the_policy_refuses_with_a_word() {
    let access = Access::read(&["reject *".to_owned()]).expect("a good policy");
    let shared = SharedState {
        access: ArcSwap::from_pointee(access),
        ..SharedState::default()
    };
    let server = Server::before(Port::new::<&str>("", []).with_shared(shared)).await;
    assert_eq!(server.code("good.example", A).await, (5, 0));
    assert!(server.targets().is_empty());
}

#[tokio::test]
async fn an_ipv4_client_of_a_socket_for_both_families_is_an_ipv4_client() {
    let port = Port::new("", [("good.example", addresses(&["192.0.2.1"]))]);
    let dispatcher = port.dispatcher();
    let server = Server::before(port).await;
    server.ask("good.example", A).await;
    let both = UdpSocket::bind("[::]:0").await.expect("a free port");
    let at = both.local_addr().expect("bound").port();
    let (_dispatcher, current) = watch::channel(dispatcher);
    let running = tokio::spawn(dns::run(both, current));
    let client = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let to = (Ipv4Addr::LOCALHOST, at);
    let asked = question(1, "good.example", A);
    client.send_to(&asked, to).await.expect("sent");
    let mut reply = [0; 512];
    let received = timeout(LIMIT, client.recv_from(&mut reply)).await;
    let (length, from) = received.expect("no answer").expect("received");
    assert_eq!(
        (&reply[length - 4..length], from),
        (&[192, 0, 2, 1][..], to.into())
    );
    let calls = server.port.tor.calls();
    assert!(calls[0].isolation.is_compatible(&calls[1].isolation));
    running.abort();
}

#[tokio::test]
async fn nonsense_gets_no_answer_and_does_no_harm() {
    let server = Server::before(Port::new("", [("good.example", addresses(&["192.0.2.1"]))])).await;
    let good = question(0x1234, "good.example", A);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    let mut none = good.clone();
    none[5] = 0;
    for datagram in [
        &[][..],
        &good[..11],
        &good[..good.len() - 1],
        &answer,
        &none,
        &[0xff; 1500],
    ] {
        server.send(datagram).await;
    }
    server.send(&question(0x5678, "good.example", A)).await;
    let first = server.receive().await;
    assert_eq!(first[..2], [0x56, 0x78], "{}", show(&first));
    assert_eq!(server.targets(), ["good.example"]);
}

/// A socket of another client of this computer.
async fn other_client(server: &Server, ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).await.expect("an address of ours");
    let address = server.client.peer_addr().expect("connected");
    socket.connect(address).await.expect("connected");
    socket
}

/// Asks questions that never end until a client has `number` of them, beside `others`.
async fn flood(server: &Server, client: &UdpSocket, others: usize, number: usize) {
    let slow = question(1, "slow.example", A);
    for number in 1..=number {
        client.send(&slow).await.expect("sent");
        // The socket's buffer is smaller than all of them together.
        server.port.tor.wait_for_running(others + number).await;
    }
}

#[tokio::test]
async fn a_client_with_questions_that_never_end_leaves_room_for_others() {
    const SHARE: usize = MAX_QUERIES / 2;
    let plans = [
        ("slow.example", Plan::Never),
        ("good.example", addresses(&["192.0.2.1"])),
    ];
    let server = Server::before(Port::new("", plans)).await;
    let greedy = other_client(&server, "127.0.0.2").await;
    flood(&server, &greedy, 0, SHARE).await;
    let mut reply = [0; 512];
    for _ in 0..10 {
        let asked = question(0x5678, "good.example", A);
        greedy.send(&asked).await.expect("sent");
        let received = timeout(LIMIT, greedy.recv(&mut reply)).await;
        received.expect("no answer").expect("received");
        assert_eq!((&reply[..2], reply[3] & 0xf), (&[0x56, 0x78][..], 2));
        // Others have theirs, one after another and at once.
        assert_eq!(server.code("good.example", A).await, (0, 1));
    }
    flood(&server, &server.client, SHARE, SHARE / 2).await;
    assert_eq!(server.code("good.example", A).await, SERVFAIL);
    let third = other_client(&server, "127.0.0.3").await;
    let asked = question(1, "good.example", A);
    third.send(&asked).await.expect("sent");
    let received = timeout(LIMIT, third.recv(&mut reply)).await;
    received.expect("no answer").expect("received");
    assert_eq!((reply[3] & 0xf, reply[7]), (0, 1));
}

#[tokio::test]
async fn questions_at_once_are_limited_and_a_slow_one_holds_up_no_other() {
    let plans = [
        ("slow.example", Plan::Never),
        ("good.example", addresses(&["192.0.2.1"])),
    ];
    let server = Server::before(Port::new("", plans)).await;
    // Each gets half of what those before have left.
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
            assert_eq!(server.code("good.example", A).await, (0, 1));
        }
    }
    assert_eq!(running, MAX_QUERIES - 1);
    assert_eq!(server.code("good.example", A).await, (0, 1));
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
