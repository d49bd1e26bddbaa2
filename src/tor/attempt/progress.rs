//! How far the lines of an attempt have got: for those who wait, for the lines among themselves, and to
//! know when another is to be begun.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::failure::Failure;
use crate::tor::evidence::Evidence;

/// How long the only line may stand still before another is begun, and the newest of several when a
/// new request comes to wait for it. A sound rendezvous is done in a few seconds.
const STALLED: Duration = Duration::from_secs(10);
/// How long the newest of several may stand still when no new request comes.
const STALLED_AGAIN: Duration = Duration::from_secs(15);

/// For how long an introduction point is passed over at which a line stood still: the network may have been
/// away, and another descriptor may list others in its place.
const SILENT: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Progress {
    lines: Mutex<Lines>,
    /// Until when the attempt goes on if nobody waits.
    least: Instant,
    /// Until when it goes on: as long, or until the last of those who wait will have gone.
    until: Mutex<Instant>,
    /// Set once it is to end at once.
    cancelled: AtomicBool,
    /// Set once it has ended.
    over: AtomicBool,
    /// How many wait. Counted by [`Unawaited`](super::unawaited::Unawaited), under its lock.
    pub(super) waiters: AtomicUsize,
    /// The time until which it goes on has changed.
    sooner: Notify,
    /// Somebody new waits.
    nudge: Notify,
    /// The evidence of the first line's first round, while the second runs beside it.
    older: Mutex<Option<Arc<Evidence>>>,
    /// The introduction points at which lines have stood still, and when.
    silent: Mutex<Vec<(usize, Instant)>>,
}

#[derive(Default)]
struct Lines {
    /// The evidence of each line's newest round, by the number of the line.
    evidence: Vec<Arc<Evidence>>,
    /// The number of the line that was begun last.
    newest: usize,
}

impl Lines {
    fn newest(&self) -> Option<&Arc<Evidence>> {
        self.evidence.get(self.newest)
    }
}

/// What is behind a lock is plain data: whatever a panicking thread left is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// That of an attempt without a line yet, which goes on until `least` or longer.
    pub(super) fn new(least: Instant) -> Progress {
        Progress {
            lines: Mutex::default(),
            least,
            until: Mutex::new(least),
            cancelled: AtomicBool::new(false),
            over: AtomicBool::new(false),
            waiters: AtomicUsize::new(0),
            sooner: Notify::new(),
            nudge: Notify::new(),
            older: Mutex::default(),
            silent: Mutex::default(),
        }
    }

    /// Notes that a line is begun, in the place of the one that had its number.
    pub(super) fn begin(&self, number: usize, evidence: &Arc<Evidence>) {
        let lines = &mut *lock(&self.lines);
        match lines.evidence.get_mut(number) {
            Some(line) => std::mem::replace(line, Arc::clone(evidence)).abandon(),
            None => lines.evidence.push(Arc::clone(evidence)),
        }
        lines.newest = number;
    }

    /// Notes that a line goes on with a new round.
    pub(super) fn go_on(&self, number: usize, evidence: &Arc<Evidence>) {
        if let Some(line) = lock(&self.lines).evidence.get_mut(number) {
            *line = Arc::clone(evidence);
        }
    }

    /// Ends the work for all lines.
    pub(super) fn abandon(&self) {
        for evidence in &lock(&self.lines).evidence {
            evidence.abandon();
        }
    }

    /// A first round that goes on beside the second; its work ends with it.
    pub(super) fn beside<'a, T: 'a>(
        &'a self,
        round: BoxFuture<'a, T>,
        evidence: Arc<Evidence>,
    ) -> BoxFuture<'a, T> {
        struct Older<'a>(&'a Progress, Arc<Evidence>);
        impl Drop for Older<'_> {
            fn drop(&mut self) {
                *lock(&self.0.older) = None;
                self.1.abandon();
            }
        }
        *lock(&self.older) = Some(Arc::clone(&evidence));
        // Made here: the future may be dropped before it is polled.
        let older = Older(self, evidence);
        async move {
            let _older = older;
            round.await
        }
        .boxed()
    }

    /// Whether a round that goes on beside the second waits for the service itself.
    pub(super) fn older_is_acknowledged(&self) -> bool {
        let older = lock(&self.older);
        older.as_ref().is_some_and(|older| older.is_acknowledged())
    }

    /// Somebody new waits, until then.
    pub(super) fn join(&self, deadline: Instant) {
        {
            let mut until = lock(&self.until);
            *until = deadline.max(*until);
        }
        self.nudge.notify_one();
    }

    /// The last of those who waited has gone.
    pub(super) fn leave(&self) {
        *lock(&self.until) = self.least;
        self.sooner.notify_one();
    }

    /// Ends the attempt at once.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.sooner.notify_one();
    }

    /// Whether the attempt was told to end.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Notes that the attempt has ended.
    pub(super) fn set_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether the attempt has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Until when the attempt goes on.
    pub(super) fn until(&self) -> Instant {
        *lock(&self.until)
    }

    /// What can be said now: the word of the line that has got furthest.
    pub(super) fn verdict_so_far(&self) -> Failure {
        let lines = &lock(&self.lines).evidence;
        if let Some(proven) = lines.iter().find_map(|evidence| evidence.proven()) {
            return proven;
        }
        let older = lock(&self.older);
        let furthest = lines
            .iter()
            .chain(older.as_ref())
            .rev()
            .max_by_key(|evidence| evidence.furthest());
        furthest.map_or(Failure::DirectoriesTimedOut, |evidence| {
            evidence.verdict_so_far()
        })
    }

    /// Notes where the newest line stands still, and a round beside it.
    pub(super) fn note_silence(&self) {
        let lines = lock(&self.lines);
        let older = lock(&self.older);
        let waiting = lines.newest().into_iter().chain(older.as_ref());
        let points = waiting.filter_map(|evidence| evidence.silent_point());
        let mut silent = lock(&self.silent);
        silent.retain(|(_, noted)| noted.elapsed() < SILENT);
        silent.extend(points.map(|point| (point, Instant::now())));
    }

    /// Whether a line other than this one stands still at an introduction point, or has a short time ago.
    pub(super) fn is_silent(&self, point: usize, number: usize) -> bool {
        let others = lock(&self.lines);
        let mut others = others.evidence.iter().enumerate();
        if others.any(|(other, line)| {
            other != number && line.silent_point() == Some(point) && line.stands_still(STALLED)
        }) {
            return true;
        }
        let silent = lock(&self.silent);
        let mut recent = silent.iter().filter(|(_, noted)| noted.elapsed() < SILENT);
        recent.any(|(silent, _)| *silent == point)
    }

    /// Whether a line other than this one waits for the service itself, at the rendezvous point.
    pub(super) fn another_is_acknowledged(&self, number: usize) -> bool {
        let lines = lock(&self.lines);
        let mut lines = lines.evidence.iter().enumerate();
        lines.any(|(other, line)| other != number && line.is_acknowledged())
            // A first round goes on beside the second of the first line.
            || (number != 0 && self.older_is_acknowledged())
    }

    /// Whether another line should be begun.
    fn stands_still(&self, somebody_new: bool) -> bool {
        let lines = lock(&self.lines);
        let limit = if somebody_new || lines.evidence.len() == 1 {
            STALLED
        } else {
            STALLED_AGAIN
        };
        lines.newest().is_some_and(|line| line.stands_still(limit))
    }

    /// Returns when another line should be begun.
    pub(super) async fn standstill(&self) {
        /// How often to look whether the newest line has moved.
        const GLANCE: Duration = Duration::from_secs(1);
        let mut somebody_new = false;
        while !self.stands_still(somebody_new) {
            tokio::select! {
                () = self.nudge.notified() => somebody_new = true,
                () = sleep(GLANCE) => {}
            }
        }
    }

    /// Returns when the attempt is to end: nobody waits any more, or it was cancelled.
    pub(super) async fn end(&self) {
        while !self.is_cancelled() {
            let until = self.until();
            if Instant::now() >= until {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.sooner.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
