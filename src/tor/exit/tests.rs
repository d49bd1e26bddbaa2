//! Scripted exits on tokio's paused clock: each test sees which request is sent when.

mod network;

use tor_cell::relaycell::msg::EndReason;
use tor_circmgr::TargetPort;
use tor_circmgr::isolation::IsolationHelper as _;
use tor_proto::Error as ProtoError;

use self::network::*;
use super::*;
use crate::tor::arti_errors;

/// A request and the exits that it tries.
struct Case {
    exits: Vec<Exit>,
    timeouts: ExitTimeouts,
    deadline: Duration,
}

/// A request with the default time-outs and a deadline of two minutes.
fn case(exits: impl Into<Vec<Exit>>) -> Case {
    Case {
        exits: exits.into(),
        timeouts: timeouts(10),
        deadline: Duration::from_secs(120),
    }
}

impl Case {
    /// Opens a stream. Returns the outcome, after how many seconds it came, and the network.
    async fn connect(self) -> (Result<usize, Failure>, u64, Exits<ScriptedNetwork>) {
        let network = exits(self.exits, self.timeouts);
        let started = Instant::now();
        let optimistic = OptimisticData::new(Vec::new());
        let got = network
            .connect(
                "example.com",
                80,
                Family::V4Preferred,
                &isolation(b"alice"),
                &optimistic,
                started + self.deadline,
            )
            .await;
        (got, started.elapsed().as_secs(), network)
    }
}

/// No circuits.
const NONE: [usize; 0] = [];

/// The error for a stream that an exit ends with this reason.
fn end(reason: EndReason) -> StreamError {
    arti_errors::classify_stream_protocol(&ProtoError::EndReceived(reason))
}

#[tokio::test(start_paused = true)]
async fn each_end_reason_has_its_failure_and_its_number_of_tries() {
    use EndReason as R;
    // tor-spec, "Closing streams"; C tor's `connection_ap_process_end_not_open` lists the reasons after
    // which another exit is tried.
    let expected = [
        (R::MISC, Failure::StreamFailed, 3),
        (R::RESOLVEFAILED, Failure::NameNotResolved, 3),
        (R::CONNECTREFUSED, Failure::ConnectionRefused, 1),
        (R::EXITPOLICY, Failure::ExitPolicyRefused, 3),
        (R::DESTROY, Failure::CircuitDestroyed, 1),
        (R::DONE, Failure::StreamClosed, 1),
        (R::TIMEOUT, Failure::ConnectionTimedOut, 3),
        (R::NOROUTE, Failure::NoRoute, 3),
        (R::HIBERNATING, Failure::RelayHibernating, 3),
        (R::INTERNAL, Failure::RelayInternal, 1),
        (R::RESOURCELIMIT, Failure::RelayBusy, 3),
        (R::CONNRESET, Failure::ConnectionReset, 1),
        (R::TORPROTOCOL, Failure::ProtocolViolation, 1),
        (R::NOTDIRECTORY, Failure::NotDirectory, 1),
        // A reason that the specification does not define.
        (R::from(200), Failure::StreamFailed, 3),
    ];
    for (reason, failure, tries) in expected {
        let (got, _, network) = case(vec![Exit::Refuses(end(reason)); 5]).connect().await;
        assert_eq!(got, Err(failure), "{reason}");
        assert_eq!(network.circuits.sent().len(), tries, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_without_end_reason_is_final_unless_the_circuit_is_gone() {
    let failed = StreamError::Failed(Failure::ProtocolViolation);
    let (got, _, network) = case([Exit::Refuses(failed), Exit::Serves]).connect().await;
    assert_eq!(got, Err(Failure::ProtocolViolation));
    assert_eq!(network.circuits.sent().len(), 1);

    let gone = Exit::Refuses(StreamError::CircuitGone);
    let (got, _, network) = case([gone, gone, Exit::Serves]).connect().await;
    assert_eq!(got, Ok(2));
    assert_eq!(network.circuits.retired(), [0, 1]);

    let (got, _, network) = case([gone, gone, gone, Exit::Serves]).connect().await;
    assert_eq!(got, Err(Failure::CircuitDestroyed));
    assert_eq!(network.circuits.sent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn silent_exits_are_abandoned_after_10_10_and_then_15_seconds() {
    let (got, after, network) = case([Exit::Silent; 10]).connect().await;
    assert_eq!(got, Err(Failure::ConnectionTimedOut));
    assert_eq!(after, 120, "at the deadline");
    let seconds: Vec<u64> = network.circuits.sent().iter().map(|a| a.second).collect();
    assert_eq!(seconds, [0, 10, 20, 35, 50, 65, 80, 95, 110]);
    assert_eq!(
        network.circuits.retired(),
        NONE,
        "no exit served the request"
    );
}

#[tokio::test(start_paused = true)]
async fn a_configured_timeout_does_not_grow() {
    let (got, after, network) = Case {
        timeouts: timeouts(7),
        deadline: Duration::from_secs(30),
        ..case([Exit::Silent; 6])
    }
    .connect()
    .await;
    assert_eq!((got, after), (Err(Failure::ConnectionTimedOut), 30));
    let seconds: Vec<u64> = network.circuits.sent().iter().map(|a| a.second).collect();
    assert_eq!(seconds, [0, 7, 14, 21, 28]);
}

#[tokio::test(start_paused = true)]
async fn an_exit_may_reply_until_its_timeout_expires() {
    let late = |seconds: u64| Exit::ServesAfter(Duration::from_millis(seconds * 1000 - 1));
    let (got, _, network) = case([late(10)]).connect().await;
    assert_eq!(got, Ok(0));
    assert_eq!(network.circuits.sent().len(), 1);
    let (got, after, _) = case([Exit::Silent, Exit::Silent, late(15)]).connect().await;
    assert_eq!((got, after), (Ok(2), 34));
}

#[tokio::test(start_paused = true)]
async fn silence_does_not_count_as_a_refusal() {
    let refuses = Exit::Refuses(end(EndReason::NOROUTE));
    let exits = [
        Exit::Silent,
        refuses,
        Exit::Silent,
        refuses,
        Exit::Silent,
        refuses,
        Exit::Serves,
    ];
    let (got, after, network) = case(exits).connect().await;
    assert_eq!(got, Err(Failure::NoRoute));
    assert_eq!(network.circuits.sent().len(), 6);
    // All tries count for the time-out, not only the silent ones: 10 + 15 + 15.
    assert_eq!(after, 40);
}

#[tokio::test(start_paused = true)]
async fn lookups_have_their_own_timeouts() {
    let settings = ExitTimeouts {
        connect: Duration::from_secs(3),
        resolve: Duration::from_secs(4),
        resolve_ptr: Duration::from_secs(5),
    };
    let far = Instant::now() + Duration::from_secs(1000);
    let name = "example.com";

    let network = exits([Exit::Silent, Exit::Serves], settings);
    let started = Instant::now();
    let got = network.resolve(name, &isolation(b"alice"), far).await;
    assert_eq!(got, Ok(vec![ADDRESS]));
    assert_eq!(started.elapsed().as_secs(), 4);
    assert_eq!(network.circuits.sent()[1].text, "RESOLVE example.com");
    assert_eq!(network.circuits.sent()[1].ports, []);

    let network = exits([Exit::Silent, Exit::Serves], settings);
    let started = Instant::now();
    let got = network
        .resolve_ptr(ADDRESS, &isolation(b"alice"), far)
        .await;
    assert_eq!(got, Ok(vec![name.to_owned()]));
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(network.circuits.sent()[1].text, "RESOLVE 192.0.2.7");
    assert_eq!(network.circuits.sent()[1].ports, []);
}

#[tokio::test(start_paused = true)]
async fn an_exit_that_reports_itself_unable_gets_no_new_streams() {
    for reason in [EndReason::HIBERNATING, EndReason::RESOURCELIMIT] {
        let refuses = Exit::Refuses(end(reason));
        // Even if no other exit serves the request.
        let (_, _, network) = case([refuses; 3]).connect().await;
        assert_eq!(network.circuits.retired(), [0, 1], "{reason}");
        // A retired circuit gets no streams, so the request need not be isolated from others.
        assert_eq!(network.circuits.sent()[1].abandoned, None, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_circuit_is_retired_once_another_exit_serves() {
    for exit in [
        Exit::Silent,
        Exit::Refuses(end(EndReason::MISC)),
        Exit::Refuses(end(EndReason::RESOLVEFAILED)),
        Exit::Refuses(end(EndReason::TIMEOUT)),
        Exit::Refuses(end(EndReason::NOROUTE)),
    ] {
        let (got, _, network) = case([exit, exit, Exit::Serves]).connect().await;
        assert_eq!(got, Ok(2), "{exit:?}");
        assert_eq!(network.circuits.retired(), [0, 1], "{exit:?}");
        let sent = network.circuits.sent();
        let abandoned: Vec<_> = sent.iter().map(|request| request.abandoned).collect();
        assert_eq!(abandoned, [None, Some(0), Some(1)], "{exit:?}");

        // If none does, the destination is at fault.
        let (_, _, network) = case([exit; 9]).connect().await;
        assert_eq!(network.circuits.retired(), NONE, "{exit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_refusal_does_not_retire_the_circuit() {
    let refuses = Exit::Refuses(end(EndReason::EXITPOLICY));
    let (got, _, network) = case([refuses, Exit::Serves]).connect().await;
    assert_eq!(got, Ok(1));
    assert_eq!(network.circuits.retired(), NONE);
    assert_eq!(network.circuits.sent()[1].abandoned, Some(0));
}

#[tokio::test(start_paused = true)]
async fn without_another_circuit_the_last_exits_failure_is_returned() {
    let refuses = Exit::Refuses(end(EndReason::NOROUTE));
    // The network has no other exit.
    let (got, _, _) = case([refuses]).connect().await;
    assert_eq!(got, Err(Failure::NoRoute));
    let (got, _, _) = case([]).connect().await;
    assert_eq!(got, Err(Failure::NoCircuit));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_circuit_ends_at_the_deadline() {
    let (got, after, _) = case([Exit::Unreachable]).connect().await;
    assert_eq!((got, after), (Err(Failure::DeadlinePassed), 120));
    let refuses = Exit::Refuses(end(EndReason::NOROUTE));
    let (got, after, _) = case([refuses, Exit::Unreachable]).connect().await;
    assert_eq!((got, after), (Err(Failure::NoRoute), 120));
}

#[tokio::test(start_paused = true)]
async fn no_exit_is_tried_after_the_deadline() {
    let late = Exit::RefusesAfter(Duration::from_secs(4), end(EndReason::NOROUTE));
    let (got, after, network) = Case {
        deadline: Duration::from_secs(8),
        ..case([late; 3])
    }
    .connect()
    .await;
    // The second reply arrives exactly at the deadline and still counts.
    assert_eq!((got, after), (Err(Failure::NoRoute), 8));
    assert_eq!(network.circuits.sent().len(), 2);
    assert_eq!(network.circuits.circuit_requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_exit_gets_the_optimistic_data_sent_so_far() {
    let network = exits([Exit::Silent, Exit::Silent, Exit::Serves], timeouts(10));
    let optimistic = OptimisticData::new(b"GET".to_vec());
    let alice = isolation(b"alice");
    let deadline = Instant::now() + Duration::from_secs(120);
    let (got, ()) = tokio::join!(
        network.connect(
            "example.com",
            80,
            Family::V4Only,
            &alice,
            &optimistic,
            deadline
        ),
        async {
            tokio::time::sleep(Duration::from_secs(15)).await;
            optimistic.add(b" /");
        }
    );
    assert_eq!(got, Ok(2));
    let sent: Vec<_> = network
        .circuits
        .sent()
        .into_iter()
        .map(|a| a.optimistic)
        .collect();
    assert_eq!(sent, ["GET", "GET", "GET /"]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_abandon_a_circuit_share_the_next_one() {
    let network = exits([Exit::Silent, Exit::Serves, Exit::Serves], timeouts(10));
    let (alice, bob) = (isolation(b"alice"), isolation(b"bob"));
    let optimistic = OptimisticData::new(Vec::new());
    let deadline = Instant::now() + Duration::from_secs(120);
    let connect = |isolation| {
        network.connect(
            "a.example",
            80,
            Family::V4Only,
            isolation,
            &optimistic,
            deadline,
        )
    };
    let (first, second) = tokio::join!(connect(&alice), connect(&alice));
    assert_eq!((first, second), (Ok(1), Ok(1)));
    // Streams of another user share neither the abandoned circuit nor the next one.
    assert_eq!(connect(&bob).await, Ok(2));
    // The next circuit takes only streams that abandoned the first; this stream needs another exit.
    let refused = Failure::NoCircuit;
    assert_eq!(connect(&alice).await, Err(refused), "no exit is left");
}

#[tokio::test(start_paused = true)]
async fn requests_that_abandoned_no_circuit_share_by_isolation_alone() {
    let network = exits([Exit::Serves, Exit::Serves], timeouts(10));
    let optimistic = OptimisticData::new(Vec::new());
    let deadline = Instant::now() + Duration::from_secs(120);
    for (user, circuit) in [(b"alice", 0), (b"carol", 1), (b"alice", 0), (b"carol", 1)] {
        let user = isolation(user);
        let got = network.connect(
            "a.example",
            80,
            Family::V4Only,
            &user,
            &optimistic,
            deadline,
        );
        assert_eq!(got.await, Ok(circuit));
    }
}

#[test]
fn streams_on_one_circuit_abandoned_the_same_circuit() {
    let stream = |user, abandoned| ExitIsolation {
        isolation: isolation(user),
        abandoned,
    };
    let cases = [
        (stream(b"alice", None), stream(b"alice", None), true),
        (stream(b"alice", Some(1)), stream(b"alice", Some(1)), true),
        (stream(b"alice", Some(1)), stream(b"alice", Some(2)), false),
        (stream(b"alice", Some(1)), stream(b"alice", None), false),
        (stream(b"alice", None), stream(b"alice", Some(1)), false),
        (stream(b"alice", None), stream(b"carol", None), false),
        (stream(b"alice", Some(1)), stream(b"carol", Some(1)), false),
    ];
    for (one, other, shared) in cases {
        assert_eq!(
            one.compatible_same_type(&other),
            shared,
            "{one:?} {other:?}"
        );
        let joined = one.join_same_type(&other);
        assert_eq!(joined.is_some(), shared, "{one:?} {other:?}");
        if let Some(joined) = joined {
            assert_eq!(joined.abandoned, one.abandoned);
        }
    }
}

#[test]
fn a_circuit_for_streams_that_abandoned_another_is_not_long_lived() {
    let stream = |keep_alive, abandoned| ExitIsolation {
        isolation: isolation_with(b"alice", keep_alive),
        abandoned,
    };
    assert!(stream(true, None).enables_long_lived_circuits());
    assert!(!stream(true, Some(1)).enables_long_lived_circuits());
    assert!(!stream(false, None).enables_long_lived_circuits());
}

#[tokio::test(start_paused = true)]
async fn the_exit_must_allow_the_port_for_the_requested_family() {
    let expected = [
        (Family::V4Only, TargetPort::ipv4(443)),
        (Family::V4Preferred, TargetPort::ipv4(443)),
        (Family::V6Preferred, TargetPort::ipv4(443)),
        (Family::V6Only, TargetPort::ipv6(443)),
    ];
    for (family, port) in expected {
        let network = exits([Exit::Serves], timeouts(10));
        let optimistic = OptimisticData::new(Vec::new());
        let deadline = Instant::now() + Duration::from_secs(10);
        let alice = isolation(b"alice");
        let got = network.connect("a.example", 443, family, &alice, &optimistic, deadline);
        assert_eq!(got.await, Ok(0));
        let sent = network.circuits.sent();
        assert_eq!(sent[0].ports, [port], "{family:?}");
        assert_eq!(sent[0].text, format!("BEGIN a.example:443 {family:?}"));
    }
}
