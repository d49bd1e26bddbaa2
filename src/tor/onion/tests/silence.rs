//! A service that does not answer on a circuit that is open.

use super::*;

/// A circuit on which a stream was asked for ten seconds ago, and the connector that looks for the service anew.
async fn silence(world: &mut World, speaking: bool) -> (Task, script::Begun, script::Called) {
    assert_eq!(world.open(&user("a")).await, 1);
    let task = if speaking {
        world.connect_speaking(&user("a"))
    } else {
        world.connect(&user("a"))
    };
    let here = world.director.begun().await;
    assert_eq!(here.early.is_some(), speaking);
    let asked = Instant::now();
    let anew = world.director.called().await;
    assert_eq!(asked.elapsed(), PATIENCE);
    assert_eq!(anew.connector, 2);
    (task, here, anew)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_answers_late_is_heard() {
    for speaking in [false, true] {
        let mut world = world();
        let (task, here, _anew) = silence(&mut world, speaking).await;
        here.answer(Ok(()));
        assert_eq!(task.await.expect("no panic"), Ok(Stream(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_circuit_is_given_up_for_a_new_one_by_all() {
    let mut world = world();
    let (task, here, anew) = silence(&mut world, false).await;
    let another = world.connect(&user("a"));
    settle().await;
    world.director.find(anew);
    let begun = world.director.begun().await;
    let beside = world.director.begun().await;
    assert_eq!((begun.tunnel, beside.tunnel), (2, 2));
    begun.answer(Ok(()));
    beside.answer(Ok(()));
    assert_eq!(task.await.expect("no panic"), Ok(Stream(2)));
    assert_eq!(another.await.expect("no panic"), Ok(Stream(2)));
    here.answer(Ok(()));
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 2);
    assert_eq!((world.connectors(), world.slots()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_circuit_that_goes_leaves_the_new_one() {
    let mut world = world();
    let (task, here, anew) = silence(&mut world, false).await;
    here.answer(Err(StreamError::CircuitGone));
    settle().await;
    world.director.find(anew);
    assert_eq!(world.admit(task).await, 2);
}

#[tokio::test(start_paused = true)]
async fn the_answer_on_the_silent_circuit_counts_if_the_way_to_the_service_fails() {
    for speaking in [false, true] {
        let mut world = world();
        let (task, here, anew) = silence(&mut world, speaking).await;
        anew.fail(Stage::Descriptor, Failure::NoCircuit);
        sleep(DEADLINE / 2).await;
        assert!(!task.is_finished());
        here.answer(Ok(()));
        assert_eq!(task.await.expect("no panic"), Ok(Stream(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_is_known_to_be_so_while_its_old_circuit_is_silent() {
    let mut world = world();
    let (task, _here, anew) = silence(&mut world, false).await;
    let now = Instant::now();
    anew.fail(Stage::Fetching, Failure::DescriptorNotFound);
    let failed = task.await.expect("no panic");
    assert_eq!(failed, Err(Failure::DescriptorNotFound));
    assert_eq!(now.elapsed(), Duration::ZERO);
    // It may have heard what was said early, and be slow to answer.
    for answers in [false, true] {
        let mut world = self::world();
        let (task, here, anew) = silence(&mut world, true).await;
        let now = Instant::now();
        anew.fail(Stage::Fetching, Failure::DescriptorNotFound);
        if answers {
            sleep(PATIENCE - SECOND).await;
            here.answer(Ok(()));
            assert_eq!(task.await.expect("no panic"), Ok(Stream(1)));
        } else {
            let failed = task.await.expect("no panic");
            assert_eq!(failed, Err(Failure::DescriptorNotFound));
            assert_eq!(now.elapsed(), PATIENCE);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_early_data_is_not_asked_on_the_new_circuit() {
    let mut world = world();
    let (task, here, anew) = silence(&mut world, true).await;
    world.director.find(anew);
    world.director.nothing_for(DEADLINE / 2).await;
    here.answer(Ok(()));
    assert_eq!(task.await.expect("no panic"), Ok(Stream(1)));
    // If the old circuit goes, what is known of the service is the answer.
    for (failure, answer) in [
        (Failure::DescriptorNotFound, Failure::DescriptorNotFound),
        (Failure::NoCircuit, Failure::CircuitDestroyed),
    ] {
        let mut world = self::world();
        let (task, here, anew) = silence(&mut world, true).await;
        here.answer(Err(StreamError::CircuitGone));
        settle().await;
        anew.fail(Stage::Fetching, failure);
        assert_eq!(task.await.expect("no panic"), Err(answer));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_service_is_a_timeout_at_the_deadline() {
    let mut world = world();
    assert_eq!(world.open(&user("a")).await, 1);
    let asked = Instant::now();
    let task = world.connect(&user("a"));
    let _here = world.director.begun().await;
    let anew = world.director.called().await;
    world.director.find(anew);
    let _there = world.director.begun().await;
    let failed = task.await.expect("no panic");
    assert_eq!(failed, Err(Failure::ConnectionTimedOut));
    assert_eq!(asked.elapsed(), DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn a_silent_circuit_is_given_up_once_however_many_wait_on_it() {
    let mut world = world();
    assert_eq!(world.open(&user("a")).await, 1);
    let first = world.connect(&user("a"));
    let _here = world.director.begun().await;
    sleep(A_WHILE).await;
    let second = world.connect(&user("a"));
    let _beside = world.director.begun().await;
    let anew = world.director.called().await;
    assert_eq!(anew.connector, 2);
    // It was asked for four seconds ago, and is handed out no more.
    let third = world.connect(&user("a"));
    // The second gives it up as well, and finds that the service is looked for.
    world.director.nothing_for(PATIENCE).await;
    world.director.find(anew);
    for _ in 0..3 {
        let begun = world.director.begun().await;
        assert_eq!(begun.tunnel, 2);
        begun.answer(Ok(()));
    }
    for task in [first, second, third] {
        assert_eq!(task.await.expect("no panic"), Ok(Stream(2)));
    }
    assert_eq!(world.connectors(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_older_attempt_is_nothing_to_a_newer_one() {
    let mut world = world();
    let task = world.connect(&user("a"));
    let called = world.director.called().await;
    let (_, is_closed) = world.director.find(called);
    assert_eq!(world.admit(task).await, 1);
    let waiting = world.connect(&user("a"));
    let _here = world.director.begun().await;
    is_closed.store(true, std::sync::atomic::Ordering::Relaxed);
    let other = world.connect(&user("a"));
    let older = world.director.called().await;
    older.reach(Stage::Puzzle);
    let newer = world.director.called().await;
    assert_eq!((older.connector, newer.connector), (1, 2));
    older.fail(Stage::Fetching, Failure::DescriptorNotFound);
    let failed = other.await.expect("no panic");
    assert_eq!(failed, Err(Failure::DescriptorNotFound));
    assert_eq!(world.slots(), 1);
    world.director.find(newer);
    assert_eq!(world.admit(waiting).await, 2);
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 2);
    assert_eq!(world.connectors(), 2);
}
