//! Carries bytes both ways between a client and a Tor stream.
//!
//! Tor has no half-open streams: ending our side (END) ends both. A client that has finished sending
//! may still be waiting for the answer, so its end of file does not end the stream at once, as it
//! does in C tor: the answer goes on for as long as bytes keep coming.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long the other side may be silent after the client has sent its last byte. Then the stream is
/// ended, so that a service that waits for the end of a request sees it.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How much is read at once.
const BUFFER: usize = 16 * 1024;

/// How many bytes went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// From the client to the network.
    pub sent: u64,
    /// From the network to the client.
    pub received: u64,
}

/// Why one direction came to its end.
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
    client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    stream: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    early: &[u8],
    client_done: bool,
) -> Relayed {
    let (mut client_reader, mut client_writer) = client;
    let (mut stream_reader, mut stream_writer) = stream;
    let (sent, received) = (Count::default(), Count::default());
    {
        let up = async {
            if !early.is_empty() {
                let written = async {
                    stream_writer.write_all(early).await?;
                    stream_writer.flush().await
                };
                if written.await.is_err() {
                    return Ended::SinkLost;
                }
                sent.add(early.len());
            }
            if client_done {
                return Ended::Finished;
            }
            pump(&mut client_reader, &mut stream_writer, &sent).await
        };
        let mut down = pin!(pump(&mut stream_reader, &mut client_writer, &received));
        tokio::select! {
            // The far end is done; nothing more can be sent to it either.
            _ = &mut down => {}
            ended = up => match ended {
                Ended::Finished | Ended::SinkLost => {
                    let mut before = None;
                    while before != Some(received.bytes()) || received.stuck() {
                        before = Some(received.bytes());
                        if timeout(LAST_WORDS, &mut down).await.is_ok() {
                            break;
                        }
                    }
                }
                Ended::SourceLost => {}
            },
        }
    }
    // Each side sees the end of the other as its own. A far end that takes nothing any more is left.
    let _ = client_writer.shutdown().await;
    let _ = timeout(LAST_WORDS, stream_writer.shutdown()).await;
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

/// Carries bytes one way until there are no more. What was read is flushed whenever the source
/// pauses: a Tor stream keeps bytes back until a cell is full or it is flushed.
async fn pump(
    source: &mut (impl AsyncRead + Unpin),
    sink: &mut (impl AsyncWrite + Unpin),
    count: &Count,
) -> Ended {
    let mut buffer = vec![0; BUFFER];
    let mut unflushed = false;
    loop {
        let read = match source.read(&mut buffer).now_or_never() {
            Some(read) => read,
            None => {
                if unflushed && sink.flush().await.is_err() {
                    return Ended::SinkLost;
                }
                source.read(&mut buffer).await
            }
        };
        match read {
            Ok(0) => {
                let flushed = sink.flush().await;
                return if flushed.is_ok() {
                    Ended::Finished
                } else {
                    Ended::SinkLost
                };
            }
            Ok(n) => {
                count.stuck.store(true, Ordering::Relaxed);
                if sink.write_all(&buffer[..n]).await.is_err() {
                    return Ended::SinkLost;
                }
                count.stuck.store(false, Ordering::Relaxed);
                count.add(n);
                unflushed = true;
            }
            Err(_) => return Ended::SourceLost,
        }
    }
}
