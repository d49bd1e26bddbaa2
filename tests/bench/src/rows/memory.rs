//! Resident memory: after the start, with idle streams through an exit, after all are closed; and
//! whether idle streams make new ones slower.
//!
//! Each idle stream has had one byte echoed before it went idle, so that what a stream grows when it
//! is used counts.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::note;
use super::stream::{Gap, latencies};
use crate::client::{Target, echo, open};
use crate::proxy::Candidate;
use crate::record::Sheet;
use crate::world::{Way, World};

/// How many streams are being opened at once.
const AT_ONCE: usize = 50;

/// How many new streams are timed beside the idle ones.
const TIMED: usize = 50;

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    let proxy = world.start_settled(candidate)?;
    let at_start = proxy.usage()?.memory;
    sheet.put("memory.start", mebibytes(at_start));

    let timed =
        latencies(world, &proxy, Way::Exit, TIMED, Gap::None).and_then(|took| took.open(50));
    note(sheet, "memory.latency.0", timed);

    let mut idle = Vec::new();
    for (count, id) in [(1_000, "memory.1000"), (5_000, "memory.5000")] {
        let more = count - idle.len();
        idle.extend(
            world
                .runtime
                .block_on(open_idle(proxy.socks(), &world.exit, more))
                .with_context(|| format!("opening up to {count} idle streams"))?,
        );
        let grown = proxy.usage()?.memory.saturating_sub(at_start);
        sheet.put(id, kibibytes(grown) / count_as_float(idle.len()));
    }
    let timed =
        latencies(world, &proxy, Way::Exit, TIMED, Gap::None).and_then(|took| took.open(50));
    note(sheet, "memory.latency.5000", timed);

    drop(idle);
    std::thread::sleep(world.amounts.closing());
    sheet.put("memory.closed", mebibytes(proxy.usage()?.memory));
    Ok(())
}

/// Opens streams and leaves them open.
async fn open_idle(proxy: SocketAddr, target: &Target, count: usize) -> Result<Vec<TcpStream>> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let target = target.clone();
        opening.spawn(async move {
            let mut stream = open(proxy, &target).await?;
            echo(&mut stream).await?;
            drop(permit);
            anyhow::Ok(stream)
        });
    }
    opening.join_all().await.into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "2^53 bytes are out of reach")]
fn kibibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn mebibytes(bytes: u64) -> f64 {
    kibibytes(bytes) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn count_as_float(count: usize) -> f64 {
    count as f64
}
