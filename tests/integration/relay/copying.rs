//! All bytes arrive, in order and without delay.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use onionport::inbound::relay::RelaySummary;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex, join, split};
use tokio::time::{sleep, timeout};

use super::{end, expect_bytes, read_all, read_bytes, run, start};
use crate::support::LIMIT;
use crate::support::random::Random;

#[tokio::test(start_paused = true)]
async fn bytes_pass_both_ways_through_tiny_buffers() {
    for capacity in [1, 2, 7] {
        let mut running = start(capacity, b"early ", false);
        let (question, answer) = (b"to the service", b"to the client");
        let (client, service) = (&mut running.client, &mut running.service);
        let transfers = async {
            tokio::join!(
                async {
                    let (mut reader, mut writer) = split(client);
                    let (sent, ()) = tokio::join!(
                        writer.write_all(question),
                        expect_bytes(&mut reader, answer)
                    );
                    sent
                },
                async {
                    let (mut reader, mut writer) = split(service);
                    let (answered, ()) = tokio::join!(
                        writer.write_all(answer),
                        expect_bytes(&mut reader, b"early to the service")
                    );
                    answered
                }
            )
        };
        let transferred = timeout(LIMIT, transfers).await;
        let (sent, answered) = transferred.expect("transfers in time");
        sent.expect("written");
        answered.expect("written");
        drop(running.service);
        assert_eq!(read_all(&mut running.client).await, b"");
        let expected = RelaySummary {
            sent: 20,
            received: 13,
            broke: false,
        };
        assert_eq!(end(running.relaying).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn large_transfers_arrive_whole_in_both_directions_at_once() {
    const SIZE: usize = 8 * 1024 * 1024;
    let up: &'static [u8] = Random::new(2).bytes(SIZE).leak();
    let down: &'static [u8] = Random::new(3).bytes(SIZE).leak();
    let running = start(64 * 1024, b"", false);
    /// Writes in pieces of random sizes.
    async fn write_in_pieces(sink: &mut (impl AsyncWrite + Unpin), data: &[u8], seed: u64) {
        let mut random = Random::new(seed);
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, next) = rest.split_at(rest.len().min(1 + random.below(100_000)));
            sink.write_all(piece).await.expect("written");
            rest = next;
        }
    }
    let (mut client_reader, mut client_writer) = split(running.client);
    let (mut service_reader, mut service_writer) = split(running.service);
    let transfers = async {
        tokio::join!(
            write_in_pieces(&mut client_writer, up, 4),
            async {
                let mut received = vec![0; SIZE];
                let read = service_reader.read_exact(&mut received).await;
                read.expect("read");
                assert!(received == up, "the upload differs from what was sent");
            },
            write_in_pieces(&mut service_writer, down, 5),
            async {
                let mut received = vec![0; SIZE];
                let read = client_reader.read_exact(&mut received).await;
                read.expect("read");
                assert!(received == down, "the download differs from what was sent");
            }
        )
    };
    timeout(LIMIT, transfers).await.expect("transfers in time");
    service_writer.shutdown().await.expect("shut down");
    let expected = RelaySummary {
        sent: SIZE as u64,
        received: SIZE as u64,
        broke: false,
    };
    assert_eq!(end(running.relaying).await, expected);
}

/// Returns big-endian numbers that count up from `first`, cut to a length. Lost, repeated or reordered
/// bytes show.
fn counters(first: u32, bytes: usize) -> Vec<u8> {
    (first..).flat_map(u32::to_be_bytes).take(bytes).collect()
}

/// Compares two byte strings; a failure shows the position of the first difference.
fn assert_same(received: &[u8], sent: &[u8], case: &str) {
    let mut pairs = received.iter().zip(sent);
    let difference = pairs.position(|(one, other)| one != other);
    assert_eq!((received.len(), difference), (sent.len(), None), "{case}");
}

#[tokio::test(start_paused = true)]
async fn content_and_order_are_kept_whichever_side_ends_first() {
    const UP: usize = 1_000_003;
    const DOWN: usize = 700_001;
    for (capacity, client_ends) in [(1000, true), (1000, false), (50_000, true), (50_000, false)] {
        let case = format!("capacity {capacity}, client ends: {client_ends}");
        let running = start(capacity, b"", false);
        let (mut client_reader, mut client_writer) = split(running.client);
        let (mut service_reader, mut service_writer) = split(running.service);
        // The side that ends last sends more, so that a relay that ends too early loses bytes.
        let (up, down) = match client_ends {
            true => (DOWN, UP),
            false => (UP, DOWN),
        };
        let (up, down) = (counters(0, up), counters(1 << 31, down));
        let ((), (), received_up, received_down) = tokio::join!(
            async {
                client_writer.write_all(&up).await.expect("written");
                if client_ends {
                    client_writer.shutdown().await.expect("shut down");
                }
            },
            async {
                service_writer.write_all(&down).await.expect("written");
                if client_ends {
                    service_writer.shutdown().await.expect("shut down");
                }
            },
            read_bytes(&mut service_reader, up.len()),
            read_bytes(&mut client_reader, down.len())
        );
        assert_same(&received_up, &up, &case);
        assert_same(&received_down, &down, &case);
        if !client_ends {
            service_writer.shutdown().await.expect("shut down");
        }
        let rest = read_all(&mut client_reader).await;
        assert_eq!(rest, b"", "{case}: more than was sent");
        let expected = RelaySummary {
            sent: up.len() as u64,
            received: down.len() as u64,
            broke: false,
        };
        assert_eq!(end(running.relaying).await, expected, "{case}");
    }
}

/// Holds back what is written until it is flushed, as a Tor stream does with less than a cell.
struct Cells<W> {
    sink: W,
    held: Vec<u8>,
}

impl<W> Cells<W> {
    fn new(sink: W) -> Self {
        Cells {
            sink,
            held: Vec::new(),
        }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Cells<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.held.is_empty() {
            let written = ready!(Pin::new(&mut this.sink).poll_write(task, &this.held))?;
            this.held.drain(..written);
        }
        Pin::new(&mut this.sink).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Does not flush, so that a relay that forgets to flush loses bytes.
        Pin::new(&mut self.sink).poll_shutdown(task)
    }
}

#[tokio::test(start_paused = true)]
async fn data_is_flushed_as_soon_as_the_source_pauses() {
    let (mut client, near_client) = duplex(1024);
    let (mut service, near_service) = duplex(1024);
    let relaying = tokio::spawn(async move {
        let (client_reader, client_writer) = split(near_client);
        let (service_reader, service_writer) = split(near_service);
        let client = join(client_reader, Cells::new(client_writer));
        let stream = join(service_reader, Cells::new(service_writer));
        run(client, stream, b"early", false).await
    });
    expect_bytes(&mut service, b"early").await;
    for round in 0..20 {
        let (question, answer) = (format!("question {round}"), format!("answer {round}"));
        client
            .write_all(question.as_bytes())
            .await
            .expect("written");
        expect_bytes(&mut service, question.as_bytes()).await;
        service.write_all(answer.as_bytes()).await.expect("written");
        expect_bytes(&mut client, answer.as_bytes()).await;
    }
    // The last bytes before the end are flushed as well.
    service.write_all(b"bye").await.expect("written");
    drop(service);
    assert_eq!(read_all(&mut client).await, b"bye");
    end(relaying).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_relay_stays_open() {
    let mut running = start(1024, b"", false);
    sleep(Duration::from_secs(3000)).await;
    assert!(!running.relaying.is_finished());
    running
        .client
        .write_all(b"still here")
        .await
        .expect("written");
    expect_bytes(&mut running.service, b"still here").await;
    drop(running.service);
    end(running.relaying).await;
}
