//! Messages that may be true many times a second, and are told now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says when a message is due.
#[derive(Debug)]
pub struct Rarely {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    untold: u64,
}

impl Rarely {
    /// At most one message in `interval`.
    pub const fn new(interval: Duration) -> Rarely {
        Rarely {
            interval,
            state: Mutex::new(State {
                told: None,
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
        let recent = |told: Instant| now.duration_since(told) < self.interval;
        if state.told.is_some_and(recent) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_occasion_is_told_and_later_ones_are_added_up() {
        let rarely = Rarely::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| rarely.due_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        assert_eq!((at(1), at(9)), (None, None));
        assert_eq!(at(10), Some(3));
        assert_eq!(at(11), None);
        assert_eq!(at(100), Some(2));
    }
}
