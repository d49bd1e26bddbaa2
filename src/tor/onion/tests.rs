//! Streams to onion services on a scripted network, with a paused clock.

use std::net::IpAddr;

use tokio::task::{JoinHandle, yield_now};
use tor_hsclient::HsClientSecretKeysBuilder;
use tor_hscrypto::pk::HsClientDescEncKeypair;
use tor_llcrypto::pk::curve25519;

use super::script::{Director, Script, Stream, script};
use super::table::{FORGET_AFTER, MAX_IDLE_SLOTS};
use super::*;
use crate::isolation::{Facts, Protocol, SessionGroup};
use crate::port::IsolationFlags;
use crate::request::Secret;
use crate::tor::attempt::MAX_UNAWAITED_ATTEMPTS;
use crate::tor::verdict::Stage;

const SERVICE: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
const OTHER: &str = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion";

/// As long as a client waits.
const DEADLINE: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);
/// Longer than a circuit is cached.
const A_WHILE: Duration = Duration::from_secs(6);

type Task = JoinHandle<Result<Stream, Failure>>;

struct World {
    onions: Arc<Onions<Script>>,
    director: Director,
}

fn world() -> World {
    let (script, director) = script();
    World {
        onions: Arc::new(Onions::new(script)),
        director,
    }
}

fn service(name: &str) -> OnionAddress {
    OnionAddress::parse(name).expect("a good address")
}

/// A client of this name, on a port with the usual flags.
fn user(name: &str) -> Isolation {
    client(name, true)
}

/// A client of this name, on a port that heeds names or not.
fn client(name: &str, socks_auth: bool) -> Isolation {
    let facts = Facts {
        client: Some(IpAddr::from([127, 0, 0, 1])),
        credentials: Secret::new(name.as_bytes(), &[]),
        protocol: Protocol::Socks5,
        port: 80,
        address: Arc::from(SERVICE),
        group: SessionGroup::Named(1),
        epoch: 0,
    };
    let flags = IsolationFlags {
        client_addr: true,
        socks_auth,
        client_protocol: false,
        dest_port: false,
        dest_addr: false,
    };
    Isolation::new(facts, &flags, false)
}

fn a_key(byte: u8) -> HsClientSecretKeys {
    let secret = curve25519::StaticSecret::from([byte; 32]);
    let public = curve25519::PublicKey::from(&secret);
    let mut builder = HsClientSecretKeysBuilder::default();
    builder.ks_hsc_desc_enc(HsClientDescEncKeypair::new(public.into(), secret.into()));
    builder.build().expect("a key")
}

/// Lets all tasks do what they can do now.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

impl World {
    fn ask(
        &self,
        service: OnionAddress,
        isolation: Isolation,
        early: &[u8],
        time: Duration,
    ) -> Task {
        let onions = Arc::clone(&self.onions);
        let early = Early::new(early.to_vec());
        tokio::spawn(async move {
            let deadline = Instant::now() + time;
            onions
                .connect(&service, 80, &isolation, &early, deadline)
                .await
        })
    }

    fn connect(&self, isolation: &Isolation) -> Task {
        self.ask(service(SERVICE), isolation.clone(), b"", DEADLINE)
    }

    fn connect_speaking(&self, isolation: &Isolation) -> Task {
        self.ask(service(SERVICE), isolation.clone(), b"GET /", DEADLINE)
    }

    /// Has a stream opened on whatever circuit it asks for: the number of that.
    async fn admit(&mut self, task: Task) -> usize {
        let begun = self.director.begun().await;
        let tunnel = begun.tunnel;
        begun.answer(Ok(()));
        assert_eq!(task.await.expect("no panic"), Ok(Stream(tunnel)));
        tunnel
    }

    /// Opens a stream on a new circuit: the number of that.
    async fn open(&mut self, isolation: &Isolation) -> usize {
        let task = self.connect(isolation);
        let called = self.director.called().await;
        let (found, _) = self.director.find(called);
        let tunnel = self.admit(task).await;
        assert_eq!(tunnel, found);
        tunnel
    }

    fn connectors(&self) -> usize {
        self.director.known.lock().expect("not poisoned").connectors
    }

    fn keys_asked(&self) -> usize {
        self.director.known.lock().expect("not poisoned").keys_asked
    }

    fn set_keys(&self, keys: Result<HsClientSecretKeys, Failure>) {
        let mut known = self.director.known.lock().expect("not poisoned");
        known.keys.insert(service(SERVICE), keys);
    }

    fn slots(&self) -> usize {
        lock(&self.onions.table).len()
    }
}

// Who shares what.

#[tokio::test(start_paused = true)]
async fn requests_that_may_share_a_circuit_wait_for_one_attempt() {
    let mut world = world();
    let tasks: Vec<Task> = (0..3).map(|_| world.connect(&user("a"))).collect();
    let called = world.director.called().await;
    settle().await;
    world.director.find(called);
    for _ in 0..3 {
        world.director.begun().await.answer(Ok(()));
    }
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Ok(Stream(1)));
    }
    assert_eq!((world.connectors(), world.slots()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn requests_that_may_not_share_a_circuit_have_connectors_and_tokens_of_their_own() {
    let mut world = world();
    let mut tasks = vec![world.connect(&user("a")), world.connect(&user("b"))];
    tasks.push(world.ask(service(OTHER), user("a"), b"", DEADLINE));
    let mut called = Vec::new();
    for number in 1..=3 {
        called.push(world.director.called().await);
        assert_eq!(called[number - 1].connector, number);
    }
    assert!(called[0].token != called[1].token && called[1].token != called[2].token);
    for (number, called) in called.into_iter().enumerate() {
        assert_eq!(world.director.find(called).0, number + 1);
    }
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(world.admit(task).await, number + 1);
    }
    // Cached or not, each goes on with its own.
    for wait in [SECOND, A_WHILE] {
        sleep(wait).await;
        for (name, circuit) in [("b", 2), ("a", 1)] {
            let task = world.connect(&user(name));
            assert_eq!(world.admit(task).await, circuit);
        }
        let task = world.ask(service(OTHER), user("a"), b"", DEADLINE);
        assert_eq!(world.admit(task).await, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_takes_on_the_demands_of_those_who_join_it() {
    let mut world = world();
    // A port that does not heed names: its circuit is anybody's of the same group ...
    assert_eq!(world.open(&client("a", false)).await, 1);
    let task = world.connect(&client("b", false));
    assert_eq!(world.admit(task).await, 1);
    // ... but for those who want no other names beside them.
    assert_eq!(world.open(&user("a")).await, 2);
    // One on which there is but one name is theirs, from then on theirs alone.
    let mut world = self::world();
    assert_eq!(world.open(&client("a", false)).await, 1);
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 1);
    assert_eq!(world.open(&client("b", false)).await, 2);
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 1);
    assert_eq!(world.slots(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_key_is_another_circuit_and_each_request_looks_for_it() {
    let mut world = world();
    let (one, other) = (a_key(1), a_key(2));
    world.set_keys(Ok(one.clone()));
    assert_eq!(world.open(&user("a")).await, 1);
    world.set_keys(Ok(other));
    assert_eq!(world.open(&user("a")).await, 2);
    world.set_keys(Ok(one));
    let task = world.connect(&user("a"));
    assert_eq!(world.admit(task).await, 1);
    assert_eq!((world.keys_asked(), world.slots()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_read_fail_the_request_and_nobody_else() {
    let mut world = world();
    world.set_keys(Err(Failure::ClientAuthUnreadable));
    let failed = world.connect(&user("a")).await.expect("no panic");
    assert_eq!(failed, Err(Failure::ClientAuthUnreadable));
    assert_eq!((world.slots(), world.connectors()), (0, 0));
    world.set_keys(Ok(HsClientSecretKeys::none()));
    assert_eq!(world.open(&user("a")).await, 1);
}

// What is kept of a circuit.

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

// A service that does not answer on a circuit that is open.

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

// Limits.

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
    for number in MAX_IDLE_SLOTS..2 * MAX_IDLE_SLOTS {
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
    assert_eq!(world.connectors(), 2 * MAX_IDLE_SLOTS);
    world.open(&name(1)).await;
    assert_eq!(world.connectors(), 2 * MAX_IDLE_SLOTS + 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_waiting_requests_leaves_no_more_slots_than_others() {
    let mut world = world();
    let mut waiting = Vec::new();
    for number in 0..3 * MAX_IDLE_SLOTS {
        let task = world.connect(&user(&number.to_string()));
        waiting.push((world.director.called().await, task));
    }
    assert_eq!(world.slots(), 3 * MAX_IDLE_SLOTS);
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

// All of it is retired.

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
