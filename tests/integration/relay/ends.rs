//! How long the relay goes on after one side has ended.

use std::io;
use std::time::Duration;

use onionport::inbound::relay::{RelaySummary, relay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, empty, join, sink};
use tokio::time::{Instant, sleep, timeout};

use super::{LONG, end, expect_bytes, read_all, run, start};
use crate::support::random::Random;

/// `CLOSE_TIMEOUT` of `relay.rs`: how long the service may be silent after a client that received last
/// has finished.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// `ANSWER_TIMEOUT` of `relay.rs`: the same after a client that sent last.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// `PAUSE_TIMEOUT` of `relay.rs`: the same within the answer to such a client.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(15);

#[tokio::test(start_paused = true)]
async fn the_stream_is_dropped_while_the_client_is_still_open() {
    let (client, near_client) = duplex(1024);
    let (mut service, near_service) = duplex(1024);
    drop(client);
    let relaying = relay(near_client, near_service, Vec::new(), false);
    let (near_client, _) = timeout(LONG, relaying).await.expect("an end in time");
    let written = service.write_all(b"data").await;
    let error = written.expect_err("the stream is dropped");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    drop(near_client);
}

#[tokio::test(start_paused = true)]
async fn the_relay_ends_at_once_when_the_service_ends() {
    let mut running = start(1024, b"", false);
    running.service.write_all(b"bye").await.expect("written");
    running.service.shutdown().await.expect("shut down");
    let begun = Instant::now();
    assert_eq!(read_all(&mut running.client).await, b"bye");
    // Tor streams have no half-close: the direction to the service ends too.
    assert_eq!(read_all(&mut running.service).await, b"");
    end(running.relaying).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_service_sees_the_end_of_the_request_after_the_answer_timeout() {
    for client_done in [false, true] {
        let mut running = start(1024, b"question", client_done);
        running.client.shutdown().await.expect("shut down");
        let begun = Instant::now();
        assert_eq!(read_all(&mut running.service).await, b"question");
        assert_eq!(begun.elapsed(), ANSWER_TIMEOUT, "{client_done}");
        assert_eq!(read_all(&mut running.client).await, b"");
        end(running.relaying).await;
        assert_eq!(begun.elapsed(), ANSWER_TIMEOUT, "{client_done}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_soon_sees_that_a_client_it_has_answered_has_finished() {
    let mut running = start(1024, b"question", false);
    expect_bytes(&mut running.service, b"question").await;
    running.service.write_all(b"answer").await.expect("written");
    expect_bytes(&mut running.client, b"answer").await;
    running.client.shutdown().await.expect("shut down");
    let begun = Instant::now();
    assert_eq!(read_all(&mut running.service).await, b"");
    assert_eq!(begun.elapsed(), CLOSE_TIMEOUT);
    end(running.relaying).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_may_delay_its_answer_and_pause_within_it() {
    for greets in [false, true] {
        let mut running = start(1024, b"", false);
        if greets {
            running.service.write_all(b"hello").await.expect("written");
            expect_bytes(&mut running.client, b"hello").await;
        }
        let (client, service) = (&mut running.client, &mut running.service);
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("shut down");
        expect_bytes(service, b"question").await;
        for (part, limit) in [(&b"first "[..], ANSWER_TIMEOUT), (b"second", PAUSE_TIMEOUT)] {
            sleep(limit - Duration::from_secs(1)).await;
            service.write_all(part).await.expect("written");
            expect_bytes(client, part).await;
        }
        service.shutdown().await.expect("shut down");
        assert_eq!(read_all(client).await, b"");
        end(running.relaying).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_goes_on_as_long_as_bytes_keep_coming() {
    let mut running = start(1024, b"", false);
    running
        .client
        .write_all(b"question")
        .await
        .expect("written");
    running.client.shutdown().await.expect("shut down");
    expect_bytes(&mut running.service, b"question").await;
    let answering = async {
        for _ in 0..30 {
            sleep(Duration::from_secs(4)).await;
            running.service.write_all(b"word ").await.expect("written");
        }
        let stopped = Instant::now();
        assert_eq!(read_all(&mut running.service).await, b"");
        stopped.elapsed()
    };
    let (waited, received) = tokio::join!(answering, read_all(&mut running.client));
    assert_eq!(received, b"word ".repeat(30));
    // The relay measures silence in steps of `CLOSE_TIMEOUT`, so the end is not exact.
    assert!(
        (PAUSE_TIMEOUT..=2 * PAUSE_TIMEOUT).contains(&waited),
        "{waited:?}"
    );
    let expected = RelaySummary {
        sent: 8,
        received: 150,
        broke: false,
    };
    assert_eq!(end(running.relaying).await, expected);
}

#[tokio::test(start_paused = true)]
async fn the_relay_ends_at_once_when_the_service_ends_after_the_client() {
    let mut running = start(1024, b"", false);
    running.client.shutdown().await.expect("shut down");
    let begun = Instant::now();
    sleep(Duration::from_secs(1)).await;
    running.service.write_all(b"answer").await.expect("written");
    drop(running.service);
    assert_eq!(read_all(&mut running.client).await, b"answer");
    end(running.relaying).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_the_whole_answer() {
    // The service sends everything at once, so only the client causes the pauses.
    let answer: &'static [u8] = Random::new(6).bytes(20_000).leak();
    let mut running = start(64, b"", false);
    running.client.shutdown().await.expect("shut down");
    let mut service = running.service;
    let answering = tokio::spawn(async move { service.write_all(answer).await });
    let mut received: Vec<u8> = Vec::new();
    let mut piece = [0; 1000];
    loop {
        sleep(4 * CLOSE_TIMEOUT).await;
        let read = timeout(LONG, running.client.read(&mut piece)).await;
        match read.expect("bytes or an end in time").expect("read") {
            0 => break,
            n => received.extend(&piece[..n]),
        }
    }
    let (got, all) = (received.len(), answer.len());
    assert!(received == answer, "{got} of {all} bytes");
    answering.await.expect("no panic").expect("written");
    end(running.relaying).await;
}

#[tokio::test(start_paused = true)]
async fn a_finished_client_and_an_empty_answer_end_the_relay() {
    let (client, stream) = (join(empty(), sink()), join(empty(), sink()));
    let summary = timeout(LONG, run(client, stream, b"early", true))
        .await
        .expect("an end in time");
    assert_eq!(summary.received, 0);
}
