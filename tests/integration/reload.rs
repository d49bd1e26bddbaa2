//! SIGHUP: the running program reloads its configuration.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::stat::Mode;

use crate::support::client::{Client, End, ListenAddr};
use crate::support::offline::{
    BAD_ONION_REQUEST, connect_socks5, create_folder, request_bad_onion, unix_port,
};
use crate::support::program::{Daemon, Program};
use crate::support::unresponsive_listener::UnresponsiveListener;
use crate::support::unused_address::unused_addresses;

/// Waits for a line on standard output.
fn wait_for_line(daemon: &Daemon, line: String) {
    daemon
        .process
        .wait_out(&line, |lines| lines.contains(&line).then_some(()));
}

#[tokio::test]
async fn ports_and_flags_change_while_clients_are_served() {
    let [kept, closed, opened] = unused_addresses();
    let daemon = Program::offline()
        .port(kept.to_string())
        .port(closed.to_string())
        .start();
    assert_eq!(request_bad_onion(&daemon.addresses[0]).await, 0x01);
    // This client has not sent its request yet when its port closes.
    let mut early = connect_socks5(&daemon.addresses[1]).await;

    daemon.edit_config(
        &format!("\"{kept}\""),
        &format!("\"{kept} ExtendedErrors\""),
    );
    daemon.edit_config(&format!("\"{closed}\""), &format!("\"{opened}\""));
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    assert_eq!(request_bad_onion(&daemon.addresses[0]).await, 0xF6);
    assert_eq!(
        request_bad_onion(&ListenAddr::Ip(opened.into())).await,
        0x01
    );
    wait_for_line(&daemon, format!("closed socks {closed}"));
    wait_for_line(&daemon, format!("listening socks {opened}"));
    assert!(TcpListener::bind(closed).is_ok());
    early.send(BAD_ONION_REQUEST).await;
    early.expect("05 01 00 01 00000000 0000").await;
}

#[tokio::test]
async fn a_port_can_change_its_protocol_or_its_address() {
    let [port, other] = unused_addresses();
    let everywhere = format!("0.0.0.0:{}", other.port());
    let daemon = Program::offline()
        .port(port.to_string())
        .port(other.to_string())
        .start();
    daemon.edit_config(&format!("\"{port}\", "), "");
    let http = format!("[proxy]\nhttp_port = \"{port}\"\n");
    daemon.edit_config("[proxy]\n", &http);
    daemon.edit_config(&other.to_string(), &everywhere);
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    wait_for_line(&daemon, format!("listening http {port}"));
    wait_for_line(&daemon, format!("listening socks {everywhere}"));
    let elsewhere = ([127, 0, 0, 2], other.port());
    assert_eq!(
        request_bad_onion(&ListenAddr::Ip(elsewhere.into())).await,
        0x01
    );
}

#[tokio::test]
async fn a_port_that_a_refused_reload_cannot_open_again_is_reported_as_closed() {
    let program = Program::offline();
    let folder = program.folder().join("sockets");
    create_folder(&folder, 0o700);
    let port = unix_port(&folder.join("socks"));
    let daemon = program.port(&port).port("auto").start();
    let info = daemon.folder.path().join("state/public/port_info.json");
    assert!(
        fs::read_to_string(&info)
            .expect("port info readable")
            .contains("sockets/socks")
    );

    // The path has to be free for the HTTP port, which its folder then forbids, as it forbids the old port.
    daemon.edit_config(&format!("\"{port}\", "), "");
    daemon.edit_config("[proxy]\n", &format!("[proxy]\nhttp_port = \"{port}\"\n"));
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("mode set");
    daemon.process.signal("HUP");
    let refusal = daemon.process.wait_err("configuration not reloaded");
    assert!(
        refusal.contains("ports that were open are lost"),
        "{refusal}"
    );
    wait_for_line(&daemon, format!("closed socks {port}"));
    let info = fs::read_to_string(info).expect("port info readable");
    assert!(!info.contains("sockets/socks"), "{info}");

    fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("mode set");
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    wait_for_line(&daemon, format!("listening http {port}"));
}

#[tokio::test]
async fn a_new_socks_policy_applies_to_a_connected_browser() {
    let daemon = Program::offline()
        .config_lines("socks_policy = []")
        .arguments(&["--http-port", "auto"])
        .start_with_ports(2);
    let mut browser = Client::connect(&daemon.addresses[1]).await;
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    browser.send_bytes(request).await;
    let (answer, _) = browser.read(15).await;
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    daemon.edit_config("socks_policy = []", "socks_policy = [\"reject *\"]");
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    let _ = browser.try_send(request).await;
    let (rest, end) = browser.read_to_end().await;
    assert!(
        !String::from_utf8_lossy(&rest).contains("HTTP/1.1"),
        "answered again"
    );
    assert_ne!(end, End::Open);
}

#[tokio::test]
async fn an_auto_port_whose_line_remains_keeps_its_address() {
    let daemon = Program::offline()
        .port("auto ExtendedErrors")
        .port("auto")
        .start();
    daemon.edit_config("\"auto ExtendedErrors\", ", "");
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    let info = daemon.folder.path().join("state/public/port_info.json");
    let info = fs::read_to_string(info).expect("port info readable");
    let places: Vec<String> = daemon.addresses.iter().map(ToString::to_string).collect();
    assert!(
        !info.contains(&places[0]) && info.contains(&places[1]),
        "{info}"
    );
    assert_eq!(request_bad_onion(&daemon.addresses[1]).await, 0x01);
}

#[tokio::test]
async fn an_unusable_port_line_changes_nothing() {
    let [port] = unused_addresses();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("a local address").port();
    let program = Program::offline();
    let held = program.folder().join("held");
    let _stopped = UnresponsiveListener::listen(&held);
    let daemon = program.port(port.to_string()).start();
    let file = daemon.config_file();
    let good = fs::read_to_string(&file).expect("configuration readable");
    let (taken, held) = (taken.to_string(), unix_port(&held));
    for (line, text) in [
        ("70000", "70000"),
        (taken.as_str(), "cannot listen on"),
        // Not an address of this computer, or not yet.
        ("192.0.2.1:9150", "FreeBind=yes"),
        // The listener accepts nothing, which must not block the reload.
        (held.as_str(), "another program listens there"),
    ] {
        let bad = format!("\"{port} ExtendedErrors\", \"{line}\"");
        daemon.edit_config(&format!("\"{port}\""), &bad);
        daemon.process.signal("HUP");
        daemon.process.wait_err(text);
        assert_eq!(request_bad_onion(&daemon.addresses[0]).await, 0x01, "{bad}");
        fs::write(&file, &good).expect("configuration written");
    }
}

#[tokio::test]
async fn settings_beside_the_port_lines_change_and_auto_ports_keep_their_addresses() {
    let daemon = Program::offline()
        .port("auto")
        .config_lines("safe_socks = false")
        .start();
    let info = daemon.folder.path().join("state/public/port_info.json");
    let before = fs::read_to_string(&info).expect("port info readable");
    daemon.edit_config("safe_socks = false", "safe_socks = true");
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    let mut client = connect_socks5(&daemon.addresses[0]).await;
    client.send("05 01 00 01 c0000201 0050").await;
    client.expect("05 02 00 01 00000000 0000").await;
    let after = fs::read_to_string(&info).expect("port info still readable");
    assert_eq!(after, before);
}

/// One port that cannot open fails the whole reload: the flags, the policy and the other ports stay.
#[tokio::test]
async fn a_reload_with_a_port_that_cannot_open_changes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("a local address").port();
    let [fixed] = unused_addresses();
    let daemon = Program::offline()
        .port("auto ExtendedErrors")
        .port(format!("{fixed} ExtendedErrors"))
        .config_lines("socks_policy = []")
        .start();
    daemon.edit_config("\"auto ExtendedErrors\"", &format!("\"{taken}\""));
    daemon.edit_config(
        &format!("{fixed} ExtendedErrors"),
        &format!("0.0.0.0:{}", fixed.port()),
    );
    daemon.edit_config("socks_policy = []", "socks_policy = [\"reject *\"]");
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration not reloaded");
    for place in &daemon.addresses {
        assert_eq!(request_bad_onion(place).await, 0xF6, "{place}");
    }
}

/// The reload creates a new Tor client, so that no part keeps using the old proxy.
#[tokio::test]
async fn a_new_outbound_proxy_replaces_the_old_one() {
    let proxies: [TcpListener; 2] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let setting = |proxy: &TcpListener| {
        let address = proxy.local_addr().expect("a local address");
        format!("outbound_proxy = \"socks5://{address}\"")
    };
    let [old, new] = &proxies;
    let daemon = Program::offline()
        .port("auto")
        .config_lines(format!("[channel]\n{}", setting(old)))
        .start();
    old.accept()
        .expect("the program contacts its directory through the proxy");
    daemon.edit_config(&setting(old), &setting(new));
    daemon.edit_config("\"auto\"", "\"auto ExtendedErrors\"");
    daemon.process.signal("HUP");
    new.accept()
        .expect("the program contacts its directory through the new proxy");
    daemon.process.wait_err("configuration reloaded");
    assert_eq!(request_bad_onion(&daemon.addresses[0]).await, 0xF6);
    // Accept the connections that began before the reload.
    old.set_nonblocking(true).expect("non-blocking");
    while old.accept().is_ok() {}
    // The next attempt uses the new proxy alone.
    new.accept().expect("another connection");
    assert!(old.accept().is_err(), "the old proxy is still used");
}

#[tokio::test]
async fn a_configuration_that_blocks_delays_neither_clients_nor_the_exit() {
    let [port] = unused_addresses();
    let daemon = Program::offline()
        .port(port.to_string())
        .torrc("SafeSocks 0\n")
        .start();
    let torrc = daemon.folder.path().join("torrc");
    fs::remove_file(&torrc).expect("torrc removed");
    // Opening a named pipe blocks until another process opens it for writing.
    nix::unistd::mkfifo(&torrc, Mode::S_IRUSR | Mode::S_IWUSR).expect("named pipe created");
    daemon.process.signal("HUP");
    assert_eq!(request_bad_onion(&daemon.addresses[0]).await, 0x01);
    let ended = daemon.stop();
    assert!(ended.status.success(), "{:?}", ended.err);
}
