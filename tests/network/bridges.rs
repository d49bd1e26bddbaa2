//! Bridges that change, and bridges that do not answer.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testnet::{BridgeOptions, ClosedPort, socks5_connect};

use crate::daemon::Start;
use crate::entry::{WatchedNetwork, bridges_config};
use crate::setup::socks_timeout;

/// The deadline of requests: longer than any of these cases takes.
const LIMIT: Duration = Duration::from_secs(30);

/// How long arti may take to save its guards: it does so once a minute.
const SAVED_LIMIT: Duration = Duration::from_secs(80);

/// Waits until the file with the guards contains a bridge.
fn wait_until_saved(state: &Path, fingerprint: &str) -> Result<()> {
    let file = state.join("state/state/guards.json");
    let begun = Instant::now();
    loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if text.to_ascii_uppercase().contains(fingerprint) {
            return Ok(());
        }
        ensure!(begun.elapsed() < SAVED_LIMIT, "{}: {text}", file.display());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// arti identifies a bridge by its fingerprint, and ignores another line for a bridge that it has saved.
#[test]
fn a_changed_line_for_the_same_bridge_takes_effect_at_once() -> Result<()> {
    let watched = WatchedNetwork::shared()?;
    let bridge = watched.network.bridge(BridgeOptions { obfs4: true })?;
    let obfs4 = bridge.obfs4_line().context("the bridge has no obfs4")?;
    let state = tempfile::tempdir_in(watched.network.dir())?;
    let settings = socks_timeout(LIMIT);
    let start = Start::new(&watched.network)
        .proxy_settings(&settings)
        .state(state.path());
    let connections_to = |port: u16| {
        let arrivals = watched.network.arrivals()?;
        let to_bridge = arrivals.iter().filter(|a| a.relay == *bridge.id());
        Ok::<_, anyhow::Error>(to_bridge.filter(|a| a.port == port).count())
    };

    let plain_config = bridges_config(&[&bridge.line()]);
    let first = start.extra_config(&plain_config).start()?;
    watched.open_both(&first, "plain").context("plain")?;
    wait_until_saved(state.path(), bridge.id().fingerprint())?;
    first.stop()?;

    let obfs4_config = bridges_config(&[&obfs4]);
    let second = start
        .extra_config(&obfs4_config)
        .start_until_ports_are_open(2)?;
    watched
        .open_both(&second, "obfs4")
        .context("from plain to obfs4, by a restart")?;
    let before = connections_to(bridge.port())?;

    second.reload(None, Some(&plain_config))?;
    watched
        .open_both(&second, "plain")
        .context("from obfs4 to plain, by SIGHUP")?;
    ensure!(
        connections_to(bridge.port())? > before,
        "no connection to the plain port"
    );

    let moved_config = bridges_config(&[&bridge.moved_line()]);
    second.reload(None, Some(&moved_config))?;
    watched
        .open_both(&second, "moved")
        .context("another port, by SIGHUP")?;
    Ok(())
}

#[test]
fn a_bridge_that_does_not_answer_is_reported_with_advice() -> Result<()> {
    let watched = WatchedNetwork::shared()?;
    let closed = ClosedPort::new()?;
    let refusing = format!("{} {}", closed.address(), "A".repeat(40));
    let frozen = watched.network.bridge(BridgeOptions::default())?;
    frozen.freeze()?;
    let all = [
        ("refusing bridge", refusing, closed.address().port()),
        ("frozen bridge", frozen.line(), frozen.port()),
    ];
    let settings = socks_timeout(LIMIT) + "http_port = \"auto\"";
    for (what, line, port) in all {
        let config = bridges_config(&[&line]);
        let onionport = Start::new(&watched.network)
            .proxy_settings(&settings)
            .extra_config(&config)
            .start_until_ports_are_open(3)?;
        let (host, target) = watched.exit_target();
        let reply = socks5_connect(onionport.extended_port(), host, target, 2 * LIMIT)?;
        ensure!(
            matches!(reply.code, 0x01 | 0x06),
            "{what}: {:02X}",
            reply.code
        );
        // The message must help to find the line of the configuration that it is about.
        let port = format!(":{port}");
        let names_bridge = |text: &str| text.contains("bridge") && text.contains(&port);
        let log = onionport.log();
        let mut lines = log.lines().filter(|line| !line.contains("DEBUG"));
        ensure!(
            lines.any(|line| names_bridge(line) && line.contains("check")),
            "{what}: no line of the log names the bridge and says what to do"
        );
        let page = request_status_page(onionport.port(2))?;
        ensure!(names_bridge(&page), "{what}: {page}");
    }
    Ok(())
}

/// Requests the status page of the HTTP port.
fn request_status_page(port: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(port)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
