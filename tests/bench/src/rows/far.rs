//! Measures the programs in a network whose links have a delay. There the figures depend on the number
//! of round trips, and on how much data may be in flight.

use anyhow::Result;

use super::bulk::{Direction, TransferCost, medians, run_transfer};
use super::onion;
use super::stream::{Gap, measure_latencies};
use crate::proxy::Candidate;
use crate::results::RunResults;
use crate::testbed::{Route, Testbed};

/// The rows that measure the time until the first byte of an answer.
const STREAMS: [(Route, &str); 2] = [
    (Route::Exit, "far.exit.answer"),
    (Route::Onion, "far.onion.answer"),
];

/// Route, direction, number of streams, and the row.
const TRANSFERS: [(Route, Direction, u32, &str); 8] = {
    use Direction::{Down, Up};
    use Route::{Exit, Onion};
    [
        (Exit, Down, 1, "far.exit.down.1"),
        (Exit, Down, 8, "far.exit.down.8"),
        (Exit, Up, 1, "far.exit.up.1"),
        (Exit, Up, 8, "far.exit.up.8"),
        (Onion, Down, 1, "far.onion.down.1"),
        (Onion, Down, 8, "far.onion.down.8"),
        (Onion, Up, 1, "far.onion.up.1"),
        (Onion, Up, 8, "far.onion.up.8"),
    ]
};

pub(super) fn measure(
    testbed: &Testbed,
    candidate: &Candidate,
    run: &mut RunResults<'_>,
) -> Result<()> {
    if run.includes("far.onion.cold") {
        let time = onion::time_first_connection(testbed, candidate);
        run.add_outcome("far.onion.cold", time);
    }
    if STREAMS.iter().any(|(_, row)| run.includes(row)) {
        let proxy = testbed.start_settled(candidate)?;
        let count = testbed.settings.far_streams;
        for (route, row) in STREAMS {
            let latencies = measure_latencies(testbed, &proxy, route, count, Gap::None);
            run.add_outcome(row, latencies.and_then(|latencies| latencies.answer(50)));
        }
    }
    for (route, direction, streams, row) in TRANSFERS {
        if run.includes(row) {
            let cost = transfer_on_fresh_circuits(testbed, candidate, route, direction, streams);
            run.add_outcome(row, cost.map(|cost| cost.megabytes_per_second));
        }
    }
    Ok(())
}

/// Runs one transfer for each start of the program, so that its circuits have carried no data before:
/// the congestion window of a circuit grows with the data that it carries.
fn transfer_on_fresh_circuits(
    testbed: &Testbed,
    candidate: &Candidate,
    route: Route,
    direction: Direction,
    streams: u32,
) -> Result<TransferCost> {
    let bytes = testbed.settings.far_bytes;
    let mut costs = Vec::new();
    for _ in 0..testbed.settings.transfer_starts {
        let proxy = testbed.start_settled(candidate)?;
        let transfer = run_transfer(testbed, &proxy, route, direction, streams, bytes);
        costs.push(testbed.runtime.block_on(transfer)?);
    }
    medians(&costs)
}
