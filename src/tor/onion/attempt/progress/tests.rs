use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{advance, timeout};

use super::*;
use crate::tor::onion::observer::reports::{HsReport as R, observer, report};

const MINUTES: Duration = Duration::from_secs(120);

/// Returns the progress of an attempt with these tries, started in this order.
fn progress(tries: &[&Arc<CallObserver>]) -> AttemptProgress {
    let progress = AttemptProgress::new(Instant::now() + MINUTES);
    for (number, observer) in tries.iter().enumerate() {
        progress.begin_try(number, observer);
    }
    progress
}

/// Returns a call that never ends, and a flag that is set when the call is dropped.
fn pending_call<'a>() -> (BoxFuture<'a, ()>, Arc<AtomicBool>) {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&dropped));
    let call = async move {
        let _flag = flag;
        std::future::pending::<()>().await
    };
    (call.boxed(), dropped)
}

/// Waits for a future, and returns after how many whole seconds it was ready.
async fn seconds(future: impl Future<Output = ()>) -> u64 {
    let begun = Instant::now();
    future.await;
    begun.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn the_call_that_has_got_furthest_decides_the_failure() {
    assert_eq!(progress(&[]).failure_so_far(), Failure::DirectoriesTimedOut);
    let fetching = observer([R::FetchesDescriptor]);
    let introducing = observer([R::Introduces(0)]);
    let waiting = observer([R::Acknowledged(0)]);
    let tries = [&fetching, &introducing];
    assert_eq!(
        progress(&tries).failure_so_far(),
        Failure::IntroductionTimedOut
    );
    let tries = [&introducing, &waiting, &fetching];
    assert_eq!(progress(&tries).failure_so_far(), Failure::RendezvousFailed);
    // The first of two that have got equally far.
    let refused = observer([R::Introduces(0), R::Refused(0)]);
    let tries = [&refused, &introducing];
    assert_eq!(
        progress(&tries).failure_so_far(),
        Failure::IntroductionFailed
    );
    // A proven failure holds for the whole attempt.
    let gone = observer([R::Introduces(0), R::Refused(0), R::Refused(0)]);
    let tries = [&waiting, &gone];
    assert_eq!(
        progress(&tries).failure_so_far(),
        Failure::IntroductionFailed
    );
}

#[tokio::test(start_paused = true)]
async fn the_earlier_call_counts_until_it_is_dropped() {
    let fetching = observer([R::FetchesDescriptor]);
    let progress = progress(&[&fetching]);
    assert!(!progress.is_earlier_call_acknowledged());
    let (call, dropped) = pending_call();
    let earlier_call = progress.track_earlier_call(call, observer([R::Acknowledged(0)]));
    assert_eq!(progress.failure_so_far(), Failure::RendezvousFailed);
    assert!(progress.is_earlier_call_acknowledged());
    // The call belongs to the first try itself.
    assert!(!progress.is_other_try_acknowledged(0));
    assert!(progress.is_other_try_acknowledged(1));
    drop(earlier_call);
    assert!(dropped.load(Ordering::Relaxed));
    assert!(!progress.is_earlier_call_acknowledged());
    assert!(!progress.is_other_try_acknowledged(1));
    assert_eq!(progress.failure_so_far(), Failure::DirectoriesTimedOut);
}

#[tokio::test(start_paused = true)]
async fn other_tries_are_checked_for_acknowledgement() {
    let fetching = observer([R::FetchesDescriptor]);
    let waiting = observer([R::Acknowledged(0)]);
    let progress = progress(&[&fetching, &waiting]);
    assert!(progress.is_other_try_acknowledged(0));
    assert!(!progress.is_other_try_acknowledged(1));
    waiting.set_finished();
    assert!(!progress.is_other_try_acknowledged(0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_runs_until_the_last_deadline_of_its_requests() {
    let progress = progress(&[]);
    let begun = Instant::now();
    progress.join(begun + MINUTES / 2);
    assert_eq!(progress.end_time(), begun + MINUTES);
    assert_eq!(seconds(progress.wait_for_end()).await, 120);

    let progress = self::progress(&[]);
    let begun = Instant::now();
    let (after, ()) = tokio::join!(seconds(progress.wait_for_end()), async {
        sleep(Duration::from_secs(100)).await;
        progress.join(begun + MINUTES * 2);
    });
    assert_eq!(after, 240);
}

#[tokio::test(start_paused = true)]
async fn another_try_is_started_when_the_newest_is_stalled() {
    let first = CallObserver::new(None);
    let progress = progress(&[&first]);
    assert_eq!(seconds(progress.wait_until_stalled()).await, 10);
    // With several tries, only after 15 seconds.
    let second = CallObserver::new(None);
    progress.begin_try(1, &second);
    assert_eq!(seconds(progress.wait_until_stalled()).await, 15);
    // After more than 10 seconds, at once if a request joins.
    let third = CallObserver::new(None);
    progress.begin_try(2, &third);
    let (after, ()) = tokio::join!(seconds(progress.wait_until_stalled()), async {
        sleep(Duration::from_secs(12)).await;
        progress.join(Instant::now());
    });
    assert_eq!(after, 12);
    // A try that makes progress is not stalled.
    let (after, ()) = tokio::join!(seconds(progress.wait_until_stalled()), async {
        report(&third, [R::FetchesDescriptor]);
    });
    assert_eq!(after, 15);
}

#[tokio::test(start_paused = true)]
async fn the_next_call_of_a_try_replaces_the_last_one() {
    let first = observer([R::Acknowledged(0)]);
    let progress = progress(&[&first]);
    let second = observer([R::FetchesDescriptor]);
    progress.replace_observer(0, &second);
    assert_eq!(progress.failure_so_far(), Failure::DirectoriesTimedOut);
    // An unknown number is ignored.
    progress.replace_observer(7, &first);
    assert_eq!(progress.failure_so_far(), Failure::DirectoriesTimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_point_at_which_a_try_was_stalled_is_avoided_for_half_a_minute() {
    let newest = observer([R::EstablishesRendezvous, R::SelectsPoint(3)]);
    let progress = progress(&[&observer([]), &newest]);
    assert!(!progress.is_unresponsive(3, 1));
    progress.record_unresponsive_points();
    report(&newest, [R::EstablishesRendezvous]);
    for number in [0, 1, 2] {
        assert!(progress.is_unresponsive(3, number), "try {number}");
        assert!(!progress.is_unresponsive(2, number), "try {number}");
    }
    advance(Duration::from_secs(29)).await;
    assert!(progress.is_unresponsive(3, 1));
    advance(Duration::from_secs(1)).await;
    assert!(!progress.is_unresponsive(3, 1));
    // Only the current point of the newest try is recorded.
    progress.record_unresponsive_points();
    assert!(!progress.is_unresponsive(3, 1));
}

#[tokio::test(start_paused = true)]
async fn several_unresponsive_points_are_remembered() {
    let newest = observer([R::EstablishesRendezvous, R::SelectsPoint(3)]);
    let progress = progress(&[&newest]);
    progress.record_unresponsive_points();
    advance(Duration::from_secs(10)).await;
    report(&newest, [R::EstablishesRendezvous, R::SelectsPoint(5)]);
    progress.record_unresponsive_points();
    assert!(progress.is_unresponsive(3, 0));
    assert!(progress.is_unresponsive(5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_point_at_which_the_earlier_call_is_stalled_is_recorded_too() {
    let newest = observer([R::EstablishesRendezvous, R::SelectsPoint(3)]);
    let progress = progress(&[&newest]);
    let earlier_call = observer([R::EstablishesRendezvous, R::SelectsPoint(5)]);
    let _earlier_call = progress.track_earlier_call(pending_call().0, earlier_call);
    progress.record_unresponsive_points();
    assert!(progress.is_unresponsive(3, 1));
    assert!(progress.is_unresponsive(5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_point_at_which_another_try_is_stalled_is_unresponsive() {
    let first = observer([R::EstablishesRendezvous, R::SelectsPoint(3)]);
    let progress = progress(&[&first, &observer([])]);
    advance(Duration::from_secs(9)).await;
    assert!(!progress.is_unresponsive(3, 1));
    advance(Duration::from_secs(1)).await;
    assert!(progress.is_unresponsive(3, 1));
    assert!(!progress.is_unresponsive(2, 1));
    assert!(
        !progress.is_unresponsive(3, 0),
        "the try itself is at this point"
    );
    report(&first, [R::Acknowledged(3)]);
    assert!(!progress.is_unresponsive(3, 1));
}

/// Returns the observer of a call with work that never ends, and a future that returns whether the
/// work is aborted within a second.
async fn call_with_work() -> (Arc<CallObserver>, impl Future<Output = bool>) {
    let observer = CallObserver::new(None);
    let (alive, ended) = tokio::sync::oneshot::channel::<()>();
    let work = async move {
        let _alive = alive;
        std::future::pending::<()>().await;
    };
    let adopted = observer
        .observe(async { CallObserver::adopt(Box::new(work).into()) })
        .await;
    tokio::spawn(adopted.expect("the work is adopted"));
    let ended = async move { timeout(Duration::from_secs(1), ended).await.is_ok() };
    (observer, ended)
}

#[tokio::test(start_paused = true)]
async fn a_new_try_aborts_the_work_of_the_one_with_its_number() {
    let (first, first_ended) = call_with_work().await;
    let (second, second_ended) = call_with_work().await;
    let progress = progress(&[&first]);
    progress.begin_try(0, &second);
    assert!(first_ended.await);
    assert!(!second_ended.await);
}

#[tokio::test(start_paused = true)]
async fn abort_work_aborts_the_work_of_all_tries() {
    let (first, first_ended) = call_with_work().await;
    let (second, second_ended) = call_with_work().await;
    progress(&[&first, &second]).abort_work();
    assert!(first_ended.await);
    assert!(second_ended.await);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_earlier_call_aborts_its_work() {
    let (earlier_call, ended) = call_with_work().await;
    let progress = progress(&[]);
    drop(progress.track_earlier_call(pending_call().0, earlier_call));
    assert!(ended.await);
}
