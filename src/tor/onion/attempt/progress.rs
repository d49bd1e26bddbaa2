//! The progress of an attempt: how far its tries have got, and until when it runs.
//!
//! The waiting requests, the tries, and the code that starts further tries read it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::failure::Failure;
use crate::tor::onion::observer::CallObserver;

/// How long an only try may be stalled before another is started, and the newest of several when a
/// new request joins the attempt. A working rendezvous takes a few seconds.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// How long the newest of several tries may be stalled when no new request joins.
const LATER_STALL_LIMIT: Duration = Duration::from_secs(15);

/// How long to avoid an introduction point at which a try was stalled. Not longer: the cause may
/// have been the network, and a new descriptor may list another point at the same index.
const AVOID_POINT_FOR: Duration = Duration::from_secs(30);

/// The state that the tries of an attempt share with each other and with the waiting requests.
pub(super) struct AttemptProgress {
    tries: Mutex<TryObservers>,
    /// The attempt runs until this time even if no request waits.
    min_end: Instant,
    /// The attempt runs until this time: `min_end`, or the latest deadline of the waiting requests
    /// if that is later.
    end: Mutex<Instant>,
    /// Whether the attempt must end at once.
    is_cancelled: AtomicBool,
    /// Whether the attempt has ended.
    is_finished: AtomicBool,
    /// How many requests wait. `UnawaitedAttempts` changes it, under its lock.
    pub(super) waiters: AtomicUsize,
    /// Notified when `end` has become earlier, or `is_cancelled` true.
    ends_sooner: Notify,
    /// Notified when a request joins.
    joined: Notify,
    /// The observer of the first try's first call, while its second call runs beside it.
    earlier_call: Mutex<Option<Arc<CallObserver>>>,
    /// The introduction points at which tries were stalled, and when.
    unresponsive_points: Mutex<Vec<(usize, Instant)>>,
}

#[derive(Default)]
struct TryObservers {
    /// The observer of each try's newest call, by the number of the try.
    by_number: Vec<Arc<CallObserver>>,
    /// The number of the try that was started last.
    newest: usize,
}

impl TryObservers {
    fn newest(&self) -> Option<&Arc<CallObserver>> {
        self.by_number.get(self.newest)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each mutex holds plain data: it is consistent even if a thread panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AttemptProgress {
    /// Returns the progress of an attempt without tries, which runs until `min_end` or longer.
    pub(super) fn new(min_end: Instant) -> AttemptProgress {
        AttemptProgress {
            tries: Mutex::default(),
            min_end,
            end: Mutex::new(min_end),
            is_cancelled: AtomicBool::new(false),
            is_finished: AtomicBool::new(false),
            waiters: AtomicUsize::new(0),
            ends_sooner: Notify::new(),
            joined: Notify::new(),
            earlier_call: Mutex::default(),
            unresponsive_points: Mutex::default(),
        }
    }

    /// Adds a try, and aborts the work of the try that had its number before.
    pub(super) fn begin_try(&self, number: usize, observer: &Arc<CallObserver>) {
        let tries = &mut *lock(&self.tries);
        match tries.by_number.get_mut(number) {
            Some(current) => std::mem::replace(current, Arc::clone(observer)).abort_work(),
            None => tries.by_number.push(Arc::clone(observer)),
        }
        tries.newest = number;
    }

    /// Sets the observer of a try's next call. Ignored if there is no try of this number.
    pub(super) fn replace_observer(&self, number: usize, observer: &Arc<CallObserver>) {
        if let Some(current) = lock(&self.tries).by_number.get_mut(number) {
            *current = Arc::clone(observer);
        }
    }

    /// Aborts the work of all tries.
    pub(super) fn abort_work(&self) {
        for observer in &lock(&self.tries).by_number {
            observer.abort_work();
        }
    }

    /// Keeps the earlier call's observer in the progress while the next call of the first try runs
    /// beside it. The earlier call's work is aborted when the returned future is dropped.
    pub(super) fn track_earlier_call<'a, T: 'a>(
        &'a self,
        call: BoxFuture<'a, T>,
        observer: Arc<CallObserver>,
    ) -> BoxFuture<'a, T> {
        struct EarlierCall<'a>(&'a AttemptProgress, Arc<CallObserver>);
        impl Drop for EarlierCall<'_> {
            fn drop(&mut self) {
                *lock(&self.0.earlier_call) = None;
                self.1.abort_work();
            }
        }
        *lock(&self.earlier_call) = Some(Arc::clone(&observer));
        // Not inside the future, which may be dropped before its first poll.
        let guard = EarlierCall(self, observer);
        async move {
            let _guard = guard;
            call.await
        }
        .boxed()
    }

    /// Whether the earlier call runs, and waits for the service at the rendezvous point.
    pub(super) fn is_earlier_call_acknowledged(&self) -> bool {
        let earlier_call = lock(&self.earlier_call);
        earlier_call
            .as_ref()
            .is_some_and(|observer| observer.is_acknowledged())
    }

    /// Records that a request waits until `deadline`.
    pub(super) fn join(&self, deadline: Instant) {
        {
            let mut end = lock(&self.end);
            *end = deadline.max(*end);
        }
        self.joined.notify_one();
    }

    /// Records that no request waits any more.
    pub(super) fn leave(&self) {
        *lock(&self.end) = self.min_end;
        self.ends_sooner.notify_one();
    }

    /// Makes the attempt end at once.
    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.ends_sooner.notify_one();
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Records that the attempt has ended.
    pub(super) fn set_finished(&self) {
        self.is_finished.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Relaxed)
    }

    /// Until when the attempt runs.
    pub(super) fn end_time(&self) -> Instant {
        *lock(&self.end)
    }

    /// The failure to report if the time is up now: that of the call which has got furthest.
    pub(super) fn failure_so_far(&self) -> Failure {
        let tries = &lock(&self.tries).by_number;
        if let Some(proven) = tries.iter().find_map(|observer| observer.proven_failure()) {
            return proven;
        }
        let earlier_call = lock(&self.earlier_call);
        let furthest = tries
            .iter()
            .chain(earlier_call.as_ref())
            .rev()
            .max_by_key(|observer| observer.furthest());
        furthest.map_or(Failure::DirectoriesTimedOut, |observer| {
            observer.failure_so_far()
        })
    }

    /// Records the introduction points at which the newest try and the earlier call are stalled.
    pub(super) fn record_unresponsive_points(&self) {
        let tries = lock(&self.tries);
        let earlier_call = lock(&self.earlier_call);
        let stalled = tries.newest().into_iter().chain(earlier_call.as_ref());
        let points = stalled.filter_map(|observer| observer.unresponsive_point());
        let mut recorded = lock(&self.unresponsive_points);
        recorded.retain(|(_, at)| at.elapsed() < AVOID_POINT_FOR);
        recorded.extend(points.map(|point| (point, Instant::now())));
    }

    /// Whether a try other than `number` is stalled at the introduction point `point`, or a try
    /// was recently.
    pub(super) fn is_unresponsive(&self, point: usize, number: usize) -> bool {
        let tries = lock(&self.tries);
        let mut tries = tries.by_number.iter().enumerate();
        if tries.any(|(other, observer)| {
            other != number
                && observer.unresponsive_point() == Some(point)
                && observer.is_stalled(STALL_LIMIT)
        }) {
            return true;
        }
        let recorded = lock(&self.unresponsive_points);
        let mut recent = recorded
            .iter()
            .filter(|(_, at)| at.elapsed() < AVOID_POINT_FOR);
        recent.any(|(unresponsive, _)| *unresponsive == point)
    }

    /// Whether a try other than `number` waits for the service at the rendezvous point.
    pub(super) fn is_other_try_acknowledged(&self, number: usize) -> bool {
        let tries = lock(&self.tries);
        let mut tries = tries.by_number.iter().enumerate();
        tries.any(|(other, observer)| other != number && observer.is_acknowledged())
            // The earlier call belongs to the first try.
            || (number != 0 && self.is_earlier_call_acknowledged())
    }

    /// Whether the newest try is stalled so long that another should be started.
    fn is_stalled(&self, has_new_request: bool) -> bool {
        let tries = lock(&self.tries);
        let limit = if has_new_request || tries.by_number.len() == 1 {
            STALL_LIMIT
        } else {
            LATER_STALL_LIMIT
        };
        tries
            .newest()
            .is_some_and(|observer| observer.is_stalled(limit))
    }

    /// Waits until another try should be started.
    pub(super) async fn wait_until_stalled(&self) {
        /// How often to check whether the newest try has made progress.
        const POLL_INTERVAL: Duration = Duration::from_secs(1);
        let mut has_new_request = false;
        while !self.is_stalled(has_new_request) {
            tokio::select! {
                () = self.joined.notified() => has_new_request = true,
                () = sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Waits until the attempt must end: the time is up, or it is cancelled.
    pub(super) async fn wait_for_end(&self) {
        while !self.is_cancelled() {
            let end = self.end_time();
            if Instant::now() >= end {
                return;
            }
            tokio::select! {
                () = sleep_until(end) => {}
                () = self.ends_sooner.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
