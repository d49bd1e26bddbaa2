//! Which ports open, and which ones are errors.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use super::{assert_serves, is_free};
use crate::support::client::ListenAddr;
use crate::support::offline::{assert_contains_all, final_error, request_bad_onion, unix_port};
use crate::support::program::{Program, private_folder};
use crate::support::unresponsive_listener::UnresponsiveListener;
use crate::support::unused_address::unused_addresses;

#[tokio::test]
async fn standard_output_lists_the_address_of_each_port_and_nothing_else() {
    let program = Program::offline()
        .port("auto")
        .port("127.0.0.1:auto ExtendedErrors");
    let socket = program.folder().join("socks");
    let daemon = program.port(unix_port(&socket)).start();
    let [
        ListenAddr::Ip(first),
        ListenAddr::Ip(second),
        ListenAddr::Unix(third),
    ] = &daemon.addresses[..]
    else {
        panic!("{:?}", daemon.addresses);
    };
    assert!(first.ip().is_loopback() && first.port() != 0, "{first}");
    assert!(second.ip().is_loopback() && second.port() != 0, "{second}");
    assert_ne!(first, second);
    assert_eq!(third, &socket);
    for place in &daemon.addresses {
        assert_serves(place).await;
    }
    let expected = vec![
        format!("listening socks {first}"),
        format!("listening socks {second}"),
        format!("listening socks unix:{}", socket.display()),
    ];
    // In particular not `bootstrapped`: there is no network.
    assert_eq!(daemon.process.out.all(), expected);
    assert_eq!(daemon.stop().out, expected);
}

#[tokio::test]
async fn ports_on_the_command_line_replace_those_of_the_file() {
    let daemon = Program::offline()
        .port("127.0.0.1:1")
        .arguments(&[
            "--socks-port",
            "auto ExtendedErrors",
            "--socks-port",
            "auto",
        ])
        .start_with_ports(2);
    for (place, code) in daemon.addresses.iter().zip([0xF6, 0x01]) {
        assert_eq!(request_bad_onion(place).await, code);
    }
    assert_eq!(daemon.process.out.all().len(), 2);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_and_no_other_port_stays_open() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken_address = taken.local_addr().expect("a local address");
    let [free] = unused_addresses();
    let program = Program::offline();
    let socket = program.folder().join("socks");
    let program = program
        .port(free.to_string())
        .port(unix_port(&socket))
        .port(taken_address.to_string());
    let ended = program.run();
    assert_contains_all(
        final_error(&ended),
        &[
            &taken_address.to_string(),
            "in use",
            "another port or `auto`",
        ],
    );
    assert!(ended.out.is_empty(), "{:?}", ended.out);
    assert!(
        is_free(&ListenAddr::Ip(free.into())),
        "{free} is still open"
    );
    assert!(!socket.exists(), "the socket's file is left");
    assert!(UnixStream::connect(&socket).is_err());
}

#[tokio::test]
async fn a_unix_socket_in_use_is_an_error_and_its_listener_keeps_it() {
    let first = Program::offline();
    let port = unix_port(&first.folder().join("socks"));
    let first = first.port(&port).start();
    let ended = Program::offline().port(&port).run();
    assert_contains_all(final_error(&ended), &[&port, "another program listens"]);
    assert_serves(&first.addresses[0]).await;
}

/// A blocking connect to find out whether the socket is in use would never return.
#[test]
fn a_unix_socket_of_a_stopped_program_is_an_error() {
    let program = Program::offline();
    let socket = program.folder().join("socks");
    let _stopped = UnresponsiveListener::listen(&socket);
    let port = unix_port(&socket);
    let ended = program.port(&port).run();
    assert_contains_all(final_error(&ended), &[&port, "another program listens"]);
}

#[test]
fn an_address_of_another_computer_is_an_error_that_names_the_remedy() {
    let ended = Program::offline().port("192.0.2.1:9150").run();
    let parts = [
        "192.0.2.1:9150",
        "an address of this computer",
        "FreeBind=yes",
    ];
    assert_contains_all(final_error(&ended), &parts);
}

#[tokio::test]
async fn a_unix_socket_left_by_a_crash_is_replaced() {
    let folder = private_folder();
    let socket = folder.path().join("socks");
    let port = unix_port(&socket);
    let crashed = Program::offline().port(&port).start();
    crashed.process.signal("KILL");
    crashed.process.wait();
    assert!(socket.exists(), "the killed program left no socket");
    let daemon = Program::offline().port(&port).start();
    assert_serves(&daemon.addresses[0]).await;
}

#[tokio::test]
async fn a_program_without_ports_warns_that_no_client_can_use_it() {
    let mut daemon = Program::offline()
        .arguments(&["--socks-port", "0"])
        .launch();
    daemon.process.wait_err("no port is open");
    assert!(daemon.process.is_alive());
    assert!(daemon.process.out.all().is_empty());
}
