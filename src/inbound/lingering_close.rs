//! How a connection with a client ends: in order, or with a reset.
//!
//! The kernel resets a connection that is closed while bytes of the client are unread, and drops what
//! it has not sent yet. So every answer is followed by a lingering close ([`part`]), as in nginx:
//! nothing more is sent, and what the client still sends is read and discarded.
//!
//! A client whose stream broke must not take what it has got for the whole, so its connection is
//! reset ([`reset`]).

use std::io;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::inbound::relay::Relayed;

/// How long a lingering close takes at most (nginx's `lingering_time`).
const LINGER: Duration = Duration::from_secs(30);
/// How long a lingering close waits for the next bytes of the client (nginx's `lingering_timeout`).
const SILENCE: Duration = Duration::from_secs(5);
/// How many bytes of the client a lingering close discards at most.
const MAX_DISCARDED: u64 = 256 * 1024 * 1024;
/// How many bytes are discarded at once.
const PIECE: usize = 8 * 1024;

/// A client's connection, which can be reset where its kind knows resets.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {
    /// Has the connection reset when it is dropped. The future waits until the kernel has sent all
    /// that was written before: a reset loses what is unsent.
    fn reset_on_drop(&self) -> io::Result<BoxFuture<'static, io::Result<()>>>;
}

impl Connection for TcpStream {
    fn reset_on_drop(&self) -> io::Result<BoxFuture<'static, io::Result<()>>> {
        let sent = sent(self)?;
        // Last: a connection that cannot be waited for must not lose what is unsent.
        self.set_zero_linger()?;
        Ok(sent)
    }
}

/// A unix socket knows no reset: the client sees an end.
impl Connection for UnixStream {
    fn reset_on_drop(&self) -> io::Result<BoxFuture<'static, io::Result<()>>> {
        Ok(std::future::ready(Ok(())).boxed())
    }
}

/// A pipe within the program knows no reset either.
impl Connection for DuplexStream {
    fn reset_on_drop(&self) -> io::Result<BoxFuture<'static, io::Result<()>>> {
        Ok(std::future::ready(Ok(())).boxed())
    }
}

/// Waits until the kernel has sent all that was written.
#[cfg(target_os = "linux")]
fn sent(stream: &TcpStream) -> io::Result<BoxFuture<'static, io::Result<()>>> {
    use std::os::fd::AsFd as _;

    // From now on the socket is writable only while no byte is unsent.
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(1)?;
    // A new handle asks the kernel anew; tokio remembers of the old one that it was writable.
    let handle = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
    let handle = TcpStream::from_std(handle)?;
    Ok(async move { handle.writable().await }.boxed())
}

/// Only Linux tells.
#[cfg(not(target_os = "linux"))]
fn sent(_stream: &TcpStream) -> io::Result<BoxFuture<'static, io::Result<()>>> {
    Ok(std::future::ready(Ok(())).boxed())
}

/// Ends the connection in the way that its stream has ended.
pub(crate) async fn leave(client: impl Connection, relayed: Relayed) {
    match relayed.broke {
        true => reset(client).await,
        false => part(client).await,
    }
}

/// Ends the connection so that the last bytes arrive.
pub(crate) async fn part(mut client: impl AsyncRead + AsyncWrite + Unpin) {
    // It may have been done before; then this does nothing.
    let ended: io::Result<()> = client.shutdown().await;
    if ended.is_err_and(|error| error.kind() != io::ErrorKind::NotConnected) {
        return;
    }
    let _ = within(LINGER, discard(&mut client)).await;
}

/// Resets the connection, after the bytes that were written have left.
pub(crate) async fn reset(mut client: impl Connection) {
    let Ok(sent) = client.reset_on_drop() else {
        return;
    };
    let draining = async {
        tokio::select! {
            _ = sent => {}
            // A client that is still sending may read nothing until that is done.
            () = discard(&mut client).then(|()| std::future::pending()) => {}
        }
    };
    let _ = within(LINGER, draining).await;
}

/// Reads and drops what the client still sends, until it ends, is silent or has sent too much.
async fn discard(client: &mut (impl AsyncRead + Unpin)) {
    let mut piece = [0; PIECE];
    let mut discarded = 0;
    while discarded < MAX_DISCARDED {
        match timeout(SILENCE, client.read(&mut piece)).await {
            Ok(Ok(read)) if read > 0 => discarded += read as u64,
            Ok(_) | Err(_) => return,
        }
    }
}

/// Waits for `limit` at most. In a box: while a stream is idle, no room is kept for its end.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    Box::pin(timeout(limit, future)).await.ok()
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{ReadBuf, join, sink};
    use tokio::time::Instant;

    use super::*;

    /// A client that sends without end, and counts what is read.
    struct Endless<'a>(&'a mut u64);

    impl AsyncRead for Endless<'_> {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let room = buffer.remaining();
            buffer.initialize_unfilled();
            buffer.advance(room);
            *self.get_mut().0 += room as u64;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_discarded_has_a_limit() {
        let (mut read, begun) = (0, Instant::now());
        part(join(Endless(&mut read), sink())).await;
        let most = MAX_DISCARDED + PIECE as u64;
        assert!((MAX_DISCARDED..most).contains(&read), "{read} bytes");
        assert!(begun.elapsed() < SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_left_soon() {
        let (_client, near) = tokio::io::duplex(1024);
        let begun = Instant::now();
        part(near).await;
        assert_eq!(begun.elapsed(), SILENCE);
    }
}
