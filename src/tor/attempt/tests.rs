//! Attempts on a scripted network, with a paused clock.

use std::sync::Mutex;

use tokio::task::yield_now;
use tokio::time::sleep;

use super::*;
use crate::tor::onion::script::{Called, Director, Script, script};
use crate::tor::verdict::{DescriptorClue, RendezvousClue, Stage};

const SERVICE: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
const SECOND: Duration = Duration::from_secs(1);
/// How long the only line stands still before another is begun.
const STALLED: Duration = Duration::from_secs(10);
/// The same for the newest of several.
const STALLED_AGAIN: Duration = Duration::from_secs(15);
/// Until when a request waits that has much time.
const PATIENT: Duration = Duration::from_secs(3000);

struct World {
    director: Director,
    tokens: Tokens,
    attempt: Attempt<Script>,
    waiter: Waiter<Script>,
    begun: Instant,
}

/// A network on which an attempt has just begun, for a request that waits for so long.
fn attempt(patience: Duration) -> World {
    let (script, director) = script();
    let launcher = Launcher::new(Arc::new(script));
    let tokens = fresh_tokens();
    let assignment = Assignment {
        service: OnionAddress::parse(SERVICE).expect("a good address"),
        keys: HsClientSecretKeys::none(),
        connector: launcher.network.connector().expect("a script has one"),
        tokens,
    };
    let begun = Instant::now();
    let (attempt, waiter) = launcher.launch(assignment, begun + patience, |_, _| {});
    World {
        director,
        tokens,
        attempt,
        waiter,
        begun,
    }
}

/// Lets all tasks do what they can do now.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

impl World {
    /// The next call, for this one of the tokens.
    async fn called(&mut self, token: usize) -> Called {
        let called = self.director.called().await;
        let place = self.tokens.iter().position(|t| *t == called.token);
        assert_eq!(place, Some(token));
        called
    }

    /// The failure it ended with, and when.
    async fn failure(&self) -> (Failure, Duration) {
        match self.waiter.ended().await {
            AttemptOutcome::Failed(failure) => (failure, self.begun.elapsed()),
            AttemptOutcome::Circuit(_) => panic!("it ended with a circuit"),
        }
    }

    /// The token of the circuit it ended with.
    async fn token(&self) -> usize {
        match self.waiter.ended().await {
            AttemptOutcome::Circuit(circuit) => {
                let place = self.tokens.iter().position(|t| *t == circuit.token);
                place.expect("one of its own")
            }
            AttemptOutcome::Failed(failure) => panic!("it ended with {failure:?}"),
        }
    }

    fn is_over(&self) -> bool {
        !self.attempt.is_running()
    }
}

fn refuse(called: &Called, point: usize) {
    called.evidence.note(|findings| {
        findings.enter(Stage::Rendezvous);
        findings.turn_to(point);
        findings.enter(Stage::Introduction);
        findings.note(RendezvousClue::IntroductionRefused { point });
    });
}

fn turn_to(called: &Called, point: usize) {
    called.evidence.note(|findings| {
        findings.enter(Stage::Rendezvous);
        findings.turn_to(point);
    });
}

#[tokio::test(start_paused = true)]
async fn a_new_circuit_is_fresh_and_one_that_was_open_is_not() {
    for fresh in [true, false] {
        let mut world = attempt(PATIENT);
        let called = world.called(0).await;
        if fresh {
            world.director.find(called);
        } else {
            world.director.hand_out(called);
        }
        match world.waiter.ended().await {
            AttemptOutcome::Circuit(circuit) => {
                assert_eq!(circuit.fresh, fresh);
                assert!(circuit.is_open() && !circuit.for_others().fresh);
            }
            AttemptOutcome::Failed(failure) => panic!("{failure:?}"),
        }
        assert!(world.is_over() && world.attempt.join(Instant::now() + PATIENT).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_stands_still_gets_others_beside_it_and_the_first_is_kept() {
    let mut world = attempt(PATIENT);
    let first = world.called(0).await;
    let second = world.called(1).await;
    assert_eq!(world.begun.elapsed(), STALLED);
    let third = world.called(2).await;
    assert_eq!(world.begun.elapsed(), STALLED + STALLED_AGAIN);
    let fourth = world.called(1).await;
    assert_eq!(world.begun.elapsed(), STALLED + 2 * STALLED_AGAIN);
    settle().await;
    assert!(second.is_given_up() && !third.is_given_up());
    let _fifth = world.called(2).await;
    settle().await;
    assert!(third.is_given_up() && !fourth.is_given_up() && !first.is_given_up());
    // Any of them may lead there; the others are then given up.
    world.director.find(fourth);
    assert_eq!(world.token().await, 1);
    settle().await;
    assert!(first.is_given_up());
}

#[tokio::test(start_paused = true)]
async fn progress_puts_off_the_next_line_and_solving_a_puzzle_is_progress() {
    let mut world = attempt(PATIENT);
    let called = world.called(0).await;
    for stage in [Stage::Descriptor, Stage::Fetching, Stage::Rendezvous] {
        world.director.nothing_for(STALLED - SECOND).await;
        called.reach(stage);
    }
    // Back to where it was is none.
    world.director.nothing_for(STALLED / 2).await;
    called.reach(Stage::Fetching);
    let beside = world.called(1).await;
    assert!(world.begun.elapsed() <= 4 * STALLED);
    for puzzle in [called, beside] {
        puzzle.reach(Stage::Puzzle);
        std::mem::forget(puzzle);
    }
    world.director.nothing_for(10 * STALLED_AGAIN).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_request_makes_the_next_line_come_sooner() {
    let mut world = attempt(PATIENT);
    let _first = world.called(0).await;
    let _second = world.called(1).await;
    let begun = Instant::now();
    sleep(STALLED + SECOND).await;
    let _new = world
        .attempt
        .join(Instant::now() + PATIENT)
        .expect("it goes on");
    let _third = world.called(2).await;
    assert!(begun.elapsed() < STALLED_AGAIN);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_not_proven_waits_for_the_other_lines() {
    let mut world = attempt(PATIENT);
    let first = world.called(0).await;
    let second = world.called(1).await;
    first.fail(Stage::Fetching, Failure::DescriptorNotFound);
    settle().await;
    assert!(!world.is_over());
    world.director.find(second);
    assert_eq!(world.token().await, 1);
}

#[tokio::test(start_paused = true)]
async fn of_the_failures_of_several_lines_the_more_telling_is_the_answer() {
    for (one, other) in [
        (Failure::DescriptorNotFound, Failure::NoCircuit),
        (Failure::NoCircuit, Failure::DescriptorNotFound),
    ] {
        let mut world = attempt(PATIENT);
        let first = world.called(0).await;
        let second = world.called(1).await;
        first.fail(Stage::Fetching, one);
        settle().await;
        second.fail(Stage::Fetching, other);
        assert_eq!(world.failure().await.0, Failure::DescriptorNotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_proven_failure_ends_the_attempt_whatever_the_other_lines_do() {
    let mut world = attempt(PATIENT);
    let first = world.called(0).await;
    let second = world.called(1).await;
    let missing = DescriptorClue::AuthMissing;
    second
        .evidence
        .note(|findings| findings.descriptor.push(missing));
    assert_eq!(world.failure().await.0, Failure::ClientAuthMissing);
    settle().await;
    assert!(first.is_given_up() && second.is_given_up());
}

#[tokio::test(start_paused = true)]
async fn refusals_leave_a_line_that_waits_for_the_service_some_time() {
    for comes in [true, false] {
        let mut world = attempt(PATIENT);
        let first = world.called(0).await;
        first.reach(Stage::Acknowledged);
        let second = world.called(1).await;
        // Another round with a descriptor fetched anew, refused as well.
        for round in [Some(second), None] {
            let round = match round {
                Some(round) => round,
                None => world.called(1).await,
            };
            round.reach(Stage::Fetching);
            refuse(&round, 0);
            round.fail(Stage::Introduction, Failure::IntroductionFailed);
        }
        settle().await;
        assert!(!world.is_over());
        let refused = world.begun.elapsed();
        if comes {
            sleep(GRACE - SECOND).await;
            world.director.find(first);
            assert_eq!(world.token().await, 0);
        } else {
            let (failure, ended) = world.failure().await;
            assert_eq!(failure, Failure::IntroductionFailed);
            assert_eq!(ended - refused, GRACE);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_descriptor_is_fetched_anew_when_its_introduction_points_refuse() {
    let mut world = attempt(PATIENT);
    let first = world.called(0).await;
    refuse(&first, 0);
    first.fail(Stage::Introduction, Failure::IntroductionFailed);
    // The second finds one that was left over, so there is a third, and no more.
    for _ in 0..2 {
        let again = world.called(0).await;
        refuse(&again, 0);
        again.fail(Stage::Introduction, Failure::IntroductionFailed);
    }
    assert_eq!(world.failure().await.0, Failure::IntroductionFailed);
    // One that was fetched is the last word.
    let mut world = attempt(PATIENT);
    for _ in 0..2 {
        let round = world.called(0).await;
        round.reach(Stage::Fetching);
        refuse(&round, 0);
        round.fail(Stage::Introduction, Failure::IntroductionFailed);
    }
    assert_eq!(world.failure().await.0, Failure::IntroductionFailed);
}

#[tokio::test(start_paused = true)]
async fn two_refusals_begin_the_second_round_beside_the_first() {
    for first_finds in [true, false] {
        let mut world = attempt(PATIENT);
        let first = world.called(0).await;
        refuse(&first, 0);
        settle().await;
        world.director.nothing_for(Duration::ZERO).await;
        refuse(&first, 1);
        let second = world.called(LINES).await;
        assert!(!first.is_given_up());
        let (found, token, other) = if first_finds {
            (first, 0, second)
        } else {
            (second, LINES, first)
        };
        world.director.find(found);
        assert_eq!(world.token().await, token);
        settle().await;
        assert!(other.is_given_up());
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_turns_away_from_a_point_at_which_another_stands_still() {
    let mut world = attempt(PATIENT);
    let first = world.called(0).await;
    turn_to(&first, 2);
    let mut line = world.called(1).await;
    for _ in 0..5 {
        turn_to(&line, 2);
        let again = world.called(1).await;
        settle().await;
        assert!(line.is_given_up());
        line = again;
    }
    // It has to be there at some time.
    turn_to(&line, 2);
    settle().await;
    world.director.nothing_for(SECOND).await;
    assert!(!line.is_given_up());
    // So it is for a while after the other has left it.
    let mut world = attempt(PATIENT);
    let first = world.called(0).await;
    turn_to(&first, 2);
    let line = world.called(1).await;
    turn_to(&first, 1);
    turn_to(&line, 2);
    let _again = world.called(1).await;
    // Another point is another matter.
    let mut world = attempt(PATIENT);
    let first = world.called(0).await;
    turn_to(&first, 2);
    let line = world.called(1).await;
    turn_to(&line, 1);
    settle().await;
    assert!(!line.is_given_up());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_ready_is_asked_again_in_a_moment() {
    let mut world = attempt(PATIENT);
    for _ in 0..3 {
        let called = world.called(0).await;
        let clue = DescriptorClue::NotReady;
        called
            .evidence
            .note(|findings| findings.descriptor.push(clue));
        called.fail(Stage::Fetching, Failure::DirectoriesUnreachable);
    }
    let called = world.called(0).await;
    assert!(world.begun.elapsed() < SECOND);
    world.director.find(called);
    assert_eq!(world.token().await, 0);
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_for_those_who_wait_longest() {
    let mut world = attempt(PATIENT);
    let called = world.called(0).await;
    called.reach(Stage::Puzzle);
    let longest = world
        .attempt
        .join(Instant::now() + 2 * PATIENT)
        .expect("it goes on");
    assert_eq!(
        world.failure().await,
        (Failure::IntroductionTimedOut, 2 * PATIENT)
    );
    drop(longest);
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_for_a_while_after_everybody_has_left() {
    let world = attempt(PATIENT);
    let World {
        mut director,
        attempt,
        waiter,
        begun,
        ..
    } = world;
    let called = director.called().await;
    called.reach(Stage::Puzzle);
    sleep(LEAST_LIFE - SECOND).await;
    drop(waiter);
    settle().await;
    assert!(attempt.is_running() && !called.is_given_up());
    sleep(SECOND).await;
    settle().await;
    assert!(!attempt.is_running() && called.is_given_up());
    assert_eq!(begun.elapsed(), LEAST_LIFE);
}

#[tokio::test(start_paused = true)]
async fn everybody_learns_the_outcome_after_the_table_has() {
    let (script, mut director) = script();
    let launcher = Launcher::new(Arc::new(script));
    let assignment = Assignment {
        service: OnionAddress::parse(SERVICE).expect("a good address"),
        keys: HsClientSecretKeys::none(),
        connector: launcher.network.connector().expect("a script has one"),
        tokens: fresh_tokens(),
    };
    let noted = Arc::new(Mutex::new(None));
    let note = Arc::clone(&noted);
    let (_, waiter) = launcher.launch(
        assignment,
        Instant::now() + PATIENT,
        move |attempt, outcome| {
            let failed = matches!(outcome, AttemptOutcome::Failed(Failure::DescriptorNotFound));
            *note.lock().expect("not poisoned") = Some((attempt.is_running(), failed));
        },
    );
    let called = director.called().await;
    called.fail(Stage::Fetching, Failure::DescriptorNotFound);
    assert!(matches!(
        waiter.ended().await,
        AttemptOutcome::Failed(Failure::DescriptorNotFound)
    ));
    // Whoever came in between was still let in.
    assert_eq!(*noted.lock().expect("not poisoned"), Some((true, true)));
}
