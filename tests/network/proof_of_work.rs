//! Onion services with proof-of-work defences (proposal 327). Puzzles are solved with the feature `pow` alone.

use std::time::{Duration, Instant};

use anyhow::Result;
use testnet::{ServiceOptions, SocksRequest};

use crate::recovery::{AT_RENDEZVOUS, LIMIT, ask, network, onionport, wait_until};
use crate::stage::patience;

/// What tor-hsclient logs when it has solved a puzzle.
const SOLVED: &str = "solve complete, Ok";

/// A client raises the effort of its own accord once an introduction point has refused.
#[test]
fn a_service_with_proof_of_work_defences_is_reached() -> Result<()> {
    let (network, server) = network()?;
    let service = network.service(ServiceOptions {
        proof_of_work: true,
        ..ServiceOptions::with_port(80, server.address())
    })?;
    let onionport = onionport(&network, "")?;
    assert_eq!(ask(&onionport, &service)?, 0x00);
    let log = onionport.log();
    assert!(!log.contains(SOLVED), "the service asks for no effort yet");
    service.kill();
    service.restart()?;
    assert_eq!(ask(&onionport, &service)?, 0x00);
    let solved = onionport.log().contains(SOLVED);
    assert_eq!(solved, cfg!(feature = "pow"));
    network.mark_done();
    Ok(())
}

/// A service raises its effort when clients queue up. C tor decides that every five minutes, so its clock is moved.
#[test]
fn an_effort_raised_by_the_service_is_met() -> Result<()> {
    /// How many clients queue up at a service that lets one in each second.
    const CROWD: usize = 16;
    /// The longest step that C tor does not take for a jump of its clock.
    const STEP: Duration = Duration::from_secs(99);
    /// C tor looks at its clock once a second.
    const TICK: Duration = Duration::from_millis(1500);
    let (network, server) = network()?;
    let service = network.service(ServiceOptions {
        proof_of_work: true,
        movable_clock: true,
        extra_torrc_lines: vec![
            "HiddenServicePoWQueueRate 1".into(),
            "HiddenServicePoWQueueBurst 1".into(),
        ],
        ..ServiceOptions::with_port(80, server.address())
    })?;
    let crowd = onionport(&network, "")?;
    assert_eq!(ask(&crowd, &service)?, 0x00);
    assert!(
        !crowd.log().contains(SOLVED),
        "the service asks for no effort yet"
    );
    for _ in 0..2 {
        service.advance_clock(STEP)?;
        std::thread::sleep(TICK);
    }
    std::thread::scope(|scope| {
        let before = crowd.log().matches(AT_RENDEZVOUS).count();
        let (proxy, address) = (crowd.extended(), service.address());
        let waiting: Vec<_> = (0..CROWD)
            .map(|number| {
                scope.spawn(move || {
                    let user = format!("client {number}");
                    let request = SocksRequest::new(proxy, address, 80).login(&user, "");
                    Ok::<_, anyhow::Error>(request.timeout(patience(LIMIT)).send()?.code)
                })
            })
            .collect();
        wait_until("most of the clients are in the queue", || {
            crowd.log().matches(AT_RENDEZVOUS).count() - before > CROWD / 2
        })?;
        service.advance_clock(STEP + TICK)?;
        service.wait_until_republished()?;
        for client in waiting {
            assert_eq!(client.join().expect("no panic")?, 0x00, "in the queue");
        }
        anyhow::Ok(())
    })?;

    let newcomer = onionport(&network, "")?;
    let begun = Instant::now();
    assert_eq!(ask(&newcomer, &service)?, 0x00);
    println!("with a puzzle: 00 {:.1?}", begun.elapsed());
    assert_eq!(newcomer.log().contains(SOLVED), cfg!(feature = "pow"));
    network.mark_done();
    Ok(())
}
