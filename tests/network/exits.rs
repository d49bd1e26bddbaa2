//! Exits that cannot serve a request: how many circuits the request takes, and which circuits stay in use.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testnet::{
    ClientOptions, ClosedPort, EchoServer, HttpServer, Network, SocksReply, UnresponsivePort,
    socks5_connect,
};

use crate::daemon::Onionport;
use crate::setup::{PAGE, circuits_of_streams, network_builder, run_in_parallel};

/// How long an exit may stay silent before the program tries another.
const SILENCE: Duration = Duration::from_secs(2);
/// The deadline of requests that stay without an answer.
const SHORT_LIMIT: Duration = Duration::from_secs(10);
/// The deadline of other requests.
const LIMIT: Duration = Duration::from_secs(50);
/// How long a client waits for a reply.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the log may lag behind a reply.
const LOG_LIMIT: Duration = Duration::from_secs(10);
/// How many exits a request tries until [`SHORT_LIMIT`]: it leaves one after 2, 4, 6 and 8 seconds.
const TRIES: usize = 5;
/// How many requests are sent at once.
const REQUESTS: usize = 12;

fn start_proxy(network: &Network, limit: Duration) -> Result<Onionport> {
    // Without circuits that are built in advance: which of several a stream uses is random.
    let settings = format!(
        "[preemptive_circuits]\ndisable_at_threshold = 0\n\
         [stream_timeouts]\nconnect_timeout = \"{} s\"",
        SILENCE.as_secs()
    );
    crate::setup::start_proxy(network, limit, &settings)
}

fn request(onionport: &Onionport, target: SocketAddr) -> Result<SocksReply> {
    let host = target.ip().to_string();
    let proxy = onionport.extended_port();
    socks5_connect(proxy, &host, target.port(), CLIENT_TIMEOUT)
}

/// Returns the circuits on which the program requested streams, one entry for each stream. Waits until there are at
/// least `count`, because the log may lag behind the reply.
fn wait_for_circuits(onionport: &Onionport, count: usize) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        let circuits = circuits_of_streams(&onionport.log());
        if circuits.len() >= count {
            return Ok(circuits);
        }
        ensure!(begun.elapsed() < LOG_LIMIT, "only {circuits:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_request_that_an_exit_cannot_serve_moves_to_another_exit() -> Result<()> {
    let network = network_builder().start()?;
    requests_that_leave_an_exit_share_the_next_one(&network)?;
    an_address_that_refuses_is_tried_from_as_many_exits_as_by_c_tor(&network)?;
    a_silent_exit_is_tried_once(&network)?;
    network.mark_done();
    Ok(())
}

fn requests_that_leave_an_exit_share_the_next_one(network: &Network) -> Result<()> {
    let server = HttpServer::start(PAGE)?;
    let unresponsive = UnresponsivePort::new()?;
    let onionport = start_proxy(network, SHORT_LIMIT)?;

    assert_eq!(request(&onionport, server.address())?.code, 0x00);
    let before = wait_for_circuits(&onionport, 1)?.len();
    let codes = run_in_parallel(0..REQUESTS, |_| {
        Ok(request(&onionport, unresponsive.address())?.code)
    })?;
    assert_eq!(codes, [0x06; REQUESTS]);
    let circuits = wait_for_circuits(&onionport, before + REQUESTS * (TRIES - 1))?;
    let circuits: HashSet<&String> = circuits[before..].iter().collect();
    let number = circuits.len();
    println!("{REQUESTS} requests without an answer took {number} circuits");
    // One for each try, and some more for circuits that fail. If nothing were shared, it would be about fifty.
    assert!((2..=2 * TRIES).contains(&number), "{number} circuits");
    Ok(())
}

/// A request for an address that refuses tries as many exits as C tor does, and other requests keep their circuit.
fn an_address_that_refuses_is_tried_from_as_many_exits_as_by_c_tor(
    network: &Network,
) -> Result<()> {
    const REFUSALS: usize = 3;
    let server = HttpServer::start(PAGE)?;
    let closed = ClosedPort::new()?;
    let onionport = start_proxy(network, LIMIT)?;
    let c_tor = network.c_tor_client(ClientOptions::default())?;

    assert_eq!(request(&onionport, server.address())?.code, 0x00);
    let good = wait_for_circuits(&onionport, 1)?.remove(0);
    assert_eq!(request(&onionport, closed.address())?.code, 0x01);
    let circuits = wait_for_circuits(&onionport, 1 + REFUSALS)?;
    assert_eq!(circuits.len(), 1 + REFUSALS, "{circuits:?}");
    let different: HashSet<&String> = circuits[1..].iter().collect();
    assert_eq!(different.len(), REFUSALS, "{circuits:?}");
    // The destination was the cause, so the first circuit stays in use.
    assert_eq!(request(&onionport, server.address())?.code, 0x00);
    let circuits = wait_for_circuits(&onionport, circuits.len() + 1)?;
    assert_eq!(circuits.last(), Some(&good));

    let (host, port) = ("127.0.0.1", closed.address().port());
    let theirs = socks5_connect(c_tor.extended_port(), host, port, CLIENT_TIMEOUT)?;
    assert_eq!(theirs.code, 0x01);
    let log = std::fs::read_to_string(c_tor.log())?;
    let given_up = format!("at {REFUSALS} different places. Giving up.");
    assert!(log.contains(&given_up), "C tor's log: {log}");
    Ok(())
}

fn a_silent_exit_is_tried_once(network: &Network) -> Result<()> {
    let (server, echo) = (HttpServer::start(PAGE)?, EchoServer::start()?);
    let onionport = start_proxy(network, LIMIT)?;

    let held = request(&onionport, echo.address())?;
    assert_eq!(held.code, 0x00);
    let silent = wait_for_circuits(&onionport, 1)?.remove(0);
    network.freeze_relays(&[network.relay_connected_to(echo.address())?])?;
    let first = request(&onionport, server.address())?;
    assert_eq!(first.code, 0x00, "after {:?}", first.elapsed);
    assert!(first.elapsed >= SILENCE);
    println!("a silent exit: {:.1?}", first.elapsed);
    let before = wait_for_circuits(&onionport, 3)?;
    assert_eq!(before[1], silent);
    let second = request(&onionport, server.address())?;
    assert_eq!(second.code, 0x00, "after {:?}", second.elapsed);
    println!("the next request: {:.1?}", second.elapsed);
    let after = wait_for_circuits(&onionport, before.len() + 1)?;
    assert!(!after[before.len()..].contains(&silent));
    Ok(())
}
