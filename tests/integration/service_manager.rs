//! The real program under a service manager: inherited sockets, readiness, signals, and the port
//! info file.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use tokio::time::timeout;

use crate::support::LIMIT;
use crate::support::client::{Client, ListenAddr};
use crate::support::offline::{
    BAD_ONION_REQUEST, assert_contains_all, assert_dns_port_answers, connect_socks5, final_error,
    request_bad_onion,
};
use crate::support::program::Program;

#[tokio::test]
async fn an_inherited_socket_replaces_the_default_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let program = Program::offline().inherit_socket(listener, "onionport.socket");
    let daemon = program.start_with_ports(1);
    assert_eq!(
        daemon.process.out.all(),
        [format!("listening socks {address}")]
    );
    connect_socks5(&ListenAddr::Ip(address)).await;
}

#[tokio::test]
async fn an_inherited_socket_gets_the_flags_of_the_port_line_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let daemon = Program::offline()
        .port(format!("{address} ExtendedErrors"))
        .port("auto")
        .inherit_socket(listener, "socks")
        .start();
    assert_eq!(daemon.addresses[0], ListenAddr::Ip(address));
    assert_eq!(request_bad_onion(&daemon.addresses[0]).await, 0xF6);
    assert_eq!(request_bad_onion(&daemon.addresses[1]).await, 0x01);
}

/// systemd's `ListenStream=9050` is one socket for both families.
#[tokio::test]
async fn an_ipv4_client_of_a_dual_stack_socket_is_treated_as_ipv4() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let http = TcpListener::bind("[::]:0").unwrap();
    let daemon = Program::offline()
        .config_lines("socks_policy = [\"accept 127.0.0.1\", \"accept [::1]\", \"reject *\"]")
        .inherit_socket(listener, "socks")
        .start_with_ports(1);
    // The reply contains an address of the client's family.
    for (ip, length) in [("127.0.0.1", 10), ("[::1]", 22)] {
        let place = ListenAddr::Ip(format!("{ip}:{port}").parse().unwrap());
        let mut client = connect_socks5(&place).await;
        client.send(BAD_ONION_REQUEST).await;
        let (reply, _) = client.read_to_end().await;
        assert_eq!(reply.len(), length, "{ip}: {reply:02x?}");
    }
    drop(daemon);
    let port = http.local_addr().unwrap().port();
    let _daemon = Program::offline()
        .inherit_socket(http, "http")
        .start_with_ports(1);
    let place = ListenAddr::Ip(format!("127.0.0.1:{port}").parse().unwrap());
    let mut client = Client::connect(&place).await;
    let request = "GET http://onionport.invalid/proxy.pac HTTP/1.0\r\n\r\n";
    client.send_bytes(request.as_bytes()).await;
    let (answer, _) = client.read_to_end().await;
    let answer = String::from_utf8_lossy(&answer);
    assert_contains_all(&answer, &[&format!("PROXY 127.0.0.1:{port}")]);
}

#[tokio::test]
async fn an_inherited_unix_socket_is_served_and_its_file_stays() {
    let program = Program::offline();
    let path = program.folder().join("handed");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = program
        .inherit_socket(listener, "unknown")
        .start_with_ports(1);
    connect_socks5(&ListenAddr::Unix(path.clone())).await;
    daemon.process.signal("TERM");
    assert!(daemon.process.wait().status.success());
    assert!(path.exists());
}

#[test]
fn an_inherited_udp_socket_is_a_dns_port() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let daemon = Program::offline()
        .inherit_socket(socket, "any")
        .start_with_ports(1);
    assert_eq!(
        daemon.process.out.all(),
        [format!("listening dns {address}")]
    );
    assert_dns_port_answers(address, IpAddr::V4(Ipv4Addr::LOCALHOST));
}

#[test]
fn an_inherited_socket_of_an_unsupported_kind_is_refused_by_name() {
    let socket = UnixDatagram::unbound().unwrap();
    let ended = Program::offline().inherit_socket(socket, "log").run();
    assert_contains_all(final_error(&ended), &["\"log\"", "LISTEN_FDS"]);
}

#[test]
fn an_inherited_socket_whose_name_does_not_fit_its_kind_is_refused() {
    let stream = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(stream.local_addr().unwrap()).unwrap();
    for (program, text) in [
        (
            Program::offline().inherit_socket(datagrams, "socks"),
            "ListenStream=",
        ),
        (
            Program::offline().inherit_socket(stream, "dns"),
            "ListenDatagram=",
        ),
        (
            Program::offline().inherit_socket(connected, "socks"),
            "does not listen",
        ),
    ] {
        let ended = program.run();
        assert_contains_all(final_error(&ended), &["LISTEN_FDS", text]);
    }
}

/// C tor logs at debug level after SIGUSR2.
#[test]
fn sigusr2_does_not_end_the_program() {
    let mut daemon = Program::offline().port("auto").start();
    daemon.process.signal("USR2");
    daemon.process.wait_err("SIGUSR2 has no effect");
    assert!(daemon.process.is_alive());
}

#[tokio::test]
async fn sigusr1_requests_a_new_identity_and_does_not_end_the_program() {
    let daemon = Program::offline().port("auto").start();
    daemon.process.signal("USR1");
    daemon
        .process
        .wait_err("new identity: new streams use new circuits");
    timeout(Duration::from_secs(5), connect_socks5(&daemon.addresses[0]))
        .await
        .expect("clients are still served");
}

#[test]
fn the_service_manager_is_notified_of_readiness_and_of_the_stop() {
    let program = Program::offline().port("auto");
    let path = program.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let daemon = program.env("NOTIFY_SOCKET", &path).start();
    let receive = || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let ready = receive();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    daemon.process.signal("TERM");
    assert_contains_all(&receive(), &["STOPPING=1"]);
    assert!(daemon.process.wait().status.success());
}

#[tokio::test]
async fn the_port_info_file_lists_auto_ports_until_the_stop() {
    let program = Program::offline().port("auto ExtendedErrors");
    let path = program.folder().join("state/public/port_info.json");
    let daemon = program.start();
    let ListenAddr::Ip(address) = daemon.addresses[0] else {
        panic!("not a TCP port: {}", daemon.addresses[0]);
    };
    let text = std::fs::read_to_string(&path).expect("port info readable");
    let expected =
        format!("{{\"ports\":[{{\"address\":\"inet:{address}\",\"protocol\":\"socks\"}}]}}\n");
    assert_eq!(text, expected);
    daemon.process.signal("TERM");
    assert!(daemon.process.wait().status.success());
    assert!(!path.exists());
}

#[test]
fn a_port_info_file_that_cannot_be_written_is_an_error_at_start() {
    let ended = Program::offline()
        .port("auto")
        .arguments(&["-o", "storage.port_info_file=/proc/nowhere/ports"])
        .run();
    assert_contains_all(
        final_error(&ended),
        &["storage.port_info_file", "/proc/nowhere/ports"],
    );
}
