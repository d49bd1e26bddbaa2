//! Copying bytes both ways between a client and a stream, without any protocol.
//!
//! | module | shows |
//! |---|---|
//! | `copying` | all bytes arrive, in order and without delay |
//! | `ends` | how long the relay goes on after one side has ended |
//! | `breaks` | sides that fail instead of ending |

use std::time::Duration;

use onionport::inbound::relay::{RelaySummary, relay};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

mod breaks;
mod copying;
mod ends;

/// More than any of these tests takes on the paused clock.
const LONG: Duration = Duration::from_secs(3600);

/// A running relay and its two remote ends.
struct RunningRelay {
    client: DuplexStream,
    service: DuplexStream,
    relaying: JoinHandle<RelaySummary>,
}

/// Runs a relay to its end, and then drops both sides.
async fn run(
    client: impl AsyncRead + AsyncWrite + Unpin,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    optimistic: &[u8],
    client_done: bool,
) -> RelaySummary {
    let (_, summary) = relay(client, stream, optimistic.to_vec(), client_done).await;
    summary
}

/// Starts a relay between two pipes that hold `capacity` bytes in each direction.
fn start(capacity: usize, optimistic: &'static [u8], client_done: bool) -> RunningRelay {
    let (client, near_client) = duplex(capacity);
    let (service, near_service) = duplex(capacity);
    let relaying = tokio::spawn(run(near_client, near_service, optimistic, client_done));
    RunningRelay {
        client,
        service,
        relaying,
    }
}

/// Waits for the end of a relay.
async fn end(relaying: JoinHandle<RelaySummary>) -> RelaySummary {
    let ended = timeout(LONG, relaying)
        .await
        .expect("the relay ends in time");
    ended.expect("no panic")
}

/// Reads to the end.
async fn read_all(source: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(LONG, source.read_to_end(&mut all)).await;
    read.expect("an end in time").expect("read");
    all
}

/// Reads this many bytes.
async fn read_bytes(source: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut received = vec![0; count];
    let read = timeout(LONG, source.read_exact(&mut received)).await;
    read.expect("bytes in time").expect("read");
    received
}

/// Expects these bytes next.
async fn expect_bytes(source: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    assert_eq!(read_bytes(source, expected.len()).await, expected);
}
