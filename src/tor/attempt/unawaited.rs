//! Attempts that go on though nobody waits for them any more. There is a limit to their number: clients that ask for
//! one service after another and leave would otherwise have thousands of them running.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::progress::Progress;

/// How many attempts go on that nobody waits for. One more ends the one that was left first. (C tor's
/// `MaxClientCircuitsPending` is as many.)
pub(in crate::tor) const MAX_UNAWAITED_ATTEMPTS: usize = 32;

/// The running attempts that nobody waits for, in the order in which they were left.
#[derive(Default)]
pub(super) struct Unawaited(Mutex<VecDeque<Arc<Progress>>>);

impl Unawaited {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody new waits for this attempt until `deadline`. False if it was told to end before.
    pub(super) fn join(&self, attempt: &Arc<Progress>, deadline: Instant) -> bool {
        let mut left = self.lock();
        if attempt.is_cancelled() {
            return false;
        }
        if attempt.waiters.fetch_add(1, Ordering::Relaxed) == 0 {
            left.retain(|other| !Arc::ptr_eq(other, attempt));
        }
        attempt.join(deadline);
        true
    }

    /// Somebody waits no more.
    pub(super) fn leave(&self, attempt: &Arc<Progress>) {
        let mut left = self.lock();
        if attempt.waiters.fetch_sub(1, Ordering::Relaxed) > 1 || attempt.is_over() {
            return;
        }
        attempt.leave();
        left.push_back(Arc::clone(attempt));
        if left.len() > MAX_UNAWAITED_ATTEMPTS
            && let Some(first) = left.pop_front()
        {
            first.cancel();
        }
    }

    /// The attempt has ended.
    pub(super) fn end(&self, attempt: &Arc<Progress>) {
        let mut left = self.lock();
        attempt.set_over();
        left.retain(|other| !Arc::ptr_eq(other, attempt));
    }
}
