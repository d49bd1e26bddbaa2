//! New streams on a circuit that is open already, one after another.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{WARM_UP, note};
use crate::client::visit;
use crate::proxy::{Candidate, Proxy};
use crate::record::Sheet;
use crate::stats::{milliseconds, percentile};
use crate::world::{Way, World};

/// Between two streams. C tor relays send what has come in runs at least 10 ms apart (KIST): a stream
/// right behind another waits for what that one has left, and its time tells more of the relays than
/// of the program.
pub(super) const PAUSE: Duration = Duration::from_millis(30);

/// Way, and its rows: p50, p99, first byte; and p50 of streams without a pause between them.
type Rows = (Way, [&'static str; 3], &'static str);

const ROWS: [Rows; 2] = [
    (
        Way::Exit,
        ["stream.exit.p50", "stream.exit.p99", "stream.exit.answer"],
        "stream.exit.next",
    ),
    (
        Way::Onion,
        [
            "stream.onion.p50",
            "stream.onion.p99",
            "stream.onion.answer",
        ],
        "stream.onion.next",
    ),
];

pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    let proxy = world.start_settled(candidate)?;
    let count = world.amounts.streams;
    for (way, rows, next) in ROWS {
        if rows.iter().any(|row| sheet.wants(row)) {
            match latencies(world, &proxy, way, count, PAUSE) {
                Ok(took) => {
                    let [p50, p99, answer] = rows;
                    sheet.put(p50, took.open(50)?);
                    sheet.put(p99, took.open(99)?);
                    sheet.put(answer, took.answer(50)?);
                }
                Err(why) => rows.iter().for_each(|row| sheet.fail(row, &why)),
            }
        }
        if sheet.wants(next) {
            let took = latencies(world, &proxy, way, count, Duration::ZERO);
            note(sheet, next, took.and_then(|took| took.open(50)));
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

/// Opens `count` streams one after another, with a pause before each; and some before them that do
/// not count.
pub(super) fn latencies(
    world: &World,
    proxy: &Proxy,
    way: Way,
    count: usize,
    pause: Duration,
) -> Result<Latencies> {
    let target = world.target(way);
    let mut latencies = Latencies {
        open: Vec::new(),
        answer: Vec::new(),
    };
    world.runtime.block_on(async {
        for number in 0..WARM_UP + count {
            tokio::time::sleep(pause).await;
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
