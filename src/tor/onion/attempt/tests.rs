//! Tests of attempts on a scripted network, with a paused clock.

use std::sync::Mutex;

use tokio::task::yield_now;
use tokio::time::sleep;

use super::*;
use crate::tor::onion::classify::{CallStage, FetchError, RendezvousError};
use crate::tor::onion::scripted_network::{
    IncomingCall, NetworkController, ScriptedNetwork, scripted_network,
};

const SERVICE: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
const SECOND: Duration = Duration::from_secs(1);
/// How long an only try is stalled before another is started.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// How long the newest of several tries is stalled before another is started.
const LATER_STALL_LIMIT: Duration = Duration::from_secs(15);
/// How long most requests wait.
const LONG_WAIT: Duration = Duration::from_secs(3000);

struct TestAttempt {
    controller: NetworkController,
    tokens: AttemptTokens,
    attempt: Attempt<ScriptedNetwork>,
    waiter: AttemptWaiter<ScriptedNetwork>,
    begun: Instant,
}

/// Launches an attempt, for a request that waits for `patience`.
fn launch(patience: Duration) -> TestAttempt {
    let (network, controller) = scripted_network();
    let launcher = AttemptLauncher::new(Arc::new(network));
    let tokens = new_tokens();
    let parameters = AttemptParameters {
        service: OnionAddress::parse(SERVICE).expect("an onion address"),
        keys: HsClientSecretKeys::none(),
        connector: launcher.network.new_connector().expect("a connector"),
        tokens,
    };
    let begun = Instant::now();
    let (attempt, waiter) = launcher.launch(parameters, begun + patience, |_, _| {});
    TestAttempt {
        controller,
        tokens,
        attempt,
        waiter,
        begun,
    }
}

/// Lets all tasks run until each of them waits.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

impl TestAttempt {
    /// Waits for the next call, and checks the index of its token.
    async fn next_call(&mut self, token: usize) -> IncomingCall {
        let call = self.controller.next_call().await;
        let index = self.tokens.iter().position(|t| *t == call.token);
        assert_eq!(index, Some(token));
        call
    }

    /// Waits for the end of the attempt, and returns its failure and how long it ran.
    async fn failure(&self) -> (Failure, Duration) {
        match self.waiter.wait().await {
            AttemptOutcome::Failed(failure) => (failure, self.begun.elapsed()),
            AttemptOutcome::Circuit(_) => panic!("the attempt ended with a circuit"),
        }
    }

    /// Waits for the end of the attempt, and returns the index of the token of its circuit.
    async fn token(&self) -> usize {
        match self.waiter.wait().await {
            AttemptOutcome::Circuit(circuit) => {
                let index = self.tokens.iter().position(|t| *t == circuit.token);
                index.expect("a token of the attempt")
            }
            AttemptOutcome::Failed(failure) => panic!("the attempt ended with {failure:?}"),
        }
    }

    fn has_ended(&self) -> bool {
        !self.attempt.is_running()
    }
}

fn refuse(call: &IncomingCall, point: usize) {
    call.observer.record(|observations| {
        observations.enter(CallStage::Rendezvous);
        observations.select_point(point);
        observations.enter(CallStage::Introduction);
        observations.record_rendezvous_error(RendezvousError::IntroductionRefused { point });
    });
}

fn select_point(call: &IncomingCall, point: usize) {
    call.observer.record(|observations| {
        observations.enter(CallStage::Rendezvous);
        observations.select_point(point);
    });
}

#[tokio::test(start_paused = true)]
async fn a_new_circuit_is_fresh_and_one_that_was_open_is_not() {
    for fresh in [true, false] {
        let mut test = launch(LONG_WAIT);
        let call = test.next_call(0).await;
        if fresh {
            test.controller.answer_with_new_circuit(call);
        } else {
            test.controller.answer_with_open_circuit(call);
        }
        match test.waiter.wait().await {
            AttemptOutcome::Circuit(circuit) => {
                assert_eq!(circuit.fresh, fresh);
                assert!(circuit.is_open() && !circuit.to_reused().fresh);
            }
            AttemptOutcome::Failed(failure) => panic!("{failure:?}"),
        }
        assert!(test.has_ended() && test.attempt.join(Instant::now() + LONG_WAIT).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_tries_are_replaced_except_the_first() {
    let mut test = launch(LONG_WAIT);
    let first = test.next_call(0).await;
    let second = test.next_call(1).await;
    assert_eq!(test.begun.elapsed(), STALL_LIMIT);
    let third = test.next_call(2).await;
    assert_eq!(test.begun.elapsed(), STALL_LIMIT + LATER_STALL_LIMIT);
    let fourth = test.next_call(1).await;
    assert_eq!(test.begun.elapsed(), STALL_LIMIT + 2 * LATER_STALL_LIMIT);
    settle().await;
    assert!(second.is_dropped() && !third.is_dropped());
    let _fifth = test.next_call(2).await;
    settle().await;
    assert!(third.is_dropped() && !fourth.is_dropped() && !first.is_dropped());
    // Any of them may succeed; the others are then dropped.
    test.controller.answer_with_new_circuit(fourth);
    assert_eq!(test.token().await, 1);
    settle().await;
    assert!(first.is_dropped());
}

#[tokio::test(start_paused = true)]
async fn progress_delays_the_next_try_and_solving_a_puzzle_is_progress() {
    let mut test = launch(LONG_WAIT);
    let call = test.next_call(0).await;
    for stage in [
        CallStage::Descriptor,
        CallStage::Fetching,
        CallStage::Rendezvous,
    ] {
        test.controller.expect_idle_for(STALL_LIMIT - SECOND).await;
        call.enter(stage);
    }
    // An earlier stage is not progress.
    test.controller.expect_idle_for(STALL_LIMIT / 2).await;
    call.enter(CallStage::Fetching);
    let second = test.next_call(1).await;
    assert!(test.begun.elapsed() <= 4 * STALL_LIMIT);
    for puzzle in [call, second] {
        puzzle.enter(CallStage::Puzzle);
        std::mem::forget(puzzle);
    }
    test.controller
        .expect_idle_for(10 * LATER_STALL_LIMIT)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_request_makes_the_next_try_start_sooner() {
    let mut test = launch(LONG_WAIT);
    let _first = test.next_call(0).await;
    let _second = test.next_call(1).await;
    let begun = Instant::now();
    sleep(STALL_LIMIT + SECOND).await;
    let _new = test
        .attempt
        .join(Instant::now() + LONG_WAIT)
        .expect("the attempt is running");
    let _third = test.next_call(2).await;
    assert!(begun.elapsed() < LATER_STALL_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn an_inconclusive_failure_waits_for_the_other_tries() {
    let mut test = launch(LONG_WAIT);
    let first = test.next_call(0).await;
    let second = test.next_call(1).await;
    first.fail(CallStage::Fetching, Failure::DescriptorNotFound);
    settle().await;
    assert!(!test.has_ended());
    test.controller.answer_with_new_circuit(second);
    assert_eq!(test.token().await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_most_informative_failure_of_several_tries_is_the_outcome() {
    for (one, other) in [
        (Failure::DescriptorNotFound, Failure::NoCircuit),
        (Failure::NoCircuit, Failure::DescriptorNotFound),
    ] {
        let mut test = launch(LONG_WAIT);
        let first = test.next_call(0).await;
        let second = test.next_call(1).await;
        first.fail(CallStage::Fetching, one);
        settle().await;
        second.fail(CallStage::Fetching, other);
        assert_eq!(test.failure().await.0, Failure::DescriptorNotFound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_proven_failure_of_one_try_ends_the_attempt() {
    let mut test = launch(LONG_WAIT);
    let first = test.next_call(0).await;
    let second = test.next_call(1).await;
    let missing = FetchError::AuthMissing;
    second
        .observer
        .record(|observations| observations.fetch_errors.push(missing));
    assert_eq!(test.failure().await.0, Failure::ClientAuthMissing);
    settle().await;
    assert!(first.is_dropped() && second.is_dropped());
}

#[tokio::test(start_paused = true)]
async fn after_refusals_an_acknowledged_try_gets_some_more_time() {
    for succeeds in [true, false] {
        let mut test = launch(LONG_WAIT);
        let first = test.next_call(0).await;
        first.enter(CallStage::Acknowledged);
        let second = test.next_call(1).await;
        // The second call, with a new descriptor, is refused as well.
        for call in [Some(second), None] {
            let call = match call {
                Some(call) => call,
                None => test.next_call(1).await,
            };
            call.enter(CallStage::Fetching);
            refuse(&call, 0);
            call.fail(CallStage::Introduction, Failure::IntroductionFailed);
        }
        settle().await;
        assert!(!test.has_ended());
        let refused = test.begun.elapsed();
        if succeeds {
            sleep(ACKNOWLEDGED_GRACE - SECOND).await;
            test.controller.answer_with_new_circuit(first);
            assert_eq!(test.token().await, 0);
        } else {
            let (failure, wait) = test.failure().await;
            assert_eq!(failure, Failure::IntroductionFailed);
            assert_eq!(wait - refused, ACKNOWLEDGED_GRACE);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_descriptor_is_fetched_again_when_its_introduction_points_refuse() {
    let mut test = launch(LONG_WAIT);
    let first = test.next_call(0).await;
    refuse(&first, 0);
    first.fail(CallStage::Introduction, Failure::IntroductionFailed);
    // The second call finds a cached descriptor, so there is a third, but no fourth.
    for _ in 0..2 {
        let again = test.next_call(0).await;
        refuse(&again, 0);
        again.fail(CallStage::Introduction, Failure::IntroductionFailed);
    }
    assert_eq!(test.failure().await.0, Failure::IntroductionFailed);
    // After a call with a fetched descriptor there is no further call.
    let mut test = launch(LONG_WAIT);
    for _ in 0..2 {
        let call = test.next_call(0).await;
        call.enter(CallStage::Fetching);
        refuse(&call, 0);
        call.fail(CallStage::Introduction, Failure::IntroductionFailed);
    }
    assert_eq!(test.failure().await.0, Failure::IntroductionFailed);
}

#[tokio::test(start_paused = true)]
async fn two_refusals_start_the_second_call_beside_the_first() {
    for first_succeeds in [true, false] {
        let mut test = launch(LONG_WAIT);
        let first = test.next_call(0).await;
        refuse(&first, 0);
        settle().await;
        test.controller.expect_idle_for(Duration::ZERO).await;
        refuse(&first, 1);
        let second = test.next_call(MAX_TRIES).await;
        assert!(!first.is_dropped());
        let (winner, token, loser) = if first_succeeds {
            (first, 0, second)
        } else {
            (second, MAX_TRIES, first)
        };
        test.controller.answer_with_new_circuit(winner);
        assert_eq!(test.token().await, token);
        settle().await;
        assert!(loser.is_dropped());
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_avoids_a_point_at_which_another_is_stalled() {
    let mut test = launch(LONG_WAIT);
    let first = test.next_call(0).await;
    select_point(&first, 2);
    let mut second = test.next_call(1).await;
    for _ in 0..5 {
        select_point(&second, 2);
        let again = test.next_call(1).await;
        settle().await;
        assert!(second.is_dropped());
        second = again;
    }
    // After so many changes, the try stays at the point.
    select_point(&second, 2);
    settle().await;
    test.controller.expect_idle_for(SECOND).await;
    assert!(!second.is_dropped());
    // The point is also avoided for a while after the other try has left it.
    let mut test = launch(LONG_WAIT);
    let first = test.next_call(0).await;
    select_point(&first, 2);
    let second = test.next_call(1).await;
    select_point(&first, 1);
    select_point(&second, 2);
    let _again = test.next_call(1).await;
    // Other points are not avoided.
    let mut test = launch(LONG_WAIT);
    let first = test.next_call(0).await;
    select_point(&first, 2);
    let second = test.next_call(1).await;
    select_point(&second, 1);
    settle().await;
    assert!(!second.is_dropped());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_ready_is_called_again_after_a_moment() {
    let mut test = launch(LONG_WAIT);
    for _ in 0..3 {
        let call = test.next_call(0).await;
        let error = FetchError::NotReady;
        call.observer
            .record(|observations| observations.fetch_errors.push(error));
        call.fail(CallStage::Fetching, Failure::DirectoriesUnreachable);
    }
    let call = test.next_call(0).await;
    assert!(test.begun.elapsed() < SECOND);
    test.controller.answer_with_new_circuit(call);
    assert_eq!(test.token().await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_runs_until_the_latest_deadline_of_its_requests() {
    let mut test = launch(LONG_WAIT);
    let call = test.next_call(0).await;
    call.enter(CallStage::Puzzle);
    let longest = test
        .attempt
        .join(Instant::now() + 2 * LONG_WAIT)
        .expect("the attempt is running");
    assert_eq!(
        test.failure().await,
        (Failure::IntroductionTimedOut, 2 * LONG_WAIT)
    );
    drop(longest);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_runs_for_a_while_after_all_requests_have_left() {
    let test = launch(LONG_WAIT);
    let TestAttempt {
        mut controller,
        attempt,
        waiter,
        begun,
        ..
    } = test;
    let call = controller.next_call().await;
    call.enter(CallStage::Puzzle);
    sleep(MIN_LIFETIME - SECOND).await;
    drop(waiter);
    settle().await;
    assert!(attempt.is_running() && !call.is_dropped());
    sleep(SECOND).await;
    settle().await;
    assert!(!attempt.is_running() && call.is_dropped());
    assert_eq!(begun.elapsed(), MIN_LIFETIME);
}

#[tokio::test(start_paused = true)]
async fn the_table_gets_the_outcome_before_the_waiters() {
    let (network, mut controller) = scripted_network();
    let launcher = AttemptLauncher::new(Arc::new(network));
    let parameters = AttemptParameters {
        service: OnionAddress::parse(SERVICE).expect("an onion address"),
        keys: HsClientSecretKeys::none(),
        connector: launcher.network.new_connector().expect("a connector"),
        tokens: new_tokens(),
    };
    let recorded = Arc::new(Mutex::new(None));
    let record = Arc::clone(&recorded);
    let (_, waiter) = launcher.launch(
        parameters,
        Instant::now() + LONG_WAIT,
        move |attempt, outcome| {
            let has_failed = matches!(outcome, AttemptOutcome::Failed(Failure::DescriptorNotFound));
            *record.lock().expect("not poisoned") = Some((attempt.is_running(), has_failed));
        },
    );
    let call = controller.next_call().await;
    call.fail(CallStage::Fetching, Failure::DescriptorNotFound);
    assert!(matches!(
        waiter.wait().await,
        AttemptOutcome::Failed(Failure::DescriptorNotFound)
    ));
    // Requests that came in between could still join.
    assert_eq!(*recorded.lock().expect("not poisoned"), Some((true, true)));
}
