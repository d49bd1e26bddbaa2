//! Messages that may be true many times a second, and are told now and then.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says when a message is due.
#[derive(Debug)]
pub struct LogLimiter {
    interval: Duration,
    burst: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the first message of the present interval was due.
    begun: Option<Instant>,
    /// How many messages are left of those that the interval may have.
    left: u32,
    untold: u64,
}

impl LogLimiter {
    /// At most one message in `interval`.
    pub const fn new(interval: Duration) -> LogLimiter {
        LogLimiter::burst(interval, 1)
    }

    /// At most `burst` messages in `interval`, for those that matter one by one while they are few.
    pub const fn burst(interval: Duration, burst: u32) -> LogLimiter {
        LogLimiter {
            interval,
            burst,
            state: Mutex::new(State {
                begun: None,
                left: 0,
                untold: 0,
            }),
        }
    }

    /// Counts one occasion. If a message is due: how many occasions it stands for, this one among
    /// them.
    pub fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += 1;
        let recent = |begun: Instant| now.duration_since(begun) < self.interval;
        if !state.begun.is_some_and(recent) {
            state.begun = Some(now);
            state.left = self.burst;
        }
        state.left = state.left.checked_sub(1)?;
        Some(std::mem::take(&mut state.untold))
    }
}

/// How many occasions a message stands for, to be written behind it: nothing for one.
#[derive(Clone, Copy, Debug)]
pub struct Times(pub u64);

impl fmt::Display for Times {
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
    fn the_first_occasion_is_told_and_later_ones_are_added_up() {
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
    fn a_burst_is_told_one_by_one() {
        let limiter = LogLimiter::burst(Duration::from_secs(10), 3);
        let start = Instant::now();
        let at = |seconds| limiter.due_at(start + Duration::from_secs(seconds));
        assert_eq!((at(0), at(1), at(9)), (Some(1), Some(1), Some(1)));
        assert_eq!((at(9), at(9)), (None, None));
        // The interval begins with the first message, not with the last.
        assert_eq!((at(10), at(10), at(19)), (Some(3), Some(1), Some(1)));
        assert_eq!(at(19), None);
    }

    #[test]
    fn one_time_needs_no_word() {
        assert_eq!(Times(1).to_string(), "");
        assert_eq!(Times(2).to_string(), " (2 times)");
    }
}
