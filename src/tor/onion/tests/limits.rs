//! Tests of the limits of slots and attempts, and of `retire_all`.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_service_that_never_connected_leaves_no_slot_behind() {
    let mut test = test_onions();
    let task = test.connect(&user("a"));
    let call = test.controller.next_call().await;
    assert_eq!(test.slots(), 1);
    call.fail(CallStage::Fetching, Failure::DescriptorNotFound);
    let failed = task.await.expect("no panic");
    assert_eq!(failed, Err(Failure::DescriptorNotFound));
    assert_eq!(test.slots(), 0);
    // The next request starts from nothing.
    assert_eq!(test.open(&user("a")).await, 1);
    assert_eq!(test.connectors(), 2);
}

#[tokio::test(start_paused = true)]
async fn unawaited_attempts_go_on_up_to_a_limit() {
    let mut test = test_onions();
    let patient = test.connect(&user("patient"));
    let first = test.controller.next_call().await;
    let mut left = Vec::new();
    for number in 0..MAX_UNAWAITED_ATTEMPTS + 3 {
        let task = test.connect(&user(&number.to_string()));
        left.push((test.controller.next_call().await, task));
    }
    settle().await;
    for (_, task) in &left {
        task.abort();
        settle().await;
    }
    // The first three are cancelled, and their slots dropped.
    for (number, (call, _)) in left.iter().enumerate() {
        assert_eq!(call.is_dropped(), number < 3, "{number}");
    }
    assert_eq!(test.slots(), 1 + MAX_UNAWAITED_ATTEMPTS);
    // A new request joins the attempt, which then does not count as unawaited.
    let back = test.connect(&user("3"));
    test.controller.expect_idle_for(Duration::ZERO).await;
    for number in 0..MAX_UNAWAITED_ATTEMPTS {
        let task = test.connect(&user(&format!("more {number}")));
        left.push((test.controller.next_call().await, task));
        settle().await;
        left[MAX_UNAWAITED_ATTEMPTS + 3 + number].1.abort();
        settle().await;
    }
    assert!(left[4].0.is_dropped());
    let (call, _) = left.remove(3);
    for call in [call, first] {
        assert!(!call.is_dropped(), "a request waits for it");
        test.controller.answer_with_new_circuit(call);
    }
    let mut circuits = Vec::new();
    for _ in 0..2 {
        let stream = test.controller.next_stream().await;
        circuits.push(stream.tunnel);
        stream.answer(Ok(()));
    }
    assert!(back.await.expect("no panic").is_ok() && patient.await.expect("no panic").is_ok());
    assert_eq!(circuits, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_join_a_cancelled_attempt() {
    let mut test = test_onions();
    let mut left = Vec::new();
    for number in 0..=MAX_UNAWAITED_ATTEMPTS {
        let task = test.connect(&user(&number.to_string()));
        left.push(test.controller.next_call().await);
        settle().await;
        task.abort();
        // The last one cancels the first, whose task has not run yet when the next request comes.
        if number < MAX_UNAWAITED_ATTEMPTS {
            settle().await;
        }
    }
    yield_now().await;
    assert_eq!(test.open(&user("0")).await, 1);
}

#[tokio::test(start_paused = true)]
async fn unused_slots_make_room_for_others() {
    let mut test = test_onions();
    let name = |number: usize| user(&number.to_string());
    for number in 0..MAX_IDLE_SLOTS {
        test.open(&name(number)).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(test.slots(), number + 1);
    }
    // Now the first is not the least recently used.
    let task = test.connect(&name(0));
    assert_eq!(test.accept(task).await, 1);
    for number in MAX_IDLE_SLOTS..MAX_IDLE_SLOTS + 300 {
        sleep(Duration::from_millis(1)).await;
        test.open(&name(number)).await;
        assert!(test.slots() <= MAX_IDLE_SLOTS);
        if number == MAX_IDLE_SLOTS {
            for kept in [0, MAX_IDLE_SLOTS - 1] {
                let task = test.connect(&name(kept));
                assert_eq!(test.accept(task).await, kept + 1);
            }
            assert!(test.slots() > MAX_IDLE_SLOTS / 2);
        }
    }
    assert_eq!(test.connectors(), MAX_IDLE_SLOTS + 300);
    test.open(&name(1)).await;
    assert_eq!(test.connectors(), MAX_IDLE_SLOTS + 300 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_waiting_requests_leaves_no_more_slots_than_the_limit() {
    let mut test = test_onions();
    let mut waiting = Vec::new();
    for number in 0..MAX_IDLE_SLOTS + 100 {
        let task = test.connect(&user(&number.to_string()));
        waiting.push((test.controller.next_call().await, task));
    }
    assert_eq!(test.slots(), MAX_IDLE_SLOTS + 100);
    for (call, task) in waiting {
        test.controller.answer_with_new_circuit(call);
        test.accept(task).await;
    }
    sleep(SWEEP_EVERY).await;
    settle().await;
    assert!(test.slots() <= MAX_IDLE_SLOTS);
}

#[tokio::test(start_paused = true)]
async fn unused_slots_are_swept() {
    let mut test = test_onions();
    assert_eq!(test.open(&user("a")).await, 1);
    sleep(MAX_IDLE_TIME - SECOND).await;
    assert_eq!(test.slots(), 1);
    sleep(SECOND + SWEEP_EVERY).await;
    settle().await;
    assert_eq!(test.slots(), 0);
    // And again, after the sweeper has stopped.
    sleep(2 * SWEEP_EVERY).await;
    assert_eq!(test.open(&user("a")).await, 2);
    sleep(MAX_IDLE_TIME + SWEEP_EVERY).await;
    settle().await;
    assert_eq!(test.slots(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_running_attempt_outlives_a_sweep() {
    let mut test = test_onions();
    let task = test.connect_to(service(SERVICE), user("a"), b"", 2 * MAX_IDLE_TIME);
    let call = test.controller.next_call().await;
    call.enter(CallStage::Puzzle);
    sleep(MAX_IDLE_TIME + SWEEP_EVERY).await;
    assert_eq!(test.slots(), 1);
    test.controller.answer_with_new_circuit(call);
    assert_eq!(test.accept(task).await, 1);
}

#[tokio::test(start_paused = true)]
async fn after_retire_all_only_new_circuits_are_used() {
    let mut test = test_onions();
    assert_eq!(test.open(&user("a")).await, 1);
    let waiting = test.connect(&user("b"));
    let old = test.controller.next_call().await;
    let opening = test.connect(&user("a"));
    let stream = test.controller.next_stream().await;
    test.onions.retire_all();
    assert_eq!(
        test.controller
            .state
            .lock()
            .expect("not poisoned")
            .retired_spares,
        1
    );
    // The waiting request starts over, and does not fail with the old attempt.
    let new = test.controller.next_call().await;
    assert_eq!((old.connector, new.connector), (2, 3));
    settle().await;
    assert!(old.is_dropped());
    assert!(old.token != new.token);
    test.controller.answer_with_new_circuit(new);
    assert_eq!(test.accept(waiting).await, 2);
    // A stream that was being opened still opens on its circuit.
    stream.answer(Ok(()));
    assert_eq!(opening.await.expect("no panic"), Ok(ScriptedStream(1)));
    assert_eq!(test.open(&user("a")).await, 3);
    assert_eq!(test.connectors(), 4);
    assert_eq!(test.slots(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_starts_over_keeps_its_deadline() {
    let mut test = test_onions();
    let started = Instant::now();
    let task = test.connect(&user("a"));
    let _old = test.controller.next_call().await;
    sleep(5 * SECOND).await;
    test.onions.retire_all();
    let new = test.controller.next_call().await;
    new.enter(CallStage::Puzzle);
    assert!(task.await.expect("no panic").is_err());
    assert_eq!(started.elapsed(), DEADLINE);
}
