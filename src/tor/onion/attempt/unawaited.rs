//! Limits the number of attempts that run without a waiting request: a client that requests one
//! service after another and disconnects would otherwise leave thousands of them running.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::progress::AttemptProgress;

/// How many attempts may run without a waiting request. One more cancels the one that has been
/// without a request for longest. C tor's `MaxClientCircuitsPending` has the same default.
pub(in crate::tor::onion) const MAX_UNAWAITED_ATTEMPTS: usize = 32;

/// The running attempts without a waiting request, in the order in which the last request left.
#[derive(Default)]
pub(super) struct UnawaitedAttempts(Mutex<VecDeque<Arc<AttemptProgress>>>);

impl UnawaitedAttempts {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<AttemptProgress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request that waits for this attempt until `deadline`. Returns false if the attempt
    /// is cancelled.
    pub(super) fn join(&self, attempt: &Arc<AttemptProgress>, deadline: Instant) -> bool {
        let mut unawaited = self.lock();
        if attempt.is_cancelled() {
            return false;
        }
        if attempt.waiters.fetch_add(1, Ordering::Relaxed) == 0 {
            unawaited.retain(|other| !Arc::ptr_eq(other, attempt));
        }
        attempt.join(deadline);
        true
    }

    /// Removes a request that waited for this attempt.
    pub(super) fn leave(&self, attempt: &Arc<AttemptProgress>) {
        let mut unawaited = self.lock();
        if attempt.waiters.fetch_sub(1, Ordering::Relaxed) > 1 || attempt.is_finished() {
            return;
        }
        attempt.leave();
        unawaited.push_back(Arc::clone(attempt));
        if unawaited.len() > MAX_UNAWAITED_ATTEMPTS
            && let Some(first) = unawaited.pop_front()
        {
            first.cancel();
        }
    }

    /// Records that the attempt has ended.
    pub(super) fn finish(&self, attempt: &Arc<AttemptProgress>) {
        let mut unawaited = self.lock();
        attempt.set_finished();
        unawaited.retain(|other| !Arc::ptr_eq(other, attempt));
    }
}
