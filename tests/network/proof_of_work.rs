//! Onion services with proof-of-work defences (proposal 327). Puzzles are solved with the feature `pow` alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testnet::{ServiceOptions, SocksRequest};

use crate::recovery::{LIMIT, ask, network, onionport};
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
    const CROWD: usize = 20;
    /// Less than C tor takes for a jump of its clock, at which it would give up its circuits.
    const STEP: Duration = Duration::from_secs(80);
    /// More than the five minutes.
    const STEPS: usize = 4;
    /// C tor looks at its clock once a second.
    const TICK: Duration = Duration::from_millis(1500);
    /// How many decisions it may take: the queue may be empty for a moment.
    const DECISIONS: usize = 4;
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
    assert!(!crowd.log().contains(SOLVED), "no effort is required yet");
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (proxy, address, enough) = (crowd.extended(), service.address(), &enough);
        for number in 0..CROWD {
            scope.spawn(move || {
                let mut again = 0;
                while !enough.load(Ordering::Relaxed) {
                    // Each with a circuit of its own. What becomes of it is of no interest here.
                    let user = format!("client {number}, request {again}");
                    let request = SocksRequest::new(proxy, address, 80).login(&user, "");
                    let _ = request.timeout(patience(LIMIT)).send();
                    again += 1;
                }
            });
        }
        let raised = (0..DECISIONS).any(|_| {
            let step = |_| {
                std::thread::sleep(TICK);
                service.advance_clock(STEP).is_ok()
            };
            (0..STEPS).all(step) && service.wait_until_republished(10 * TICK).is_ok()
        });
        enough.store(true, Ordering::Relaxed);
        ensure!(raised, "the service never raised its effort");
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
