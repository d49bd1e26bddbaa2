//! How the program is doing, for whoever asks: the status page of an HTTP port.
//!
//! Nothing in here names a client or a destination.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::tor::BootstrapProgress;

/// How many failures are remembered.
const REMEMBERED: usize = 32;

/// What the parts of the program tell of themselves.
#[derive(Debug, Default)]
pub struct Status(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    bootstrapped: bool,
    progress: String,
    ports: Vec<String>,
    failures: VecDeque<(Failure, Instant)>,
}

/// The state of the program at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether the Tor network can be used.
    pub bootstrapped: bool,
    /// How far connecting to it has got, in the Tor client's own words; empty before it began.
    pub progress: String,
    /// The open ports, as `listening` lines name them: `socks 127.0.0.1:9150`.
    pub ports: Vec<String>,
    /// The latest failures of requests and how long ago each was, the last one first.
    pub failures: Vec<(Failure, Duration)>,
}

impl Status {
    /// Connecting to the Tor network has got so far.
    pub fn connection(&self, progress: BootstrapProgress<'_>) {
        let mut told = self.told();
        match progress {
            BootstrapProgress::Connecting => told.bootstrapped = false,
            BootstrapProgress::Step(text) => told.progress = text.to_owned(),
            BootstrapProgress::Connected => told.bootstrapped = true,
        }
    }

    /// These ports are open, and no others.
    pub fn listening(&self, ports: Vec<String>) {
        self.told().ports = ports;
    }

    /// A request failed.
    pub fn failed(&self, failure: Failure) {
        let mut told = self.told();
        told.failures.truncate(REMEMBERED - 1);
        told.failures.push_front((failure, Instant::now()));
    }

    /// What there is to say now.
    pub fn report(&self) -> Report {
        let told = self.told();
        Report {
            bootstrapped: told.bootstrapped,
            progress: told.progress.clone(),
            ports: told.ports.clone(),
            failures: told
                .failures
                .iter()
                .map(|(failure, at)| (*failure, at.elapsed()))
                .collect(),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failures_are_remembered_and_no_more() {
        let status = Status::default();
        status.failed(Failure::Internal);
        for _ in 0..REMEMBERED - 1 {
            status.failed(Failure::NoRoute);
        }
        let failures = status.report().failures;
        assert_eq!(failures.len(), REMEMBERED);
        assert_eq!(failures[REMEMBERED - 1].0, Failure::Internal);
        status.failed(Failure::ClockSkewed);
        let failures = status.report().failures;
        assert_eq!(failures.len(), REMEMBERED);
        assert_eq!(failures[0].0, Failure::ClockSkewed);
        assert!(failures.iter().all(|(f, _)| *f != Failure::Internal));
    }
}
