//! From the start of the process until it is usable, and until the first stream has brought an answer:
//! with an empty folder, and with what that start left there.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::client::visit;
use crate::proxy::{Candidate, Proxy, Setup};
use crate::record::Sheet;
use crate::world::World;

/// How long to try for the first stream.
const FIRST_LIMIT: Duration = Duration::from_secs(60);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// What one start took.
struct Took {
    usable: Duration,
    stream: Duration,
    processor: Duration,
}

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    let home = world.empty_home()?;
    let rows = [
        ["start.cold.usable", "start.cold.stream", "start.cold.cpu"],
        ["start.warm.usable", "start.warm.stream", "start.warm.cpu"],
    ];
    for [usable, stream, processor] in rows {
        let took = start(world, candidate, home.path())?;
        sheet.put(usable, took.usable.as_secs_f64());
        sheet.put(stream, took.stream.as_secs_f64());
        sheet.put(processor, took.processor.as_secs_f64());
    }
    Ok(())
}

fn start(world: &World, candidate: &Candidate, home: &Path) -> Result<Took> {
    let proxy = Proxy::start(candidate, &world.network, home, &Setup::default())?;
    let deadline = Instant::now() + FIRST_LIMIT;
    world.runtime.block_on(async {
        while let Err(error) = visit(proxy.socks(), &world.exit).await {
            if Instant::now() >= deadline {
                return Err(error).context("no stream after the start");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    })?;
    Ok(Took {
        usable: proxy.usable_after(),
        stream: proxy.started().elapsed(),
        processor: proxy.usage()?.processor,
    })
}
