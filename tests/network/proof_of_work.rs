//! Onion services with proof-of-work defences (proposal 327). The program solves puzzles only with the feature `pow`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testnet::{ServiceOptions, SocksRequest};

use crate::setup::{DEFAULT_LIMIT, client_timeout, request_code, start_network, start_proxy};

/// What tor-hsclient logs after it has solved a puzzle.
const SOLVED: &str = "solve complete, Ok";

/// A client raises the effort by itself after an introduction point has refused.
#[test]
fn a_client_solves_a_puzzle_after_a_refusal() -> Result<()> {
    /// The maximum number of restarts.
    const RESTARTS: usize = 4;
    let (network, server) = start_network()?;
    let service = network.service(ServiceOptions {
        proof_of_work: true,
        ..ServiceOptions::with_port(80, server.address())
    })?;
    let onionport = start_proxy(&network, DEFAULT_LIMIT, "")?;
    assert_eq!(request_code(&onionport, &service)?, 0x00);
    let log = onionport.log();
    assert!(!log.contains(SOLVED), "the service requires no effort yet");
    // A request may wait on the old circuit until its end is noticed; it then fetches the new descriptor and is
    // never refused. So restart and try again.
    for _ in 0..RESTARTS {
        service.kill();
        service.restart()?;
        assert_eq!(request_code(&onionport, &service)?, 0x00);
        if onionport.log().contains(SOLVED) {
            break;
        }
    }
    let solved = onionport.log().contains(SOLVED);
    assert_eq!(solved, cfg!(feature = "pow"));
    network.mark_done();
    Ok(())
}

/// A service raises its effort when clients queue up. C tor decides this every five minutes, so the test moves its
/// clock.
#[test]
fn a_client_meets_the_effort_that_the_service_has_raised() -> Result<()> {
    /// How many clients queue up at a service that accepts one per second.
    const CROWD: usize = 20;
    /// Less than C tor treats as a jump of its clock, after which it would close its circuits.
    const STEP: Duration = Duration::from_secs(80);
    /// So many steps take longer than the five minutes.
    const STEPS: usize = 4;
    /// Longer than the second after which C tor reads its clock again.
    const TICK: Duration = Duration::from_millis(1500);
    /// How many decisions to wait for: the queue may be empty for a moment.
    const DECISIONS: usize = 4;
    let (network, server) = start_network()?;
    let service = network.service(ServiceOptions {
        proof_of_work: true,
        movable_clock: true,
        extra_torrc_lines: vec![
            "HiddenServicePoWQueueRate 1".into(),
            "HiddenServicePoWQueueBurst 1".into(),
        ],
        ..ServiceOptions::with_port(80, server.address())
    })?;
    let crowd = start_proxy(&network, DEFAULT_LIMIT, "")?;
    assert_eq!(request_code(&crowd, &service)?, 0x00);
    assert!(
        !crowd.log().contains(SOLVED),
        "the service requires no effort yet"
    );
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (proxy, address, enough) = (crowd.extended_port(), service.address(), &enough);
        for number in 0..CROWD {
            scope.spawn(move || {
                let mut again = 0;
                while !enough.load(Ordering::Relaxed) {
                    // Each request has its own circuit. Its outcome does not matter.
                    let user = format!("client {number}, request {again}");
                    let request = SocksRequest::new(proxy, address, 80).login(&user, "");
                    let _ = request.timeout(client_timeout(DEFAULT_LIMIT)).send();
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

    let newcomer = start_proxy(&network, DEFAULT_LIMIT, "")?;
    let begun = Instant::now();
    assert_eq!(request_code(&newcomer, &service)?, 0x00);
    println!("with a puzzle: 00 {:.1?}", begun.elapsed());
    assert_eq!(newcomer.log().contains(SOLVED), cfg!(feature = "pow"));
    network.mark_done();
    Ok(())
}
