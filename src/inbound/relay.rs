//! Carries bytes both ways between a client and a Tor stream.
//!
//! Tor has no half-open streams: ending our side (END) ends both. A client that has finished sending
//! may still be waiting for the answer, so its end of file does not end the stream at once, as it
//! does in C tor: the answer goes on while bytes keep coming with short pauses. How long it may take to begin
//! depends on who spoke last. A client that spoke last waits for an answer, if it is still there; its
//! bytes may even be on their way still, as nothing tells when a far end has them. A client that was
//! answered has probably left, and a service that waits for the end of a request should see it soon.
//!
//! A stream that breaks (the circuit dies, the far end is reset) is not an end of file: the client
//! must not take what it has got for the whole. [`Relayed::broke`] tells the two apart.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;
use tracing::debug;

/// How long the far end may be silent after a client has finished that still waits for an answer. Then
/// the stream is ended, so that a service that waits for the end of a request sees it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same once the answer has begun: a far end that keeps the stream open may be waiting for its end.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(15);
/// The same if the client was answered before it finished. Also how long a far end may take to hear of
/// an end.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a client that has finished may leave the answer unread.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
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
    /// Whether the stream broke instead of coming to its end. The client has not been told.
    pub broke: bool,
}

impl Relayed {
    /// Tells it to who looks for faults.
    pub(crate) fn tell(self) {
        let Relayed {
            sent,
            received,
            broke,
        } = self;
        debug!(sent, received, broke, "the stream is over");
    }
}

/// Why one direction came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The source has nothing more to say.
    Finished,
    /// The source broke.
    SourceLost,
    /// The sink takes nothing any more.
    SinkLost,
}

/// Sends `early`, what the client said before it had an answer, and then carries bytes both ways
/// until one side is done. `client_done` if the client has already finished sending. Gives the client's
/// side back, which has heard that no more will come, unless the stream broke; the stream is gone by
/// then.
///
/// Not an `async fn`, which would remember both sides twice: an idle stream has nothing but what is in
/// [`Relay`].
pub fn relay<C, S>(
    client: C,
    stream: S,
    early: Vec<u8>,
    client_done: bool,
) -> impl Future<Output = (C, Relayed)>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut relay = Relay {
        client,
        stream,
        up: Pump::new(early, client_done.then_some(Ended::Finished)),
        down: Pump::new(Vec::new(), None),
    };
    async move {
        let over = (&mut relay).await;
        // In a box: while a stream is idle, no room is kept for its end.
        let broke = Box::pin(relay.end(over)).await;
        let relayed = Relayed {
            sent: relay.up.count,
            received: relay.down.count,
            broke,
        };
        (relay.client, relayed)
    }
}

/// Both sides, and what goes on between them. As a future: carries bytes both ways until one way is over.
struct Relay<C, S> {
    client: C,
    stream: S,
    up: Pump,
    down: Pump,
}

/// Which way was over first.
enum Over {
    Up(Ended),
    Down(Ended),
}

impl<C, S> Future for Relay<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Over;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Over> {
        let this = &mut *self;
        let (sent, received) = (this.up.count, this.down.count);
        // First what the client says: if both ways are over at once, its last bytes go out as well.
        let up = this
            .up
            .carry(cx, &mut this.client, &mut this.stream)
            .map(Over::Up);
        if this.up.count > sent {
            this.down.is_latest = false;
        }
        if up.is_ready() {
            return up;
        }
        let down = this
            .down
            .carry(cx, &mut this.stream, &mut this.client)
            .map(Over::Down);
        if this.down.count > received {
            this.down.is_latest = true;
        }
        down
    }
}

impl<C, S> Relay<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Brings it to its end when one way is over. Gives whether the stream broke.
    async fn end(&mut self, over: Over) -> bool {
        let ended = match over {
            // The client says nothing more, but it may be waiting for an answer.
            Over::Up(Ended::Finished | Ended::SinkLost) => self.hear_out().await,
            // The far end is done, and nothing more can be sent to it either.
            Over::Down(ended) => Some(ended),
            // The client is lost.
            Over::Up(Ended::SourceLost) => None,
        };
        let broke = ended == Some(Ended::SourceLost);
        // Each side sees the end of the other as its own. A far end that takes nothing any more is left.
        if !broke {
            let _ = self.client.shutdown().await;
        }
        let _ = timeout(LAST_WORDS, self.stream.shutdown()).await;
        broke
    }

    /// Carries what the far end still says, for as long as it goes on. Gives how it ended; `None` if the
    /// far end fell silent.
    async fn hear_out(&mut self) -> Option<Ended> {
        let Relay {
            client,
            stream,
            down,
            ..
        } = self;
        let (begun, was_answered) = (down.count, down.is_latest);
        let mut silence = Duration::ZERO;
        loop {
            let before = down.count;
            let carrying = poll_fn(|cx| down.carry(cx, stream, client));
            if let Ok(ended) = timeout(LAST_WORDS, carrying).await {
                return Some(ended);
            }
            silence = match down.count > before {
                true => Duration::ZERO,
                false => silence + LAST_WORDS,
            };
            let limit = if down.is_stuck() {
                TAKE_TIMEOUT
            } else if was_answered {
                LAST_WORDS
            } else if down.count > begun {
                PAUSE_TIMEOUT
            } else {
                ANSWER_TIMEOUT
            };
            if silence >= limit {
                return None;
            }
        }
    }
}

thread_local! {
    /// Where bytes are on their way from a source to a sink. All streams of a thread use it in turn,
    /// so that a stream that is idle holds no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// One direction: carries bytes until there are no more. What was read is flushed whenever the source
/// pauses: a Tor stream keeps bytes back until a cell is full or it is flushed.
struct Pump {
    /// How many bytes the sink has taken.
    count: u64,
    /// What was read and the sink has not taken yet. In a box, as few streams have any.
    held: Option<Box<Held>>,
    unflushed: bool,
    /// Whether nothing was carried the other way since its last bytes. Kept for the way to the client.
    is_latest: bool,
    /// How it ends, once everything read is written.
    ended: Option<Ended>,
}

/// Bytes of which the sink has taken the first ones.
struct Held {
    bytes: Vec<u8>,
    taken: usize,
}

impl Held {
    /// `None` if there are no bytes.
    fn new(bytes: Vec<u8>) -> Option<Box<Held>> {
        (!bytes.is_empty()).then(|| Box::new(Held { bytes, taken: 0 }))
    }
}

impl Pump {
    /// Begins with `bytes` that were read already.
    fn new(bytes: Vec<u8>, ended: Option<Ended>) -> Self {
        Pump {
            count: 0,
            held: Held::new(bytes),
            // Early data may wait in the sink.
            unflushed: true,
            is_latest: false,
            ended,
        }
    }

    /// Whether bytes were read that the sink has not taken yet.
    fn is_stuck(&self) -> bool {
        self.held.is_some()
    }

    /// Carries what can be carried now.
    fn carry(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Ended> {
        SCRATCH.with_borrow_mut(|scratch| self.carry_by(scratch, cx, source, sink))
    }

    fn carry_by(
        &mut self,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Ended> {
        for _ in 0..TURNS {
            if let Some(held) = &mut self.held {
                let Ok(written) = write(cx, sink, &held.bytes[held.taken..]) else {
                    return Poll::Ready(Ended::SinkLost);
                };
                self.count += written as u64;
                held.taken += written;
                if held.taken < held.bytes.len() {
                    return Poll::Pending;
                }
                self.held = None;
            }
            if let Some(ended) = self.ended {
                return match ready!(Pin::new(&mut *sink).poll_flush(cx)) {
                    Ok(()) => Poll::Ready(ended),
                    Err(_) => Poll::Ready(Ended::SinkLost),
                };
            }
            let (read, paused) = self.fill(cx, source, scratch);
            let Ok(written) = write(cx, sink, &scratch[..read]) else {
                return Poll::Ready(Ended::SinkLost);
            };
            self.count += written as u64;
            self.unflushed |= read > 0;
            if written < read {
                self.held = Held::new(scratch[written..read].to_vec());
                return Poll::Pending;
            }
            if paused {
                if self.unflushed {
                    match Pin::new(&mut *sink).poll_flush(cx) {
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
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        scratch: &mut [u8],
    ) -> (usize, bool) {
        let mut room = ReadBuf::new(scratch);
        while room.remaining() > 0 {
            let before = room.filled().len();
            match Pin::new(&mut *source).poll_read(cx, &mut room) {
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

#[cfg(test)]
mod tests {
    use tokio::io::{empty, join, sink};

    use super::*;

    #[tokio::test]
    async fn the_last_bytes_of_a_client_go_out_though_the_far_end_is_done_too() {
        let mut far_end = Vec::new();
        let client = join(&b"last"[..], sink());
        let stream = join(empty(), &mut far_end);
        let (_, relayed) = relay(client, stream, b"early ".to_vec(), false).await;
        let counted = Relayed {
            sent: 10,
            received: 0,
            broke: false,
        };
        assert_eq!(relayed, counted);
        assert_eq!(far_end, b"early last");
    }
}
