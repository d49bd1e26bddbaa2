//! Rate limits for log messages that clients could otherwise repeat many times a second.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limits how often a message is logged, and counts the occurrences that are not.
#[derive(Debug)]
pub(crate) struct LogLimiter {
    interval: Duration,
    burst: u32,
    state: Mutex<LimiterState>,
}

#[derive(Debug)]
struct LimiterState {
    /// When the first message of the current interval was logged.
    begun: Option<Instant>,
    /// How many messages may still be logged in the current interval.
    left: u32,
    /// Occurrences since the last message.
    unlogged: u64,
}

impl LogLimiter {
    /// Allows one message per `interval`.
    pub(crate) const fn new(interval: Duration) -> LogLimiter {
        LogLimiter::with_burst(interval, 1)
    }

    /// Allows `burst` messages per `interval`, for events that matter one by one while they are rare.
    pub(crate) const fn with_burst(interval: Duration, burst: u32) -> LogLimiter {
        LogLimiter {
            interval,
            burst,
            state: Mutex::new(LimiterState {
                begun: None,
                left: 0,
                unlogged: 0,
            }),
        }
    }

    /// Counts one occurrence. Returns `Some` if it should be logged: the number of occurrences since
    /// the last message, including this one.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unlogged += 1;
        let is_current = |begun: Instant| now.duration_since(begun) < self.interval;
        if !state.begun.is_some_and(is_current) {
            state.begun = Some(now);
            state.left = self.burst;
        }
        state.left = state.left.checked_sub(1)?;
        Some(std::mem::take(&mut state.unlogged))
    }
}

/// Displays the number of occurrences that a message stands for, as ` (3 times)`; one occurrence
/// displays as nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occurrences(pub(crate) u64);

impl fmt::Display for Occurrences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 | 1 => Ok(()),
            times => write!(f, " ({times} times)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_occurrence_is_logged_and_later_ones_are_added_up() {
        let limiter = LogLimiter::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| limiter.due_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        assert_eq!((at(1), at(9)), (None, None));
        assert_eq!(at(10), Some(3));
        assert_eq!(at(11), None);
        assert_eq!(at(100), Some(2));
    }

    #[test]
    fn a_burst_is_logged_one_by_one() {
        let limiter = LogLimiter::with_burst(Duration::from_secs(10), 3);
        let start = Instant::now();
        let at = |seconds| limiter.due_at(start + Duration::from_secs(seconds));
        assert_eq!((at(0), at(1), at(9)), (Some(1), Some(1), Some(1)));
        assert_eq!((at(9), at(9)), (None, None));
        // The interval starts with its first message, not with its last.
        assert_eq!((at(10), at(10), at(19)), (Some(3), Some(1), Some(1)));
        assert_eq!(at(19), None);
    }

    #[test]
    fn a_single_occurrence_adds_no_suffix() {
        assert_eq!(Occurrences(1).to_string(), "");
        assert_eq!(Occurrences(2).to_string(), " (2 times)");
    }
}
