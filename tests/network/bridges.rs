//! Bridges that change, and bridges that do not answer.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testnet::{BridgeOptions, ClosedPort, socks5_connect};

use crate::daemon::{Onionport, Start};
use crate::entry::{World, bridges};
use crate::program;

/// Longer than any of these cases may take.
const LIMIT: Duration = Duration::from_secs(30);

/// How long arti may take until it has written its guards down: it does so once a minute.
const SAVED_LIMIT: Duration = Duration::from_secs(80);

/// Waits until the file with the guards holds a bridge.
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

/// arti knows a bridge by its fingerprint, and takes another line for the same one as no bridge at all.
#[test]
fn another_line_for_the_same_bridge_is_used_at_once() -> Result<()> {
    let world = World::shared()?;
    let bridge = world.network.bridge(BridgeOptions { obfs4: true })?;
    let obfs4 = bridge.obfs4_line().context("obfs4 was asked for")?;
    let state = tempfile::tempdir_in(world.network.dir())?;
    let settings = format!("socks_timeout = {}", LIMIT.as_secs());
    let start = Start {
        proxy: &settings,
        state: Some(state.path()),
        ..Start::default()
    };
    let at = |port: u16| {
        let arrivals = world.network.arrivals()?;
        let here = arrivals.iter().filter(|a| a.relay == *bridge.id());
        Ok::<_, anyhow::Error>(here.filter(|a| a.port == port).count())
    };

    let extra = bridges(&[&bridge.line()]);
    let plain = Onionport::start_with(
        program(),
        &world.network,
        Start {
            extra: &extra,
            ..start
        },
    )?;
    world.talk(&plain, "plain").context("plain")?;
    wait_until_saved(state.path(), bridge.id().fingerprint())?;
    plain.stop()?;

    // The next start, with another line.
    let extra = bridges(&[&obfs4]);
    let start = Start {
        extra: &extra,
        ports_only: Some(2),
        ..start
    };
    let other = Onionport::start_with(program(), &world.network, start)?;
    world
        .talk(&other, "obfs4")
        .context("from plain to obfs4, another start")?;
    let before = at(bridge.port())?;

    // And back, without a start.
    other.reload(None, Some(&bridges(&[&bridge.line()])))?;
    world
        .talk(&other, "plain")
        .context("from obfs4 to plain, SIGHUP")?;
    ensure!(at(bridge.port())? > before, "the plain port was not used");

    // The bridge has moved to another port.
    other.reload(None, Some(&bridges(&[&bridge.moved_line()])))?;
    world
        .talk(&other, "moved")
        .context("another port, SIGHUP")?;
    Ok(())
}

#[test]
fn a_bridge_that_does_not_answer_is_named_with_what_to_do() -> Result<()> {
    let world = World::shared()?;
    let closed = ClosedPort::new()?;
    let refusing = format!("{} {}", closed.address(), "A".repeat(40));
    let frozen = world.network.bridge(BridgeOptions::default())?;
    frozen.freeze()?;
    let all = [
        ("refuses", refusing, closed.address().port()),
        ("is silent", frozen.line(), frozen.port()),
    ];
    for (what, line, port) in all {
        let extra = bridges(&[&line]);
        let settings = format!("http_port = \"auto\"\nsocks_timeout = {}", LIMIT.as_secs());
        let start = Start {
            proxy: &settings,
            extra: &extra,
            ports_only: Some(3),
            ..Start::default()
        };
        let onionport = Onionport::start_with(program(), &world.network, start)?;
        let (host, target) = world.exit();
        let reply = socks5_connect(onionport.extended(), host, target, 2 * LIMIT)?;
        ensure!(
            matches!(reply.code, 0x01 | 0x06),
            "{what}: {:02X}",
            reply.code
        );
        // Whoever reads it has to find the line of the file that it is about.
        let port = format!(":{port}");
        let names_it = |text: &str| text.contains("bridge") && text.contains(&port);
        let log = onionport.log();
        let mut told = log.lines().filter(|line| !line.contains("DEBUG"));
        ensure!(
            told.any(|line| names_it(line) && line.contains("check")),
            "{what}: no line of the log names the bridge and what to do"
        );
        let page = status_page(onionport.port(2))?;
        ensure!(names_it(&page), "{what}: {page}");
    }
    Ok(())
}

/// What the HTTP port says of itself.
fn status_page(port: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(port)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
