//! New streams on a circuit that is open already, one after another.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{WARM_UP, note};
use crate::client::visit;
use crate::proxy::{Candidate, Proxy};
use crate::record::Sheet;
use crate::stats::{milliseconds, percentile};
use crate::world::{Way, World};

/// The pauses are spread evenly over this range, in milliseconds. All are longer than an
/// acknowledgement may be delayed (40 ms), so that none waits for that of the stream before; and of
/// differing length, so that they keep step with no timer.
const PAUSES: Range<u64> = 50..150;

/// Consecutive pauses differ by this, modulo the range.
const STRIDE: u64 = 37;

/// Streams one after another.
struct Series {
    way: Way,
    gap: Gap,
    rows: &'static [(&'static str, Told)],
}

/// What a row tells of a series.
type Told = fn(&Latencies) -> Result<f64>;

/// What is between two streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gap {
    /// A pause.
    Pause,
    /// Nothing but the turn of a timer, a millisecond at most: the next begins when the one before has
    /// ended.
    None,
}

impl Gap {
    /// How long to wait before a stream.
    fn before(self, number: usize) -> Duration {
        match self {
            Gap::Pause => {
                let number = u64::try_from(number).unwrap_or_default();
                let range = PAUSES.end - PAUSES.start;
                Duration::from_millis(PAUSES.start + number * STRIDE % range)
            }
            Gap::None => Duration::ZERO,
        }
    }
}

const SERIES: [Series; 4] = [
    Series {
        way: Way::Exit,
        gap: Gap::None,
        rows: &[
            ("stream.exit.p50", |took| took.open(50)),
            ("stream.exit.p99", |took| took.open(99)),
            ("stream.exit.answer", |took| took.answer(50)),
        ],
    },
    Series {
        way: Way::Exit,
        gap: Gap::Pause,
        rows: &[("stream.exit.rested", |took| took.open(50))],
    },
    Series {
        way: Way::Onion,
        gap: Gap::None,
        rows: &[
            ("stream.onion.p50", |took| took.open(50)),
            ("stream.onion.p99", |took| took.open(99)),
            ("stream.onion.answer", |took| took.answer(50)),
        ],
    },
    Series {
        way: Way::Onion,
        gap: Gap::Pause,
        rows: &[("stream.onion.rested", |took| took.open(50))],
    },
];

/// Which relays a circuit has got decides much. So the program is started several times, and the
/// percentiles are those of all streams.
pub(super) fn measure(world: &World, candidate: &Candidate, sheet: &mut Sheet<'_>) -> Result<()> {
    let starts = world.amounts.stream_starts;
    let count = world.amounts.streams.div_ceil(starts);
    let mut all = SERIES.map(|_| Ok(Latencies::default()));
    for _ in 0..starts {
        let proxy = world.start_settled(candidate)?;
        for (series, all) in SERIES.iter().zip(&mut all) {
            if let Ok(so_far) = all
                && series.rows.iter().any(|(row, _)| sheet.wants(row))
            {
                match latencies(world, &proxy, series.way, count, series.gap) {
                    Ok(more) => so_far.extend(more),
                    Err(why) => *all = Err(why),
                }
            }
        }
    }
    for (series, all) in SERIES.iter().zip(all) {
        for (row, told) in series.rows {
            match &all {
                Ok(took) => note(sheet, row, told(took)),
                Err(why) => sheet.fail(row, why),
            }
        }
    }
    Ok(())
}

/// What a number of streams took, in milliseconds.
#[derive(Default)]
pub(super) struct Latencies {
    open: Vec<f64>,
    answer: Vec<f64>,
}

impl Latencies {
    fn extend(&mut self, more: Latencies) {
        self.open.extend(more.open);
        self.answer.extend(more.answer);
    }

    /// A percentile of the time until the stream was open.
    pub(super) fn open(&self, percent: u32) -> Result<f64> {
        percentile(&self.open, percent).context("no streams were opened")
    }

    /// A percentile of the time until an answer was there.
    pub(super) fn answer(&self, percent: u32) -> Result<f64> {
        percentile(&self.answer, percent).context("no streams were opened")
    }
}

/// Opens `count` streams one after another, with a gap before each; and some before them that do
/// not count.
pub(super) fn latencies(
    world: &World,
    proxy: &Proxy,
    way: Way,
    count: usize,
    gap: Gap,
) -> Result<Latencies> {
    let target = world.target(way);
    let mut latencies = Latencies::default();
    world.runtime.block_on(async {
        for number in 0..WARM_UP + count {
            tokio::time::sleep(gap.before(number)).await;
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
