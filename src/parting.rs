//! How a connection with a client ends.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long to wait for the client to close its side.
const GRACE: Duration = Duration::from_secs(2);
/// How many bytes of what it still says are thrown away.
const MAX_IGNORED: u64 = 64 * 1024;

/// Ends the connection so that the last bytes arrive: closing a socket in which unread bytes wait
/// would reset it, and take them away from the client.
pub(crate) async fn part(mut client: impl AsyncRead + AsyncWrite + Unpin) {
    // It may have been done before; then this does nothing.
    let ended: io::Result<()> = client.shutdown().await;
    if ended.is_err_and(|error| error.kind() != io::ErrorKind::NotConnected) {
        return;
    }
    let mut nowhere = tokio::io::sink();
    let mut rest = client.take(MAX_IGNORED);
    let _ = within(GRACE, tokio::io::copy(&mut rest, &mut nowhere)).await;
}

/// Waits for `limit` at most. In a box: while a stream is idle, no room is kept for its end.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    Box::pin(timeout(limit, future)).await.ok()
}
