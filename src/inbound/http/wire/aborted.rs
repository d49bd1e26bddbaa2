//! Responses that end early because their site aborted them.
//!
//! hyper closes the connection at once with such a response, and drops what it has not written yet. It
//! is therefore notified only when everything before is written; then the client's connection is reset.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Whether the site has aborted the response that hyper is writing.
#[derive(Default)]
pub(in crate::inbound::http) struct AbortedResponse(Mutex<AbortState>);

#[derive(Default)]
enum AbortState {
    /// Not aborted so far.
    #[default]
    No,
    /// Aborted; hyper may have bytes of it left to write.
    Writing(Waker),
    /// Aborted; everything is written.
    Written,
}

impl AbortedResponse {
    /// Records that the site has aborted. Ready when everything before is written.
    pub(in crate::inbound::http) fn poll_written(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if matches!(*state, AbortState::Written) {
            return Poll::Ready(());
        }
        *state = AbortState::Writing(context.waker().clone());
        Poll::Pending
    }

    /// Records that hyper has nothing left to write.
    pub(super) fn note_flushed(&self) {
        let mut state = self.lock();
        if matches!(*state, AbortState::Writing(_))
            && let AbortState::Writing(waker) = std::mem::replace(&mut *state, AbortState::Written)
        {
            waker.wake();
        }
    }

    /// Whether a site has aborted a response.
    pub(in crate::inbound::http) fn is_aborted(&self) -> bool {
        !matches!(*self.lock(), AbortState::No)
    }

    fn lock(&self) -> MutexGuard<'_, AbortState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
