//! Measures throughput and processor time of transfers in both directions, in one stream and in eight.
//!
//! The streams are open before the clock starts. It starts with the client's command and stops at the
//! last byte, or, for an upload, when the server confirms that it has received everything. A figure is
//! the median of several starts of the program.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{echo_byte, open_stream};
use crate::proxy::{Candidate, Proxy};
use crate::results::RunResults;
use crate::server::{Command, receive, send};
use crate::stats::median;
use crate::testbed::{Route, Testbed};

/// The time limit of a transfer.
const LIMIT: Duration = Duration::from_secs(180);

/// The direction of a transfer, as the client sees it.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Down,
    Up,
}

/// Route, direction, number of streams, and the rows for throughput and processor time.
type Transfer = (Route, Direction, u32, &'static str, &'static str);

const TRANSFERS: [Transfer; 8] = {
    use Direction::{Down, Up};
    use Route::{Exit, Onion};
    [
        (Exit, Down, 1, "bulk.exit.down.1", "bulk.exit.down.1.cpu"),
        (Exit, Down, 8, "bulk.exit.down.8", "bulk.exit.down.8.cpu"),
        (Exit, Up, 1, "bulk.exit.up.1", "bulk.exit.up.1.cpu"),
        (Exit, Up, 8, "bulk.exit.up.8", "bulk.exit.up.8.cpu"),
        (Onion, Down, 1, "bulk.onion.down.1", "bulk.onion.down.1.cpu"),
        (Onion, Down, 8, "bulk.onion.down.8", "bulk.onion.down.8.cpu"),
        (Onion, Up, 1, "bulk.onion.up.1", "bulk.onion.up.1.cpu"),
        (Onion, Up, 8, "bulk.onion.up.8", "bulk.onion.up.8.cpu"),
    ]
};

pub(super) fn measure(
    testbed: &Testbed,
    candidate: &Candidate,
    run: &mut RunResults<'_>,
) -> Result<()> {
    let mut transfers: Vec<(Transfer, Result<Vec<TransferCost>>)> = TRANSFERS
        .into_iter()
        .filter(|(.., throughput, _)| run.includes_any(throughput))
        .map(|transfer| (transfer, Ok(Vec::new())))
        .collect();
    for _ in 0..testbed.settings.transfer_starts {
        let proxy = testbed.start_settled(candidate)?;
        for ((route, direction, streams, ..), costs) in &mut transfers {
            let Ok(so_far) = costs else {
                // One failed transfer makes the row fail, so the others are not needed.
                continue;
            };
            let bytes = testbed.settings.bulk_bytes;
            let transfer = run_transfer(testbed, &proxy, *route, *direction, *streams, bytes);
            match testbed.runtime.block_on(transfer) {
                Ok(cost) => so_far.push(cost),
                Err(error) => *costs = Err(error),
            }
        }
    }
    for ((.., throughput, processor), costs) in transfers {
        match costs.and_then(|costs| medians(&costs)) {
            Ok(cost) => {
                run.add(throughput, cost.megabytes_per_second);
                run.add(processor, cost.processor_per_gigabyte);
            }
            Err(error) => run.add_failures(throughput, &error),
        }
    }
    Ok(())
}

/// The throughput and the cost of a transfer.
pub(super) struct TransferCost {
    pub(super) megabytes_per_second: f64,
    /// In seconds.
    processor_per_gigabyte: f64,
}

/// Returns the median of each figure.
pub(super) fn medians(costs: &[TransferCost]) -> Result<TransferCost> {
    let median_of = |figure: fn(&TransferCost) -> f64| {
        let figures: Vec<f64> = costs.iter().map(figure).collect();
        median(&figures).context("the program was not started")
    };
    Ok(TransferCost {
        megabytes_per_second: median_of(|cost| cost.megabytes_per_second)?,
        processor_per_gigabyte: median_of(|cost| cost.processor_per_gigabyte)?,
    })
}

/// Opens streams, then transfers `bytes` in equal shares on them.
pub(super) async fn run_transfer(
    testbed: &Testbed,
    proxy: &Proxy,
    route: Route,
    direction: Direction,
    streams: u32,
    bytes: u64,
) -> Result<TransferCost> {
    let share = bytes / u64::from(streams);
    let mut opened = Vec::new();
    for _ in 0..streams {
        let mut stream = open_stream(proxy.socks_addr(), testbed.target(route)).await?;
        echo_byte(&mut stream).await?;
        opened.push(stream);
    }
    let before = proxy.usage()?.processor;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in opened {
        tasks.spawn(timeout(LIMIT, transfer_on(stream, direction, share)));
    }
    for transferred in tasks.join_all().await {
        transferred
            .with_context(|| format!("a transfer took longer than {} s", LIMIT.as_secs()))?
            .context("a transfer failed")?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let processor = (proxy.usage()?.processor - before).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "below 2^53 bytes")]
    let bytes = (share * u64::from(streams)) as f64;
    Ok(TransferCost {
        megabytes_per_second: bytes / 1e6 / seconds,
        processor_per_gigabyte: processor / (bytes / 1e9),
    })
}

/// Transfers `bytes` on one stream.
async fn transfer_on(
    mut stream: TcpStream,
    direction: Direction,
    bytes: u64,
) -> std::io::Result<()> {
    match direction {
        Direction::Down => {
            stream.write_all(&Command::Down(bytes).to_bytes()).await?;
            receive(&mut stream, bytes).await
        }
        Direction::Up => {
            stream.write_all(&Command::Up(bytes).to_bytes()).await?;
            send(&mut stream, bytes).await?;
            stream.read_exact(&mut [0]).await.map(drop)
        }
    }
}
