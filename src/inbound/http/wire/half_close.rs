//! Clients that half-close their connection while they wait for the response.
//!
//! A program may close its sending side after its request (`nc -N`), but hyper takes that for a closed
//! connection and drops the request. A client that has really gone looks the same until bytes of a
//! response are sent to it. As on SOCKS ports, the client gets the benefit of the doubt: the end of
//! file is held back from hyper until the response is written. The cost is requests to sites on behalf
//! of clients that have gone, each for [`HOLD_TIMEOUT`] at most, and at most [`MAX_HELD`] at once.
//! Browsers close their side only when they leave.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Interval, interval_at};

/// How long a response may pause for a client that has half-closed. Most sites, even slow onion
/// services, respond faster; and far more clients leave than half-close.
const HOLD_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to check whether hyper must be notified after all.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Most ends of file that are held back at once, in the whole process; hyper reads any more at once.
const MAX_HELD: usize = 64;

/// The number of ends of file that are held back.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Whether an end of file may be held back from hyper.
#[derive(Default)]
pub(in crate::inbound::http) struct HalfClose(Mutex<HalfCloseState>);

#[derive(Default)]
struct HalfCloseState {
    stage: ResponseStage,
    /// Whether the request waits for the next part of its body.
    awaits_client: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ResponseStage {
    /// No request is being answered.
    #[default]
    Idle,
    /// A request is being answered.
    InProgress,
    /// hyper has the whole response, and may have some of it left to write.
    Complete,
}

impl HalfClose {
    /// Records that a request is being answered.
    pub(super) fn begin_response(&self) {
        *self.lock() = HalfCloseState {
            stage: ResponseStage::InProgress,
            awaits_client: false,
        };
    }

    /// Records that hyper has the whole response.
    pub(super) fn end_response(&self) {
        self.lock().stage = ResponseStage::Complete;
    }

    /// Records whether the request waits for the next part of its body. If it does, an end of file
    /// means that no response can follow.
    pub(in crate::inbound::http) fn set_awaits_client(&self, awaits_client: bool) {
        self.lock().awaits_client = awaits_client;
    }

    /// Records that hyper has nothing left to write; returns whether that was the end of a response.
    pub(super) fn note_flushed(&self) -> bool {
        let mut state = self.lock();
        let is_complete = state.stage == ResponseStage::Complete;
        if is_complete {
            state.stage = ResponseStage::Idle;
        }
        is_complete
    }

    /// Whether the client may be waiting for a response.
    pub(super) fn is_response_pending(&self) -> bool {
        self.lock().stage != ResponseStage::Idle
    }

    fn lock(&self) -> MutexGuard<'_, HalfCloseState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An end of file that was read and is held back from hyper.
pub(super) struct HeldEof {
    checks: Interval,
    /// When bytes were last written to the client, or when the end of file was read.
    last_activity: Instant,
}

impl HeldEof {
    /// Returns `None` if too many are held back already.
    pub(super) fn new() -> Option<HeldEof> {
        let increment = |held: usize| (held < MAX_HELD).then_some(held + 1);
        let order = Ordering::Relaxed;
        HELD.fetch_update(order, order, increment).ok()?;
        let now = Instant::now();
        Some(HeldEof {
            checks: interval_at(now + CHECK_INTERVAL, CHECK_INTERVAL),
            last_activity: now,
        })
    }

    /// Records that bytes were written to the client.
    pub(super) fn note_written(&mut self) {
        self.last_activity = Instant::now();
    }

    /// Ready when hyper must read the end of file.
    pub(super) fn poll(&mut self, half_close: &HalfClose, context: &mut Context<'_>) -> Poll<()> {
        while half_close.is_response_pending() {
            ready!(self.checks.poll_tick(context));
            let awaits_client = half_close.lock().awaits_client;
            if awaits_client || self.last_activity.elapsed() >= HOLD_TIMEOUT {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl Drop for HeldEof {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::Relaxed);
    }
}
