//! Tests of the reuse of circuits, and of optimistic data on them.

use std::sync::atomic::Ordering;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_recently_requested_circuit_is_reused_without_a_call() {
    let mut test = test_onions();
    assert_eq!(test.open(&user("a")).await, 1);
    sleep(Duration::from_millis(4_999)).await;
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 1);
    assert_eq!(test.key_reads(), 1);
    sleep(Duration::from_millis(1)).await;
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 1);
    assert_eq!(test.key_reads(), 2);
    // That request counts as well.
    sleep(Duration::from_secs(4)).await;
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 1);
    assert_eq!((test.key_reads(), test.connectors()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cached_circuit_that_is_closed_is_not_used() {
    let mut test = test_onions();
    let task = test.connect(&user("a"));
    let call = test.controller.next_call().await;
    let (_, is_closed) = test.controller.answer_with_new_circuit(call);
    assert_eq!(test.accept(task).await, 1);
    is_closed.store(true, Ordering::Relaxed);
    assert_eq!(test.open(&user("a")).await, 2);
    // The connector, with its descriptor, is kept.
    assert_eq!(test.connectors(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_token_of_the_last_circuit_is_used_first() {
    let mut test = test_onions();
    let task = test.connect(&user("a"));
    let first = test.controller.next_call().await;
    // A parallel try succeeds.
    let second = test.controller.next_call().await;
    assert!(first.token != second.token && first.connector == second.connector);
    test.controller.answer_with_new_circuit(second);
    assert_eq!(test.accept(task).await, 1);
    assert!(first.is_dropped());
    sleep(A_WHILE).await;
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 1);
}

#[tokio::test(start_paused = true)]
async fn data_is_sent_early_on_new_circuits_and_recently_used_ones() {
    let mut test = test_onions();
    let task = test.connect_with_early_data(&user("a"));
    let call = test.controller.next_call().await;
    test.controller.answer_with_new_circuit(call);
    for (wait, optimistic) in [
        (Duration::ZERO, Some(5)),
        (Duration::from_millis(29_999), Some(5)),
        (Duration::from_secs(30), None),
    ] {
        sleep(wait).await;
        let task = match wait {
            Duration::ZERO => None,
            _ => Some(test.connect_with_early_data(&user("a"))),
        };
        let stream = test.controller.next_stream().await;
        assert_eq!(
            (stream.tunnel, stream.optimistic),
            (1, optimistic),
            "after {wait:?}"
        );
        stream.answer(Ok(()));
        settle().await;
        if let Some(task) = task {
            assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(1)));
        }
    }
    assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(1)));
    // Without optimistic data, none is sent.
    let task = test.connect(&user("a"));
    let stream = test.controller.next_stream().await;
    assert_eq!(stream.optimistic, None);
    stream.answer(Ok(()));
    assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(1)));
}

#[tokio::test(start_paused = true)]
async fn early_data_is_never_sent_twice() {
    let mut test = test_onions();
    // On a new circuit, and on a recently used one.
    for fresh in [true, false] {
        let task = test.connect_with_early_data(&user("a"));
        if fresh {
            let call = test.controller.next_call().await;
            test.controller.answer_with_new_circuit(call);
        }
        let stream = test.controller.next_stream().await;
        assert_eq!(stream.optimistic, Some(5));
        stream.answer(Err(StreamError::CircuitGone));
        let failed = task.await.expect("no panic");
        assert_eq!(failed, Err(Failure::CircuitDestroyed), "fresh: {fresh}");
        test.controller.expect_idle_for(SECOND).await;
        // The next iteration needs a recently used circuit.
        let task = test.connect(&user("a"));
        assert_eq!(test.accept(task).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_retries_when_circuits_close_but_not_forever() {
    let mut test = test_onions();
    let task = test.connect(&user("a"));
    let call = test.controller.next_call().await;
    test.controller.answer_with_new_circuit(call);
    for _ in 0..MAX_DEAD_CIRCUITS {
        let stream = test.controller.next_stream().await;
        stream.answer(Err(StreamError::CircuitGone));
    }
    let failed = task.await.expect("no panic");
    assert_eq!(failed, Err(Failure::CircuitDestroyed));
    test.controller.expect_idle_for(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_stream_is_the_outcome() {
    let mut test = test_onions();
    assert_eq!(test.open(&user("a")).await, 1);
    for error in [
        StreamError::Ended(Failure::StreamClosed),
        StreamError::Failed(Failure::Internal),
    ] {
        let task = test.connect(&user("a"));
        test.controller.next_stream().await.answer(Err(error));
        assert_eq!(task.await.expect("no panic"), Err(error.failure()));
    }
}
