//! What is known of an attempt to reach an onion service, while it is still running.
//!
//! tor-hsclient's call answers once, at the end, and that can be many minutes away. Meanwhile it
//! reports each failed try as a `tracing` event whose `error` field is the typed error, and each
//! step as a span. [`EvidenceLayer`] picks these up. The attempt they belong to is found through a
//! task-local value, which [`super::runtime::TaskSpawner`] carries into the task that does the work: no
//! log filter, span id or text has a say in it, but for the two steps that have no span of their own
//! ([`AWAITING_RENDEZVOUS`], [`SOLVING`]), and the place of an introduction point ([`POINT`]). The
//! unit tests in `upstream_tests`, and the network tests, notice when a new version of the crates
//! changes any of this.

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

use super::arti_errors;
use super::verdict::{DescriptorClue, Findings, RendezvousClue, Stage};
use crate::failure::Failure;

#[cfg(test)]
pub(crate) mod reports;
#[cfg(test)]
mod tests;

/// Where the events and spans come from.
pub(super) const SOURCE: &str = "tor_hsclient";
/// How tor-hsclient's message ends when it begins to wait for RENDEZVOUS2; that step has no span.
pub(super) const AWAITING_RENDEZVOUS: &str = "awaiting rendezvous completion";
/// What stands before the place of an introduction point in the messages about it.
pub(super) const POINT: &str = "IPT #";
/// How its message begins when it begins to solve a puzzle; nor has that one.
pub(super) const SOLVING: &str = "beginning solve";

/// So many introduction points that have refused say that the descriptor may be old. One alone may have gone.
const DOUBTFUL: usize = 2;

tokio::task_local! {
    /// The attempt that the running task works for.
    static ATTEMPT: Bound;
}

/// How a task is bound to an attempt.
#[derive(Clone)]
enum Bound {
    /// The task asks tor-hsclient for a circuit; a task spawned now is the one that does the work.
    Asking(Arc<Evidence>),
    /// The task does the work. What it spawns belongs to the circuit manager, not to the attempt.
    Working(Arc<Evidence>),
}

/// The findings of one running attempt.
///
/// Shared between the attempt, the layer that fills it, and the requests that wait for it.
pub(crate) struct Evidence {
    inner: Mutex<Inner>,
    /// Told of each change, so that waiting for a conclusion needs no polling.
    changed: watch::Sender<()>,
}

struct Inner {
    findings: Findings,
    /// When it last got further than before, solved a puzzle, or heard from a directory.
    since: Instant,
    /// Ends the task that does the work.
    work: Option<AbortHandle>,
    /// Whether it waits for nothing any more.
    rests: bool,
}

impl Evidence {
    /// Begins with what the round before found, or has found so far, if there is one.
    pub(crate) fn new(earlier: Option<Failure>) -> Arc<Evidence> {
        Arc::new(Evidence {
            inner: Mutex::new(Inner {
                findings: Findings::after(earlier),
                since: Instant::now(),
                work: None,
                rests: false,
            }),
            changed: watch::Sender::new(()),
        })
    }

    /// Begins again where this one began.
    pub(crate) fn anew(&self) -> Arc<Evidence> {
        Evidence::new(self.lock().findings.earlier)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The findings are plain data: whatever a panicking thread left is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `asking`, and notes what happens in the task that it makes tor-hsclient spawn.
    pub(crate) async fn gather<F: Future>(self: &Arc<Self>, asking: F) -> F::Output {
        ATTEMPT.scope(Bound::Asking(Arc::clone(self)), asking).await
    }

    /// Binds a future that is about to be spawned to the attempt that spawns it.
    ///
    /// Gives the future back if no attempt does, or if the attempt's work spawns on behalf of
    /// somebody else.
    pub(crate) fn adopt(
        future: FutureObj<'static, ()>,
    ) -> Result<FutureObj<'static, ()>, FutureObj<'static, ()>> {
        let Ok(Bound::Asking(evidence)) = ATTEMPT.try_with(Bound::clone) else {
            return Err(future);
        };
        let (work, handle) = abortable(future);
        evidence.lock().work = Some(handle);
        let work = ATTEMPT.scope(Bound::Working(evidence), work).map(|_| ());
        Ok(Box::new(work).into())
    }

    /// Ends the work. tor-hsclient starts from nothing the next time it is asked for the service.
    pub(crate) fn abandon(&self) {
        if let Some(work) = self.lock().work.take() {
            work.abort();
        }
    }

    /// The outcome, if the findings prove it, whatever else would still be tried.
    pub(crate) fn proven(&self) -> Option<Failure> {
        self.lock().findings.conclusion()
    }

    /// Waits until the findings prove the outcome.
    pub(crate) async fn conclusion(&self) -> Failure {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(failure) = self.proven() {
                return failure;
            }
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    /// What can be said now, should the time be up.
    pub(crate) fn verdict_so_far(&self) -> Failure {
        self.lock().findings.verdict_so_far()
    }

    /// The outcome of the attempt, in the light of the round before.
    pub(crate) fn beside_earlier(&self, failure: Failure) -> Failure {
        self.lock().findings.beside_earlier(failure)
    }

    /// How a round has failed, in the light of what it has tried.
    pub(crate) fn beside_tries(&self, failure: Failure) -> Failure {
        self.lock().findings.beside_tries(failure)
    }

    /// Whether tor-hsclient did any work, that is: had no open circuit to hand out.
    pub(crate) fn worked(&self) -> bool {
        self.lock().findings.stage > Stage::Asked
    }

    /// Waits until so many introduction points have refused, one after another, that the descriptor is to be
    /// doubted, and gives `spare`. Never returns if there is none.
    pub(crate) async fn doubted<T>(&self, spare: Option<T>) -> T {
        let Some(spare) = spare else {
            return std::future::pending().await;
        };
        let mut changes = self.changed.subscribe();
        while self.lock().findings.refusals().count() < DOUBTFUL {
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
        spare
    }

    /// Whether a descriptor fetched anew may change the outcome.
    ///
    /// Introduction points are only as good as the descriptor that names them, and directories may
    /// differ in which one they hold. After a failure tor-hsclient forgets the descriptor, so that
    /// asking again fetches one.
    pub(crate) fn worth_another_round(&self, failure: Failure) -> bool {
        let findings = &self.lock().findings;
        match failure {
            // A second round may have found a descriptor that was left from another attempt.
            Failure::IntroductionFailed => findings.earlier.is_none() || !findings.fetched,
            Failure::IntroductionTimedOut | Failure::RendezvousFailed => !findings.fetched,
            _ => false,
        }
    }

    /// Whether nothing was tried, because the Tor client has just got its directory.
    pub(crate) fn was_not_ready(&self) -> bool {
        self.lock().findings.was_not_ready()
    }

    /// Whether a failure to be introduced is the last word: all introduction points have refused, or all that
    /// tor-hsclient had tries for.
    pub(crate) fn refused_only(&self) -> bool {
        self.lock().findings.refused_only()
    }

    /// Whether it waits for the service itself, at the rendezvous point.
    pub(crate) fn is_acknowledged(&self) -> bool {
        let inner = self.lock();
        !inner.rests && inner.findings.stage == Stage::Acknowledged
    }

    /// The furthest step it has been in.
    pub(crate) fn furthest(&self) -> Stage {
        self.lock().findings.furthest
    }

    /// The introduction point that it waits for, if that has not answered.
    pub(crate) fn silent_point(&self) -> Option<usize> {
        let inner = self.lock();
        let waits = matches!(
            inner.findings.stage,
            Stage::Rendezvous | Stage::Introduction
        );
        inner.findings.point.filter(|_| waits)
    }

    /// Notes that it waits for nothing any more.
    pub(crate) fn rest(&self) {
        self.lock().rests = true;
    }

    /// Waits until it turns to an introduction point for which `avoid` holds at that moment. One that
    /// it was at before is left to it.
    pub(crate) async fn turned_to(&self, avoid: impl Fn(usize) -> bool) {
        let mut changes = self.changed.subscribe();
        let mut before = None;
        loop {
            let now = self.silent_point();
            if now != before && now.is_some_and(&avoid) {
                return;
            }
            before = now;
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    /// Whether it has got no further for this long: going round from one introduction point to the
    /// next, with the same descriptor, is no progress. Solving a puzzle takes its time, and no other line
    /// would be faster.
    pub(crate) fn stands_still(&self, long: Duration) -> bool {
        let inner = self.lock();
        inner.findings.stage != Stage::Puzzle && inner.since.elapsed() >= long
    }

    /// Notes what a scripted call has found.
    #[cfg(test)]
    pub(crate) fn note(&self, change: impl FnOnce(&mut Findings)) {
        self.update(change);
    }

    fn update(&self, change: impl FnOnce(&mut Findings)) {
        let mut inner = self.lock();
        let far = |findings: &Findings| (findings.furthest, findings.descriptor.len());
        let before = far(&inner.findings);
        let solving = inner.findings.stage == Stage::Puzzle;
        change(&mut inner.findings);
        // Time spent on a puzzle does not count against the introduction that follows.
        let solved = solving && inner.findings.stage != Stage::Puzzle;
        if solved || far(&inner.findings) != before {
            inner.since = Instant::now();
        }
        drop(inner);
        self.changed.send_replace(());
    }
}

/// The attempt that the running task works for, if it works for one.
fn working() -> Option<Arc<Evidence>> {
    match ATTEMPT.try_with(Bound::clone) {
        Ok(Bound::Working(evidence)) => Some(evidence),
        Ok(Bound::Asking(_)) | Err(_) => None,
    }
}

/// Collects the evidence; a part of the program's `tracing` subscriber.
struct EvidenceLayer;

/// The layer with its own filter: what a user wants to see in the log does not change what the
/// program knows.
pub(crate) fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    EvidenceLayer.with_filter(Targets::new().with_target(SOURCE, LevelFilter::TRACE))
}

impl<S: Subscriber> Layer<S> for EvidenceLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, _id: &Id, _ctx: Context<'_, S>) {
        let stage = match attributes.metadata().name() {
            "descriptor_ensure" => Stage::Descriptor,
            "descriptor_fetch_attempt" => Stage::Fetching,
            "establish_rendezvous" => Stage::Rendezvous,
            "exchange_introduce" => Stage::Introduction,
            _ => return,
        };
        if let Some(evidence) = working() {
            evidence.update(|findings| findings.enter(stage));
        }
    }

    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        let Some(evidence) = working() else { return };
        let mut seen = Seen::default();
        event.record(&mut seen);
        if let Some(stage) = seen.stage {
            evidence.update(|findings| findings.enter(stage));
        }
        if let Some(point) = seen.point {
            evidence.update(|findings| findings.turn_to(point));
        }
        if let Some(clue) = seen.descriptor {
            evidence.update(|findings| findings.descriptor.push(clue));
        }
        if let Some(clue) = seen.rendezvous {
            evidence.update(|findings| findings.note(clue));
        }
    }
}

/// What one event says.
#[derive(Default)]
struct Seen {
    descriptor: Option<DescriptorClue>,
    rendezvous: Option<RendezvousClue>,
    stage: Option<Stage>,
    point: Option<usize>,
}

impl Visit for Seen {
    fn record_error(&mut self, _field: &Field, error: &(dyn std::error::Error + 'static)) {
        match arti_errors::classify_event(error) {
            Some(arti_errors::AttemptEvent::Descriptor(clue)) => self.descriptor = Some(clue),
            Some(arti_errors::AttemptEvent::Rendezvous(clue)) => self.rendezvous = Some(clue),
            None => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let message = format!("{value:?}");
            self.point = point_in(&message);
            if message.ends_with(AWAITING_RENDEZVOUS) {
                self.stage = Some(Stage::Acknowledged);
            } else if message.starts_with(SOLVING) {
                self.stage = Some(Stage::Puzzle);
            }
        }
    }
}

/// The place of the introduction point that a message names. Messages count from one.
fn point_in(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once(POINT)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}
