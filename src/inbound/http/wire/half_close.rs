//! The end of what a client says, while it waits for its answer.
//!
//! A program may close its side behind its request (`nc -N`). hyper takes it for gone, and lets the
//! request fall. Who is really gone looks just the same; only when bytes of an answer come to it, its
//! system says so. As on SOCKS ports the doubt is for the client: the end is kept from hyper until the
//! answer is written. What that costs is a site that is asked for nobody, for [`HOLD`] at most, and
//! [`MAX_KEPT`] of them at once. No browser does so: one that closes its side has left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Interval, interval_at};

use super::Line;

/// How long an answer may pause for a client that has said its last. Most sites have answered by
/// then, slow onion services too; and few clients wait in this way, while many leave.
const HOLD: Duration = Duration::from_secs(30);
/// How often it is looked whether the end matters after all.
const LOOK: Duration = Duration::from_secs(1);

/// How many ends are kept at once, in the whole program; others are told to hyper right away.
const MAX_KEPT: usize = 64;

/// How many are.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Whether the end may be told to hyper.
#[derive(Default)]
pub(in super::super) struct Goodbye(Mutex<State>);

#[derive(Default)]
struct State {
    stage: Stage,
    /// Whether the next part of the request's body has to come from the client.
    owed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// No request is being answered.
    #[default]
    Idle,
    /// One is.
    Answering,
    /// hyper has the whole answer, and may have some of it left to write.
    Answered,
}

/// A request that is being answered, until this is dropped.
pub(in super::super) struct Answering(Arc<Line>);

impl Answering {
    /// Begins with a request. To be called before hyper reads on.
    pub(in super::super) fn begin(line: &Arc<Line>) -> Answering {
        *line.goodbye.lock() = State {
            stage: Stage::Answering,
            owed: false,
        };
        Answering(Arc::clone(line))
    }

    /// The connection that it came on.
    pub(in super::super) fn line(&self) -> &Arc<Line> {
        &self.0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.goodbye.lock().stage = Stage::Answered;
    }
}

impl Goodbye {
    /// Takes note of whether the request's body has to be waited for: without it there will be none.
    pub(in super::super) fn owe(&self, owed: bool) {
        self.lock().owed = owed;
    }

    /// Takes note that hyper has nothing left to write. Whether that was the end of an answer.
    pub(super) fn flushed(&self) -> bool {
        let mut state = self.lock();
        let answered = state.stage == Stage::Answered;
        if answered {
            state.stage = Stage::Idle;
        }
        answered
    }

    /// Whether somebody may wait for an answer.
    pub(super) fn is_awaited(&self) -> bool {
        self.lock().stage != Stage::Idle
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An end that was read, and is kept.
pub(super) struct Kept {
    looks: Interval,
    /// When the client was last given something, or has said its last.
    moved: Instant,
}

impl Kept {
    /// `None` if there are too many.
    pub(super) fn new() -> Option<Kept> {
        let more = |kept: usize| (kept < MAX_KEPT).then_some(kept + 1);
        let order = Ordering::Relaxed;
        KEPT.fetch_update(order, order, more).ok()?;
        let now = Instant::now();
        Some(Kept {
            looks: interval_at(now + LOOK, LOOK),
            moved: now,
        })
    }

    /// Something was written.
    pub(super) fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// Ready when hyper is to hear of it.
    pub(super) fn poll(&mut self, goodbye: &Goodbye, context: &mut Context<'_>) -> Poll<()> {
        while goodbye.is_awaited() {
            ready!(self.looks.poll_tick(context));
            if goodbye.lock().owed || self.moved.elapsed() >= HOLD {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}
