//! Measures how many streams per second 1, 10 and 100 concurrent clients open, get an answer on, and
//! close.
//!
//! Each row starts the program again: a circuit keeps state of its closed streams, so the thousands of
//! streams of one row would affect the next.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use super::warm_up;
use crate::client::time_stream;
use crate::proxy::{Candidate, Proxy};
use crate::results::RunResults;
use crate::stats::to_milliseconds;
use crate::testbed::{Route, Testbed};

pub(super) fn measure(
    testbed: &Testbed,
    candidate: &Candidate,
    run: &mut RunResults<'_>,
) -> Result<()> {
    for (route, clients, id, processor_id) in [
        (Route::Exit, 1, "rate.exit.1", None),
        (Route::Exit, 10, "rate.exit.10", None),
        (Route::Exit, 100, "rate.exit.100", Some("rate.exit.100.cpu")),
        (Route::Onion, 1, "rate.onion.1", None),
        (Route::Onion, 10, "rate.onion.10", None),
        (
            Route::Onion,
            100,
            "rate.onion.100",
            Some("rate.onion.100.cpu"),
        ),
    ] {
        if !run.includes_any(id) {
            continue;
        }
        let started = testbed.start_settled(candidate);
        match started.and_then(|proxy| measure_rate(testbed, &proxy, route, clients)) {
            Ok(rate) => {
                run.add(id, rate.streams_per_second);
                if let Some(processor_id) = processor_id {
                    run.add(processor_id, rate.processor_ms_per_stream);
                }
            }
            Err(error) => run.add_failures(id, &error),
        }
    }
    Ok(())
}

struct Rate {
    streams_per_second: f64,
    processor_ms_per_stream: f64,
}

/// Runs `clients` concurrent clients, each of which opens one stream after another.
fn measure_rate(testbed: &Testbed, proxy: &Proxy, route: Route, clients: u32) -> Result<Rate> {
    let (socks_addr, target) = (proxy.socks_addr(), testbed.target(route));
    testbed.runtime.block_on(async {
        warm_up(socks_addr, target).await?;
        let before = proxy.usage()?.processor;
        let begun = Instant::now();
        let end = begun + testbed.settings.rate_time();
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let target = target.clone();
            tasks.spawn(async move {
                let mut streams = 0_u32;
                while Instant::now() < end {
                    time_stream(socks_addr, &target).await?;
                    streams += 1;
                }
                anyhow::Ok(streams)
            });
        }
        let mut streams = 0;
        for counted in tasks.join_all().await {
            streams += counted.with_context(|| format!("with {clients} concurrent clients"))?;
        }
        ensure!(streams > 0, "no stream was opened in time");
        let streams = f64::from(streams);
        let processor = proxy.usage()?.processor - before;
        Ok(Rate {
            // Divide by the real duration: the last streams end after `end`.
            streams_per_second: streams / begun.elapsed().as_secs_f64(),
            processor_ms_per_stream: to_milliseconds(processor) / streams,
        })
    })
}
