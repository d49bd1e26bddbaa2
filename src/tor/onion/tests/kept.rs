//! What is kept of a circuit, and which data goes early on it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_circuit_asked_for_a_moment_ago_is_used_without_asking() {
    let mut world = world();
    assert_eq!(world.open(&user("a")).await, 1);
    sleep(Duration::from_millis(4_999)).await;
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 1);
    assert_eq!(world.keys_asked(), 1);
    sleep(Duration::from_millis(1)).await;
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 1);
    assert_eq!(world.keys_asked(), 2);
    // That counts as asking.
    sleep(Duration::from_secs(4)).await;
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 1);
    assert_eq!((world.keys_asked(), world.connectors()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cached_circuit_that_is_closed_is_not_used() {
    let mut world = world();
    let task = world.connect(&user("a"));
    let called = world.director.called().await;
    let (_, is_closed) = world.director.find(called);
    assert_eq!(world.admit(task).await, 1);
    is_closed.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(world.open(&user("a")).await, 2);
    // What the connector knows of the service is not thrown away.
    assert_eq!(world.connectors(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_token_that_worked_last_is_asked_for_first() {
    let mut world = world();
    let task = world.connect(&user("a"));
    let first = world.director.called().await;
    // Another way is tried beside the first, and leads to the service.
    let second = world.director.called().await;
    assert!(first.token != second.token && first.connector == second.connector);
    world.director.find(second);
    assert_eq!(world.admit(task).await, 1);
    assert!(first.is_given_up());
    sleep(A_WHILE).await;
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 1);
}

#[tokio::test(start_paused = true)]
async fn data_goes_early_on_new_circuits_and_on_those_that_worked_a_moment_ago() {
    let mut world = world();
    let task = world.connect_speaking(&user("a"));
    let called = world.director.called().await;
    world.director.find(called);
    for (wait, early) in [
        (Duration::ZERO, Some(5)),
        (Duration::from_millis(29_999), Some(5)),
        (Duration::from_secs(30), None),
    ] {
        sleep(wait).await;
        let task = match wait {
            Duration::ZERO => None,
            _ => Some(world.connect_speaking(&user("a"))),
        };
        let begun = world.director.begun().await;
        assert_eq!((begun.tunnel, begun.early), (1, early), "after {wait:?}");
        begun.answer(Ok(()));
        settle().await;
        if let Some(task) = task {
            assert_eq!(task.await.expect("no panic"), Ok(Stream(1)));
        }
    }
    assert_eq!(task.await.expect("no panic"), Ok(Stream(1)));
    // Without early data nothing goes early.
    let task = world.connect(&user("a"));
    let begun = world.director.begun().await;
    assert_eq!(begun.early, None);
    begun.answer(Ok(()));
    assert_eq!(task.await.expect("no panic"), Ok(Stream(1)));
}

#[tokio::test(start_paused = true)]
async fn early_data_is_never_sent_twice() {
    let mut world = world();
    // On a new circuit, and on one that worked a moment ago.
    for fresh in [true, false] {
        let task = world.connect_speaking(&user("a"));
        if fresh {
            let called = world.director.called().await;
            world.director.find(called);
        }
        let begun = world.director.begun().await;
        assert_eq!(begun.early, Some(5));
        begun.answer(Err(StreamError::CircuitGone));
        let failed = task.await.expect("no panic");
        assert_eq!(failed, Err(Failure::CircuitDestroyed), "fresh: {fresh}");
        world.director.nothing_for(SECOND).await;
        // For the next round it has to have worked.
        let task = world.connect(&user("a"));
        assert_eq!(world.admit(task).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_tries_again_as_circuits_go_but_not_for_ever() {
    let mut world = world();
    let task = world.connect(&user("a"));
    let called = world.director.called().await;
    world.director.find(called);
    for _ in 0..MAX_DEAD_CIRCUITS {
        let begun = world.director.begun().await;
        begun.answer(Err(StreamError::CircuitGone));
    }
    let failed = task.await.expect("no panic");
    assert_eq!(failed, Err(Failure::CircuitDestroyed));
    world.director.nothing_for(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_service_says_of_the_stream_is_the_answer() {
    let mut world = world();
    assert_eq!(world.open(&user("a")).await, 1);
    for error in [
        StreamError::Ended(Failure::StreamClosed),
        StreamError::Failed(Failure::Internal),
    ] {
        let task = world.connect(&user("a"));
        world.director.begun().await.answer(Err(error));
        assert_eq!(task.await.expect("no panic"), Err(error.failure()));
    }
}
