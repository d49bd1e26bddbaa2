use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{advance, timeout};

use super::*;
use crate::tor::evidence::reports::{Report as R, evidence, report};

const MINUTES: Duration = Duration::from_secs(120);

/// The progress of an attempt with these lines, begun in this order.
fn progress(lines: &[&Arc<Evidence>]) -> Progress {
    let progress = Progress::new(Instant::now() + MINUTES);
    for (number, evidence) in lines.iter().enumerate() {
        progress.begin(number, evidence);
    }
    progress
}

/// A round that waits for its circuit, and whether it was dropped.
fn round<'a>() -> (BoxFuture<'a, ()>, Arc<AtomicBool>) {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&dropped));
    let round = async move {
        let _flag = flag;
        std::future::pending::<()>().await
    };
    (round.boxed(), dropped)
}

/// After how many whole seconds a future is done.
async fn seconds(future: impl Future<Output = ()>) -> u64 {
    let begun = Instant::now();
    future.await;
    begun.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn the_line_that_has_got_furthest_has_the_word() {
    assert_eq!(progress(&[]).verdict_so_far(), Failure::DirectoriesTimedOut);
    let asking = evidence([R::AsksDirectory]);
    let introducing = evidence([R::Introduces(0)]);
    let waiting = evidence([R::Acknowledged(0)]);
    let lines = [&asking, &introducing];
    assert_eq!(
        progress(&lines).verdict_so_far(),
        Failure::IntroductionTimedOut
    );
    let lines = [&introducing, &waiting, &asking];
    assert_eq!(progress(&lines).verdict_so_far(), Failure::RendezvousFailed);
    // Of two that are as far, the first.
    let refused = evidence([R::Introduces(0), R::Refused(0)]);
    let lines = [&refused, &introducing];
    assert_eq!(
        progress(&lines).verdict_so_far(),
        Failure::IntroductionFailed
    );
    // What is proven holds for all.
    let gone = evidence([R::Introduces(0), R::Refused(0), R::Refused(0)]);
    let lines = [&waiting, &gone];
    assert_eq!(
        progress(&lines).verdict_so_far(),
        Failure::IntroductionFailed
    );
}

#[tokio::test(start_paused = true)]
async fn a_round_beside_counts_until_it_is_dropped() {
    let asking = evidence([R::AsksDirectory]);
    let progress = progress(&[&asking]);
    assert!(!progress.older_is_acknowledged());
    let (round, dropped) = round();
    let older = progress.beside(round, evidence([R::Acknowledged(0)]));
    assert_eq!(progress.verdict_so_far(), Failure::RendezvousFailed);
    assert!(progress.older_is_acknowledged());
    // It is the first line's own.
    assert!(!progress.another_is_acknowledged(0));
    assert!(progress.another_is_acknowledged(1));
    drop(older);
    assert!(dropped.load(Ordering::Relaxed));
    assert!(!progress.older_is_acknowledged());
    assert!(!progress.another_is_acknowledged(1));
    assert_eq!(progress.verdict_so_far(), Failure::DirectoriesTimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_line_waits_for_the_service_beside_the_others() {
    let asking = evidence([R::AsksDirectory]);
    let waiting = evidence([R::Acknowledged(0)]);
    let progress = progress(&[&asking, &waiting]);
    assert!(progress.another_is_acknowledged(0));
    assert!(!progress.another_is_acknowledged(1));
    waiting.rest();
    assert!(!progress.another_is_acknowledged(0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_goes_on_until_the_last_of_those_who_wait_has_gone() {
    let progress = progress(&[]);
    let begun = Instant::now();
    progress.join(begun + MINUTES / 2);
    assert_eq!(progress.until(), begun + MINUTES);
    assert_eq!(seconds(progress.end()).await, 120);

    let progress = self::progress(&[]);
    let begun = Instant::now();
    let (after, ()) = tokio::join!(seconds(progress.end()), async {
        sleep(Duration::from_secs(100)).await;
        progress.join(begun + MINUTES * 2);
    });
    assert_eq!(after, 240);
}

#[tokio::test(start_paused = true)]
async fn another_line_is_begun_when_the_newest_stands_still() {
    let first = Evidence::new(None);
    let progress = progress(&[&first]);
    assert_eq!(seconds(progress.standstill()).await, 10);
    // With several, only after 15 seconds.
    let second = Evidence::new(None);
    progress.begin(1, &second);
    assert_eq!(seconds(progress.standstill()).await, 15);
    // And at once if somebody new waits, as these are more than 10.
    let third = Evidence::new(None);
    progress.begin(2, &third);
    let (after, ()) = tokio::join!(seconds(progress.standstill()), async {
        sleep(Duration::from_secs(12)).await;
        progress.join(Instant::now());
    });
    assert_eq!(after, 12);
    // A line that moves is left alone.
    let (after, ()) = tokio::join!(seconds(progress.standstill()), async {
        report(&third, [R::AsksDirectory]);
    });
    assert_eq!(after, 15);
}

#[tokio::test(start_paused = true)]
async fn a_new_round_of_a_line_counts_in_its_place() {
    let first = evidence([R::Acknowledged(0)]);
    let progress = progress(&[&first]);
    let second = evidence([R::AsksDirectory]);
    progress.go_on(0, &second);
    assert_eq!(progress.verdict_so_far(), Failure::DirectoriesTimedOut);
    // A line of no such number is nobody's.
    progress.go_on(7, &first);
    assert_eq!(progress.verdict_so_far(), Failure::DirectoriesTimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_point_at_which_a_line_stood_still_is_passed_over_for_half_a_minute() {
    let newest = evidence([R::EstablishesRendezvous, R::TurnsToPoint(3)]);
    let progress = progress(&[&evidence([]), &newest]);
    assert!(!progress.is_silent(3, 1));
    progress.note_silence();
    report(&newest, [R::EstablishesRendezvous]);
    for number in [0, 1, 2] {
        assert!(progress.is_silent(3, number), "line {number}");
        assert!(!progress.is_silent(2, number), "line {number}");
    }
    advance(Duration::from_secs(29)).await;
    assert!(progress.is_silent(3, 1));
    advance(Duration::from_secs(1)).await;
    assert!(!progress.is_silent(3, 1));
    // Where the newest line stands, and no other.
    progress.note_silence();
    assert!(!progress.is_silent(3, 1));
}

#[tokio::test(start_paused = true)]
async fn points_are_remembered_beside_each_other() {
    let newest = evidence([R::EstablishesRendezvous, R::TurnsToPoint(3)]);
    let progress = progress(&[&newest]);
    progress.note_silence();
    advance(Duration::from_secs(10)).await;
    report(&newest, [R::EstablishesRendezvous, R::TurnsToPoint(5)]);
    progress.note_silence();
    assert!(progress.is_silent(3, 0));
    assert!(progress.is_silent(5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_point_at_which_a_round_beside_stands_still_is_noted_too() {
    let newest = evidence([R::EstablishesRendezvous, R::TurnsToPoint(3)]);
    let progress = progress(&[&newest]);
    let older = evidence([R::EstablishesRendezvous, R::TurnsToPoint(5)]);
    let _older = progress.beside(round().0, older);
    progress.note_silence();
    assert!(progress.is_silent(3, 1));
    assert!(progress.is_silent(5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_point_at_which_another_line_stands_still_is_silent() {
    let first = evidence([R::EstablishesRendezvous, R::TurnsToPoint(3)]);
    let progress = progress(&[&first, &evidence([])]);
    advance(Duration::from_secs(9)).await;
    assert!(!progress.is_silent(3, 1));
    advance(Duration::from_secs(1)).await;
    assert!(progress.is_silent(3, 1));
    assert!(!progress.is_silent(2, 1));
    assert!(!progress.is_silent(3, 0), "it is the line itself");
    report(&first, [R::Acknowledged(3)]);
    assert!(!progress.is_silent(3, 1));
}

/// An attempt's work that goes on until it is ended, and whether it was.
async fn worked_on() -> (Arc<Evidence>, impl Future<Output = bool>) {
    let evidence = Evidence::new(None);
    let (alive, ended) = tokio::sync::oneshot::channel::<()>();
    let work = async move {
        let _alive = alive;
        std::future::pending::<()>().await;
    };
    let adopted = evidence
        .gather(async { Evidence::adopt(Box::new(work).into()) })
        .await;
    tokio::spawn(adopted.expect("adopted"));
    let ended = async move { timeout(Duration::from_secs(1), ended).await.is_ok() };
    (evidence, ended)
}

#[tokio::test(start_paused = true)]
async fn a_line_ends_the_work_of_the_one_in_its_place() {
    let (first, first_ended) = worked_on().await;
    let (second, second_ended) = worked_on().await;
    let progress = progress(&[&first]);
    progress.begin(0, &second);
    assert!(first_ended.await);
    assert!(!second_ended.await);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_attempt_ends_the_work_of_all_lines() {
    let (first, first_ended) = worked_on().await;
    let (second, second_ended) = worked_on().await;
    progress(&[&first, &second]).abandon();
    assert!(first_ended.await);
    assert!(second_ended.await);
}

#[tokio::test(start_paused = true)]
async fn a_round_beside_ends_its_work_when_it_is_dropped() {
    let (older, ended) = worked_on().await;
    let progress = progress(&[]);
    drop(progress.beside(round().0, older));
    assert!(ended.await);
}
