//! New streams on a circuit that is open already, one after another.

use anyhow::{Context as _, Result};

use super::WARM_UP;
use crate::client::visit;
use crate::proxy::{Candidate, Proxy};
use crate::record::Sheet;
use crate::stats::{milliseconds, percentile};
use crate::world::{Way, World};

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    let proxy = world.start_settled(candidate)?;
    for (way, name, [p50, p99, answer]) in [
        (
            Way::Exit,
            "stream.exit",
            ["stream.exit.p50", "stream.exit.p99", "stream.exit.answer"],
        ),
        (
            Way::Onion,
            "stream.onion",
            [
                "stream.onion.p50",
                "stream.onion.p99",
                "stream.onion.answer",
            ],
        ),
    ] {
        if !sheet.wants_any(name) {
            continue;
        }
        match latencies(world, &proxy, way, world.amounts.streams) {
            Ok(took) => {
                sheet.put(p50, took.open(50)?);
                sheet.put(p99, took.open(99)?);
                sheet.put(answer, took.answer(50)?);
            }
            Err(why) => sheet.fail_all(name, &why),
        }
    }
    Ok(())
}

/// What a number of streams took, in milliseconds.
pub(super) struct Latencies {
    open: Vec<f64>,
    answer: Vec<f64>,
}

impl Latencies {
    /// A percentile of the time until the stream was open.
    pub(super) fn open(&self, percent: u32) -> Result<f64> {
        percentile(&self.open, percent).context("no streams were opened")
    }

    /// A percentile of the time until an answer was there.
    pub(super) fn answer(&self, percent: u32) -> Result<f64> {
        percentile(&self.answer, percent).context("no streams were opened")
    }
}

/// Opens `count` streams one after another, some before them that do not count.
pub(super) fn latencies(world: &World, proxy: &Proxy, way: Way, count: usize) -> Result<Latencies> {
    let target = world.target(way);
    let mut latencies = Latencies {
        open: Vec::new(),
        answer: Vec::new(),
    };
    world.runtime.block_on(async {
        for number in 0..WARM_UP + count {
            let took = visit(proxy.socks(), target)
                .await
                .with_context(|| format!("stream {number} one after another"))?;
            if number >= WARM_UP {
                latencies.open.push(milliseconds(took.open));
                latencies.answer.push(milliseconds(took.answer));
            }
        }
        Ok(latencies)
    })
}
