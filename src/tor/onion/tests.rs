//! Tests of streams to onion services on a scripted network, with a paused clock.

use std::net::IpAddr;

use tokio::task::{JoinHandle, yield_now};
use tor_hsclient::HsClientSecretKeysBuilder;
use tor_hscrypto::pk::HsClientDescEncKeypair;
use tor_llcrypto::pk::curve25519;

use super::attempt::MAX_UNAWAITED_ATTEMPTS;
use super::classify::CallStage;
use super::scripted_network::{
    NetworkController, ScriptedNetwork, ScriptedStream, scripted_network,
};
use super::slot_table::{MAX_IDLE_SLOTS, MAX_IDLE_TIME};
use super::*;
use crate::config::port_line::IsolationFlags;
use crate::tor::isolation::{ClientCredentials, Protocol, SessionGroup, StreamAttributes};

mod limits;
mod reuse;
mod unresponsive;

const SERVICE: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
const OTHER: &str = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion";

/// How long a client waits.
const DEADLINE: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);
/// Longer than a circuit is cached.
const A_WHILE: Duration = Duration::from_secs(6);

type Task = JoinHandle<Result<ScriptedStream, Failure>>;

struct TestOnions {
    onions: Arc<Onions<ScriptedNetwork>>,
    controller: NetworkController,
}

fn test_onions() -> TestOnions {
    let (network, controller) = scripted_network();
    TestOnions {
        onions: Arc::new(Onions::new(network)),
        controller,
    }
}

fn service(name: &str) -> OnionAddress {
    OnionAddress::parse(name).expect("an onion address")
}

/// The isolation of a client with this user name, on a port with the default flags.
fn user(name: &str) -> Isolation {
    client(name, true)
}

/// The isolation of a client with this user name, on a port that isolates user names or does not.
fn client(name: &str, socks_auth: bool) -> Isolation {
    let attributes = StreamAttributes {
        client: Some(IpAddr::from([127, 0, 0, 1])),
        credentials: ClientCredentials::new(name.as_bytes(), &[]),
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
    Isolation::new(attributes, &flags, false)
}

fn keys(byte: u8) -> HsClientSecretKeys {
    let secret = curve25519::StaticSecret::from([byte; 32]);
    let public = curve25519::PublicKey::from(&secret);
    let mut builder = HsClientSecretKeysBuilder::default();
    builder.ks_hsc_desc_enc(HsClientDescEncKeypair::new(public.into(), secret.into()));
    builder.build().expect("keys")
}

/// Lets all tasks run until each of them waits.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

impl TestOnions {
    fn connect_to(
        &self,
        service: OnionAddress,
        isolation: Isolation,
        optimistic: &[u8],
        time: Duration,
    ) -> Task {
        let onions = Arc::clone(&self.onions);
        let optimistic = OptimisticData::new(optimistic.to_vec());
        tokio::spawn(async move {
            let deadline = Instant::now() + time;
            onions
                .connect(&service, 80, &isolation, &optimistic, deadline)
                .await
        })
    }

    fn connect(&self, isolation: &Isolation) -> Task {
        self.connect_to(service(SERVICE), isolation.clone(), b"", DEADLINE)
    }

    fn connect_with_early_data(&self, isolation: &Isolation) -> Task {
        self.connect_to(service(SERVICE), isolation.clone(), b"GET /", DEADLINE)
    }

    /// Accepts the next stream, and returns the number of its circuit.
    async fn accept(&mut self, task: Task) -> usize {
        let stream = self.controller.next_stream().await;
        let tunnel = stream.tunnel;
        stream.answer(Ok(()));
        assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(tunnel)));
        tunnel
    }

    /// Opens a stream on a new circuit, and returns the number of the circuit.
    async fn open(&mut self, isolation: &Isolation) -> usize {
        let task = self.connect(isolation);
        let call = self.controller.next_call().await;
        let (found, _) = self.controller.answer_with_new_circuit(call);
        let tunnel = self.accept(task).await;
        assert_eq!(tunnel, found);
        tunnel
    }

    fn connectors(&self) -> usize {
        self.controller
            .state
            .lock()
            .expect("not poisoned")
            .connectors
    }

    fn key_reads(&self) -> usize {
        self.controller
            .state
            .lock()
            .expect("not poisoned")
            .key_reads
    }

    fn set_keys(&self, keys: Result<HsClientSecretKeys, Failure>) {
        let mut state = self.controller.state.lock().expect("not poisoned");
        state.keys.insert(service(SERVICE), keys);
    }

    fn slots(&self) -> usize {
        lock(&self.onions.table).len()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_may_share_a_circuit_wait_for_one_attempt() {
    let mut test = test_onions();
    let tasks: Vec<Task> = (0..3).map(|_| test.connect(&user("a"))).collect();
    let call = test.controller.next_call().await;
    settle().await;
    test.controller.answer_with_new_circuit(call);
    for _ in 0..3 {
        test.controller.next_stream().await.answer(Ok(()));
    }
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Ok(ScriptedStream(1)));
    }
    assert_eq!((test.connectors(), test.slots()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn requests_that_may_not_share_a_circuit_use_different_connectors_and_tokens() {
    let mut test = test_onions();
    let mut tasks = vec![test.connect(&user("a")), test.connect(&user("b"))];
    tasks.push(test.connect_to(service(OTHER), user("a"), b"", DEADLINE));
    let mut calls = Vec::new();
    for number in 1..=3 {
        calls.push(test.controller.next_call().await);
        assert_eq!(calls[number - 1].connector, number);
    }
    assert!(calls[0].token != calls[1].token && calls[1].token != calls[2].token);
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(test.controller.answer_with_new_circuit(call).0, number + 1);
    }
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(test.accept(task).await, number + 1);
    }
    // Each keeps its own circuit, whether or not it is cached.
    for wait in [SECOND, A_WHILE] {
        sleep(wait).await;
        for (name, circuit) in [("b", 2), ("a", 1)] {
            let task = test.connect(&user(name));
            assert_eq!(test.accept(task).await, circuit);
        }
        let task = test.connect_to(service(OTHER), user("a"), b"", DEADLINE);
        assert_eq!(test.accept(task).await, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_takes_on_the_isolation_of_the_requests_that_join_it() {
    let mut test = test_onions();
    // A port that does not isolate user names: all requests of its group share the circuit ...
    assert_eq!(test.open(&client("a", false)).await, 1);
    let task = test.connect(&client("b", false));
    assert_eq!(test.accept(task).await, 1);
    // ... except those of a port that isolates them.
    assert_eq!(test.open(&user("a")).await, 2);
    // A circuit with a single user name admits that user, and from then on no other.
    let mut test = test_onions();
    assert_eq!(test.open(&client("a", false)).await, 1);
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 1);
    assert_eq!(test.open(&client("b", false)).await, 2);
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 1);
    assert_eq!(test.slots(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_request_reads_the_key_and_another_key_means_another_circuit() {
    let mut test = test_onions();
    let (one, other) = (keys(1), keys(2));
    test.set_keys(Ok(one.clone()));
    assert_eq!(test.open(&user("a")).await, 1);
    test.set_keys(Ok(other));
    assert_eq!(test.open(&user("a")).await, 2);
    test.set_keys(Ok(one));
    let task = test.connect(&user("a"));
    assert_eq!(test.accept(task).await, 1);
    assert_eq!((test.key_reads(), test.slots()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn unreadable_keys_fail_the_request_only() {
    let mut test = test_onions();
    test.set_keys(Err(Failure::ClientAuthUnreadable));
    let failed = test.connect(&user("a")).await.expect("no panic");
    assert_eq!(failed, Err(Failure::ClientAuthUnreadable));
    assert_eq!((test.slots(), test.connectors()), (0, 0));
    test.set_keys(Ok(HsClientSecretKeys::none()));
    assert_eq!(test.open(&user("a")).await, 1);
}
