//! Clients that ask for one onion service after another that does not exist, and leave at once: what they cost, what
//! another client notices of them, and what they leave behind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{WARM_UP, note};
use crate::client::{Target, visit};
use crate::proxy::{Candidate, Proxy};
use crate::record::Sheet;
use crate::stats::{milliseconds, percentile};
use crate::world::World;

/// How long such a client stays after it has asked.
const STAYS: Duration = Duration::from_millis(5);

/// How long another client waits between two streams.
const PAUSE: Duration = Duration::from_millis(100);

/// The work is over when the program uses less of the processor than this part of the time ...
const IDLE: f64 = 0.1;
/// ... in this time.
const GLANCE: Duration = Duration::from_secs(5);
/// How long to wait for that. C tor works for minutes.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    let proxy = world.start_settled(candidate)?;
    let (socks, onion) = (proxy.socks(), &world.onion);
    world.runtime.block_on(async {
        for _ in 0..WARM_UP {
            visit(socks, onion).await?;
        }
        anyhow::Ok(())
    })?;
    let before = proxy.usage()?;
    let (slowest, over) = world.runtime.block_on(async {
        let (over, is_over) = watch::channel(false);
        let other = tokio::spawn(visits(socks, onion.clone(), is_over));
        for _ in 0..world.amounts.flood_requests {
            let target = Target::new(&world.network.unpublished_address(), onion.port);
            ask_and_leave(socks, &target).await?;
        }
        let idle = idle(&proxy).await;
        over.send_replace(true);
        anyhow::Ok((other.await?, idle))
    })?;
    note(sheet, "flood.latency", slowest);
    over?;
    let used = proxy.usage()?.processor.saturating_sub(before.processor);
    let requests = f64::from(world.amounts.flood_requests);
    sheet.put("flood.cpu", milliseconds(used) / requests);
    std::thread::sleep(world.amounts.flood_rest());
    let left = proxy.usage()?.memory.saturating_sub(before.memory);
    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes are out of reach")]
    sheet.put("flood.memory", left as f64 / f64::from(1 << 20));
    Ok(())
}

/// Asks for a target, and resets the connection before there can be an answer.
async fn ask_and_leave(proxy: SocketAddr, target: &Target) -> Result<()> {
    let mut stream = TcpStream::connect(proxy)
        .await
        .context("cannot connect to the proxy")?;
    stream.set_nodelay(true)?;
    stream.write_all(&[5, 1, 0]).await?;
    stream.write_all(&target.request()?).await?;
    sleep(STAYS).await;
    // What has not been read when the socket is closed resets the connection: the answer to the greeting.
    Ok(())
}

/// Opens streams one after the other; the slowest of a hundred, in milliseconds.
async fn visits(
    proxy: SocketAddr,
    target: Target,
    mut is_over: watch::Receiver<bool>,
) -> Result<f64> {
    let mut took = Vec::new();
    while !*is_over.borrow_and_update() {
        took.push(milliseconds(visit(proxy, &target).await?.open));
        sleep(PAUSE).await;
    }
    percentile(&took, 99).context("no stream was opened")
}

/// Waits until the program has nothing more to do.
async fn idle(proxy: &Proxy) -> Result<()> {
    let begun = Instant::now();
    loop {
        let before = proxy.usage()?.processor;
        sleep(GLANCE).await;
        let used = proxy.usage()?.processor.saturating_sub(before);
        if used.as_secs_f64() < IDLE * GLANCE.as_secs_f64() {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < PATIENCE,
            "still at work after {} s",
            PATIENCE.as_secs()
        );
    }
}
