//! What is there before anybody asks: ports before the Tor network, circuits before the first stream.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testnet::{EchoServer, Network, RelayId, Role, ServiceOptions};

use crate::daemon::Onionport;
use crate::program;
use crate::streams::greeting_and_request;

/// How many circuits are kept ready for onion services.
const READY: usize = 4;
/// When the first has to be there, counted from the start of the program. Left alone, the pool would look for a
/// directory no sooner than half a minute after it.
const FIRST_LIMIT: Duration = Duration::from_secs(29);
/// How long the others may take then.
const OTHERS_LIMIT: Duration = Duration::from_secs(60);
/// How long a request may take that comes before the network is there.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn requests_are_taken_and_circuits_are_built_as_soon_as_can_be() -> Result<()> {
    let network = Network::builder().relays(8).start()?;
    circuits_for_onion_services_are_ready_soon_after_the_start(&network)?;
    requests_that_come_before_the_network_wait_for_it(&network)?;
    network.mark_done();
    Ok(())
}

fn circuits_for_onion_services_are_ready_soon_after_the_start(network: &Network) -> Result<()> {
    let begun = Instant::now();
    let onionport = Onionport::start(program(), network, "")?;
    let mut first = None;
    loop {
        let log = onionport.log();
        ensure!(
            !log.contains("Too many preemptive"),
            "they were asked for too soon"
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

/// All relays stand still until the requests have been made, so that no directory can be there before.
fn requests_that_come_before_the_network_wait_for_it(network: &Network) -> Result<()> {
    let echo = EchoServer::start()?;
    let service = network.service(ServiceOptions::with_port(80, echo.address()))?;
    let relays: Vec<RelayId> = [Role::Authority, Role::Relay]
        .into_iter()
        .flat_map(|role| network.relays(role))
        .collect();
    network.freeze_relays(&relays)?;
    let mut onionport = Onionport::start_early(program(), network, "", &["auto"])?;
    let targets = [
        ("good.test", echo.address().port()),
        (service.address(), 80),
    ];
    let asked = targets.map(|(host, port)| ask(onionport.port(0), host, port));
    let streams = asked.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(
        onionport.is_quiet(),
        "it was usable before the requests came"
    );
    network.thaw_relays(&relays)?;
    for ((host, _), mut stream) in targets.into_iter().zip(streams) {
        let mut answer = [0; REPLY.len() + EARLY.len()];
        stream
            .read_exact(&mut answer)
            .with_context(|| format!("no answer from {host}"))?;
        assert_eq!(answer[..REPLY.len()], REPLY, "{host}");
        assert_eq!(&answer[REPLY.len()..], EARLY, "{host}");
    }
    onionport.wait_until_usable()
}

/// What comes back for a greeting and a request that is served.
const REPLY: [u8; 12] = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
/// What is said behind the request.
const EARLY: &[u8] = b"early";

/// Sends a request and what comes behind it, and does not wait.
fn ask(proxy: SocketAddr, host: &str, port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = greeting_and_request(host, port)?;
    bytes.extend_from_slice(EARLY);
    stream.write_all(&bytes)?;
    Ok(stream)
}
