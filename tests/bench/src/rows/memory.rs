//! Measures the resident memory after the start, with idle streams through an exit, and after all
//! streams are closed; and whether idle streams make new ones slower.
//!
//! Each idle stream has echoed one byte, so that the memory includes buffers that the first use of a
//! stream allocates.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::stream::{Gap, measure_latencies};
use crate::client::{Target, echo_byte, open_stream};
use crate::proxy::{Candidate, Proxy};
use crate::results::RunResults;
use crate::stats::{to_kibibytes, to_mebibytes};
use crate::testbed::{Route, Testbed};

/// How many streams are being opened at the same time.
const CONCURRENCY: usize = 50;

/// How many new streams are timed while the idle ones are open.
const TIMED: usize = 50;

pub(super) fn measure(
    testbed: &Testbed,
    candidate: &Candidate,
    run: &mut RunResults<'_>,
) -> Result<()> {
    let proxy = testbed.start_settled(candidate)?;
    let at_start = proxy.usage()?.memory;
    run.add("memory.start", to_mebibytes(at_start));
    run.add_outcome("memory.latency.0", median_open_time(testbed, &proxy));

    let mut idle = Vec::new();
    for (count, id) in [(1_000, "memory.1000"), (5_000, "memory.5000")] {
        let more = count - idle.len();
        idle.extend(
            testbed
                .runtime
                .block_on(open_idle(proxy.socks_addr(), &testbed.exit, more))
                .with_context(|| format!("cannot open {count} idle streams"))?,
        );
        let growth = proxy.usage()?.memory.saturating_sub(at_start);
        run.add(id, to_kibibytes(growth) / as_float(idle.len()));
    }
    run.add_outcome("memory.latency.5000", median_open_time(testbed, &proxy));

    drop(idle);
    std::thread::sleep(testbed.settings.closing());
    run.add("memory.closed", to_mebibytes(proxy.usage()?.memory));
    Ok(())
}

/// Returns the median time to open a new stream through an exit, in milliseconds.
fn median_open_time(testbed: &Testbed, proxy: &Proxy) -> Result<f64> {
    measure_latencies(testbed, proxy, Route::Exit, TIMED, Gap::None)?.open(50)
}

/// Opens `count` streams and returns them open.
async fn open_idle(proxy: SocketAddr, target: &Target, count: usize) -> Result<Vec<TcpStream>> {
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let target = target.clone();
        tasks.spawn(async move {
            let mut stream = open_stream(proxy, &target).await?;
            echo_byte(&mut stream).await?;
            drop(permit);
            anyhow::Ok(stream)
        });
    }
    tasks.join_all().await.into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "at most some thousands")]
fn as_float(count: usize) -> f64 {
    count as f64
}
