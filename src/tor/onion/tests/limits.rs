//! How much is kept, for how long, and what happens when all of it is retired.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answered_leaves_nothing_behind() {
    let mut world = world();
    let task = world.connect(&user("a"));
    let called = world.director.called().await;
    assert_eq!(world.slots(), 1);
    called.fail(Stage::Fetching, Failure::DescriptorNotFound);
    let failed = task.await.expect("no panic");
    assert_eq!(failed, Err(Failure::DescriptorNotFound));
    assert_eq!(world.slots(), 0);
    // Who asks again starts from nothing.
    assert_eq!(world.open(&user("a")).await, 1);
    assert_eq!(world.connectors(), 2);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_nobody_waits_for_go_on_up_to_a_limit() {
    let mut world = world();
    let patient = world.connect(&user("patient"));
    let first = world.director.called().await;
    let mut left = Vec::new();
    for number in 0..MAX_UNAWAITED_ATTEMPTS + 3 {
        let task = world.connect(&user(&number.to_string()));
        left.push((world.director.called().await, task));
    }
    settle().await;
    for (_, task) in &left {
        task.abort();
        settle().await;
    }
    // The first three are over, and forgotten.
    for (number, (called, _)) in left.iter().enumerate() {
        assert_eq!(called.is_given_up(), number < 3, "{number}");
    }
    assert_eq!(world.slots(), 1 + MAX_UNAWAITED_ATTEMPTS);
    // Who asks again finds the attempt further along, and it counts no more among those that were left.
    let back = world.connect(&user("3"));
    world.director.nothing_for(Duration::ZERO).await;
    for number in 0..MAX_UNAWAITED_ATTEMPTS {
        let task = world.connect(&user(&format!("more {number}")));
        left.push((world.director.called().await, task));
        settle().await;
        left[MAX_UNAWAITED_ATTEMPTS + 3 + number].1.abort();
        settle().await;
    }
    assert!(left[4].0.is_given_up());
    let (called, _) = left.remove(3);
    for called in [called, first] {
        assert!(!called.is_given_up(), "somebody waits for it");
        world.director.find(called);
    }
    let mut circuits = Vec::new();
    for _ in 0..2 {
        let begun = world.director.begun().await;
        circuits.push(begun.tunnel);
        begun.answer(Ok(()));
    }
    assert!(back.await.expect("no panic").is_ok() && patient.await.expect("no panic").is_ok());
    assert_eq!(circuits, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_ended_is_not_waited_for() {
    let mut world = world();
    let mut left = Vec::new();
    for number in 0..=MAX_UNAWAITED_ATTEMPTS {
        let task = world.connect(&user(&number.to_string()));
        left.push(world.director.called().await);
        settle().await;
        task.abort();
        // The last one ends the first, whose task has not run yet when somebody comes back to it.
        if number < MAX_UNAWAITED_ATTEMPTS {
            settle().await;
        }
    }
    yield_now().await;
    assert_eq!(world.open(&user("0")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn slots_that_are_not_used_make_room_for_others() {
    let mut world = world();
    let name = |number: usize| user(&number.to_string());
    for number in 0..MAX_IDLE_SLOTS {
        world.open(&name(number)).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(world.slots(), number + 1);
    }
    // The first is not the oldest any more.
    let task = world.connect(&name(0));
    assert_eq!(world.admit(task).await, 1);
    for number in MAX_IDLE_SLOTS..MAX_IDLE_SLOTS + 300 {
        sleep(Duration::from_millis(1)).await;
        world.open(&name(number)).await;
        assert!(world.slots() <= MAX_IDLE_SLOTS);
        if number == MAX_IDLE_SLOTS {
            for kept in [0, MAX_IDLE_SLOTS - 1] {
                let task = world.connect(&name(kept));
                assert_eq!(world.admit(task).await, kept + 1);
            }
            assert!(world.slots() > MAX_IDLE_SLOTS / 2);
        }
    }
    assert_eq!(world.connectors(), MAX_IDLE_SLOTS + 300);
    world.open(&name(1)).await;
    assert_eq!(world.connectors(), MAX_IDLE_SLOTS + 300 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_waiting_requests_leaves_no_more_slots_than_others() {
    let mut world = world();
    let mut waiting = Vec::new();
    for number in 0..MAX_IDLE_SLOTS + 100 {
        let task = world.connect(&user(&number.to_string()));
        waiting.push((world.director.called().await, task));
    }
    assert_eq!(world.slots(), MAX_IDLE_SLOTS + 100);
    for (called, task) in waiting {
        world.director.find(called);
        world.admit(task).await;
    }
    sleep(SWEEP_EVERY).await;
    settle().await;
    assert!(world.slots() <= MAX_IDLE_SLOTS);
}

#[tokio::test(start_paused = true)]
async fn slots_are_forgotten_without_anybody_asking() {
    let mut world = world();
    assert_eq!(world.open(&user("a")).await, 1);
    sleep(FORGET_AFTER - SECOND).await;
    assert_eq!(world.slots(), 1);
    sleep(SECOND + SWEEP_EVERY).await;
    settle().await;
    assert_eq!(world.slots(), 0);
    // And again, after the sweeper has gone.
    sleep(2 * SWEEP_EVERY).await;
    assert_eq!(world.open(&user("a")).await, 2);
    sleep(FORGET_AFTER + SWEEP_EVERY).await;
    settle().await;
    assert_eq!(world.slots(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_outlives_a_sweep() {
    let mut world = world();
    let task = world.ask(service(SERVICE), user("a"), b"", 2 * FORGET_AFTER);
    let called = world.director.called().await;
    called.reach(Stage::Puzzle);
    sleep(FORGET_AFTER + SWEEP_EVERY).await;
    assert_eq!(world.slots(), 1);
    world.director.find(called);
    assert_eq!(world.admit(task).await, 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_from_before_is_used_after_all_was_retired() {
    let mut world = world();
    assert_eq!(world.open(&user("a")).await, 1);
    let waiting = world.connect(&user("b"));
    let old = world.director.called().await;
    let opening = world.connect(&user("a"));
    let begun = world.director.begun().await;
    world.onions.retire_all();
    assert_eq!(
        world
            .director
            .known
            .lock()
            .expect("not poisoned")
            .retired_spares,
        1
    );
    // Who waits starts over, and is not told that the old attempt has ended.
    let anew = world.director.called().await;
    assert_eq!((old.connector, anew.connector), (2, 3));
    settle().await;
    assert!(old.is_given_up());
    assert!(old.token != anew.token);
    world.director.find(anew);
    assert_eq!(world.admit(waiting).await, 2);
    // A stream that was asked for before opens where it was asked for.
    begun.answer(Ok(()));
    assert_eq!(opening.await.expect("no panic"), Ok(Stream(1)));
    assert_eq!(world.open(&user("a")).await, 3);
    assert_eq!(world.connectors(), 4);
    assert_eq!(world.slots(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_starts_over_keeps_its_deadline() {
    let mut world = world();
    let asked = Instant::now();
    let task = world.connect(&user("a"));
    let _old = world.director.called().await;
    sleep(5 * SECOND).await;
    world.onions.retire_all();
    let anew = world.director.called().await;
    anew.reach(Stage::Puzzle);
    assert!(task.await.expect("no panic").is_err());
    assert_eq!(asked.elapsed(), DEADLINE);
}
