//! Bytes both ways between a client and a stream, and how that ends.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use onionport::inbound::relay::{RelaySummary, relay};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
    empty, join, sink, split,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::LIMIT;
use crate::support::random::Random;

/// How long the far end may stay silent once a client has finished that was answered (`CLOSE_TIMEOUT`).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a client that spoke last (`ANSWER_TIMEOUT`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same within its answer (`PAUSE_TIMEOUT`).
const PAUSE_TIMEOUT: Duration = Duration::from_secs(15);
/// More than any of these tests takes on the paused clock.
const LONG: Duration = Duration::from_secs(3600);

/// A relay at work, and what stands at its two ends.
struct Setting {
    client: DuplexStream,
    service: DuplexStream,
    relaying: JoinHandle<RelaySummary>,
}

/// Carries bytes, and drops what it carried them between.
async fn carry(
    client: impl AsyncRead + AsyncWrite + Unpin,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    early: &[u8],
    client_done: bool,
) -> RelaySummary {
    let (_, relayed) = relay(client, stream, early.to_vec(), client_done).await;
    relayed
}

/// Starts a relay between two pipes that hold `capacity` bytes each way.
fn start(capacity: usize, early: &'static [u8], client_done: bool) -> Setting {
    let (client, near_client) = duplex(capacity);
    let (service, near_service) = duplex(capacity);
    let relaying = tokio::spawn(carry(near_client, near_service, early, client_done));
    Setting {
        client,
        service,
        relaying,
    }
}

/// Waits for the end of a relay.
async fn end(relaying: JoinHandle<RelaySummary>) -> RelaySummary {
    let ended = timeout(LONG, relaying).await.expect("the relay goes on");
    ended.expect("no panic")
}

async fn read_all(source: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(LONG, source.read_to_end(&mut all)).await;
    read.expect("it goes on").expect("read");
    all
}

async fn read_exactly(source: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    let read = timeout(LONG, source.read_exact(&mut heard)).await;
    read.expect("nothing comes").expect("read");
    assert_eq!(heard, expected);
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_both_ways_through_the_smallest_of_pipes() {
    for capacity in [1, 2, 7] {
        let mut setting = start(capacity, b"early ", false);
        let (question, answer) = (b"to the service", b"to the client");
        let (client, service) = (&mut setting.client, &mut setting.service);
        let transfers = async {
            tokio::join!(
                async {
                    let (mut reader, mut writer) = split(client);
                    let (sent, ()) = tokio::join!(
                        writer.write_all(question),
                        read_exactly(&mut reader, answer)
                    );
                    sent
                },
                async {
                    let (mut reader, mut writer) = split(service);
                    let (answered, ()) = tokio::join!(
                        writer.write_all(answer),
                        read_exactly(&mut reader, b"early to the service")
                    );
                    answered
                }
            )
        };
        let transferred = timeout(LIMIT, transfers).await;
        let (sent, answered) = transferred.expect("it takes too long");
        sent.expect("written");
        answered.expect("written");
        drop(setting.service);
        assert_eq!(read_all(&mut setting.client).await, b"");
        let counted = RelaySummary {
            sent: 20,
            received: 13,
            broke: false,
        };
        assert_eq!(end(setting.relaying).await, counted);
    }
}

#[tokio::test(start_paused = true)]
async fn large_transfers_arrive_whole_in_both_directions_at_once() {
    const SIZE: usize = 8 * 1024 * 1024;
    let up: &'static [u8] = Random::new(2).bytes(SIZE).leak();
    let down: &'static [u8] = Random::new(3).bytes(SIZE).leak();
    let setting = start(64 * 1024, b"", false);
    /// Writes in pieces of many sizes.
    async fn write_in_pieces(sink: &mut (impl AsyncWrite + Unpin), data: &[u8], seed: u64) {
        let mut random = Random::new(seed);
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, next) = rest.split_at(rest.len().min(1 + random.below(100_000)));
            sink.write_all(piece).await.expect("written");
            rest = next;
        }
    }
    let (mut client_reader, mut client_writer) = split(setting.client);
    let (mut service_reader, mut service_writer) = split(setting.service);
    let transfers = async {
        tokio::join!(
            write_in_pieces(&mut client_writer, up, 4),
            async {
                let mut heard = vec![0; SIZE];
                service_reader.read_exact(&mut heard).await.expect("read");
                assert!(heard == up, "the upload arrived, but not as it was sent");
            },
            write_in_pieces(&mut service_writer, down, 5),
            async {
                let mut heard = vec![0; SIZE];
                client_reader.read_exact(&mut heard).await.expect("read");
                assert!(
                    heard == down,
                    "the download arrived, but not as it was sent"
                );
            }
        )
    };
    timeout(LIMIT, transfers).await.expect("it takes too long");
    service_writer.shutdown().await.expect("shut down");
    let counted = RelaySummary {
        sent: SIZE as u64,
        received: SIZE as u64,
        broke: false,
    };
    assert_eq!(end(setting.relaying).await, counted);
}

/// Keeps back what is written until it is flushed, as a Tor stream does with less than a cell.
struct Cells<W> {
    sink: W,
    kept: Vec<u8>,
}

impl<W> Cells<W> {
    fn new(sink: W) -> Self {
        Cells {
            sink,
            kept: Vec::new(),
        }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Cells<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.kept.extend(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.kept.is_empty() {
            let written = ready!(Pin::new(&mut this.sink).poll_write(task, &this.kept))?;
            this.kept.drain(..written);
        }
        Pin::new(&mut this.sink).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Not flushed: a relay that forgot to do so must not be helped.
        Pin::new(&mut self.sink).poll_shutdown(task)
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_goes_out_as_soon_as_the_source_pauses() {
    let (mut client, near_client) = duplex(1024);
    let (mut service, near_service) = duplex(1024);
    let relaying = tokio::spawn(async move {
        let (client_reader, client_writer) = split(near_client);
        let (service_reader, service_writer) = split(near_service);
        let client = join(client_reader, Cells::new(client_writer));
        let stream = join(service_reader, Cells::new(service_writer));
        carry(client, stream, b"early", false).await
    });
    read_exactly(&mut service, b"early").await;
    for round in 0..20 {
        let (question, answer) = (format!("question {round}"), format!("answer {round}"));
        client
            .write_all(question.as_bytes())
            .await
            .expect("written");
        read_exactly(&mut service, question.as_bytes()).await;
        service.write_all(answer.as_bytes()).await.expect("written");
        read_exactly(&mut client, answer.as_bytes()).await;
    }
    // The last words before an end are not forgotten either.
    service.write_all(b"bye").await.expect("written");
    drop(service);
    assert_eq!(read_all(&mut client).await, b"bye");
    end(relaying).await;
}

// --- How it ends ---

#[tokio::test(start_paused = true)]
async fn the_stream_is_gone_while_the_client_is_still_there() {
    let (client, near_client) = duplex(1024);
    let (mut service, near_service) = duplex(1024);
    drop(client);
    let relaying = relay(near_client, near_service, Vec::new(), false);
    let (near_client, _) = timeout(LONG, relaying).await.expect("it goes on");
    let written = service.write_all(b"anybody there?").await;
    let error = written.expect_err("the stream is still there");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    drop(near_client);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_service_is_the_end_at_once() {
    let mut setting = start(1024, b"", false);
    setting.service.write_all(b"bye").await.expect("written");
    setting.service.shutdown().await.expect("shut down");
    let begun = Instant::now();
    assert_eq!(read_all(&mut setting.client).await, b"bye");
    // Tor streams have no half-open state: the service's other half ends too.
    assert_eq!(read_all(&mut setting.service).await, b"");
    end(setting.relaying).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_service_sees_the_end_of_the_request_after_a_while() {
    for client_done in [false, true] {
        let mut setting = start(1024, b"question", client_done);
        setting.client.shutdown().await.expect("shut down");
        let begun = Instant::now();
        assert_eq!(read_all(&mut setting.service).await, b"question");
        assert_eq!(begun.elapsed(), ANSWER_TIMEOUT, "{client_done}");
        assert_eq!(read_all(&mut setting.client).await, b"");
        end(setting.relaying).await;
        assert_eq!(begun.elapsed(), ANSWER_TIMEOUT, "{client_done}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_sees_soon_that_a_client_has_left_which_was_answered() {
    let mut setting = start(1024, b"question", false);
    read_exactly(&mut setting.service, b"question").await;
    setting.service.write_all(b"answer").await.expect("written");
    read_exactly(&mut setting.client, b"answer").await;
    setting.client.shutdown().await.expect("shut down");
    let begun = Instant::now();
    assert_eq!(read_all(&mut setting.service).await, b"");
    assert_eq!(begun.elapsed(), CLOSE_TIMEOUT);
    end(setting.relaying).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_may_think_about_the_last_question_and_pause_within_its_answer() {
    for greets in [false, true] {
        let mut setting = start(1024, b"", false);
        if greets {
            setting.service.write_all(b"hello").await.expect("written");
            read_exactly(&mut setting.client, b"hello").await;
        }
        let (client, service) = (&mut setting.client, &mut setting.service);
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("shut down");
        read_exactly(service, b"question").await;
        for (part, limit) in [(&b"first "[..], ANSWER_TIMEOUT), (b"second", PAUSE_TIMEOUT)] {
            sleep(limit - Duration::from_secs(1)).await;
            service.write_all(part).await.expect("written");
            read_exactly(client, part).await;
        }
        service.shutdown().await.expect("shut down");
        assert_eq!(read_all(client).await, b"");
        end(setting.relaying).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_goes_on_for_as_long_as_bytes_keep_coming() {
    let mut setting = start(1024, b"", false);
    setting
        .client
        .write_all(b"question")
        .await
        .expect("written");
    setting.client.shutdown().await.expect("shut down");
    read_exactly(&mut setting.service, b"question").await;
    let answering = async {
        for _ in 0..30 {
            sleep(Duration::from_secs(4)).await;
            setting.service.write_all(b"word ").await.expect("written");
        }
        let fell_silent = Instant::now();
        assert_eq!(read_all(&mut setting.service).await, b"");
        fell_silent.elapsed()
    };
    let (waited, heard) = tokio::join!(answering, read_all(&mut setting.client));
    assert_eq!(heard, b"word ".repeat(30));
    // It is looked at only so often.
    assert!(
        (PAUSE_TIMEOUT..=2 * PAUSE_TIMEOUT).contains(&waited),
        "{waited:?}"
    );
    let counted = RelaySummary {
        sent: 8,
        received: 150,
        broke: false,
    };
    assert_eq!(end(setting.relaying).await, counted);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_ends_after_the_client_is_not_waited_for() {
    let mut setting = start(1024, b"", false);
    setting.client.shutdown().await.expect("shut down");
    let begun = Instant::now();
    sleep(Duration::from_secs(1)).await;
    setting.service.write_all(b"answer").await.expect("written");
    drop(setting.service);
    assert_eq!(read_all(&mut setting.client).await, b"answer");
    end(setting.relaying).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_all_of_the_answer() {
    // The service has said everything at once; that nothing moves is the client's own doing.
    let answer: &'static [u8] = Random::new(6).bytes(20_000).leak();
    let mut setting = start(64, b"", false);
    setting.client.shutdown().await.expect("shut down");
    let mut service = setting.service;
    let answering = tokio::spawn(async move { service.write_all(answer).await });
    let mut heard: Vec<u8> = Vec::new();
    let mut piece = [0; 1000];
    loop {
        sleep(4 * CLOSE_TIMEOUT).await;
        let read = timeout(LONG, setting.client.read(&mut piece)).await;
        match read.expect("it goes on").expect("read") {
            0 => break,
            n => heard.extend(&piece[..n]),
        }
    }
    assert!(heard == answer, "{} of {} bytes", heard.len(), answer.len());
    answering.await.expect("no panic").expect("written");
    end(setting.relaying).await;
}

/// Notes whether it was shut down.
#[derive(Clone, Default)]
struct Noted(Arc<AtomicBool>);

impl AsyncWrite for Noted {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_ends_it_both_sides_are_shut_down_in_order() {
    // Each side's reader: one that has ended, one that breaks, and one that stays silent.
    for ends in [
        "client finishes",
        "client breaks",
        "service finishes",
        "service breaks",
    ] {
        let (to_client, to_service) = (Noted::default(), Noted::default());
        let reader = |side: &str| -> Box<dyn AsyncRead + Unpin> {
            match ends.strip_prefix(side) {
                Some(" finishes") => Box::new(empty()),
                Some(" breaks") => Box::new(Broken),
                _ => Box::new(Silent),
            }
        };
        let client = join(reader("client"), to_client.clone());
        let stream = join(reader("service"), to_service.clone());
        let relaying = carry(client, stream, b"", false);
        let relayed = timeout(LONG, relaying).await.expect("it goes on");
        // A stream that breaks is no end: the client is not told of one.
        let broke = ends == "service breaks";
        assert_eq!(relayed.broke, broke, "{ends}");
        let told = to_client.0.load(Ordering::Relaxed);
        assert_eq!(told, !broke, "{ends}: the client");
        assert!(to_service.0.load(Ordering::Relaxed), "{ends}: the service");
    }
}

/// A source from which nothing comes.
struct Silent;

impl AsyncRead for Silent {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// A source that breaks.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_off_ends_the_stream_at_once() {
    let (mut service, near_service) = duplex(1024);
    let begun = Instant::now();
    let client = join(Broken, sink());
    let relaying = tokio::spawn(carry(client, near_service, b"", false));
    assert_eq!(read_all(&mut service).await, b"");
    end(relaying).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_any_more_ends_the_stream_at_once() {
    let (client, near_client) = duplex(1024);
    let (mut service, near_service) = duplex(1024);
    // The client still could say something.
    let (client_reader, _) = split(near_client);
    let begun = Instant::now();
    let near_client = join(client_reader, Broken);
    let relaying = tokio::spawn(carry(near_client, near_service, b"", false));
    service.write_all(b"lost").await.expect("written");
    assert_eq!(read_all(&mut service).await, b"");
    end(relaying).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn what_a_service_says_before_it_goes_is_heard_though_it_takes_nothing_any_more() {
    for early in [&b""[..], b"early"] {
        let (mut client, near_client) = duplex(1024);
        let (mut service, near_service) = duplex(1024);
        let (stream_reader, _) = split(near_service);
        let stream = join(stream_reader, Broken);
        let relaying = tokio::spawn(carry(near_client, stream, early, false));
        client.write_all(b"lost").await.expect("written");
        sleep(Duration::from_secs(1)).await;
        service.write_all(b"too large").await.expect("written");
        drop(service);
        assert_eq!(read_all(&mut client).await, b"too large");
        end(relaying).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_ends_the_client_at_once_and_not_as_one_that_ends() {
    for client_done in [false, true] {
        let (mut client, near_client) = duplex(1024);
        let begun = Instant::now();
        let stream = join(Cursor::new(b"the last words").chain(Broken), sink());
        let relaying = tokio::spawn(carry(near_client, stream, b"", client_done));
        // A pipe knows no reset.
        assert_eq!(read_all(&mut client).await, b"the last words");
        let counted = RelaySummary {
            sent: 0,
            received: 14,
            broke: true,
        };
        assert_eq!(end(relaying).await, counted, "{client_done}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

/// A pattern in which no two places within its period look alike: what is lost, doubled or out of order
/// shows.
fn counters(first: u32, bytes: usize) -> Vec<u8> {
    (first..).flat_map(u32::to_be_bytes).take(bytes).collect()
}

/// Says what was wrong, and where.
fn assert_same(heard: &[u8], said: &[u8], what: &str) {
    let wrong = heard.iter().zip(said).position(|(one, other)| one != other);
    assert_eq!((heard.len(), wrong), (said.len(), None), "{what}");
}

#[tokio::test(start_paused = true)]
async fn order_and_content_are_kept_to_the_last_byte_whichever_side_ends() {
    const UP: usize = 1_000_003;
    const DOWN: usize = 700_001;
    for (capacity, client_ends) in [(1000, true), (1000, false), (50_000, true), (50_000, false)] {
        let what = format!("{capacity} {client_ends}");
        let setting = start(capacity, b"", false);
        let (mut client_reader, mut client_writer) = split(setting.client);
        let (mut service_reader, mut service_writer) = split(setting.service);
        // The side that ends last says the more, so that all of both has to arrive.
        let (up, down) = match client_ends {
            true => (DOWN, UP),
            false => (UP, DOWN),
        };
        let (up, down) = (counters(0, up), counters(1 << 31, down));
        let heard_up = async {
            let mut heard = vec![0; up.len()];
            let read = timeout(LONG, service_reader.read_exact(&mut heard)).await;
            read.expect("the upload stops").expect("read");
            heard
        };
        let ((), (), heard_up, heard_down) = tokio::join!(
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
            heard_up,
            async {
                let mut heard = vec![0; down.len()];
                let read = timeout(LONG, client_reader.read_exact(&mut heard)).await;
                read.expect("the download stops").expect("read");
                heard
            }
        );
        assert_same(&heard_up, &up, &what);
        assert_same(&heard_down, &down, &what);
        if !client_ends {
            service_writer.shutdown().await.expect("shut down");
        }
        assert_eq!(read_all(&mut client_reader).await, b"", "{what}: an end");
        let counted = RelaySummary {
            sent: up.len() as u64,
            received: down.len() as u64,
            broke: false,
        };
        assert_eq!(end(setting.relaying).await, counted, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_to_say_on_either_side_is_no_reason_to_end() {
    let mut setting = start(1024, b"", false);
    sleep(Duration::from_secs(3000)).await;
    assert!(!setting.relaying.is_finished());
    setting
        .client
        .write_all(b"still here")
        .await
        .expect("written");
    read_exactly(&mut setting.service, b"still here").await;
    drop(setting.service);
    end(setting.relaying).await;
}

#[tokio::test(start_paused = true)]
async fn a_finished_client_and_an_empty_answer_make_an_end() {
    let (client, stream) = (join(empty(), sink()), join(empty(), sink()));
    let relayed = timeout(LONG, carry(client, stream, b"early", true))
        .await
        .expect("it goes on");
    assert_eq!(relayed.received, 0);
}
