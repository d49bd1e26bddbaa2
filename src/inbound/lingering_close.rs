//! The end of a client's connection: a lingering close, or a reset.
//!
//! The kernel resets a connection that is closed while received bytes are unread, and drops what it
//! has not sent yet. A complete answer is therefore followed by a lingering close ([`close`]), as in
//! nginx: the sending side is shut down, and what the client still sends is read and discarded.
//!
//! If the Tor stream broke, the client must not mistake a truncated answer for a complete one, so its
//! connection is reset ([`reset`]).

use std::io;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::inbound::relay::RelaySummary;

/// The longest time that a lingering close takes (nginx's `lingering_time`).
const LINGERING_TOTAL: Duration = Duration::from_secs(30);
/// The longest pause between two reads of a lingering close (nginx's `lingering_timeout`).
const LINGERING_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How many bytes of the client a lingering close discards at most.
const MAX_DISCARDED: u64 = 256 * 1024 * 1024;
/// How many bytes are discarded in one read.
const DISCARD_BUFFER: usize = 8 * 1024;

/// A client's connection, which can be reset if its kind of socket supports resets.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the drop of this connection reset it. The returned future completes when the kernel has
    /// sent everything that was written before: a reset loses unsent bytes.
    ///
    /// # Errors
    /// Returns the error of the system call that failed. The connection is then not reset on drop.
    fn reset_on_drop(&self) -> io::Result<BoxFuture<'static, io::Result<()>>>;
}

impl Connection for TcpStream {
    fn reset_on_drop(&self) -> io::Result<BoxFuture<'static, io::Result<()>>> {
        let all_sent = wait_until_sent(self)?;
        // Set last: if waiting is impossible, return the error without enabling a reset, which would
        // discard unsent bytes.
        self.set_zero_linger()?;
        Ok(all_sent)
    }
}

/// Unix sockets have no reset: the client sees an end of file.
impl Connection for UnixStream {
    fn reset_on_drop(&self) -> io::Result<BoxFuture<'static, io::Result<()>>> {
        Ok(std::future::ready(Ok(())).boxed())
    }
}

/// Pipes within the process have no reset either.
impl Connection for DuplexStream {
    fn reset_on_drop(&self) -> io::Result<BoxFuture<'static, io::Result<()>>> {
        Ok(std::future::ready(Ok(())).boxed())
    }
}

/// Returns a future that completes when the kernel has sent everything that was written.
#[cfg(target_os = "linux")]
fn wait_until_sent(stream: &TcpStream) -> io::Result<BoxFuture<'static, io::Result<()>>> {
    use std::os::fd::AsFd as _;

    // With this mark the socket is writable only while no byte is unsent.
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(1)?;
    // Register a duplicate: tokio caches that the old handle was writable.
    let handle = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
    let handle = TcpStream::from_std(handle)?;
    Ok(async move { handle.writable().await }.boxed())
}

/// Completes at once: only Linux reports unsent bytes this way.
#[cfg(not(target_os = "linux"))]
fn wait_until_sent(_stream: &TcpStream) -> io::Result<BoxFuture<'static, io::Result<()>>> {
    Ok(std::future::ready(Ok(())).boxed())
}

/// Resets the connection if its stream broke, and closes it otherwise.
pub(crate) async fn close_or_reset(client: impl Connection, summary: RelaySummary) {
    match summary.broke {
        true => reset(client).await,
        false => close(client).await,
    }
}

/// Performs a lingering close, so that the last bytes arrive.
pub(crate) async fn close(mut client: impl AsyncRead + AsyncWrite + Unpin) {
    // Has no effect if the connection is shut down already.
    let shut_down: io::Result<()> = client.shutdown().await;
    if shut_down.is_err_and(|error| error.kind() != io::ErrorKind::NotConnected) {
        return;
    }
    let _ = await_with_limit(LINGERING_TOTAL, discard(&mut client)).await;
}

/// Resets the connection after the kernel has sent the bytes that were written.
pub(crate) async fn reset(mut client: impl Connection) {
    let Ok(all_sent) = client.reset_on_drop() else {
        return;
    };
    let draining = async {
        tokio::select! {
            _ = all_sent => {}
            // A client may read nothing before it has sent everything, so its bytes are read too.
            () = discard(&mut client).then(|()| std::future::pending()) => {}
        }
    };
    let _ = await_with_limit(LINGERING_TOTAL, draining).await;
}

/// Reads and drops what the client sends, until it ends, pauses for [`LINGERING_READ_TIMEOUT`] or has
/// sent [`MAX_DISCARDED`] bytes.
async fn discard(client: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = [0; DISCARD_BUFFER];
    let mut discarded = 0;
    while discarded < MAX_DISCARDED {
        match timeout(LINGERING_READ_TIMEOUT, client.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => discarded += read as u64,
            Ok(_) | Err(_) => return,
        }
    }
}

/// Awaits `future` for `limit` at most. Boxed: an idle stream must not reserve memory for its end.
async fn await_with_limit<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    Box::pin(timeout(limit, future)).await.ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{join, repeat, sink};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_number_of_discarded_bytes_is_limited() {
        // A client that never stops sending.
        let mut client = repeat(0).take(u64::MAX);
        let started = Instant::now();
        close(join(&mut client, sink())).await;
        let read = u64::MAX - client.limit();
        let most = MAX_DISCARDED + DISCARD_BUFFER as u64;
        assert!((MAX_DISCARDED..most).contains(&read), "{read} bytes");
        assert!(started.elapsed() < LINGERING_READ_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_close_of_a_silent_client_ends_after_the_read_timeout() {
        let (_client, near) = tokio::io::duplex(1024);
        let started = Instant::now();
        close(near).await;
        assert_eq!(started.elapsed(), LINGERING_READ_TIMEOUT);
    }
}
