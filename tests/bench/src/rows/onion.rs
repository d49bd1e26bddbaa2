//! Measures the first connection of a fresh program to an onion service: descriptor, introduction,
//! rendezvous, and one byte each way.

use anyhow::{Context as _, Result};

use crate::client::time_stream;
use crate::proxy::Candidate;
use crate::results::RunResults;
use crate::stats::{median, to_milliseconds};
use crate::testbed::Testbed;

pub(super) fn measure(
    testbed: &Testbed,
    candidate: &Candidate,
    run: &mut RunResults<'_>,
) -> Result<()> {
    run.add_outcome("onion.cold", time_first_connection(testbed, candidate));
    Ok(())
}

/// Returns the time until the first answer, in milliseconds: the median of several starts.
pub(super) fn time_first_connection(testbed: &Testbed, candidate: &Candidate) -> Result<f64> {
    let mut answers = Vec::new();
    for _ in 0..testbed.settings.cold_starts {
        let proxy = testbed.start_settled(candidate)?;
        let times = testbed
            .runtime
            .block_on(time_stream(proxy.socks_addr(), &testbed.onion))?;
        answers.push(to_milliseconds(times.answer));
    }
    median(&answers).context("the program was not started")
}
