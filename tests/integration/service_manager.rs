//! What a service manager gives and is told: sockets, readiness, and a file that names the ports.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use crate::support::LIMIT;
use crate::support::client::{Client, ListenAddr};
use crate::support::hex::bytes;
use crate::support::program::Program;

/// A client that has been greeted.
async fn greeted(place: &ListenAddr) -> Client {
    let mut client = Client::connect(place).await;
    client.send("05 01 00").await;
    client.expect("05 00").await;
    client
}

/// Asks for a bad onion address: the code tells whether the port has `ExtendedErrors`.
async fn code_for_a_bad_address(place: &ListenAddr) -> u8 {
    let mut client = greeted(place).await;
    client.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
    client.read_to_end().await.0[1]
}

#[tokio::test]
async fn a_socket_that_is_handed_over_takes_the_place_of_the_default_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let program = Program::offline().inherit_socket(listener, "onionport.socket");
    let daemon = program.start_with_ports(1);
    assert_eq!(daemon.process.out.all(), [format!("listening socks {at}")]);
    greeted(&ListenAddr::Tcp(at)).await;
}

#[tokio::test]
async fn a_socket_that_is_handed_over_gets_the_flags_of_the_line_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let daemon = Program::offline()
        .port(format!("{at} ExtendedErrors"))
        .port("auto")
        .inherit_socket(listener, "socks")
        .start();
    assert_eq!(daemon.addresses[0], ListenAddr::Tcp(at));
    assert_eq!(code_for_a_bad_address(&daemon.addresses[0]).await, 0xF6);
    assert_eq!(code_for_a_bad_address(&daemon.addresses[1]).await, 0x01);
}

/// systemd's `ListenStream=9050` is one socket for both families.
#[tokio::test]
async fn an_ipv4_client_of_a_socket_for_both_families_is_an_ipv4_client() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let http = TcpListener::bind("[::]:0").unwrap();
    let daemon = Program::offline()
        .proxy("socks_policy = [\"accept 127.0.0.1\", \"accept [::1]\", \"reject *\"]")
        .inherit_socket(listener, "socks")
        .start_with_ports(1);
    for (ip, length) in [("127.0.0.1", 10), ("[::1]", 22)] {
        let mut client = greeted(&ListenAddr::Tcp(format!("{ip}:{port}").parse().unwrap())).await;
        client.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
        let (reply, _) = client.read_to_end().await;
        assert_eq!(reply.len(), length, "{ip}: {reply:02x?}");
    }
    drop(daemon);
    let port = http.local_addr().unwrap().port();
    let _daemon = Program::offline()
        .inherit_socket(http, "http")
        .start_with_ports(1);
    let place = ListenAddr::Tcp(format!("127.0.0.1:{port}").parse().unwrap());
    let mut client = Client::connect(&place).await;
    let ask = "GET http://onionport.invalid/proxy.pac HTTP/1.0\r\n\r\n";
    client.send_bytes(ask.as_bytes()).await;
    let (said, _) = client.read_to_end().await;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains(&format!("PROXY 127.0.0.1:{port}")), "{said}");
}

#[tokio::test]
async fn a_unix_socket_that_is_handed_over_is_served_and_its_file_left_alone() {
    let program = Program::offline();
    let path = program.folder().join("handed");
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = program
        .inherit_socket(listener, "unknown")
        .start_with_ports(1);
    greeted(&ListenAddr::Unix(path.clone())).await;
    daemon.process.signal("TERM");
    assert!(daemon.process.wait().status.success());
    assert!(path.exists());
}

#[test]
fn a_udp_socket_that_is_handed_over_is_a_dns_port() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let daemon = Program::offline()
        .inherit_socket(socket, "any")
        .start_with_ports(1);
    assert_eq!(daemon.process.out.all(), [format!("listening dns {at}")]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    // What is 192.0.2.1? That needs no network.
    let question = bytes("0001 0100 0001 00*6 03 313932 01 30 01 32 01 31 00 0001 0001");
    client.send_to(&question, at).unwrap();
    let mut reply = [0; 512];
    let length = client.recv(&mut reply).unwrap();
    assert_eq!(reply[length - 4..length], [192, 0, 2, 1]);
}

#[test]
fn a_socket_of_no_use_is_refused_by_name() {
    let pair = UnixDatagram::unbound().unwrap();
    let ended = Program::offline().inherit_socket(pair, "log").run();
    assert_eq!(ended.status.code(), Some(1));
    let error = ended.err.last().unwrap();
    assert!(
        error.contains("\"log\"") && error.contains("LISTEN_FDS"),
        "{error}"
    );
}

#[test]
fn a_socket_whose_name_does_not_fit_it_is_refused() {
    let stream = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(stream.local_addr().unwrap()).unwrap();
    for (program, words) in [
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
        assert_eq!(ended.status.code(), Some(1));
        let error = ended.err.last().unwrap();
        assert!(
            error.contains("LISTEN_FDS") && error.contains(words),
            "{error}"
        );
    }
}

#[test]
fn the_signal_that_means_a_longer_log_to_c_tor_does_not_end_the_program() {
    let mut daemon = Program::offline().port("auto").start();
    daemon.process.signal("USR2");
    daemon.process.wait_err("SIGUSR2 has no effect");
    assert!(daemon.process.is_alive());
}

#[test]
fn the_service_manager_is_told_when_the_ports_are_open() {
    let program = Program::offline().port("auto");
    let path = program.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let daemon = program.env("NOTIFY_SOCKET", &path).start();
    let heard = || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let ready = heard();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    daemon.process.signal("TERM");
    let stopping = heard();
    assert!(stopping.contains("STOPPING=1"), "{stopping}");
    assert!(daemon.process.wait().status.success());
}

#[tokio::test]
async fn a_port_that_the_system_chose_is_named_in_a_file_until_the_end() {
    let program = Program::offline().port("auto ExtendedErrors");
    let path = program.folder().join("state/public/port_info.json");
    let daemon = program.start();
    let ListenAddr::Tcp(at) = daemon.addresses[0] else {
        panic!("no TCP port");
    };
    let text = std::fs::read_to_string(&path).expect("written");
    let expected =
        format!("{{\"ports\":[{{\"address\":\"inet:{at}\",\"protocol\":\"socks\"}}]}}\n");
    assert_eq!(text, expected);
    daemon.process.signal("TERM");
    assert!(daemon.process.wait().status.success());
    assert!(!path.exists());
}

#[test]
fn a_place_for_that_file_that_cannot_be_written_is_an_error_at_start() {
    let ended = Program::offline()
        .port("auto")
        .arguments(&["-o", "storage.port_info_file=/proc/nowhere/ports"])
        .run();
    assert_eq!(ended.status.code(), Some(1));
    let error = ended.err.last().unwrap();
    assert!(
        error.contains("storage.port_info_file") && error.contains("/proc/nowhere/ports"),
        "{error}"
    );
}

#[tokio::test]
async fn the_signal_for_new_circuits_is_heeded_and_does_not_end_the_program() {
    let daemon = Program::offline().port("auto").start();
    daemon.process.signal("USR1");
    daemon
        .process
        .wait_err("new identity: new streams use new circuits");
    tokio::time::timeout(Duration::from_secs(5), greeted(&daemon.addresses[0]))
        .await
        .expect("still served");
}
