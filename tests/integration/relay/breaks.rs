//! Sides that fail instead of ending.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use onionport::inbound::relay::RelaySummary;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, duplex, empty, join,
    sink, split,
};
use tokio::time::{Instant, sleep, timeout};

use super::{LONG, end, read_all, run};

/// A sink that records whether it was shut down.
#[derive(Clone, Default)]
struct ShutdownRecorder(Arc<AtomicBool>);

impl AsyncWrite for ShutdownRecorder {
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

/// A source that never yields anything.
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

/// A source and sink that fails.
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
async fn both_sides_are_shut_down_unless_the_stream_broke() {
    for event in [
        "client finishes",
        "client breaks",
        "service finishes",
        "service breaks",
    ] {
        let (to_client, to_service) = (ShutdownRecorder::default(), ShutdownRecorder::default());
        let reader = |side: &str| -> Box<dyn AsyncRead + Unpin> {
            match event.strip_prefix(side) {
                Some(" finishes") => Box::new(empty()),
                Some(" breaks") => Box::new(Broken),
                _ => Box::new(Silent),
            }
        };
        let client = join(reader("client"), to_client.clone());
        let stream = join(reader("service"), to_service.clone());
        let relaying = run(client, stream, b"", false);
        let summary = timeout(LONG, relaying).await.expect("an end in time");
        // After a break the client must not see an orderly end.
        let broke = event == "service breaks";
        assert_eq!(summary.broke, broke, "{event}");
        let is_shut_down = to_client.0.load(Ordering::Relaxed);
        assert_eq!(is_shut_down, !broke, "{event}: the client");
        assert!(to_service.0.load(Ordering::Relaxed), "{event}: the service");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_ends_the_stream_at_once() {
    let (mut service, near_service) = duplex(1024);
    let begun = Instant::now();
    let client = join(Broken, sink());
    let relaying = tokio::spawn(run(client, near_service, b"", false));
    assert_eq!(read_all(&mut service).await, b"");
    end(relaying).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_be_written_to_ends_the_stream_at_once() {
    let (client, near_client) = duplex(1024);
    let (mut service, near_service) = duplex(1024);
    // Reading from the client still works.
    let (client_reader, _) = split(near_client);
    let begun = Instant::now();
    let near_client = join(client_reader, Broken);
    let relaying = tokio::spawn(run(near_client, near_service, b"", false));
    service.write_all(b"lost").await.expect("written");
    assert_eq!(read_all(&mut service).await, b"");
    end(relaying).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_written_to_may_still_answer() {
    for optimistic in [&b""[..], b"early"] {
        let (mut client, near_client) = duplex(1024);
        let (mut service, near_service) = duplex(1024);
        let (stream_reader, _) = split(near_service);
        let stream = join(stream_reader, Broken);
        let relaying = tokio::spawn(run(near_client, stream, optimistic, false));
        client.write_all(b"lost").await.expect("written");
        sleep(Duration::from_secs(1)).await;
        service.write_all(b"too large").await.expect("written");
        drop(service);
        assert_eq!(read_all(&mut client).await, b"too large");
        end(relaying).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_ends_the_relay_at_once_and_is_reported_as_broken() {
    for client_done in [false, true] {
        let (mut client, near_client) = duplex(1024);
        let begun = Instant::now();
        let stream = join(Cursor::new(b"the last bytes").chain(Broken), sink());
        let relaying = tokio::spawn(run(near_client, stream, b"", client_done));
        // A duplex pipe cannot be reset, so the client reads an orderly end here.
        assert_eq!(read_all(&mut client).await, b"the last bytes");
        let expected = RelaySummary {
            sent: 0,
            received: 14,
            broke: true,
        };
        assert_eq!(end(relaying).await, expected, "{client_done}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
