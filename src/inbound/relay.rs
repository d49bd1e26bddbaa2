//! Copies bytes both ways between a client and a Tor stream.
//!
//! Tor streams have no half-close: an END cell ends both directions. A client that has finished
//! sending may still wait for an answer. C tor ends the stream at the client's end of file. Here the
//! answer is still relayed, as long as bytes keep coming with short pauses. How long the answer may take
//! to begin depends on which side sent last. A client that sent last is probably waiting, and
//! its bytes may still be in transit: Tor does not report delivery. A client that received last has
//! probably left, and a service that waits for the end of a request should see it soon.
//!
//! A stream that breaks (the circuit dies, the destination resets) is not an end of file: the client
//! must not mistake what it received for the whole answer. [`RelaySummary::broke`] distinguishes the two.
//! An answer that the client leaves unread until it is abandoned counts as broken, too. A destination
//! that falls silent does not: it may have sent its whole answer and wait for the end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;
use tracing::debug;

/// How long the destination may be silent after a client that sent last has finished. The stream is
/// then closed, for services that wait for the end of the request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the destination may pause within such an answer: it may itself wait for the end.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the destination may be silent after a client that received last has finished, and how long
/// closing the stream may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client that has finished may leave an answer unread.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How many bytes are copied at once.
const BUFFER_SIZE: usize = 16 * 1024;
/// How many buffers are copied before other tasks get their turn.
const BUFFERS_PER_POLL: usize = 8;

/// What a finished relay has copied, and how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelaySummary {
    /// Bytes from the client to the network.
    pub sent: u64,
    /// Bytes from the network to the client.
    pub received: u64,
    /// Whether the stream broke instead of ending, or was abandoned with bytes that the client had not
    /// accepted. The client's side is then not shut down.
    pub broke: bool,
}

impl RelaySummary {
    /// Logs the byte counts at debug level.
    pub(crate) fn log(self) {
        let RelaySummary {
            sent,
            received,
            broke,
        } = self;
        debug!(sent, received, broke, "stream closed");
    }
}

/// Copies bytes both ways until both directions have ended or a time limit passes.
///
/// Starts with the `optimistic` data that the client sent before its request was answered.
/// `client_at_eof` is whether the client has already finished sending. Returns the client's side, shut
/// down unless the stream broke. The stream is dropped.
///
/// Not an `async fn`, which would store both sides twice: the future of an idle stream holds a
/// [`BidirectionalCopy`] and nothing else.
pub fn relay<C, S>(
    client: C,
    stream: S,
    optimistic: Vec<u8>,
    client_at_eof: bool,
) -> impl Future<Output = (C, RelaySummary)>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut copy = BidirectionalCopy {
        client,
        stream,
        up: OneWayCopy::new(optimistic, client_at_eof.then_some(CopyEnd::SourceEof)),
        down: OneWayCopy::new(Vec::new(), None),
    };
    async move {
        let first = (&mut copy).await;
        // Boxed: an idle stream must not reserve memory for its end.
        let broke = Box::pin(copy.finish(first)).await;
        let summary = RelaySummary {
            sent: copy.up.count,
            received: copy.down.count,
            broke,
        };
        (copy.client, summary)
    }
}

/// Both sides and both directions. As a future, copies until one direction ends.
struct BidirectionalCopy<C, S> {
    client: C,
    stream: S,
    up: OneWayCopy,
    down: OneWayCopy,
}

/// The direction that ended first.
enum FirstEnd {
    Up(CopyEnd),
    Down(CopyEnd),
}

/// Why one direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyEnd {
    /// The source reached its end of file.
    SourceEof,
    /// Reading from the source failed.
    SourceFailed,
    /// Writing to the sink failed.
    SinkFailed,
}

impl<C, S> Future for BidirectionalCopy<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = FirstEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FirstEnd> {
        let this = &mut *self;
        let (sent, received) = (this.up.count, this.down.count);
        // Upwards first: if both directions end at once, the client's last bytes are still sent.
        let up = this
            .up
            .poll_copy(cx, &mut this.client, &mut this.stream)
            .map(FirstEnd::Up);
        if this.up.count > sent {
            this.down.was_last = false;
        }
        if up.is_ready() {
            return up;
        }
        let down = this
            .down
            .poll_copy(cx, &mut this.stream, &mut this.client)
            .map(FirstEnd::Down);
        if this.down.count > received {
            this.down.was_last = true;
        }
        down
    }
}

impl<C, S> BidirectionalCopy<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Closes both sides after one direction has ended. Returns [`RelaySummary::broke`].
    async fn finish(&mut self, first: FirstEnd) -> bool {
        let broke = match first {
            // The client has finished, or the stream accepts no more bytes; an answer may still arrive.
            FirstEnd::Up(CopyEnd::SourceEof | CopyEnd::SinkFailed) => self.copy_answer().await,
            // The stream ended or broke, or the client accepts no more bytes.
            FirstEnd::Down(end) => end == CopyEnd::SourceFailed,
            // The client is gone.
            FirstEnd::Up(CopyEnd::SourceFailed) => false,
        };
        if !broke {
            let _ = self.client.shutdown().await;
        }
        // Limited: a destination that takes no more bytes is abandoned.
        let _ = timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
        broke
    }

    /// Copies the rest of the answer, until it ends or nothing has moved for too long. Returns
    /// [`RelaySummary::broke`].
    async fn copy_answer(&mut self) -> bool {
        let BidirectionalCopy {
            client,
            stream,
            down,
            ..
        } = self;
        let (received, received_last) = (down.count, down.was_last);
        let mut silence = Duration::ZERO;
        loop {
            let before = down.count;
            let copying = poll_fn(|cx| down.poll_copy(cx, stream, client));
            if let Ok(end) = timeout(CLOSE_TIMEOUT, copying).await {
                return end == CopyEnd::SourceFailed;
            }
            silence = match down.count > before {
                true => Duration::ZERO,
                false => silence + CLOSE_TIMEOUT,
            };
            let limit = if down.has_unwritten() {
                UNREAD_TIMEOUT
            } else if received_last {
                CLOSE_TIMEOUT
            } else if down.count > received {
                PAUSE_TIMEOUT
            } else {
                ANSWER_TIMEOUT
            };
            if silence >= limit {
                return down.has_unwritten();
            }
        }
    }
}

thread_local! {
    /// The buffer between source and sink. All streams of a thread share it, so that an idle stream
    /// holds no buffer.
    static SHARED_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_SIZE]);
}

/// One direction of a relay. Flushes the sink whenever the source pauses: a Tor stream keeps bytes back
/// until a cell is full or it is flushed.
struct OneWayCopy {
    /// How many bytes the sink has accepted.
    count: u64,
    /// Bytes that the sink has not accepted yet. Boxed, as few streams have any.
    unwritten: Option<Box<UnwrittenBytes>>,
    needs_flush: bool,
    /// Whether this direction was the last to copy bytes. Maintained for the downward one only.
    was_last: bool,
    /// Why this direction ends, once everything read is written.
    end: Option<CopyEnd>,
}

/// Bytes of which the sink has accepted the first `written`.
struct UnwrittenBytes {
    bytes: Vec<u8>,
    written: usize,
}

impl UnwrittenBytes {
    /// Returns `None` if there are no bytes.
    fn new(bytes: Vec<u8>) -> Option<Box<UnwrittenBytes>> {
        (!bytes.is_empty()).then(|| Box::new(UnwrittenBytes { bytes, written: 0 }))
    }
}

impl OneWayCopy {
    /// Creates a direction that starts with `bytes`, which were read already.
    fn new(bytes: Vec<u8>, end: Option<CopyEnd>) -> Self {
        OneWayCopy {
            count: 0,
            unwritten: UnwrittenBytes::new(bytes),
            // The sink may hold optimistic data already.
            needs_flush: true,
            was_last: false,
            end,
        }
    }

    /// Whether bytes were read that the sink has not accepted yet.
    fn has_unwritten(&self) -> bool {
        self.unwritten.is_some()
    }

    /// Copies as much as possible without waiting. Ready when this direction has ended.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<CopyEnd> {
        SHARED_BUFFER.with_borrow_mut(|buffer| self.poll_copy_with(buffer, cx, source, sink))
    }

    fn poll_copy_with(
        &mut self,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<CopyEnd> {
        for _ in 0..BUFFERS_PER_POLL {
            if let Some(unwritten) = &mut self.unwritten {
                let rest = &unwritten.bytes[unwritten.written..];
                let Ok(written) = write_available(cx, sink, rest) else {
                    return Poll::Ready(CopyEnd::SinkFailed);
                };
                self.count += written as u64;
                unwritten.written += written;
                if unwritten.written < unwritten.bytes.len() {
                    return Poll::Pending;
                }
                self.unwritten = None;
            }
            if let Some(end) = self.end {
                return match ready!(Pin::new(&mut *sink).poll_flush(cx)) {
                    Ok(()) => Poll::Ready(end),
                    Err(_) => Poll::Ready(CopyEnd::SinkFailed),
                };
            }
            let (read, paused) = self.read_available(cx, source, buffer);
            let Ok(written) = write_available(cx, sink, &buffer[..read]) else {
                return Poll::Ready(CopyEnd::SinkFailed);
            };
            self.count += written as u64;
            self.needs_flush |= read > 0;
            if written < read {
                self.unwritten = UnwrittenBytes::new(buffer[written..read].to_vec());
                return Poll::Pending;
            }
            if paused {
                if self.needs_flush {
                    match Pin::new(&mut *sink).poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.needs_flush = false,
                        Poll::Ready(Err(_)) => return Poll::Ready(CopyEnd::SinkFailed),
                        Poll::Pending => {}
                    }
                }
                return Poll::Pending;
            }
        }
        // Yield to other tasks.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads until the source pauses or ends, or the buffer is full: a Tor stream returns one cell per
    /// read, and fewer, larger writes to the client are cheaper. Returns the number of bytes and
    /// whether the source paused.
    fn read_available(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        buffer: &mut [u8],
    ) -> (usize, bool) {
        let mut buffer = ReadBuf::new(buffer);
        while buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match Pin::new(&mut *source).poll_read(cx, &mut buffer) {
                Poll::Pending => return (buffer.filled().len(), true),
                Poll::Ready(Ok(())) if buffer.filled().len() > before => {}
                Poll::Ready(Ok(())) => {
                    self.end = Some(CopyEnd::SourceEof);
                    break;
                }
                Poll::Ready(Err(_)) => {
                    self.end = Some(CopyEnd::SourceFailed);
                    break;
                }
            }
        }
        (buffer.filled().len(), false)
    }
}

/// Writes what the sink accepts without waiting. Returns the number of bytes, or `Err` if the sink
/// failed or accepts no more bytes.
fn write_available(
    cx: &mut Context<'_>,
    sink: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> Result<usize, ()> {
    let mut written = 0;
    while written < bytes.len() {
        match Pin::new(&mut *sink).poll_write(cx, &bytes[written..]) {
            Poll::Ready(Ok(0) | Err(_)) => return Err(()),
            Poll::Ready(Ok(n)) => written += n,
            Poll::Pending => break,
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use tokio::io::{empty, join, sink};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_a_finished_client_leaves_unread_does_not_end_cleanly() {
        let (mut client, near_client) = tokio::io::duplex(64);
        let (mut destination, stream) = tokio::io::duplex(64);
        client.shutdown().await.expect("shut down");
        let started = Instant::now();
        let answering = destination.write_all(&[0; 1000]);
        let relaying = relay(near_client, stream, Vec::new(), false);
        let (answered, (_, summary)) = tokio::join!(answering, relaying);
        assert!(answered.is_err());
        // Checked every `CLOSE_TIMEOUT`.
        let waited = started.elapsed();
        assert!((UNREAD_TIMEOUT..=UNREAD_TIMEOUT + CLOSE_TIMEOUT).contains(&waited));
        assert_eq!((summary.received, summary.broke), (64, true));
    }

    #[tokio::test]
    async fn the_last_bytes_of_a_client_are_sent_though_the_destination_has_ended_too() {
        let mut destination = Vec::new();
        let client = join(&b"last"[..], sink());
        let stream = join(empty(), &mut destination);
        let (_, summary) = relay(client, stream, b"early ".to_vec(), false).await;
        let expected = RelaySummary {
            sent: 10,
            received: 0,
            broke: false,
        };
        assert_eq!(summary, expected);
        assert_eq!(destination, b"early last");
    }
}
