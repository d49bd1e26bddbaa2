//! What is said when the time is up: the code still tells how far the request got.

use std::time::Duration;

use anyhow::Result;
use testnet::{
    CTor, ClientOptions, HttpServer, Network, ServiceOptions, SocksReply, socks5_connect,
};

use crate::daemon::Onionport;
use crate::program;
use crate::stage::{PAGE, patience};

/// The deadline if nothing is configured.
const DEFAULT_LIMIT: Duration = Duration::from_secs(120);
/// Longer than anybody takes for an answer, C tor included.
const LONGEST: Duration = Duration::from_secs(170);
/// What a request may take beyond its deadline on a busy machine. Which deadline it gets is tested on a paused clock
/// (`tests/integration/connection/deadlines.rs`).
pub const SLACK: Duration = Duration::from_secs(20);

/// On a fresh client every timeout of arti is a multiple of 60 seconds; it would wait for minutes.
#[test]
fn a_frozen_service_is_told_by_the_deadline_with_default_timeouts() -> Result<()> {
    let network = Network::builder()
        .relays(8)
        .circuit_timeout_ms(None)
        .start()?;
    let server = HttpServer::start(PAGE)?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    service.freeze()?;
    let judge = network.c_tor_client(ClientOptions::default())?;
    let onionport = Onionport::start(program(), &network, "")?;
    let (extended, plain, c_tor) = ask_all(&onionport, &judge, service.address())?;
    show(
        "frozen, default timeouts",
        &extended,
        &plain,
        c_tor.as_ref(),
    );
    assert_eq!((extended.code, plain.code), (0xF3, 0x06));
    assert!(
        extended.elapsed < DEFAULT_LIMIT + SLACK,
        "{:?}",
        extended.elapsed
    );
    network.mark_done();
    Ok(())
}

#[test]
fn silent_introduction_points_are_told_from_a_silent_service() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(60);
    let network = Network::builder()
        .relays(8)
        .spare_relays(6)
        .circuit_timeout_ms(Some(2500))
        .start()?;
    let server = HttpServer::start(PAGE)?;
    let service = network.service(ServiceOptions {
        intro_points_on_spare_relays: true,
        ..ServiceOptions::with_port(80, server.address())
    })?;
    // Three for each of two descriptors, some of them for both.
    let points = service.introduction_points()?;
    assert!(points.len() >= 3, "{points:?}");

    let limit = format!("socks_timeout = {}", LIMIT.as_secs());
    network.freeze_relays(&points[..1])?;
    for round in 0..3 {
        // Each time a client that knows nothing yet: the dead point may be the first it tries.
        let onionport = Onionport::start(program(), &network, &limit)?;
        for port in [onionport.extended(), onionport.plain()] {
            let reply = socks5_connect(port, service.address(), 80, patience(LIMIT))?;
            assert_eq!(
                reply.code, 0x00,
                "one point of several is silent, client {round}"
            );
        }
    }

    network.freeze_relays(&points)?;
    let onionport = Onionport::start(program(), &network, &limit)?;
    let judge = network.c_tor_client(ClientOptions::default())?;
    let (extended, plain, c_tor) = ask_all(&onionport, &judge, service.address())?;
    show(
        "all introduction points frozen",
        &extended,
        &plain,
        c_tor.as_ref(),
    );
    assert_eq!((extended.code, plain.code), (0xF7, 0x04));
    assert!(extended.elapsed < LIMIT + SLACK, "{:?}", extended.elapsed);
    network.mark_done();
    Ok(())
}

/// Asks both ports and C tor at the same time. C tor may have no answer at all.
fn ask_all(
    onionport: &Onionport,
    judge: &CTor,
    host: &str,
) -> Result<(SocksReply, SocksReply, Option<SocksReply>)> {
    let ports = [
        onionport.extended(),
        onionport.plain(),
        judge.extended_port(),
    ];
    let [extended, plain, c_tor] = std::thread::scope(|scope| {
        ports
            .map(|port| scope.spawn(move || socks5_connect(port, host, 80, LONGEST)))
            .map(|thread| thread.join().expect("no panic"))
    });
    Ok((extended?, plain?, c_tor.ok()))
}

fn show(broken: &str, extended: &SocksReply, plain: &SocksReply, c_tor: Option<&SocksReply>) {
    let said = |r: &SocksReply| format!("{:02X} {:.1} s", r.code, r.elapsed.as_secs_f32());
    println!(
        "{broken}: {}, without ExtendedErrors {}, C tor {}",
        said(extended),
        said(plain),
        c_tor.map_or("no answer".to_owned(), said)
    );
}
