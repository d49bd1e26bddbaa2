//! Log lines about failed requests. A client can cause them as fast as it sends requests, so each kind
//! of failure has a rate limit.

use std::fmt;
use std::time::Duration;

use tracing::info;

use crate::failure::Failure;
use crate::log_limit::{LogLimiter, Occurrences};

/// How many failures of one kind are logged per [`INTERVAL`]. Further ones are counted, and the next
/// line includes their number.
const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(60);

/// One limiter for each kind of failure, so that a flood of one kind does not hide the others.
static LIMITS: [LogLimiter; Failure::ALL.len()] =
    [const { LogLimiter::with_burst(INTERVAL, BURST) }; Failure::ALL.len()];

/// Logs a failed request: the `code` that the client got, and the time from request to failure.
pub(crate) fn log_failure(failure: Failure, code: impl fmt::Display, took: Duration) {
    if let Some(times) = LIMITS.get(failure as usize).and_then(LogLimiter::due) {
        let (name, times) = (failure.name(), Occurrences(times));
        info!("failed with {code} after {took:.1?}: {name}{times}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_own_limiter() {
        for (index, failure) in Failure::ALL.iter().enumerate() {
            assert_eq!(*failure as usize, index, "{failure:?}");
        }
    }
}
