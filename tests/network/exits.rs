//! Exits that cannot serve a request: how many circuits that takes, and who keeps theirs.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testnet::{
    ClientOptions, ClosedPort, EchoServer, HttpServer, Network, SocksReply, UnresponsivePort,
    socks5_connect,
};

use crate::daemon::Onionport;
use crate::program;
use crate::stage::PAGE;

/// How long an exit may say nothing.
const SILENCE: Duration = Duration::from_secs(2);
/// The deadline of requests that nobody answers.
const LIMIT: Duration = Duration::from_secs(10);
/// How many exits a request asks until then: it leaves one after 2, 4, 6 and 8 seconds.
const TRIES: usize = 5;
/// How many requests come at once.
const REQUESTS: usize = 12;

fn onionport(network: &Network, limit: Duration) -> Result<Onionport> {
    let settings = format!(
        // Without circuits that are built ahead: which of several a stream gets is chance.
        "socks_timeout = {}\n[preemptive_circuits]\ndisable_at_threshold = 0\n\
         [stream_timeouts]\nconnect_timeout = \"{} s\"",
        limit.as_secs(),
        SILENCE.as_secs()
    );
    Onionport::start(program(), network, &settings)
}

fn ask(onionport: &Onionport, target: SocketAddr) -> Result<SocksReply> {
    let host = target.ip().to_string();
    let patience = Duration::from_secs(60);
    socks5_connect(onionport.extended(), &host, target.port(), patience)
}

/// The circuits on which exits were asked, one for each time; at least so many, for the log comes a moment
/// later.
fn asked(onionport: &Onionport, times: usize) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        let log = onionport.log();
        let after = log.split("asking the exit of circuit ").skip(1);
        let circuits: Vec<String> = after
            .filter_map(|rest| Some(rest.lines().next()?.to_owned()))
            .collect();
        if circuits.len() >= times {
            return Ok(circuits);
        }
        ensure!(begun.elapsed() < LIMIT, "asked only {circuits:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_exit_that_cannot_serve_a_request_is_left_for_another() -> Result<()> {
    let builder = Network::builder().relays(8);
    let network = builder.circuit_timeout_ms(Some(2500)).start()?;
    requests_that_leave_an_exit_share_the_next_one(&network)?;
    an_address_that_refuses_is_tried_from_as_many_exits_as_by_c_tor(&network)?;
    an_exit_that_says_nothing_is_asked_once(&network)?;
    network.mark_done();
    Ok(())
}

fn requests_that_leave_an_exit_share_the_next_one(network: &Network) -> Result<()> {
    let server = HttpServer::start(PAGE)?;
    let nowhere = UnresponsivePort::new()?;
    let onionport = onionport(network, LIMIT)?;

    assert_eq!(ask(&onionport, server.address())?.code, 0x00);
    let before = asked(&onionport, 1)?.len();
    let codes = std::thread::scope(|scope| {
        let requests: Vec<_> = (0..REQUESTS)
            .map(|_| scope.spawn(|| ask(&onionport, nowhere.address())))
            .collect();
        requests
            .into_iter()
            .map(|request| {
                Ok(request
                    .join()
                    .map_err(|_| anyhow::anyhow!("panicked"))??
                    .code)
            })
            .collect::<Result<Vec<_>>>()
    })?;
    assert_eq!(codes, [0x06; REQUESTS]);
    let circuits = asked(&onionport, before + REQUESTS * (TRIES - 1))?;
    let circuits: HashSet<&String> = circuits[before..].iter().collect();
    let number = circuits.len();
    println!("{REQUESTS} requests that nobody answers took {number} circuits");
    // One for each try, were it not for circuits that fail. Alone they would take some fifty.
    assert!((2..=2 * TRIES).contains(&number), "{number} circuits");
    Ok(())
}

/// Requests for an address that refuses: as many exits are asked as C tor asks, and others keep theirs.
fn an_address_that_refuses_is_tried_from_as_many_exits_as_by_c_tor(
    network: &Network,
) -> Result<()> {
    const REFUSALS: usize = 3;
    let server = HttpServer::start(PAGE)?;
    let closed = ClosedPort::new()?;
    let onionport = onionport(network, Duration::from_secs(50))?;
    let judge = network.c_tor_client(ClientOptions::default())?;

    assert_eq!(ask(&onionport, server.address())?.code, 0x00);
    let sound = asked(&onionport, 1)?.remove(0);
    assert_eq!(ask(&onionport, closed.address())?.code, 0x01);
    let circuits = asked(&onionport, 1 + REFUSALS)?;
    assert_eq!(circuits.len(), 1 + REFUSALS, "{circuits:?}");
    let different: HashSet<&String> = circuits[1..].iter().collect();
    assert_eq!(different.len(), REFUSALS, "{circuits:?}");
    // The destination was to blame.
    assert_eq!(ask(&onionport, server.address())?.code, 0x00);
    assert_eq!(asked(&onionport, circuits.len() + 1)?.last(), Some(&sound));

    let (host, port) = ("127.0.0.1", closed.address().port());
    let theirs = socks5_connect(judge.extended_port(), host, port, Duration::from_secs(60))?;
    assert_eq!(theirs.code, 0x01);
    let log = std::fs::read_to_string(judge.log())?;
    let given_up = format!("at {REFUSALS} different places. Giving up.");
    assert!(log.contains(&given_up), "C tor's log: {log}");
    Ok(())
}

fn an_exit_that_says_nothing_is_asked_once(network: &Network) -> Result<()> {
    let (server, echo) = (HttpServer::start(PAGE)?, EchoServer::start()?);
    let onionport = onionport(network, Duration::from_secs(50))?;

    let held = ask(&onionport, echo.address())?;
    assert_eq!(held.code, 0x00);
    let silent = asked(&onionport, 1)?.remove(0);
    network.freeze_relays(&[network.relay_connected_to(echo.address())?])?;
    let first = ask(&onionport, server.address())?;
    assert_eq!(first.code, 0x00, "after {:?}", first.elapsed);
    assert!(first.elapsed >= SILENCE);
    println!("a silent exit: {:.1?}", first.elapsed);
    let before = asked(&onionport, 3)?;
    assert_eq!(before[1], silent);
    let second = ask(&onionport, server.address())?;
    assert_eq!(second.code, 0x00, "after {:?}", second.elapsed);
    println!("and the next request: {:.1?}", second.elapsed);
    let after = asked(&onionport, before.len() + 1)?;
    assert!(!after[before.len()..].contains(&silent));
    Ok(())
}
