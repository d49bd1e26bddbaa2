use std::sync::atomic::{AtomicBool, Ordering};

use futures::task::SpawnExt as _;
use tokio::time::{advance, sleep, timeout};
use tor_error::debug_report;
use tor_hsclient::{DescriptorErrorDetail, FailedAttemptError};
use tor_netdoc::doc::hsdesc::HsDescError;
use tracing_subscriber::prelude::*;

use super::reports::{HsReport as R, emit, observer, report};
use super::*;
use crate::tor::runtime;

/// Whether a future is still pending after an hour of tokio's paused clock.
async fn is_pending(future: impl Future) -> bool {
    timeout(Duration::from_secs(3600), future).await.is_err()
}

/// Returns the output of a future that has no reason to wait for an hour.
async fn output<T>(future: impl Future<Output = T>) -> T {
    let hour = Duration::from_secs(3600);
    timeout(hour, future).await.expect("the future is ready")
}

fn auth_missing() -> Box<DescriptorErrorDetail> {
    Box::new(DescriptorErrorDetail::Descriptor(
        HsDescError::MissingDecryptionKey,
    ))
}

#[test]
fn the_introduction_point_is_parsed_from_messages_that_name_one() {
    assert_eq!(
        parse_point("hs conn to x: IPT #3: obtaining intro circuit"),
        Some(2)
    );
    assert_eq!(
        parse_point("hs conn to x: RPT y IPT #12: making introduction"),
        Some(11)
    );
    assert_eq!(
        parse_point("hs conn to x: setting up rendezvous point"),
        None
    );
    assert_eq!(parse_point("hs conn to x: IPT #0: counted from one"), None);
    assert_eq!(parse_point("hs conn to x: IPT #: no number"), None);
}

#[test]
fn each_stage_follows_from_its_span_or_its_message() {
    let observer = CallObserver::new(None);
    assert!(!observer.has_started());
    let steps = [
        (R::LooksForDescriptor, CallStage::Descriptor),
        (R::FetchesDescriptor, CallStage::Fetching),
        (R::EstablishesRendezvous, CallStage::Rendezvous),
        (R::SolvesPuzzle, CallStage::Puzzle),
        (R::Introduces(0), CallStage::Introduction),
        (R::Acknowledged(0), CallStage::Acknowledged),
    ];
    for (step, stage) in steps {
        report(&observer, [step]);
        assert_eq!(observer.furthest(), stage);
        assert!(observer.has_started());
        assert_eq!(observer.is_acknowledged(), stage == CallStage::Acknowledged);
    }
    // An earlier stage does not change the furthest one.
    report(&observer, [R::LooksForDescriptor]);
    assert_eq!(observer.furthest(), CallStage::Acknowledged);
    assert!(!observer.is_acknowledged());
}

#[test]
fn a_call_that_has_ended_does_not_wait_for_the_service() {
    let observer = observer([R::Acknowledged(0)]);
    assert!(observer.is_acknowledged());
    observer.set_finished();
    assert!(!observer.is_acknowledged());
}

#[test]
fn the_errors_of_events_decide_the_failure() {
    let fetching = [R::LooksForDescriptor, R::FetchesDescriptor];
    let observer = observer(fetching.clone());
    assert_eq!(observer.failure_so_far(), Failure::DirectoriesTimedOut);
    report(&observer, [R::NotFound]);
    assert_eq!(observer.failure_so_far(), Failure::DescriptorNotFound);
    assert_eq!(observer.proven_failure(), None);
    report(
        &observer,
        fetching.into_iter().chain([R::Directory(auth_missing())]),
    );
    assert_eq!(observer.proven_failure(), Some(Failure::ClientAuthMissing));

    let observer = self::observer([R::Introduces(0), R::TimedOut(0), R::Introduces(1)]);
    assert_eq!(observer.failure_so_far(), Failure::IntroductionTimedOut);
    report(&observer, [R::Refused(1)]);
    assert_eq!(observer.failure_so_far(), Failure::IntroductionFailed);
}

/// The macros with which tor-hsclient logs errors pass on the error itself, not its text.
#[test]
fn an_error_logged_by_debug_report_keeps_its_type() {
    let observer = CallObserver::new(None);
    // Without the filter, because the target of these events is this module.
    let subscriber = tracing_subscriber::registry().with(ObserverLayer);
    tracing::subscriber::with_default(subscriber, || {
        CALL.sync_scope(TaskRole::Worker(Arc::clone(&observer)), || {
            let error = FailedAttemptError::IntroductionTimeout {
                intro_index: 0.into(),
            };
            debug_report!(&error, "hs conn to {}: attempt failed", "…");
            let error = auth_missing();
            debug_report!(&*error, "failed hsdir desc fetch for {}", "…");
        });
    });
    assert_eq!(observer.failure_so_far(), Failure::ClientAuthMissing);
    let observer = &*observer;
    assert!(!observer.has_only_refusals());
    assert_eq!(observer.lock().observations.rendezvous_errors.len(), 1);
}

#[test]
fn only_reports_of_tor_hsclient_by_a_worker_task_count() {
    let observer = CallObserver::new(None);
    let subscriber = tracing_subscriber::registry().with(layer());
    tracing::subscriber::with_default(subscriber, || {
        CALL.sync_scope(TaskRole::Worker(Arc::clone(&observer)), || {
            drop(tracing::trace_span!("descriptor_ensure"));
            tracing::debug!("hs conn to …: IPT #1: awaiting rendezvous completion");
        });
        // Tasks without a call do not count, nor does the task that makes the call.
        emit(R::LooksForDescriptor);
        emit(R::Acknowledged(0));
        CALL.sync_scope(TaskRole::Caller(Arc::clone(&observer)), || {
            emit(R::LooksForDescriptor);
            emit(R::Acknowledged(0));
        });
    });
    assert!(!observer.has_started());
    assert_eq!(observer.unresponsive_point(), None);
}

#[test]
fn a_point_is_unresponsive_until_it_has_acknowledged() {
    let observer = observer([R::EstablishesRendezvous]);
    assert_eq!(observer.unresponsive_point(), None);
    report(&observer, [R::SelectsPoint(2)]);
    assert_eq!(observer.unresponsive_point(), Some(2));
    report(&observer, [R::Introduces(2)]);
    assert_eq!(observer.unresponsive_point(), Some(2));
    report(&observer, [R::Acknowledged(2)]);
    assert_eq!(observer.unresponsive_point(), None);
    // In the next pair, the introduction point is chosen after the rendezvous point.
    report(&observer, [R::EstablishesRendezvous]);
    assert_eq!(observer.unresponsive_point(), None);
}

#[tokio::test(start_paused = true)]
async fn a_proven_failure_is_returned_at_once() {
    let observer = observer([R::FetchesDescriptor]);
    assert!(is_pending(observer.wait_for_proven_failure()).await);
    let (failure, ()) = tokio::join!(output(observer.wait_for_proven_failure()), async {
        tokio::task::yield_now().await;
        report(&observer, [R::Directory(auth_missing())]);
    });
    assert_eq!(failure, Failure::ClientAuthMissing);
}

#[tokio::test(start_paused = true)]
async fn two_refusals_in_a_row_make_a_descriptor_suspect() {
    let observer = observer([R::LooksForDescriptor, R::Refused(0)]);
    assert!(is_pending(observer.wait_until_descriptor_suspect(Some(7))).await);
    report(&observer, [R::TimedOut(1), R::Refused(2)]);
    assert!(is_pending(observer.wait_until_descriptor_suspect(Some(7))).await);
    let (spare, ()) = tokio::join!(
        output(observer.wait_until_descriptor_suspect(Some(7))),
        async {
            tokio::task::yield_now().await;
            report(&observer, [R::Refused(3)]);
        }
    );
    assert_eq!(spare, 7);
    // Without a spare value it never returns.
    assert!(is_pending(observer.wait_until_descriptor_suspect(None::<u8>)).await);
}

#[tokio::test(start_paused = true)]
async fn arriving_at_a_point_to_avoid_is_noticed_and_being_there_is_not() {
    let observer = observer([R::EstablishesRendezvous, R::SelectsPoint(1)]);
    let avoid = |point| point == 4;
    let is_noticed = async |then: R| {
        let mut arrival = std::pin::pin!(observer.wait_until_at_point(avoid));
        assert!(is_pending(&mut arrival).await);
        report(&observer, [then]);
        !is_pending(arrival).await
    };
    assert!(!is_noticed(R::SelectsPoint(2)).await);
    assert!(is_noticed(R::SelectsPoint(4)).await);
    // The point that the call is at does not count, until the call comes to it again.
    let is_avoided = AtomicBool::new(false);
    let mut arrival =
        std::pin::pin!(observer.wait_until_at_point(|_| is_avoided.load(Ordering::Relaxed)));
    assert!(is_pending(&mut arrival).await);
    is_avoided.store(true, Ordering::Relaxed);
    report(&observer, [R::Introduces(4)]);
    assert!(is_pending(&mut arrival).await);
    report(&observer, [R::EstablishesRendezvous]);
    assert!(is_pending(&mut arrival).await);
    report(&observer, [R::SelectsPoint(4)]);
    assert!(!is_pending(arrival).await);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_stalled_until_it_gets_further() {
    let long = Duration::from_secs(10);
    let moments = [
        R::LooksForDescriptor,
        R::FetchesDescriptor,
        R::NotFound,
        R::EstablishesRendezvous,
        R::Introduces(0),
    ];
    let observer = CallObserver::new(None);
    for step in moments {
        advance(long).await;
        assert!(observer.is_stalled(long), "before {step:?}");
        report(&observer, [step.clone()]);
        assert!(!observer.is_stalled(long), "{step:?}");
        advance(long - Duration::from_millis(1)).await;
        assert!(!observer.is_stalled(long), "{step:?}");
    }
    // Going from point to point is not progress.
    advance(long).await;
    report(
        &observer,
        [R::TimedOut(0), R::EstablishesRendezvous, R::Introduces(1)],
    );
    assert!(observer.is_stalled(long));
    // Solving a puzzle never counts as stalled.
    report(&observer, [R::SolvesPuzzle]);
    assert!(!observer.is_stalled(long));
    advance(long * 10).await;
    assert!(!observer.is_stalled(long));
    // The introduction after the puzzle gets the full time, though it is not further than the last.
    report(&observer, [R::Introduces(1)]);
    assert!(!observer.is_stalled(long));
    advance(long).await;
    assert!(observer.is_stalled(long));
}

#[test]
fn another_call_is_worthwhile_if_it_may_fetch_a_newer_descriptor() {
    use Failure as F;
    let none_fetched = || observer([R::LooksForDescriptor, R::Introduces(0)]);
    let fetched = || {
        observer([
            R::LooksForDescriptor,
            R::FetchesDescriptor,
            R::Introduces(0),
        ])
    };
    let second = |reports: &[R]| {
        let observer = CallObserver::new(Some(F::IntroductionFailed));
        report(&observer, reports.iter().cloned());
        observer
    };
    let cases = [
        (none_fetched(), F::IntroductionFailed, true),
        (none_fetched(), F::IntroductionTimedOut, true),
        (none_fetched(), F::RendezvousFailed, true),
        (none_fetched(), F::DescriptorNotFound, false),
        (fetched(), F::IntroductionFailed, true),
        (fetched(), F::IntroductionTimedOut, false),
        (fetched(), F::RendezvousFailed, false),
        (
            second(&[R::LooksForDescriptor]),
            F::IntroductionFailed,
            true,
        ),
        (
            second(&[R::FetchesDescriptor]),
            F::IntroductionFailed,
            false,
        ),
    ];
    for (number, (observer, failure, worth)) in cases.into_iter().enumerate() {
        assert_eq!(
            observer.is_worth_another_call(failure),
            worth,
            "case {number}"
        );
    }
}

#[test]
fn a_renewed_observer_keeps_the_earlier_failure() {
    let observer = CallObserver::new(Some(Failure::IntroductionFailed));
    report(&observer, [R::FetchesDescriptor, R::NotFound]);
    let renewed = observer.renew();
    assert!(!renewed.has_started());
    report(&renewed, [R::FetchesDescriptor]);
    assert_eq!(renewed.failure_so_far(), Failure::IntroductionFailed);
}

#[test]
fn a_client_without_vanguards_is_unready() {
    use tor_guardmgr::vanguards::VanguardMgrError;
    let error = VanguardMgrError::BootstrapRequired { action: "select" };
    let error = tor_circmgr::Error::VanguardMgrInit(error);
    let observer = observer([R::FetchesDescriptor, R::Directory(Box::new(error.into()))]);
    assert!(observer.is_client_unready());
    report(&observer, [R::FetchesDescriptor, R::NotFound]);
    assert!(!observer.is_client_unready());
}

#[test]
fn refusals_are_final_only_without_other_errors() {
    let observer = observer([R::LooksForDescriptor]);
    assert!(!observer.has_only_refusals());
    report(&observer, [R::Refused(0), R::Refused(1)]);
    assert!(observer.has_only_refusals());
    report(&observer, [R::TimedOut(2)]);
    assert!(!observer.has_only_refusals());
}

/// Sets a flag when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_task_that_a_call_spawns_belongs_to_the_call_and_can_be_aborted() {
    let runtime = runtime::current().expect("inside a tokio runtime");
    let observer = CallObserver::new(None);
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&ended));
    let (sender, mut begun) = tokio::sync::oneshot::channel();
    let work = async move {
        let _flag = flag;
        let is_own = current_observer().is_some();
        // Tasks that the worker spawns belong to the circuit manager.
        let (theirs, others) = tokio::sync::oneshot::channel();
        let spawned = runtime.spawn(async move {
            let _ = theirs.send(current_observer().is_some());
        });
        spawned.expect("the task is spawned");
        let _ = sender.send((is_own, others.await.expect("the task runs")));
        std::future::pending::<()>().await;
    };
    let spawner = runtime::current().expect("inside a tokio runtime");
    observer
        .observe(async { spawner.spawn(work).expect("the task is spawned") })
        .await;
    let (is_own, is_others) = (&mut begun).await.expect("the task runs");
    assert!(is_own);
    assert!(!is_others);
    assert!(!ended.load(Ordering::Relaxed));
    observer.abort_work();
    let over = async {
        while !ended.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), over)
        .await
        .expect("the task ends");
}

#[tokio::test]
async fn a_task_that_no_call_spawns_belongs_to_none() {
    let runtime = runtime::current().expect("inside a tokio runtime");
    let (sender, ran) = tokio::sync::oneshot::channel();
    let spawned = runtime.spawn(async move {
        let _ = sender.send(current_observer().is_some());
    });
    spawned.expect("the task is spawned");
    assert!(!ran.await.expect("the task runs"));
}
