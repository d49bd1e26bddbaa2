//! Observes one call to tor-hsclient while it runs.
//!
//! tor-hsclient's call returns once, at its end, which may be many minutes away. Meanwhile
//! tor-hsclient logs each failed descriptor fetch, and each failed pair of introduction and
//! rendezvous points, as a `tracing` event whose `error` field is the typed error, and opens a span
//! for most steps. [`ObserverLayer`] turns these into [`Observations`].
//!
//! A task-local value links them to a call: [`crate::tor::runtime::TaskSpawner`] binds the task that
//! tor-hsclient spawns to the call that makes it spawn (see [`CallObserver::adopt`]). Message
//! texts are read only where there is no other source: for two steps without a span
//! ([`AWAITING_RENDEZVOUS`], [`SOLVING`]) and for the index of the introduction point
//! ([`POINT`]). The unit tests in `upstream_tests` and the network tests fail if a new version of
//! the crates changes any of this.
//!
//! Only this module knows that `tracing` is the source; it passes on plain values.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{AbortHandle, FutureObj, abortable};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::classify::{CallStage, FetchError, Observations, RendezvousError};
use crate::failure::Failure;
use crate::tor::arti_errors;

#[cfg(test)]
pub(super) mod reports;
#[cfg(test)]
mod tests;

/// The target prefix of the events and spans to read.
pub(in crate::tor) const SOURCE: &str = "tor_hsclient";
/// The end of the message that tor-hsclient logs when it starts to wait for RENDEZVOUS2; this step
/// has no span.
pub(in crate::tor) const AWAITING_RENDEZVOUS: &str = "awaiting rendezvous completion";
/// The text before the index of an introduction point, in messages that name one.
pub(in crate::tor) const POINT: &str = "IPT #";
/// The start of the message that tor-hsclient logs when it starts to solve a puzzle; this step has
/// no span either.
pub(in crate::tor) const SOLVING: &str = "beginning solve";

/// Refetch the descriptor after this many refusals; a single refusal may just be one stale
/// introduction point.
const SUSPECT_AFTER_REFUSALS: usize = 2;

tokio::task_local! {
    /// The call that the running task belongs to.
    static CALL: TaskRole;
}

/// How a task belongs to a call.
#[derive(Clone)]
enum TaskRole {
    /// The task calls tor-hsclient; a task spawned meanwhile does the work of the call.
    Caller(Arc<CallObserver>),
    /// The task does the work of the call. Tasks that it spawns belong to the circuit manager.
    Worker(Arc<CallObserver>),
}

/// The state of one running call to tor-hsclient.
///
/// Shared between the attempt, the [`ObserverLayer`] that updates it, and the requests that wait
/// for the attempt.
pub(crate) struct CallObserver {
    state: Mutex<ObserverState>,
    /// Notified of each change of `state`.
    changed: watch::Sender<()>,
}

struct ObserverState {
    observations: Observations,
    /// When the call last reached a new stage, solved a puzzle, or had a descriptor fetch fail.
    last_progress: Instant,
    /// Aborts the task that does the work.
    work: Option<AbortHandle>,
    /// Whether the call has ended, so that it waits for nothing.
    is_finished: bool,
}

impl CallObserver {
    /// Returns an observer for a call that follows one with `earlier_failure`, if there is one.
    pub(crate) fn new(earlier_failure: Option<Failure>) -> Arc<CallObserver> {
        Arc::new(CallObserver {
            state: Mutex::new(ObserverState {
                observations: Observations::after(earlier_failure),
                last_progress: Instant::now(),
                work: None,
                is_finished: false,
            }),
            changed: watch::Sender::new(()),
        })
    }

    /// Returns an observer for a call that replaces this one.
    pub(crate) fn renew(&self) -> Arc<CallObserver> {
        CallObserver::new(self.lock().observations.earlier_failure)
    }

    fn lock(&self) -> MutexGuard<'_, ObserverState> {
        // The state is plain data: it is consistent even if a thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call`, and observes the task that it makes tor-hsclient spawn.
    pub(crate) async fn observe<F: Future>(self: &Arc<Self>, call: F) -> F::Output {
        CALL.scope(TaskRole::Caller(Arc::clone(self)), call).await
    }

    /// Binds a future that is about to be spawned to the call that spawns it.
    ///
    /// # Errors
    ///
    /// Returns the future unchanged if no call spawns it, or if a call's worker task does.
    pub(crate) fn adopt(
        future: FutureObj<'static, ()>,
    ) -> Result<FutureObj<'static, ()>, FutureObj<'static, ()>> {
        let Ok(TaskRole::Caller(observer)) = CALL.try_with(TaskRole::clone) else {
            return Err(future);
        };
        let (work, handle) = abortable(future);
        observer.lock().work = Some(handle);
        let work = CALL.scope(TaskRole::Worker(observer), work).map(|_| ());
        Ok(Box::new(work).into())
    }

    /// Aborts the work. tor-hsclient then starts from nothing at the next call for the service.
    pub(crate) fn abort_work(&self) {
        if let Some(work) = self.lock().work.take() {
            work.abort();
        }
    }

    /// The failure of the call, if no further fetch or pair can change it.
    pub(crate) fn proven_failure(&self) -> Option<Failure> {
        self.lock().observations.proven_failure()
    }

    /// Waits until the failure of the call is proven.
    pub(crate) async fn wait_for_proven_failure(&self) -> Failure {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(failure) = self.proven_failure() {
                return failure;
            }
            // Never fails: the sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    /// The failure to report if the time is up now.
    pub(crate) fn failure_so_far(&self) -> Failure {
        self.lock().observations.failure_so_far()
    }

    /// See [`Observations::combine_with_earlier`].
    pub(crate) fn combine_with_earlier(&self, failure: Failure) -> Failure {
        self.lock().observations.combine_with_earlier(failure)
    }

    /// See [`Observations::combine_with_rendezvous_errors`].
    pub(crate) fn combine_with_rendezvous_errors(&self, failure: Failure) -> Failure {
        self.lock()
            .observations
            .combine_with_rendezvous_errors(failure)
    }

    /// Whether tor-hsclient did any work, because it had no open circuit to return.
    pub(crate) fn has_started(&self) -> bool {
        self.lock().observations.stage > CallStage::NotStarted
    }

    /// Waits until so many introduction points in a row have refused that the descriptor may be
    /// stale, and returns `spare`. Never returns if `spare` is `None`.
    pub(crate) async fn wait_until_descriptor_suspect<T>(&self, spare: Option<T>) -> T {
        let Some(spare) = spare else {
            return std::future::pending().await;
        };
        let mut changes = self.changed.subscribe();
        while self.lock().observations.latest_refusals().count() < SUSPECT_AFTER_REFUSALS {
            // Never fails: the sender lives in `self`.
            let _ = changes.changed().await;
        }
        spare
    }

    /// Whether another call may end better than with `failure`, because it fetches the descriptor
    /// again.
    ///
    /// The descriptor may be stale, and directories may hold different ones. After a failure
    /// tor-hsclient forgets the descriptor, so that the next call fetches one.
    pub(crate) fn is_worth_another_call(&self, failure: Failure) -> bool {
        let observations = &self.lock().observations;
        match failure {
            // A second call may have used a descriptor that another call had fetched.
            Failure::IntroductionFailed => {
                observations.earlier_failure.is_none() || !observations.fetched
            }
            Failure::IntroductionTimedOut | Failure::RendezvousFailed => !observations.fetched,
            _ => false,
        }
    }

    /// Whether no directory was tried because the Tor client has not chosen its vanguards yet.
    pub(crate) fn is_client_unready(&self) -> bool {
        self.lock().observations.is_client_unready()
    }

    /// Whether every introduction point has refused, or as many as tor-hsclient tries, so that no
    /// retry can help.
    pub(crate) fn has_only_refusals(&self) -> bool {
        self.lock().observations.has_only_refusals()
    }

    /// Whether the call waits for the service at the rendezvous point.
    pub(crate) fn is_acknowledged(&self) -> bool {
        let state = self.lock();
        !state.is_finished && state.observations.stage == CallStage::Acknowledged
    }

    /// The furthest stage that the call has reached.
    pub(crate) fn furthest(&self) -> CallStage {
        self.lock().observations.furthest
    }

    /// The introduction point that the call is at, if the point has not answered.
    pub(crate) fn unresponsive_point(&self) -> Option<usize> {
        let state = self.lock();
        let is_waiting = matches!(
            state.observations.stage,
            CallStage::Rendezvous | CallStage::Introduction
        );
        state.observations.point.filter(|_| is_waiting)
    }

    /// Records that the call has ended, so that it waits for nothing.
    pub(crate) fn set_finished(&self) {
        self.lock().is_finished = true;
    }

    /// Waits until the call arrives at an introduction point for which `avoid` returns true. The
    /// point that it is at already does not count, whatever `avoid` returns later.
    pub(crate) async fn wait_until_at_point(&self, avoid: impl Fn(usize) -> bool) {
        let mut changes = self.changed.subscribe();
        let mut before = None;
        loop {
            let point = self.unresponsive_point();
            if point != before && point.is_some_and(&avoid) {
                return;
            }
            before = point;
            // Never fails: the sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    /// Whether the call has made no progress for this long.
    ///
    /// Going from one introduction point to the next, with the same descriptor, is not progress.
    /// A call that solves a puzzle never counts as stalled: no parallel try would be faster.
    pub(crate) fn is_stalled(&self, limit: Duration) -> bool {
        let state = self.lock();
        let is_solving = state.observations.stage == CallStage::Puzzle;
        !is_solving && state.last_progress.elapsed() >= limit
    }

    /// Changes the observations of a scripted call.
    #[cfg(test)]
    pub(crate) fn record(&self, change: impl FnOnce(&mut Observations)) {
        self.update(change);
    }

    fn update(&self, change: impl FnOnce(&mut Observations)) {
        let mut state = self.lock();
        let progress = |seen: &Observations| (seen.furthest, seen.fetch_errors.len());
        let before = progress(&state.observations);
        let was_solving = state.observations.stage == CallStage::Puzzle;
        change(&mut state.observations);
        // The time spent on a puzzle does not count against the introduction that follows.
        let has_solved = was_solving && state.observations.stage != CallStage::Puzzle;
        if has_solved || progress(&state.observations) != before {
            state.last_progress = Instant::now();
        }
        drop(state);
        self.changed.send_replace(());
    }
}

/// The observer of the call whose work the running task does, if it does any.
fn current_observer() -> Option<Arc<CallObserver>> {
    match CALL.try_with(TaskRole::clone) {
        Ok(TaskRole::Worker(observer)) => Some(observer),
        Ok(TaskRole::Caller(_)) | Err(_) => None,
    }
}

/// A `tracing` layer that updates the [`CallObserver`] of the running task.
struct ObserverLayer;

/// Returns the layer with a filter of its own: the user's log filter must not change what the
/// program observes.
pub(in crate::tor) fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    ObserverLayer.with_filter(Targets::new().with_target(SOURCE, LevelFilter::TRACE))
}

impl<S: Subscriber> Layer<S> for ObserverLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, _id: &Id, _ctx: Context<'_, S>) {
        let stage = match attributes.metadata().name() {
            "descriptor_ensure" => CallStage::Descriptor,
            "descriptor_fetch_attempt" => CallStage::Fetching,
            "establish_rendezvous" => CallStage::Rendezvous,
            "exchange_introduce" => CallStage::Introduction,
            _ => return,
        };
        if let Some(observer) = current_observer() {
            observer.update(|observations| observations.enter(stage));
        }
    }

    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        let Some(observer) = current_observer() else {
            return;
        };
        let mut seen = EventVisitor::default();
        event.record(&mut seen);
        if let Some(stage) = seen.stage {
            observer.update(|observations| observations.enter(stage));
        }
        if let Some(point) = seen.point {
            observer.update(|observations| observations.select_point(point));
        }
        if let Some(error) = seen.fetch_error {
            observer.update(|observations| observations.fetch_errors.push(error));
        }
        if let Some(error) = seen.rendezvous_error {
            observer.update(|observations| observations.record_rendezvous_error(error));
        }
    }
}

/// Collects what one event reports.
#[derive(Default)]
struct EventVisitor {
    fetch_error: Option<FetchError>,
    rendezvous_error: Option<RendezvousError>,
    stage: Option<CallStage>,
    point: Option<usize>,
}

impl Visit for EventVisitor {
    fn record_error(&mut self, _field: &Field, error: &(dyn std::error::Error + 'static)) {
        match arti_errors::classify_event(error) {
            Some(arti_errors::CallEvent::Descriptor(error)) => self.fetch_error = Some(error),
            Some(arti_errors::CallEvent::Rendezvous(error)) => self.rendezvous_error = Some(error),
            None => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let message = format!("{value:?}");
            self.point = parse_point(&message);
            if message.ends_with(AWAITING_RENDEZVOUS) {
                self.stage = Some(CallStage::Acknowledged);
            } else if message.starts_with(SOLVING) {
                self.stage = Some(CallStage::Puzzle);
            }
        }
    }
}

/// Parses the index of the introduction point that a message names. Messages count from one.
fn parse_point(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once(POINT)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}
