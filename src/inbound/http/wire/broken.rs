//! Answers that break off because their site does. hyper ends the connection with such an answer at
//! once, and drops what it has not written yet. So it hears of the break only when everything before
//! is written; then the client's connection is reset.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Whether the answer that hyper is writing breaks off.
#[derive(Default)]
pub(in super::super) struct Broken(Mutex<State>);

#[derive(Default)]
enum State {
    /// It does not, so far.
    #[default]
    No,
    /// It does, and hyper may still have bytes of it to write.
    Writing(Waker),
    /// It does, and all of it is written.
    Written,
}

impl Broken {
    /// The site has broken off. Ready when all that it said before is written.
    pub(in super::super) fn poll_written(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if matches!(*state, State::Written) {
            return Poll::Ready(());
        }
        *state = State::Writing(context.waker().clone());
        Poll::Pending
    }

    /// Takes note that hyper has nothing left to write.
    pub(super) fn flushed(&self) {
        let mut state = self.lock();
        if matches!(*state, State::Writing(_))
            && let State::Writing(waker) = std::mem::replace(&mut *state, State::Written)
        {
            waker.wake();
        }
    }

    /// Whether an answer has broken off.
    pub(in super::super) fn is_broken(&self) -> bool {
        !matches!(*self.lock(), State::No)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
