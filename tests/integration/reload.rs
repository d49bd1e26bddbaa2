//! SIGHUP: the configuration is read again while the program runs.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use crate::support::client::{Client, End, ListenAddr};
use crate::support::program::{Daemon, Program};
use crate::support::unresponsive_listener::UnresponsiveListener;
use crate::support::unused_address::unused_addresses;

/// The answer to a request for a bad onion address: F6 where the port has `ExtendedErrors`.
async fn code(place: &ListenAddr) -> u8 {
    let mut client = Client::connect(place).await;
    client.send("05 01 00").await;
    client.expect("05 00").await;
    client.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
    client.read_to_end().await.0[1]
}

/// Waits for a line on standard output.
fn told(daemon: &Daemon, line: String) {
    daemon
        .process
        .wait_out(&line, |lines| lines.contains(&line).then_some(()));
}

fn rewrite(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("readable");
    assert!(text.contains(from), "{from} is missing in {text}");
    fs::write(file, text.replace(from, to)).expect("written");
}

#[tokio::test]
async fn ports_and_flags_change_while_clients_are_served() {
    let [staying, leaving, coming] = unused_addresses();
    let daemon = Program::offline()
        .port(format!("{staying}"))
        .port(format!("{leaving}"))
        .start();
    let file = daemon.folder.path().join("onionport.toml");
    assert_eq!(code(&daemon.addresses[0]).await, 0x01);
    // A client that is still greeting when its port is closed.
    let mut early = Client::connect(&daemon.addresses[1]).await;
    early.send("05 01 00").await;
    early.expect("05 00").await;

    rewrite(
        &file,
        &format!("\"{staying}\""),
        &format!("\"{staying} ExtendedErrors\""),
    );
    rewrite(&file, &format!("\"{leaving}\""), &format!("\"{coming}\""));
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    assert_eq!(code(&daemon.addresses[0]).await, 0xF6);
    assert_eq!(code(&ListenAddr::Tcp(coming.into())).await, 0x01);
    told(&daemon, format!("closed socks {leaving}"));
    told(&daemon, format!("listening socks {coming}"));
    assert!(TcpListener::bind(leaving).is_ok());
    early.send("05 01 00 03 09 6261642e6f6e696f6e 0050").await;
    early.expect("05 01 00 01 00000000 0000").await;
}

#[tokio::test]
async fn a_port_may_change_its_kind_or_its_address() {
    let [port, other] = unused_addresses();
    let everywhere = format!("0.0.0.0:{}", other.port());
    let daemon = Program::offline()
        .port(format!("{port}"))
        .port(format!("{other}"))
        .start();
    let file = daemon.folder.path().join("onionport.toml");
    rewrite(&file, &format!("\"{port}\", "), "");
    let http = format!("[proxy]\nhttp_port = \"{port}\"\n");
    rewrite(&file, "[proxy]\n", &http);
    rewrite(&file, &format!("{other}"), &everywhere);
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    told(&daemon, format!("listening http {port}"));
    told(&daemon, format!("listening socks {everywhere}"));
    let elsewhere = ([127, 0, 0, 2], other.port());
    assert_eq!(code(&ListenAddr::Tcp(elsewhere.into())).await, 0x01);
}

#[tokio::test]
async fn a_browser_that_stays_connected_comes_under_the_new_rules() {
    let daemon = Program::offline()
        .proxy("socks_policy = []")
        .arguments(&["--http-port", "auto"])
        .start_with_ports(2);
    let mut browser = Client::connect(&daemon.addresses[1]).await;
    let page = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    browser.send_bytes(page).await;
    let (answer, _) = browser.read(15).await;
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    let file = daemon.folder.path().join("onionport.toml");
    rewrite(&file, "socks_policy = []", "socks_policy = [\"reject *\"]");
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    let _ = browser.try_send(page).await;
    let (rest, end) = browser.read_to_end().await;
    assert!(
        !String::from_utf8_lossy(&rest).contains("HTTP/1.1"),
        "answered again"
    );
    assert_ne!(end, End::Open);
}

#[tokio::test]
async fn of_two_ports_with_auto_the_one_whose_line_stays_is_kept() {
    let daemon = Program::offline()
        .port("auto ExtendedErrors")
        .port("auto")
        .start();
    let file = daemon.folder.path().join("onionport.toml");
    rewrite(&file, "\"auto ExtendedErrors\", ", "");
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    let info = daemon.folder.path().join("state/public/port_info.json");
    let info = fs::read_to_string(info).expect("written");
    let places: Vec<String> = daemon.addresses.iter().map(ToString::to_string).collect();
    assert!(
        !info.contains(&places[0]) && info.contains(&places[1]),
        "{info}"
    );
    assert_eq!(code(&daemon.addresses[1]).await, 0x01);
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let [port] = unused_addresses();
    let somebody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = somebody.local_addr().expect("bound").port();
    let program = Program::offline();
    let held = program.folder().join("held");
    let _stopped = UnresponsiveListener::listen(&held);
    let daemon = program.port(format!("{port}")).start();
    let file = daemon.folder.path().join("onionport.toml");
    let good = fs::read_to_string(&file).expect("readable");
    let (taken, held) = (taken.to_string(), format!("unix:{}", held.display()));
    for (line, words) in [
        ("70000", "70000"),
        (taken.as_str(), "cannot listen on"),
        // An address that is not there, or not there yet.
        ("192.0.2.1:9150", "FreeBind=yes"),
        // A program that accepts nothing must not hold us up.
        (held.as_str(), "another program listens there"),
    ] {
        let bad = format!("\"{port} ExtendedErrors\", \"{line}\"");
        rewrite(&file, &format!("\"{port}\""), &bad);
        daemon.process.signal("HUP");
        daemon.process.wait_err(words);
        assert_eq!(code(&daemon.addresses[0]).await, 0x01, "{bad}");
        fs::write(&file, &good).expect("written");
    }
}

#[tokio::test]
async fn neighbours_of_the_ports_change_too() {
    let daemon = Program::offline()
        .port("auto")
        .proxy("safe_socks = false")
        .start();
    let info = daemon.folder.path().join("state/public/port_info.json");
    let before = fs::read_to_string(&info).expect("written");
    rewrite(
        &daemon.folder.path().join("onionport.toml"),
        "safe_socks = false",
        "safe_socks = true",
    );
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration reloaded");
    let mut client = Client::connect(&daemon.addresses[0]).await;
    client.send("05 01 00").await;
    client.expect("05 00").await;
    client.send("05 01 00 01 c0000201 0050").await;
    client.expect("05 02 00 01 00000000 0000").await;
    assert_eq!(fs::read_to_string(&info).expect("still there"), before);
}

/// Of a configuration of which one port cannot be opened nothing holds, and no port is another.
#[tokio::test]
async fn a_change_that_fails_changes_nothing() {
    let somebody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = somebody.local_addr().expect("bound").port();
    let [fixed] = unused_addresses();
    let daemon = Program::offline()
        .port("auto ExtendedErrors")
        .port(format!("{fixed} ExtendedErrors"))
        .proxy("socks_policy = []")
        .start();
    let file = daemon.folder.path().join("onionport.toml");
    rewrite(&file, "\"auto ExtendedErrors\"", &format!("\"{taken}\""));
    rewrite(
        &file,
        &format!("{fixed} ExtendedErrors"),
        &format!("0.0.0.0:{}", fixed.port()),
    );
    rewrite(&file, "socks_policy = []", "socks_policy = [\"reject *\"]");
    daemon.process.signal("HUP");
    daemon.process.wait_err("configuration not reloaded");
    for place in &daemon.addresses {
        assert_eq!(code(place).await, 0xF6, "{place}");
    }
}

/// The Tor client is made anew: none of its parts goes on past the proxy.
#[tokio::test]
async fn another_proxy_to_relays_is_used_from_then_on() {
    let proxies: [TcpListener; 2] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let key = |proxy: &TcpListener| {
        let address = proxy.local_addr().expect("bound");
        format!("outbound_proxy = \"socks5://{address}\"")
    };
    let [one, other] = &proxies;
    let daemon = Program::offline()
        .port("auto")
        .proxy(format!("[channel]\n{}", key(one)))
        .start();
    one.accept().expect("the directory is asked for through it");
    let file = daemon.folder.path().join("onionport.toml");
    rewrite(&file, &key(one), &key(other));
    rewrite(&file, "\"auto\"", "\"auto ExtendedErrors\"");
    daemon.process.signal("HUP");
    other
        .accept()
        .expect("the directory is asked for through it");
    daemon.process.wait_err("configuration reloaded");
    assert_eq!(code(&daemon.addresses[0]).await, 0xF6);
    // Connections that had been begun by then may still wait to be accepted.
    one.set_nonblocking(true).expect("set");
    while one.accept().is_ok() {}
    // Long enough for further attempts, which go to the new one.
    other.accept().expect("asked again");
    assert!(one.accept().is_err(), "the old proxy is still used");
}

#[tokio::test]
async fn reading_a_configuration_that_blocks_stalls_nothing() {
    let [port] = unused_addresses();
    let program = Program::offline().port(format!("{port}"));
    let torrc = program.folder().join("torrc");
    fs::write(&torrc, "SafeSocks 0\n").expect("written");
    let path = torrc.display().to_string();
    let daemon = program.arguments(&["--torrc", &path]).start();
    fs::remove_file(&torrc).expect("removed");
    // Nobody writes to it.
    nix::unistd::mkfifo(&torrc, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    daemon.process.signal("HUP");
    assert_eq!(code(&daemon.addresses[0]).await, 0x01);
    daemon.process.signal("TERM");
    let ended = daemon.process.wait();
    assert!(ended.status.success(), "{:?}", ended.err);
}

#[tokio::test]
async fn unread_standard_output_stalls_nothing() {
    let [port] = unused_addresses();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut full = fs::File::from(OwnedFd::from(writer));
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("non-blocking");
    while full.write(&[b'x'; 4096]).is_ok() {}
    fcntl(&full, FcntlArg::F_SETFL(OFlag::empty())).expect("blocking");
    let daemon = Program::offline()
        .port(format!("{port} ExtendedErrors"))
        .arguments(&["-l", "debug"])
        .output(full)
        .launch();
    daemon
        .process
        .wait_err("standard output is full; skipped: listening socks");
    assert_eq!(code(&ListenAddr::Tcp(port.into())).await, 0xF6);
    daemon.process.signal("TERM");
    assert!(daemon.process.wait().status.success());
    drop(reader);
}
