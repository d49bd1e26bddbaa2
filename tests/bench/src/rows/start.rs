//! Measures how long a program takes to become usable and to get the first answer on a stream, with an
//! empty data folder, and with the data that this first start has left.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::client::time_stream;
use crate::proxy::{Candidate, ExtraConfig, Proxy};
use crate::results::RunResults;
use crate::testbed::Testbed;

/// The time limit for opening the first stream, with all tries.
const FIRST_STREAM_LIMIT: Duration = Duration::from_secs(60);

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// How long one start times.
struct StartTimes {
    /// Until the program was usable.
    usable: Duration,
    /// Until the first answer on a stream.
    stream: Duration,
    /// The processor time until that moment.
    processor: Duration,
}

pub(super) fn measure(
    testbed: &Testbed,
    candidate: &Candidate,
    run: &mut RunResults<'_>,
) -> Result<()> {
    let data_dir = testbed.scratch_dir()?;
    let rows = [
        ["start.cold.usable", "start.cold.stream", "start.cold.cpu"],
        ["start.warm.usable", "start.warm.stream", "start.warm.cpu"],
    ];
    for [usable, stream, processor] in rows {
        let times = time_start(testbed, candidate, data_dir.path())?;
        run.add(usable, times.usable.as_secs_f64());
        run.add(stream, times.stream.as_secs_f64());
        run.add(processor, times.processor.as_secs_f64());
    }
    Ok(())
}

fn time_start(testbed: &Testbed, candidate: &Candidate, data_dir: &Path) -> Result<StartTimes> {
    let proxy = Proxy::start(
        candidate,
        &testbed.network,
        data_dir,
        &ExtraConfig::default(),
    )?;
    let deadline = Instant::now() + FIRST_STREAM_LIMIT;
    testbed.runtime.block_on(async {
        while let Err(error) = time_stream(proxy.socks_addr(), &testbed.exit).await {
            if Instant::now() >= deadline {
                return Err(error).context("no stream could be opened after the start");
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    })?;
    Ok(StartTimes {
        usable: proxy.time_to_usable(),
        stream: proxy.started().elapsed(),
        processor: proxy.usage()?.processor,
    })
}
