//! How much is carried, both ways, by one stream and by eight together; and what it costs the
//! program.
//!
//! The clock runs from the first byte asked for, on streams that are open, to the last byte arrived:
//! for an upload, to the server's word that it has all. A figure is the middle of some starts of the program.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{echo, open};
use crate::proxy::{Candidate, Proxy};
use crate::record::Sheet;
use crate::server::{Order, send, take};
use crate::stats::median;
use crate::world::{Way, World};

/// How long a transfer may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Which way it goes.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    Down,
    Up,
}

/// Way, direction, number of streams, and the rows for speed and cost.
type Transfer = (Way, Direction, u32, &'static str, &'static str);

const TRANSFERS: [Transfer; 8] = {
    use Direction::{Down, Up};
    use Way::{Exit, Onion};
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

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    let mut transfers: Vec<(Transfer, Result<Vec<Took>>)> = TRANSFERS
        .into_iter()
        .filter(|(.., speed, _)| sheet.wants_any(speed))
        .map(|transfer| (transfer, Ok(Vec::new())))
        .collect();
    for _ in 0..world.amounts.transfer_starts {
        let proxy = world.start_settled(candidate)?;
        for ((way, direction, streams, ..), took) in &mut transfers {
            let Ok(before) = took else {
                // One that failed decides the row, whatever the others are.
                continue;
            };
            let bytes = world.amounts.bulk_bytes;
            let transfer = transfer(world, &proxy, *way, *direction, *streams, bytes);
            match world.runtime.block_on(transfer) {
                Ok(carried) => before.push(carried),
                Err(why) => *took = Err(why),
            }
        }
    }
    for ((.., speed, cost), took) in transfers {
        match took.and_then(|took| middle(&took)) {
            Ok(took) => {
                sheet.put(speed, took.megabytes_per_second);
                sheet.put(cost, took.processor_per_gigabyte);
            }
            Err(why) => sheet.fail_all(speed, &why),
        }
    }
    Ok(())
}

/// What a transfer took.
pub(super) struct Took {
    pub(super) megabytes_per_second: f64,
    processor_per_gigabyte: f64,
}

/// The middle of what several starts took, each figure by itself.
pub(super) fn middle(took: &[Took]) -> Result<Took> {
    let middle = |figure: fn(&Took) -> f64| {
        let figures: Vec<f64> = took.iter().map(figure).collect();
        median(&figures).context("the program was not started")
    };
    Ok(Took {
        megabytes_per_second: middle(|took| took.megabytes_per_second)?,
        processor_per_gigabyte: middle(|took| took.processor_per_gigabyte)?,
    })
}

/// Carries a number of bytes, shared by some streams, on streams that are open.
pub(super) async fn transfer(
    world: &World,
    proxy: &Proxy,
    way: Way,
    direction: Direction,
    streams: u32,
    bytes: u64,
) -> Result<Took> {
    let each = bytes / u64::from(streams);
    let mut opened = Vec::new();
    for _ in 0..streams {
        let mut stream = open(proxy.socks(), world.target(way)).await?;
        echo(&mut stream).await?;
        opened.push(stream);
    }
    let before = proxy.usage()?.processor;
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for stream in opened {
        running.spawn(timeout(LIMIT, carry(stream, direction, each)));
    }
    for carried in running.join_all().await {
        carried
            .with_context(|| format!("a transfer took longer than {} s", LIMIT.as_secs()))?
            .context("a transfer broke")?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let processor = (proxy.usage()?.processor - before).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes are out of reach")]
    let bytes = (each * u64::from(streams)) as f64;
    Ok(Took {
        megabytes_per_second: bytes / 1e6 / seconds,
        processor_per_gigabyte: processor / (bytes / 1e9),
    })
}

/// Carries a number of bytes on a stream.
async fn carry(mut stream: TcpStream, direction: Direction, bytes: u64) -> std::io::Result<()> {
    match direction {
        Direction::Down => {
            stream.write_all(&Order::Down(bytes).bytes()).await?;
            take(&mut stream, bytes).await
        }
        Direction::Up => {
            stream.write_all(&Order::Up(bytes).bytes()).await?;
            send(&mut stream, bytes).await?;
            stream.read_exact(&mut [0]).await.map(drop)
        }
    }
}
