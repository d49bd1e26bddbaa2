use std::sync::atomic::{AtomicBool, Ordering};

use futures::task::SpawnExt as _;
use tokio::time::{advance, sleep, timeout};
use tor_error::debug_report;
use tor_hsclient::{DescriptorErrorDetail, FailedAttemptError};
use tor_netdoc::doc::hsdesc::HsDescError;
use tracing_subscriber::prelude::*;

use super::reports::{Report as R, emit, evidence, report};
use super::*;
use crate::tor::runtime;

/// Whether a future is still waiting after an hour of tokio's paused clock.
async fn waits(future: impl Future) -> bool {
    timeout(Duration::from_secs(3600), future).await.is_err()
}

/// What a future gives that has no reason to wait that long.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let hour = Duration::from_secs(3600);
    timeout(hour, future).await.expect("no reason to wait")
}

fn auth_missing() -> Box<DescriptorErrorDetail> {
    Box::new(DescriptorErrorDetail::Descriptor(
        HsDescError::MissingDecryptionKey,
    ))
}

#[test]
fn the_introduction_point_is_read_off_the_messages_that_name_one() {
    let place = |message| point_in(message);
    assert_eq!(
        place("hs conn to x: IPT #3: obtaining intro circuit"),
        Some(2)
    );
    assert_eq!(
        place("hs conn to x: RPT y IPT #12: making introduction"),
        Some(11)
    );
    assert_eq!(place("hs conn to x: setting up rendezvous point"), None);
    assert_eq!(place("hs conn to x: IPT #0: counted from one"), None);
    assert_eq!(place("hs conn to x: IPT #: no number"), None);
}

#[test]
fn each_step_is_told_by_its_span_or_its_message() {
    let evidence = Evidence::new(None);
    assert!(!evidence.worked());
    let steps = [
        (R::LooksForDescriptor, Stage::Descriptor),
        (R::AsksDirectory, Stage::Fetching),
        (R::EstablishesRendezvous, Stage::Rendezvous),
        (R::Solves, Stage::Puzzle),
        (R::Introduces(0), Stage::Introduction),
        (R::Acknowledged(0), Stage::Acknowledged),
    ];
    for (step, stage) in steps {
        report(&evidence, [step]);
        assert_eq!(evidence.furthest(), stage);
        assert!(evidence.worked());
        assert_eq!(evidence.is_acknowledged(), stage == Stage::Acknowledged);
    }
    // Going back takes nothing from how far it was.
    report(&evidence, [R::LooksForDescriptor]);
    assert_eq!(evidence.furthest(), Stage::Acknowledged);
    assert!(!evidence.is_acknowledged());
}

#[test]
fn an_attempt_that_rests_waits_for_nobody() {
    let evidence = evidence([R::Acknowledged(0)]);
    assert!(evidence.is_acknowledged());
    evidence.rest();
    assert!(!evidence.is_acknowledged());
}

#[test]
fn the_errors_of_events_decide_what_can_be_said() {
    let asked = [R::LooksForDescriptor, R::AsksDirectory];
    let evidence = evidence(asked.clone());
    assert_eq!(evidence.verdict_so_far(), Failure::DirectoriesTimedOut);
    report(&evidence, [R::NotFound]);
    assert_eq!(evidence.verdict_so_far(), Failure::DescriptorNotFound);
    assert_eq!(evidence.proven(), None);
    report(
        &evidence,
        asked.into_iter().chain([R::Directory(auth_missing())]),
    );
    assert_eq!(evidence.proven(), Some(Failure::ClientAuthMissing));

    let evidence = self::evidence([R::Introduces(0), R::TimedOut(0), R::Introduces(1)]);
    assert_eq!(evidence.verdict_so_far(), Failure::IntroductionTimedOut);
    report(&evidence, [R::Refused(1)]);
    assert_eq!(evidence.verdict_so_far(), Failure::IntroductionFailed);
}

/// The macros with which tor-hsclient reports hand on the error itself, not its text.
#[test]
fn an_error_that_is_reported_by_tor_error_keeps_its_type() {
    let evidence = Evidence::new(None);
    // Without the filter: these come from here.
    let subscriber = tracing_subscriber::registry().with(EvidenceLayer);
    tracing::subscriber::with_default(subscriber, || {
        ATTEMPT.sync_scope(Bound::Working(Arc::clone(&evidence)), || {
            let error = FailedAttemptError::IntroductionTimeout {
                intro_index: 0.into(),
            };
            debug_report!(&error, "hs conn to {}: attempt failed", "…");
            let error = auth_missing();
            debug_report!(&*error, "failed hsdir desc fetch for {}", "…");
        });
    });
    assert_eq!(evidence.verdict_so_far(), Failure::ClientAuthMissing);
    let evidence = &*evidence;
    assert!(!evidence.refused_only());
    assert_eq!(evidence.lock().findings.rendezvous.len(), 1);
}

#[test]
fn only_what_tor_hsclient_says_counts() {
    let evidence = Evidence::new(None);
    let subscriber = tracing_subscriber::registry().with(layer());
    tracing::subscriber::with_default(subscriber, || {
        ATTEMPT.sync_scope(Bound::Working(Arc::clone(&evidence)), || {
            drop(tracing::trace_span!("descriptor_ensure"));
            tracing::debug!("hs conn to …: IPT #1: awaiting rendezvous completion");
        });
        // Nobody's work, and the asking itself.
        emit(R::LooksForDescriptor);
        emit(R::Acknowledged(0));
        ATTEMPT.sync_scope(Bound::Asking(Arc::clone(&evidence)), || {
            emit(R::LooksForDescriptor);
            emit(R::Acknowledged(0));
        });
    });
    assert!(!evidence.worked());
    assert_eq!(evidence.silent_point(), None);
}

#[test]
fn a_point_is_silent_until_it_has_acknowledged() {
    let evidence = evidence([R::EstablishesRendezvous]);
    assert_eq!(evidence.silent_point(), None);
    report(&evidence, [R::TurnsToPoint(2)]);
    assert_eq!(evidence.silent_point(), Some(2));
    report(&evidence, [R::Introduces(2)]);
    assert_eq!(evidence.silent_point(), Some(2));
    report(&evidence, [R::Acknowledged(2)]);
    assert_eq!(evidence.silent_point(), None);
    // Another rendezvous: the point is chosen afterwards.
    report(&evidence, [R::EstablishesRendezvous]);
    assert_eq!(evidence.silent_point(), None);
}

#[tokio::test(start_paused = true)]
async fn a_conclusion_is_there_as_soon_as_it_is_proven() {
    let evidence = evidence([R::AsksDirectory]);
    assert!(waits(evidence.conclusion()).await);
    let (failure, ()) = tokio::join!(soon(evidence.conclusion()), async {
        tokio::task::yield_now().await;
        report(&evidence, [R::Directory(auth_missing())]);
    });
    assert_eq!(failure, Failure::ClientAuthMissing);
}

#[tokio::test(start_paused = true)]
async fn two_refusals_in_a_row_make_a_descriptor_doubtful() {
    let evidence = evidence([R::LooksForDescriptor, R::Refused(0)]);
    assert!(waits(evidence.doubted(Some(7))).await);
    report(&evidence, [R::TimedOut(1), R::Refused(2)]);
    assert!(waits(evidence.doubted(Some(7))).await);
    let (spare, ()) = tokio::join!(soon(evidence.doubted(Some(7))), async {
        tokio::task::yield_now().await;
        report(&evidence, [R::Refused(3)]);
    });
    assert_eq!(spare, 7);
    // Without a spare there is nothing to do about it.
    assert!(waits(evidence.doubted(None::<u8>)).await);
}

#[tokio::test(start_paused = true)]
async fn turning_to_a_point_to_avoid_is_noticed_and_being_at_it_is_not() {
    let evidence = evidence([R::EstablishesRendezvous, R::TurnsToPoint(1)]);
    let avoid = |point| point == 4;
    let turned = async |then: R| {
        let mut turned = std::pin::pin!(evidence.turned_to(avoid));
        assert!(waits(&mut turned).await);
        report(&evidence, [then]);
        !waits(turned).await
    };
    assert!(!turned(R::TurnsToPoint(2)).await);
    assert!(turned(R::TurnsToPoint(4)).await);
    // It is left to it while it is there, and not when it comes again.
    let banned = AtomicBool::new(false);
    let mut turned = std::pin::pin!(evidence.turned_to(|_| banned.load(Ordering::Relaxed)));
    assert!(waits(&mut turned).await);
    banned.store(true, Ordering::Relaxed);
    report(&evidence, [R::Introduces(4)]);
    assert!(waits(&mut turned).await);
    report(&evidence, [R::EstablishesRendezvous]);
    assert!(waits(&mut turned).await);
    report(&evidence, [R::TurnsToPoint(4)]);
    assert!(!waits(turned).await);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_stands_still_until_it_gets_further() {
    let long = Duration::from_secs(10);
    let moments = [
        R::LooksForDescriptor,
        R::AsksDirectory,
        R::NotFound,
        R::EstablishesRendezvous,
        R::Introduces(0),
    ];
    let evidence = Evidence::new(None);
    for step in moments {
        advance(long).await;
        assert!(evidence.stands_still(long), "before {step:?}");
        report(&evidence, [step.clone()]);
        assert!(!evidence.stands_still(long), "{step:?}");
        advance(long - Duration::from_millis(1)).await;
        assert!(!evidence.stands_still(long), "{step:?}");
    }
    // Going round from point to point is no progress.
    advance(long).await;
    report(
        &evidence,
        [R::TimedOut(0), R::EstablishesRendezvous, R::Introduces(1)],
    );
    assert!(evidence.stands_still(long));
    // A puzzle takes its time.
    report(&evidence, [R::Solves]);
    assert!(!evidence.stands_still(long));
    advance(long * 10).await;
    assert!(!evidence.stands_still(long));
    // The introduction after the puzzle gets its own time, though it is no further than the last one.
    report(&evidence, [R::Introduces(1)]);
    assert!(!evidence.stands_still(long));
    advance(long).await;
    assert!(evidence.stands_still(long));
}

#[test]
fn a_descriptor_fetched_anew_may_change_what_introduction_points_said() {
    use Failure as F;
    let none_fetched = || evidence([R::LooksForDescriptor, R::Introduces(0)]);
    let fetched = || evidence([R::LooksForDescriptor, R::AsksDirectory, R::Introduces(0)]);
    let second = |reports: &[R]| {
        let evidence = Evidence::new(Some(F::IntroductionFailed));
        report(&evidence, reports.iter().cloned());
        evidence
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
        (second(&[R::AsksDirectory]), F::IntroductionFailed, false),
    ];
    for (number, (evidence, failure, worth)) in cases.into_iter().enumerate() {
        assert_eq!(
            evidence.worth_another_round(failure),
            worth,
            "case {number}"
        );
    }
}

#[test]
fn an_attempt_that_begins_anew_knows_what_was_before_it() {
    let evidence = Evidence::new(Some(Failure::IntroductionFailed));
    report(&evidence, [R::AsksDirectory, R::NotFound]);
    let anew = evidence.anew();
    assert!(!anew.worked());
    report(&anew, [R::AsksDirectory]);
    assert_eq!(anew.verdict_so_far(), Failure::IntroductionFailed);
}

#[test]
fn a_client_without_vanguards_has_tried_nothing() {
    use tor_guardmgr::vanguards::VanguardMgrError;
    let error = VanguardMgrError::BootstrapRequired { action: "select" };
    let error = tor_circmgr::Error::VanguardMgrInit(error);
    let evidence = evidence([R::AsksDirectory, R::Directory(Box::new(error.into()))]);
    assert!(evidence.was_not_ready());
    report(&evidence, [R::AsksDirectory, R::NotFound]);
    assert!(!evidence.was_not_ready());
}

#[test]
fn refusals_alone_are_the_last_word() {
    let evidence = evidence([R::LooksForDescriptor]);
    assert!(!evidence.refused_only());
    report(&evidence, [R::Refused(0), R::Refused(1)]);
    assert!(evidence.refused_only());
    report(&evidence, [R::TimedOut(2)]);
    assert!(!evidence.refused_only());
}

/// Sets a flag when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_task_that_asking_spawns_is_the_attempts_and_ends_with_it() {
    let runtime = runtime::current().expect("inside of tokio");
    let evidence = Evidence::new(None);
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&ended));
    let (sender, mut begun) = tokio::sync::oneshot::channel();
    let work = async move {
        let _flag = flag;
        let mine = working().is_some();
        // What the work spawns is the circuit manager's.
        let (theirs, others) = tokio::sync::oneshot::channel();
        let spawned = runtime.spawn(async move {
            let _ = theirs.send(working().is_some());
        });
        spawned.expect("spawned");
        let _ = sender.send((mine, others.await.expect("ran")));
        std::future::pending::<()>().await;
    };
    let spawner = runtime::current().expect("inside of tokio");
    evidence
        .gather(async { spawner.spawn(work).expect("spawned") })
        .await;
    let (mine, others) = (&mut begun).await.expect("ran");
    assert!(mine);
    assert!(!others);
    assert!(!ended.load(Ordering::Relaxed));
    evidence.abandon();
    let over = async {
        while !ended.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), over).await.expect("ended");
}

#[tokio::test]
async fn a_task_that_no_attempt_spawns_is_nobodys() {
    let runtime = runtime::current().expect("inside of tokio");
    let (sender, ran) = tokio::sync::oneshot::channel();
    let spawned = runtime.spawn(async move {
        let _ = sender.send(working().is_some());
    });
    spawned.expect("spawned");
    assert!(!ran.await.expect("ran"));
}
