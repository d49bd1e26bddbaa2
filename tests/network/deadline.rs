//! The reply when the deadline passes: its code still shows how far the request got.

use std::time::Duration;

use anyhow::Result;
use testnet::{CTor, ClientOptions, HttpServer, ServiceOptions, SocksReply, socks5_connect};

use crate::daemon::Onionport;
use crate::setup::{DEFAULT_LIMIT, PAGE, client_timeout, network_builder, start_proxy};

/// Longer than any program takes to reply, C tor included.
const LONGEST: Duration = Duration::from_secs(170);
/// What a request may take beyond its deadline on a busy machine. The exact deadline is tested on a paused clock
/// (`tests/integration/connection/deadlines.rs`).
pub const SLACK: Duration = Duration::from_secs(20);

/// On a fresh client every time-out of arti is a multiple of 60 seconds, so arti alone would wait for minutes.
#[test]
fn a_frozen_service_ends_in_f3_by_the_deadline_with_default_timeouts() -> Result<()> {
    let network = network_builder().circuit_timeout_ms(None).start()?;
    let server = HttpServer::start(PAGE)?;
    let service = network.service(ServiceOptions::with_port(80, server.address()))?;
    service.freeze()?;
    let c_tor = network.c_tor_client(ClientOptions::default())?;
    let onionport = Onionport::start(&network, "")?;
    let (extended, plain, c_tor) = request_all(&onionport, &c_tor, service.address())?;
    print_replies(
        "frozen, default time-outs",
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
fn frozen_introduction_points_end_in_f7_and_one_of_several_does_no_harm() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(60);
    let network = network_builder().spare_relays(6).start()?;
    let server = HttpServer::start(PAGE)?;
    let service = network.service(ServiceOptions {
        intro_points_on_spare_relays: true,
        ..ServiceOptions::with_port(80, server.address())
    })?;
    // Three for each of two descriptors; some may be in both.
    let points = service.introduction_points()?;
    assert!(points.len() >= 3, "{points:?}");

    network.freeze_relays(&points[..1])?;
    for round in 0..3 {
        // A new client each time: the frozen point may be the first that it tries.
        let onionport = start_proxy(&network, LIMIT, "")?;
        for port in [onionport.extended_port(), onionport.plain_port()] {
            let reply = socks5_connect(port, service.address(), 80, client_timeout(LIMIT))?;
            assert_eq!(
                reply.code, 0x00,
                "one of several introduction points frozen, client {round}"
            );
        }
    }

    network.freeze_relays(&points)?;
    let onionport = start_proxy(&network, LIMIT, "")?;
    let c_tor = network.c_tor_client(ClientOptions::default())?;
    let (extended, plain, c_tor) = request_all(&onionport, &c_tor, service.address())?;
    print_replies(
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

/// Sends a request to both ports and to C tor at the same time. C tor may send no reply.
fn request_all(
    onionport: &Onionport,
    c_tor: &CTor,
    host: &str,
) -> Result<(SocksReply, SocksReply, Option<SocksReply>)> {
    let ports = [
        onionport.extended_port(),
        onionport.plain_port(),
        c_tor.extended_port(),
    ];
    let [extended, plain, c_tor] = std::thread::scope(|scope| {
        ports
            .map(|port| scope.spawn(move || socks5_connect(port, host, 80, LONGEST)))
            .map(|thread| thread.join().expect("no panic"))
    });
    Ok((extended?, plain?, c_tor.ok()))
}

fn print_replies(
    case: &str,
    extended: &SocksReply,
    plain: &SocksReply,
    c_tor: Option<&SocksReply>,
) {
    let format = |r: &SocksReply| format!("{:02X} {:.1} s", r.code, r.elapsed.as_secs_f32());
    println!(
        "{case}: {}, without ExtendedErrors {}, C tor {}",
        format(extended),
        format(plain),
        c_tor.map_or("no reply".to_owned(), format)
    );
}
