//! Streams to onion services on a scripted network, with a paused clock.

use std::net::IpAddr;

use tokio::task::{JoinHandle, yield_now};
use tor_hsclient::HsClientSecretKeysBuilder;
use tor_hscrypto::pk::HsClientDescEncKeypair;
use tor_llcrypto::pk::curve25519;

use super::script::{Director, Script, Stream, script};
use super::table::{FORGET_AFTER, MAX_IDLE_SLOTS};
use super::*;
use crate::config::port_line::IsolationFlags;
use crate::tor::attempt::MAX_UNAWAITED_ATTEMPTS;
use crate::tor::isolation::{ClientCredentials, Protocol, SessionGroup, StreamAttributes};
use crate::tor::verdict::Stage;

mod kept;
mod limits;
mod silence;

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
    let facts = StreamAttributes {
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
        let early = OptimisticData::new(early.to_vec());
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
