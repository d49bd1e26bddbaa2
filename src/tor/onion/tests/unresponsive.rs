//! Tests of a service that does not answer on an open circuit.

use std::sync::atomic::Ordering;

use super::scripted_network::{IncomingCall, IncomingStream};
use super::*;

/// Opens a stream on a circuit that does not answer, and waits for the call for a new circuit.
async fn reuse_unresponsive(
    test: &mut TestOnions,
    with_early_data: bool,
) -> (Task, IncomingStream, IncomingCall) {
    assert_eq!(test.open(&user("a")).await, 1);
    let task = if with_early_data {
        test.connect_with_early_data(&user("a"))
    } else {
        test.connect(&user("a"))
    };
    let old = test.controller.next_stream().await;
    assert_eq!(old.optimistic.is_some(), with_early_data);
    let started = Instant::now();
    let new = test.controller.next_call().await;
    assert_eq!(started.elapsed(), OPEN_CIRCUIT_WAIT);
    assert_eq!(new.connector, 2);
    (task, old, new)
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_on_the_old_circuit_counts() {
    for with_early_data in [false, true] {
        let mut test = test_onions();
        let (task, old, _new) = reuse_unresponsive(&mut test, with_early_data).await;
        old.answer(Ok(()));
        assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn all_requests_use_the_new_circuit() {
    let mut test = test_onions();
    let (task, old, new) = reuse_unresponsive(&mut test, false).await;
    let another = test.connect(&user("a"));
    settle().await;
    test.controller.answer_with_new_circuit(new);
    let stream = test.controller.next_stream().await;
    let other = test.controller.next_stream().await;
    assert_eq!((stream.tunnel, other.tunnel), (2, 2));
    stream.answer(Ok(()));
    other.answer(Ok(()));
    assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(2)));
    assert_eq!(another.await.expect("no panic"), Ok(ScriptedStream(2)));
    old.answer(Ok(()));
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 2);
    assert_eq!((test.connectors(), test.slots()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn if_the_old_circuit_closes_the_new_one_is_used() {
    let mut test = test_onions();
    let (task, old, new) = reuse_unresponsive(&mut test, false).await;
    old.answer(Err(StreamError::CircuitGone));
    settle().await;
    test.controller.answer_with_new_circuit(new);
    assert_eq!(test.accept(task).await, 2);
}

#[tokio::test(start_paused = true)]
async fn if_no_new_circuit_can_be_built_the_old_one_is_used() {
    for with_early_data in [false, true] {
        let mut test = test_onions();
        let (task, old, new) = reuse_unresponsive(&mut test, with_early_data).await;
        new.fail(CallStage::Descriptor, Failure::NoCircuit);
        sleep(DEADLINE / 2).await;
        assert!(!task.is_finished());
        old.answer(Ok(()));
        assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_conclusive_failure_ends_the_wait_on_the_old_circuit() {
    let mut test = test_onions();
    let (task, _old, new) = reuse_unresponsive(&mut test, false).await;
    let now = Instant::now();
    new.fail(CallStage::Fetching, Failure::DescriptorNotFound);
    let failed = task.await.expect("no panic");
    assert_eq!(failed, Err(Failure::DescriptorNotFound));
    assert_eq!(now.elapsed(), Duration::ZERO);
    // The service may have got the optimistic data, and be slow to answer.
    for answers in [false, true] {
        let mut test = test_onions();
        let (task, old, new) = reuse_unresponsive(&mut test, true).await;
        let now = Instant::now();
        new.fail(CallStage::Fetching, Failure::DescriptorNotFound);
        if answers {
            sleep(OPEN_CIRCUIT_WAIT - SECOND).await;
            old.answer(Ok(()));
            assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(1)));
        } else {
            let failed = task.await.expect("no panic");
            assert_eq!(failed, Err(Failure::DescriptorNotFound));
            assert_eq!(now.elapsed(), OPEN_CIRCUIT_WAIT);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_early_data_no_stream_is_opened_on_the_new_circuit() {
    let mut test = test_onions();
    let (task, old, new) = reuse_unresponsive(&mut test, true).await;
    test.controller.answer_with_new_circuit(new);
    test.controller.expect_idle_for(DEADLINE / 2).await;
    old.answer(Ok(()));
    assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(1)));
    // If the old circuit closes, the failure of the new attempt counts if it blames the service.
    for (failure, answer) in [
        (Failure::DescriptorNotFound, Failure::DescriptorNotFound),
        (Failure::NoCircuit, Failure::CircuitDestroyed),
    ] {
        let mut test = test_onions();
        let (task, old, new) = reuse_unresponsive(&mut test, true).await;
        old.answer(Err(StreamError::CircuitGone));
        settle().await;
        new.fail(CallStage::Fetching, failure);
        assert_eq!(task.await.expect("no panic"), Err(answer));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unresponsive_service_is_a_timeout_at_the_deadline() {
    let mut test = test_onions();
    assert_eq!(test.open(&user("a")).await, 1);
    let started = Instant::now();
    let task = test.connect(&user("a"));
    let _old = test.controller.next_stream().await;
    let new = test.controller.next_call().await;
    test.controller.answer_with_new_circuit(new);
    let _new = test.controller.next_stream().await;
    let failed = task.await.expect("no panic");
    assert_eq!(failed, Err(Failure::ConnectionTimedOut));
    assert_eq!(started.elapsed(), DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn an_unresponsive_circuit_is_retired_once_for_all_requests() {
    let mut test = test_onions();
    assert_eq!(test.open(&user("a")).await, 1);
    let first = test.connect(&user("a"));
    let _old = test.controller.next_stream().await;
    sleep(A_WHILE).await;
    let second = test.connect(&user("a"));
    let _other = test.controller.next_stream().await;
    let new = test.controller.next_call().await;
    assert_eq!(new.connector, 2);
    // The old circuit was requested four seconds ago, but is not reused any more.
    let third = test.connect(&user("a"));
    // The second request retires it as well, and joins the running attempt.
    test.controller.expect_idle_for(OPEN_CIRCUIT_WAIT).await;
    test.controller.answer_with_new_circuit(new);
    for _ in 0..3 {
        let stream = test.controller.next_stream().await;
        assert_eq!(stream.tunnel, 2);
        stream.answer(Ok(()));
    }
    for task in [first, second, third] {
        assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(2)));
    }
    assert_eq!(test.connectors(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_older_attempt_does_not_affect_a_newer_one() {
    let mut test = test_onions();
    let task = test.connect(&user("a"));
    let call = test.controller.next_call().await;
    let (_, is_closed) = test.controller.answer_with_new_circuit(call);
    assert_eq!(test.accept(task).await, 1);
    let waiting = test.connect(&user("a"));
    let _old = test.controller.next_stream().await;
    is_closed.store(true, Ordering::Relaxed);
    let other = test.connect(&user("a"));
    let older = test.controller.next_call().await;
    older.enter(CallStage::Puzzle);
    let newer = test.controller.next_call().await;
    assert_eq!((older.connector, newer.connector), (1, 2));
    older.fail(CallStage::Fetching, Failure::DescriptorNotFound);
    let failed = other.await.expect("no panic");
    assert_eq!(failed, Err(Failure::DescriptorNotFound));
    assert_eq!(test.slots(), 1);
    test.controller.answer_with_new_circuit(newer);
    assert_eq!(test.accept(waiting).await, 2);
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 2);
    assert_eq!(test.connectors(), 2);
}
