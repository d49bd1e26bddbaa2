//! Requests before the program has bootstrapped, and circuits that are built before the first stream.

use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testnet::{EchoServer, Network, RelayId, Role, ServiceOptions};

use crate::daemon::{Onionport, Start};
use crate::setup::{SUCCESS_REPLIES, send_optimistic_data};

/// How many circuits the program keeps ready for onion services.
const READY: usize = 4;
/// When the first of them has to be ready, counted from the start of the program. Left alone, the pool would look for a
/// directory only half a minute after the start.
const FIRST_LIMIT: Duration = Duration::from_secs(29);
/// How long the others may take after the first.
const OTHERS_LIMIT: Duration = Duration::from_secs(60);
/// How long the program may take to serve a request that came before it had bootstrapped.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How long the program may take to bootstrap after that.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn early_requests_wait_for_the_network_and_onion_circuits_are_built_soon() -> Result<()> {
    // The network keeps its default circuit time-outs.
    let network = Network::builder().relays(8).start()?;
    circuits_for_onion_services_are_ready_soon_after_the_start(&network)?;
    requests_before_the_bootstrap_wait_for_it(&network)?;
    network.mark_done();
    Ok(())
}

fn circuits_for_onion_services_are_ready_soon_after_the_start(network: &Network) -> Result<()> {
    let begun = Instant::now();
    let onionport = Onionport::start(network, "")?;
    let mut first = None;
    loop {
        let log = onionport.log();
        ensure!(
            !log.contains("Too many preemptive"),
            "the circuits were requested too soon"
        );
        let ready = log.matches("successfully launched").count();
        if ready > 0 {
            first.get_or_insert_with(Instant::now);
        }
        if ready >= READY {
            return Ok(());
        }
        let (since, limit) = first.map_or((begun, FIRST_LIMIT), |first| (first, OTHERS_LIMIT));
        ensure!(
            since.elapsed() < limit,
            "{ready} circuits, {:?} after the start",
            begun.elapsed()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All relays are frozen until the requests have been sent, so that the program cannot have bootstrapped before.
fn requests_before_the_bootstrap_wait_for_it(network: &Network) -> Result<()> {
    const DATA: &[u8] = b"early";
    let echo = EchoServer::start()?;
    let service = network.service(ServiceOptions::with_port(80, echo.address()))?;
    let relays: Vec<RelayId> = [Role::Authority, Role::Relay]
        .into_iter()
        .flat_map(|role| network.relays(role))
        .collect();
    network.freeze_relays(&relays)?;
    let start = Start::new(network).socks_ports(&["auto"]);
    let mut onionport = start.start_until_ports_are_open(1)?;
    let targets = [
        ("good.test", echo.address().port()),
        (service.address(), 80),
    ];
    let proxy = onionport.port(0);
    let streams = targets.map(|target| send_optimistic_data(proxy, target, DATA, REQUEST_LIMIT));
    let streams = streams.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(
        onionport.is_quiet(),
        "the program had bootstrapped before the requests"
    );
    network.thaw_relays(&relays)?;
    for ((host, _), mut stream) in targets.into_iter().zip(streams) {
        let mut answer = [0; SUCCESS_REPLIES.len() + DATA.len()];
        stream
            .read_exact(&mut answer)
            .with_context(|| format!("no answer from {host}"))?;
        let (replies, echoed) = answer.split_at(SUCCESS_REPLIES.len());
        assert_eq!(replies, SUCCESS_REPLIES, "{host}");
        assert_eq!(echoed, DATA, "{host}");
    }
    onionport.wait_until_bootstrapped(BOOTSTRAP_LIMIT)
}
