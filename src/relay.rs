//! Carries bytes both ways between a client and a Tor stream.
//!
//! Tor has no half-open streams: ending our side (END) ends both. A client that has finished sending
//! may still be waiting for the answer, so its end of file does not end the stream at once, as it
//! does in C tor: the answer goes on for as long as bytes keep coming.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::parting::within;

/// How long the other side may be silent after the client has sent its last byte. Then the stream is
/// ended, so that a service that waits for the end of a request sees it.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How much is carried at once.
const BUFFER: usize = 16 * 1024;
/// How often that is done before other streams have their turn.
const TURNS: usize = 8;

/// How many bytes went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// From the client to the network.
    pub sent: u64,
    /// From the network to the client.
    pub received: u64,
}

/// Why one direction came to its end.
#[derive(Clone, Copy)]
enum Ended {
    /// The source has nothing more to say.
    Finished,
    /// The source broke.
    SourceLost,
    /// The sink takes nothing any more.
    SinkLost,
}

/// Sends `early`, what the client said before it had an answer, and then carries bytes both ways
/// until one side is done. `client_done` if the client has already finished sending.
pub async fn relay(
    // Not taken apart: an idle stream would be remembered twice.
    mut client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    mut stream: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    early: Vec<u8>,
    client_done: bool,
) -> Relayed {
    let (sent, received) = (Count::default(), Count::default());
    {
        let mut up = Pump::new(&mut client.0, &mut stream.1, &sent);
        up.held = early;
        up.ended = client_done.then_some(Ended::Finished);
        let mut down = Pump::new(&mut stream.0, &mut client.1, &received);
        tokio::select! {
            // The far end is done; nothing more can be sent to it either.
            _ = &mut down => {}
            ended = &mut up => match ended {
                Ended::Finished | Ended::SinkLost => {
                    let mut before = None;
                    while before != Some(received.bytes()) || received.stuck() {
                        before = Some(received.bytes());
                        if within(LAST_WORDS, &mut down).await.is_some() {
                            break;
                        }
                    }
                }
                Ended::SourceLost => {}
            },
        }
    }
    // Each side sees the end of the other as its own. A far end that takes nothing any more is left.
    let _ = client.1.shutdown().await;
    let _ = within(LAST_WORDS, stream.1.shutdown()).await;
    Relayed {
        sent: sent.bytes(),
        received: received.bytes(),
    }
}

/// How far one direction has got.
#[derive(Default)]
struct Count {
    bytes: AtomicU64,
    /// Whether bytes were read that the sink has not taken yet.
    stuck: AtomicBool,
}

impl Count {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }
}

thread_local! {
    /// Where bytes are on their way from a source to a sink. All streams of a thread use it in turn,
    /// so that a stream that is idle holds no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// One direction: carries bytes until there are no more. What was read is flushed whenever the source
/// pauses: a Tor stream keeps bytes back until a cell is full or it is flushed.
struct Pump<'a, S, K> {
    source: &'a mut S,
    sink: &'a mut K,
    count: &'a Count,
    /// What was read and the sink has not taken yet.
    held: Vec<u8>,
    unflushed: bool,
    /// How it ends, once everything read is written.
    ended: Option<Ended>,
}

impl<S: AsyncRead + Unpin, K: AsyncWrite + Unpin> Future for Pump<'_, S, K> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        SCRATCH.with_borrow_mut(|scratch| self.carry(cx, scratch))
    }
}

impl<'a, S: AsyncRead + Unpin, K: AsyncWrite + Unpin> Pump<'a, S, K> {
    fn new(source: &'a mut S, sink: &'a mut K, count: &'a Count) -> Self {
        Pump {
            source,
            sink,
            count,
            held: Vec::new(),
            // Early data may wait in the sink.
            unflushed: true,
            ended: None,
        }
    }

    fn carry(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Ended> {
        for _ in 0..TURNS {
            if !self.held.is_empty() {
                let mut held = std::mem::take(&mut self.held);
                let Ok(written) = write(cx, self.sink, &held) else {
                    return Poll::Ready(Ended::SinkLost);
                };
                self.count.add(written);
                held.drain(..written);
                if !held.is_empty() {
                    self.held = held;
                    return Poll::Pending;
                }
                self.count.stuck.store(false, Ordering::Relaxed);
            }
            if let Some(ended) = self.ended {
                return match ready!(Pin::new(&mut *self.sink).poll_flush(cx)) {
                    Ok(()) => Poll::Ready(ended),
                    Err(_) => Poll::Ready(Ended::SinkLost),
                };
            }
            let (read, paused) = self.fill(cx, scratch);
            let Ok(written) = write(cx, self.sink, &scratch[..read]) else {
                return Poll::Ready(Ended::SinkLost);
            };
            self.count.add(written);
            self.unflushed |= read > 0;
            if written < read {
                self.count.stuck.store(true, Ordering::Relaxed);
                self.held = scratch[written..read].to_vec();
                return Poll::Pending;
            }
            if paused {
                if self.unflushed {
                    match Pin::new(&mut *self.sink).poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.unflushed = false,
                        Poll::Ready(Err(_)) => return Poll::Ready(Ended::SinkLost),
                        Poll::Pending => {}
                    }
                }
                return Poll::Pending;
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads until the source pauses or ends or there is no more room: a Tor stream gives a cell at a
    /// time, and a client is better served with many at once. Gives the number of bytes, and whether
    /// the source has paused.
    fn fill(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> (usize, bool) {
        let mut room = ReadBuf::new(scratch);
        while room.remaining() > 0 {
            let before = room.filled().len();
            match Pin::new(&mut *self.source).poll_read(cx, &mut room) {
                Poll::Pending => return (room.filled().len(), true),
                Poll::Ready(Ok(())) if room.filled().len() > before => {}
                Poll::Ready(Ok(())) => {
                    self.ended = Some(Ended::Finished);
                    break;
                }
                Poll::Ready(Err(_)) => {
                    self.ended = Some(Ended::SourceLost);
                    break;
                }
            }
        }
        (room.filled().len(), false)
    }
}

/// Writes what the sink takes at once; the error is a sink that takes nothing any more.
fn write(
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
