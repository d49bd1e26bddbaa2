//! Measures new streams on an open circuit, one after another.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::WARM_UP;
use crate::client::time_stream;
use crate::proxy::{Candidate, Proxy};
use crate::results::RunResults;
use crate::stats::{percentile, to_milliseconds};
use crate::testbed::{Route, Testbed};

/// The range over which the pauses are spread evenly, in milliseconds.
///
/// All pauses exceed the delay of a TCP acknowledgement (40 ms), so that no stream waits for an
/// acknowledgement of the previous one. Their lengths differ, so that they do not align with a timer.
const PAUSES: Range<u64> = 50..150;

/// The difference between consecutive pauses, modulo the range, in milliseconds.
const STRIDE: u64 = 37;

/// A series of streams, one after another.
struct Series {
    route: Route,
    gap: Gap,
    /// The rows that it provides, each with its statistic.
    rows: &'static [(&'static str, Statistic)],
}

/// Computes the figure of a row from the streams of a series.
type Statistic = fn(&Latencies) -> Result<f64>;

/// The time between two streams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gap {
    /// A pause, see [`PAUSES`].
    Pause,
    /// No pause. Each stream begins when the previous one has ended; the timer adds at most a
    /// millisecond.
    None,
}

impl Gap {
    /// Returns how long to wait before the stream with this number.
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
        route: Route::Exit,
        gap: Gap::None,
        rows: &[
            ("stream.exit.p50", |times| times.open(50)),
            ("stream.exit.p99", |times| times.open(99)),
            ("stream.exit.answer", |times| times.answer(50)),
        ],
    },
    Series {
        route: Route::Exit,
        gap: Gap::Pause,
        rows: &[("stream.exit.rested", |times| times.open(50))],
    },
    Series {
        route: Route::Onion,
        gap: Gap::None,
        rows: &[
            ("stream.onion.p50", |times| times.open(50)),
            ("stream.onion.p99", |times| times.open(99)),
            ("stream.onion.answer", |times| times.answer(50)),
        ],
    },
    Series {
        route: Route::Onion,
        gap: Gap::Pause,
        rows: &[("stream.onion.rested", |times| times.open(50))],
    },
];

/// The times depend on the relays of a circuit, so the program is started several times, and the
/// percentiles cover the streams of all starts.
pub(super) fn measure(
    testbed: &Testbed,
    candidate: &Candidate,
    run: &mut RunResults<'_>,
) -> Result<()> {
    let starts = testbed.settings.stream_starts;
    let count = testbed.settings.streams.div_ceil(starts);
    let mut all = SERIES.map(|_| Ok(Latencies::default()));
    for _ in 0..starts {
        let proxy = testbed.start_settled(candidate)?;
        for (series, all) in SERIES.iter().zip(&mut all) {
            if let Ok(so_far) = all
                && series.rows.iter().any(|(row, _)| run.includes(row))
            {
                match measure_latencies(testbed, &proxy, series.route, count, series.gap) {
                    Ok(more) => so_far.extend(more),
                    Err(error) => *all = Err(error),
                }
            }
        }
    }
    for (series, all) in SERIES.iter().zip(all) {
        for (row, statistic) in series.rows {
            match &all {
                Ok(latencies) => run.add_outcome(row, statistic(latencies)),
                Err(error) => run.add_failure(row, error),
            }
        }
    }
    Ok(())
}

/// The times of several streams, in milliseconds.
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

    /// Returns a percentile of the time until the stream was open.
    pub(super) fn open(&self, percent: u32) -> Result<f64> {
        percentile(&self.open, percent).context("no stream was opened")
    }

    /// Returns a percentile of the time until the first byte of the answer.
    pub(super) fn answer(&self, percent: u32) -> Result<f64> {
        percentile(&self.answer, percent).context("no stream was opened")
    }
}

/// Times `count` streams, one after another, with a gap before each. A few streams before them are not
/// included.
pub(super) fn measure_latencies(
    testbed: &Testbed,
    proxy: &Proxy,
    route: Route,
    count: usize,
    gap: Gap,
) -> Result<Latencies> {
    let target = testbed.target(route);
    let mut latencies = Latencies::default();
    testbed.runtime.block_on(async {
        for number in 0..WARM_UP + count {
            tokio::time::sleep(gap.before(number)).await;
            let times = time_stream(proxy.socks_addr(), target)
                .await
                .with_context(|| format!("stream {number} of the series failed"))?;
            if number >= WARM_UP {
                latencies.open.push(to_milliseconds(times.open));
                latencies.answer.push(to_milliseconds(times.answer));
            }
        }
        Ok(latencies)
    })
}
