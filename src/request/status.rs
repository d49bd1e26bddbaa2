//! The state of the program, for the status page of an HTTP port.
//!
//! Holds no client's address and no destination.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::tor::BootstrapProgress;

/// How many failures are kept.
const MAX_FAILURES: usize = 32;

/// Collects what the parts of the program report about themselves.
#[derive(Debug, Default)]
pub struct Status(Mutex<StatusInner>);

#[derive(Debug, Default)]
struct StatusInner {
    bootstrapped: bool,
    progress: String,
    ports: Vec<String>,
    failures: VecDeque<(Failure, Instant)>,
}

/// The state of the program at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// Whether the Tor network can be used.
    pub bootstrapped: bool,
    /// The latest step of connecting to the Tor network, as the Tor client describes it; empty before
    /// the first.
    pub progress: String,
    /// The open ports, as in `listening` lines: `socks 127.0.0.1:9150`.
    pub ports: Vec<String>,
    /// The latest failures of requests, newest first, and how long ago each was.
    pub failures: Vec<(Failure, Duration)>,
}

impl Status {
    /// Sets how far connecting to the Tor network has got.
    pub fn set_progress(&self, progress: BootstrapProgress<'_>) {
        let mut inner = self.lock();
        match progress {
            BootstrapProgress::Connecting => inner.bootstrapped = false,
            BootstrapProgress::Step(text) => inner.progress = text.to_owned(),
            BootstrapProgress::Connected => inner.bootstrapped = true,
        }
    }

    /// Sets the open ports.
    pub fn set_ports(&self, ports: Vec<String>) {
        self.lock().ports = ports;
    }

    /// Records that a request failed.
    pub(crate) fn record_failure(&self, failure: Failure) {
        let mut inner = self.lock();
        inner.failures.truncate(MAX_FAILURES - 1);
        inner.failures.push_front((failure, Instant::now()));
    }

    /// Reports the current state.
    pub fn report(&self) -> StatusReport {
        let inner = self.lock();
        StatusReport {
            bootstrapped: inner.bootstrapped,
            progress: inner.progress.clone(),
            ports: inner.ports.clone(),
            failures: inner
                .failures
                .iter()
                .map(|(failure, at)| (*failure, at.elapsed()))
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, StatusInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_failures_are_kept_up_to_a_limit() {
        let status = Status::default();
        status.record_failure(Failure::Internal);
        for _ in 0..MAX_FAILURES - 1 {
            status.record_failure(Failure::NoRoute);
        }
        let failures = status.report().failures;
        assert_eq!(failures.len(), MAX_FAILURES);
        assert_eq!(failures[MAX_FAILURES - 1].0, Failure::Internal);
        status.record_failure(Failure::ClockSkewed);
        let failures = status.report().failures;
        assert_eq!(failures.len(), MAX_FAILURES);
        assert_eq!(failures[0].0, Failure::ClockSkewed);
        assert!(failures.iter().all(|(f, _)| *f != Failure::Internal));
    }
}
