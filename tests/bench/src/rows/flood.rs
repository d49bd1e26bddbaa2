//! Measures a flood of requests for onion services that do not exist, whose clients disconnect at once:
//! its processor time, its effect on another client, and the memory growth that it leaves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::warm_up;
use crate::client::{Target, time_stream};
use crate::proxy::{Candidate, Proxy};
use crate::results::RunResults;
use crate::stats::{percentile, to_mebibytes, to_milliseconds};
use crate::testbed::Testbed;

/// How long such a client stays connected after its request.
const STAY: Duration = Duration::from_millis(5);

/// The pause of the other client between two streams.
const PAUSE: Duration = Duration::from_millis(100);

/// The program is idle if it uses less than this share of one processor ...
const IDLE_SHARE: f64 = 0.1;
/// ... during this time.
const IDLE_WINDOW: Duration = Duration::from_secs(5);
/// The time limit for the program to become idle. C tor takes minutes.
const IDLE_LIMIT: Duration = Duration::from_secs(600);

pub(super) fn measure(
    testbed: &Testbed,
    candidate: &Candidate,
    run: &mut RunResults<'_>,
) -> Result<()> {
    let proxy = testbed.start_settled(candidate)?;
    let (socks_addr, onion) = (proxy.socks_addr(), &testbed.onion);
    testbed.runtime.block_on(warm_up(socks_addr, onion))?;
    let before = proxy.usage()?;
    let (latency, idle) = testbed.runtime.block_on(async {
        let (over, is_over) = watch::channel(false);
        let other = tokio::spawn(measure_latency(socks_addr, onion.clone(), is_over));
        for _ in 0..testbed.settings.flood_requests {
            let target = Target::new(&testbed.network.unpublished_address(), onion.port);
            request_and_leave(socks_addr, &target).await?;
        }
        let idle = wait_until_idle(&proxy).await;
        over.send_replace(true);
        anyhow::Ok((other.await?, idle))
    })?;
    run.add_outcome("flood.latency", latency);
    idle?;
    let processor = proxy.usage()?.processor.saturating_sub(before.processor);
    let requests = f64::from(testbed.settings.flood_requests);
    run.add("flood.cpu", to_milliseconds(processor) / requests);
    std::thread::sleep(testbed.settings.flood_rest());
    let growth = proxy.usage()?.memory.saturating_sub(before.memory);
    run.add("flood.memory", to_mebibytes(growth));
    Ok(())
}

/// Requests a target and resets the connection before the reply.
async fn request_and_leave(proxy: SocketAddr, target: &Target) -> Result<()> {
    let mut stream = TcpStream::connect(proxy)
        .await
        .context("cannot connect to the proxy")?;
    stream.set_nodelay(true)?;
    stream.write_all(&[5, 1, 0]).await?;
    stream.write_all(&target.socks5_request()?).await?;
    sleep(STAY).await;
    // The reply to the greeting is still unread, so closing the socket resets the connection.
    Ok(())
}

/// Opens streams one after another until `is_over`, and returns the 99th percentile of the time to open
/// one, in milliseconds.
async fn measure_latency(
    proxy: SocketAddr,
    target: Target,
    mut is_over: watch::Receiver<bool>,
) -> Result<f64> {
    let mut times = Vec::new();
    while !*is_over.borrow_and_update() {
        times.push(to_milliseconds(time_stream(proxy, &target).await?.open));
        sleep(PAUSE).await;
    }
    percentile(&times, 99).context("no stream was opened")
}

/// Waits until the program is idle.
async fn wait_until_idle(proxy: &Proxy) -> Result<()> {
    let begun = Instant::now();
    loop {
        let before = proxy.usage()?.processor;
        sleep(IDLE_WINDOW).await;
        let processor = proxy.usage()?.processor.saturating_sub(before);
        if processor.as_secs_f64() < IDLE_SHARE * IDLE_WINDOW.as_secs_f64() {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < IDLE_LIMIT,
            "the program is not idle after {} s",
            IDLE_LIMIT.as_secs()
        );
    }
}
