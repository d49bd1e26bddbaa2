//! The real program with sockets that a service manager keeps open whatever becomes of their ports.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Runtime;

use crate::support::LIMIT;
use crate::support::client::{Client, ListenAddr};
use crate::support::hex::bytes;
use crate::support::namespace::{self, run_shell};
use crate::support::program::{Daemon, Program};
use crate::support::unused_address::unused_addresses;

/// The answer to a request for a bad onion address: F6 where the port has `ExtendedErrors`.
async fn code(place: impl Into<SocketAddr>) -> u8 {
    let mut client = Client::connect(&ListenAddr::Tcp(place.into())).await;
    client.send("05 01 00").await;
    client.expect("05 00").await;
    client.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
    client.read_to_end().await.0[1]
}

/// Replaces a line of the configuration, and has it read again.
fn reload(daemon: &Daemon, from: &str, to: &str) {
    let file = daemon.folder.path().join("onionport.toml");
    let text = fs::read_to_string(&file).expect("readable");
    assert!(text.contains(from), "{from} is missing in {text}");
    fs::write(file, text.replace(from, to)).expect("written");
    daemon.process.signal("HUP");
}

/// Waits until the configuration was read again for the time with this number.
fn reloaded(daemon: &Daemon, times: usize) {
    daemon
        .process
        .wait_err_times("configuration reloaded", times);
}

#[tokio::test]
async fn a_socket_is_served_whatever_becomes_of_the_line_that_took_it() {
    let [at] = unused_addresses();
    let listener = TcpListener::bind(at).expect("free");
    let line = format!("{at} ExtendedErrors");
    let daemon = Program::offline()
        .port(&line)
        .inherit_socket(listener, "socks")
        .start();
    assert_eq!(code(at).await, 0xF6);
    // The line goes.
    reload(&daemon, &line, "auto");
    reloaded(&daemon, 1);
    daemon
        .process
        .wait_err(&format!("{at} is a socket of LISTEN_FDS and stays open"));
    assert_eq!(code(at).await, 0x01);
    // It comes back.
    reload(&daemon, "\"auto\"", &format!("\"{line}\""));
    reloaded(&daemon, 2);
    assert_eq!(code(at).await, 0xF6);
    // It becomes one of another kind, and again what it was.
    reload(
        &daemon,
        &format!("socks_port = [\"{line}\"]\n"),
        &format!("http_port = \"{at}\"\n"),
    );
    reloaded(&daemon, 3);
    let mut client = Client::connect(&ListenAddr::Tcp(at.into())).await;
    client
        .send_bytes(b"GET http://onionport.invalid/ HTTP/1.0\r\n\r\n")
        .await;
    client.expect_bytes(b"HTTP/1.").await;
    reload(&daemon, "http_port = ", "socks_port = ");
    reloaded(&daemon, 4);
    assert_eq!(code(at).await, 0x01);
}

#[tokio::test]
async fn a_line_that_a_socket_is_in_the_way_of_is_refused_with_the_reason() {
    let [at] = unused_addresses();
    let everywhere = format!("0.0.0.0:{}", at.port());
    let listener = TcpListener::bind(at).expect("free");
    let daemon = Program::offline()
        .port(format!("{at} ExtendedErrors"))
        .inherit_socket(listener, "socks")
        .start();
    reload(&daemon, &at.to_string(), &everywhere);
    let why = daemon.process.wait_err("configuration not reloaded");
    let reason = format!("{at} is a socket of LISTEN_FDS");
    assert!(
        why.contains(&reason) && why.contains("socket unit"),
        "{why}"
    );
    assert_eq!(code(at).await, 0xF6);
    reload(
        &daemon,
        &format!("{everywhere} ExtendedErrors"),
        &at.to_string(),
    );
    reloaded(&daemon, 1);
    assert_eq!(code(at).await, 0x01);
}

/// What systemd does: the socket unit stays up while its service is stopped and started again.
#[tokio::test]
async fn a_client_that_comes_between_two_runs_is_served_by_the_second() {
    let [at] = unused_addresses();
    let listener = TcpListener::bind(at).expect("free");
    let handed = || OwnedFd::from(listener.try_clone().expect("another handle"));
    let first = Program::offline()
        .inherit_socket(handed(), "socks")
        .start_with_ports(1);
    assert_eq!(code(at).await, 0x01);
    first.process.signal("TERM");
    assert!(first.process.wait().status.success());
    let mut client = Client::connect(&ListenAddr::Tcp(at.into())).await;
    client.send("05 01 00").await;
    let _second = Program::offline()
        .inherit_socket(handed(), "socks")
        .start_with_ports(1);
    client.expect("05 00").await;
}

/// C tor's default, 9050, is no line that somebody wrote.
#[tokio::test]
async fn a_torrc_without_socks_port_opens_nothing_beside_the_socket() {
    let [at] = unused_addresses();
    let listener = TcpListener::bind(at).expect("free");
    let program = Program::offline();
    let torrc = program.folder().join("torrc");
    fs::write(&torrc, "SafeSocks 1\n").expect("written");
    let daemon = program
        .arguments(&["--torrc", torrc.to_str().expect("UTF-8")])
        .inherit_socket(listener, "socks")
        .start_with_ports(1);
    assert_eq!(code(at).await, 0x01);
    assert_eq!(daemon.process.out.all(), [format!("listening socks {at}")]);
    // Nor after a reload, and not in its stead either.
    daemon.process.signal("HUP");
    reloaded(&daemon, 1);
    assert_eq!(daemon.process.out.all(), [format!("listening socks {at}")]);
    assert_eq!(code(at).await, 0x01);
}

const LATE: &str = "192.168.42.1";

/// systemd's `FreeBind=yes`, for an address that is not there yet at boot.
#[test]
fn a_socket_is_served_whenever_its_address_is_there() {
    if namespace::is_inside() {
        return Runtime::new().expect("a runtime").block_on(come_and_go());
    }
    namespace::run_inside(
        a_socket_is_served_whenever_its_address_is_there,
        "ip link set lo up",
    );
}

async fn come_and_go() {
    let place = |port| SocketAddr::new(LATE.parse().expect("an address"), port);
    let bound = |kind, protocol, port| {
        let socket = Socket::new(Domain::IPV4, kind, Some(protocol)).expect("a socket");
        socket.set_freebind_v4(true).expect("permitted");
        socket.bind(&place(port).into()).expect("bound");
        socket
    };
    let streams = bound(Type::STREAM, Protocol::TCP, 9050);
    streams.listen(16).expect("listening");
    let socks = Program::offline()
        .port(format!("{} ExtendedErrors", place(9050)))
        .inherit_socket(streams, "socks")
        .start();
    let datagrams = bound(Type::DGRAM, Protocol::UDP, 53);
    let dns = Program::offline()
        .inherit_socket(datagrams, "dns")
        .start_with_ports(1);
    // It may be told to read its configuration again meanwhile.
    reload(&socks, "ExtendedErrors", "ExtendedErrors IsolateDestPort");
    reloaded(&socks, 1);
    for _ in 0..3 {
        run_shell(&format!("ip addr add {LATE}/32 dev lo"));
        assert_eq!(code(place(9050)).await, 0xF6);
        let client = UdpSocket::bind((LATE, 0)).expect("an address");
        client.set_read_timeout(Some(LIMIT)).expect("set");
        // What is 192.0.2.1? That needs no network.
        let question = bytes("0001 0100 0001 00*6 03 313932 01 30 01 32 01 31 00 0001 0001");
        client.send_to(&question, place(53)).expect("sent");
        let mut reply = [0; 512];
        let length = client.recv(&mut reply).expect("an answer");
        assert_eq!(reply[length - 4..length], [192, 0, 2, 1]);
        // A client is there when the address goes.
        let _left = Client::connect(&ListenAddr::Tcp(place(9050))).await;
        run_shell(&format!("ip addr del {LATE}/32 dev lo"));
    }
    for mut daemon in [socks, dns] {
        assert!(daemon.process.is_alive());
        daemon.process.signal("TERM");
        assert!(daemon.process.wait().status.success());
    }
}
