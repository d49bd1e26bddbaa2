//! Log lines about requests that failed. A client can cause them as fast as it can ask, so each kind of
//! failure is logged one by one only while it is rare.

use std::fmt;
use std::time::Duration;

use tracing::info;

use crate::failure::Failure;
use crate::log_limit::{LogLimiter, Occurrences};

/// How many failures of one kind are logged one by one in each [`INTERVAL`]. The others are counted,
/// and their number stands in the next line.
const BURST: u32 = 5;
/// See [`BURST`].
const INTERVAL: Duration = Duration::from_secs(60);

/// One limit for each kind, so that a flood of one kind hides no other.
static LIMITS: [LogLimiter; Failure::ALL.len()] =
    [const { LogLimiter::burst(INTERVAL, BURST) }; Failure::ALL.len()];

/// Logs that a request failed: what the client was `told`, and after which time.
pub(crate) fn log_failure(failure: Failure, told: impl fmt::Display, took: Duration) {
    if let Some(times) = LIMITS.get(failure as usize).and_then(LogLimiter::due) {
        let (name, times) = (failure.name(), Occurrences(times));
        info!("failed with {told} after {took:.1?}: {name}{times}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_a_limit_of_its_own() {
        for (place, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, place, "{failure:?}");
        }
    }
}
