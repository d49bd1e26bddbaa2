//! The real program with sockets that a service manager keeps open, even when their port lines
//! change.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Runtime;

use crate::support::client::{Client, ListenAddr};
use crate::support::namespace::{self, run_shell};
use crate::support::offline::{assert_contains_all, assert_dns_port_answers, request_bad_onion};
use crate::support::program::{Daemon, Program};
use crate::support::unused_address::unused_addresses;

/// Edits the configuration and sends SIGHUP.
fn edit_and_reload(daemon: &Daemon, from: &str, to: &str) {
    daemon.edit_config(from, to);
    daemon.process.signal("HUP");
}

/// Waits until the program has reloaded its configuration this many times.
fn wait_for_reloads(daemon: &Daemon, times: usize) {
    daemon
        .process
        .wait_err_times("configuration reloaded", times);
}

/// Binds a listener to a new address on loopback; returns it with its address.
fn listen() -> (TcpListener, ListenAddr) {
    let [address] = unused_addresses();
    let listener = TcpListener::bind(address).expect("a free address");
    (listener, ListenAddr::Ip(address.into()))
}

#[tokio::test]
async fn an_inherited_socket_is_served_whatever_happens_to_its_port_line() {
    let (listener, address) = listen();
    let line = format!("{address} ExtendedErrors");
    let daemon = Program::offline()
        .port(&line)
        .inherit_socket(listener, "socks")
        .start();
    assert_eq!(request_bad_onion(&address).await, 0xF6);
    // Remove the line.
    edit_and_reload(&daemon, &line, "auto");
    wait_for_reloads(&daemon, 1);
    daemon.process.wait_err(&format!(
        "{address} is a socket of LISTEN_FDS and stays open"
    ));
    assert_eq!(request_bad_onion(&address).await, 0x01);
    // Add it again.
    edit_and_reload(&daemon, "\"auto\"", &format!("\"{line}\""));
    wait_for_reloads(&daemon, 2);
    assert_eq!(request_bad_onion(&address).await, 0xF6);
    // Change its protocol to HTTP and back.
    edit_and_reload(
        &daemon,
        &format!("socks_port = [\"{line}\"]\n"),
        &format!("http_port = \"{address}\"\n"),
    );
    wait_for_reloads(&daemon, 3);
    let mut client = Client::connect(&address).await;
    client
        .send_bytes(b"GET http://onionport.invalid/ HTTP/1.0\r\n\r\n")
        .await;
    client.expect_bytes(b"HTTP/1.").await;
    edit_and_reload(&daemon, "http_port = ", "socks_port = ");
    wait_for_reloads(&daemon, 4);
    assert_eq!(request_bad_onion(&address).await, 0x01);
}

#[tokio::test]
async fn a_port_line_that_conflicts_with_an_inherited_socket_is_refused_with_the_reason() {
    let [address] = unused_addresses();
    let everywhere = format!("0.0.0.0:{}", address.port());
    let listener = TcpListener::bind(address).expect("a free address");
    let daemon = Program::offline()
        .port(format!("{address} ExtendedErrors"))
        .inherit_socket(listener, "socks")
        .start();
    let place = ListenAddr::Ip(address.into());
    edit_and_reload(&daemon, &address.to_string(), &everywhere);
    let error = daemon.process.wait_err("configuration not reloaded");
    let reason = format!("{address} is a socket of LISTEN_FDS");
    assert_contains_all(&error, &[&reason, "socket unit"]);
    assert_eq!(request_bad_onion(&place).await, 0xF6);
    edit_and_reload(
        &daemon,
        &format!("{everywhere} ExtendedErrors"),
        &address.to_string(),
    );
    wait_for_reloads(&daemon, 1);
    assert_eq!(request_bad_onion(&place).await, 0x01);
}

/// systemd keeps the socket unit active while it restarts the service.
#[tokio::test]
async fn a_client_that_connects_between_two_runs_is_served_by_the_second() {
    let (listener, address) = listen();
    let inherited = || OwnedFd::from(listener.try_clone().expect("socket duplicated"));
    let start = || {
        Program::offline()
            .inherit_socket(inherited(), "socks")
            .start_with_ports(1)
    };
    let first = start();
    assert_eq!(request_bad_onion(&address).await, 0x01);
    assert!(first.stop().status.success());
    let mut client = Client::connect(&address).await;
    client.send("05 01 00").await;
    let _second = start();
    client.expect("05 00").await;
}

/// The default SOCKS port of a torrc, 9050, does not open beside an inherited socket.
#[tokio::test]
async fn a_torrc_without_socks_port_opens_only_the_inherited_socket() {
    let (listener, address) = listen();
    let daemon = Program::offline()
        .torrc("SafeSocks 1\n")
        .inherit_socket(listener, "socks")
        .start_with_ports(1);
    let expected = [format!("listening socks {address}")];
    assert_eq!(request_bad_onion(&address).await, 0x01);
    assert_eq!(daemon.process.out.all(), expected);
    // A reload neither adds the default port nor replaces the socket by it.
    daemon.process.signal("HUP");
    wait_for_reloads(&daemon, 1);
    assert_eq!(daemon.process.out.all(), expected);
    assert_eq!(request_bad_onion(&address).await, 0x01);
}

/// The address that appears and disappears.
const LATE: &str = "192.168.42.1";

/// Covers systemd's `FreeBind=yes`, for an address that does not exist yet at boot.
#[test]
fn an_inherited_socket_is_served_whenever_its_address_exists() {
    if namespace::is_inside() {
        let runtime = Runtime::new().expect("a runtime");
        return runtime.block_on(serve_while_the_address_comes_and_goes());
    }
    namespace::run_inside(
        an_inherited_socket_is_served_whenever_its_address_exists,
        "ip link set lo up",
    );
}

async fn serve_while_the_address_comes_and_goes() {
    let late: std::net::IpAddr = LATE.parse().expect("an IP address");
    let bind = |kind, protocol, port| {
        let socket = Socket::new(Domain::IPV4, kind, Some(protocol)).expect("a socket");
        socket.set_freebind_v4(true).expect("free bind allowed");
        let address = SocketAddr::new(late, port);
        socket.bind(&address.into()).expect("bound");
        socket
    };
    let socks_address = ListenAddr::Ip(SocketAddr::new(late, 9050));
    let streams = bind(Type::STREAM, Protocol::TCP, 9050);
    streams.listen(16).expect("listening");
    let socks = Program::offline()
        .port(format!("{socks_address} ExtendedErrors"))
        .inherit_socket(streams, "socks")
        .start();
    let datagrams = bind(Type::DGRAM, Protocol::UDP, 53);
    let dns = Program::offline()
        .inherit_socket(datagrams, "dns")
        .start_with_ports(1);
    // A reload works while the address does not exist.
    edit_and_reload(&socks, "ExtendedErrors", "ExtendedErrors IsolateDestPort");
    wait_for_reloads(&socks, 1);
    for _ in 0..3 {
        run_shell(&format!("ip addr add {LATE}/32 dev lo"));
        assert_eq!(request_bad_onion(&socks_address).await, 0xF6);
        assert_dns_port_answers(SocketAddr::new(late, 53), late);
        // Remove the address while a client is connected.
        let _connected = Client::connect(&socks_address).await;
        run_shell(&format!("ip addr del {LATE}/32 dev lo"));
    }
    for mut daemon in [socks, dns] {
        assert!(daemon.process.is_alive());
        assert!(daemon.stop().status.success());
    }
}
