//! How many streams are opened, answered and closed in a second, by 1, 10 and 100 clients at once.
//!
//! The program is started anew for each: a circuit remembers streams that were closed on it, so that the
//! thousands of one row would be part of the next.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use super::WARM_UP;
use crate::client::visit;
use crate::proxy::{Candidate, Proxy};
use crate::record::Sheet;
use crate::stats::milliseconds;
use crate::world::{Way, World};

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    for (way, clients, id, processor) in [
        (Way::Exit, 1, "rate.exit.1", None),
        (Way::Exit, 10, "rate.exit.10", None),
        (Way::Exit, 100, "rate.exit.100", Some("rate.exit.100.cpu")),
        (Way::Onion, 1, "rate.onion.1", None),
        (Way::Onion, 10, "rate.onion.10", None),
        (
            Way::Onion,
            100,
            "rate.onion.100",
            Some("rate.onion.100.cpu"),
        ),
    ] {
        if !sheet.wants_any(id) {
            continue;
        }
        let started = world.start_settled(candidate);
        match started.and_then(|proxy| rate(world, &proxy, way, clients)) {
            Ok(rate) => {
                sheet.put(id, rate.streams_per_second);
                if let Some(processor) = processor {
                    sheet.put(processor, rate.processor);
                }
            }
            Err(why) => sheet.fail_all(id, &why),
        }
    }
    Ok(())
}

struct Rate {
    streams_per_second: f64,
    /// Milliseconds of the processor for each stream.
    processor: f64,
}

/// Lets `clients` at once open one stream after another for a while.
fn rate(world: &World, proxy: &Proxy, way: Way, clients: u32) -> Result<Rate> {
    let (socks, target) = (proxy.socks(), world.target(way));
    world.runtime.block_on(async {
        for _ in 0..WARM_UP {
            visit(socks, target).await?;
        }
        let before = proxy.usage()?.processor;
        let begun = Instant::now();
        let end = begun + world.amounts.rate_time();
        let mut running = JoinSet::new();
        for _ in 0..clients {
            let target = target.clone();
            running.spawn(async move {
                let mut streams = 0_u32;
                while Instant::now() < end {
                    visit(socks, &target).await?;
                    streams += 1;
                }
                anyhow::Ok(streams)
            });
        }
        let mut streams = 0;
        for counted in running.join_all().await {
            streams += counted.with_context(|| format!("with {clients} clients at once"))?;
        }
        ensure!(streams > 0, "no stream was opened in time");
        let streams = f64::from(streams);
        let processor = proxy.usage()?.processor - before;
        Ok(Rate {
            // The last ones end after the time is over.
            streams_per_second: streams / begun.elapsed().as_secs_f64(),
            processor: milliseconds(processor) / streams,
        })
    })
}
