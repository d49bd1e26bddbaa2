//! Circuits that are built before anybody asks for them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testnet::Network;

use crate::daemon::Onionport;
use crate::program;

/// How many circuits are kept ready for onion services.
const READY: usize = 4;
/// When they have to be there. Left alone, the pool would look for a directory half a minute after the
/// start.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn circuits_for_onion_services_are_ready_soon_after_the_start() -> Result<()> {
    let network = Network::builder().relays(8).start()?;
    let onionport = Onionport::start(program(), &network, "")?;
    let begun = Instant::now();
    loop {
        let log = onionport.log();
        ensure!(
            !log.contains("Too many preemptive"),
            "they were asked for too soon"
        );
        if log.matches("successfully launched").count() >= READY {
            network.mark_done();
            return Ok(());
        }
        ensure!(
            begun.elapsed() < SOON,
            "no circuits, {:?} after the start",
            begun.elapsed()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
