//! What hyper reads from and writes to: the client's connection, with four things that hyper's HTTP/1
//! server leaves out.
//!
//! - [`informational`]: answers before the answer. They are written when hyper flushes: then it has written
//!   all that it had, and does not have the final answer yet.
//! - [`early_read`]: what the client says behind the head of a CONNECT, before it has a tunnel. It is kept
//!   from hyper, and sent as soon as there is a stream to send it on.
//! - [`half_close`]: answers for a client that has closed its side behind its request.
//! - [`broken`]: the last bytes of an answer that breaks off.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) mod broken;
pub(super) mod early_read;
pub(super) mod half_close;
pub(super) mod informational;

use broken::Broken;
use early_read::Ahead;
use half_close::{Goodbye, Kept};
use informational::Interim;

/// What those who answer requests have to say to, or to know of, the connection that hyper has.
#[derive(Default)]
pub(super) struct Line {
    pub(super) interim: Interim,
    pub(super) ahead: Ahead,
    pub(super) goodbye: Goodbye,
    pub(super) broken: Broken,
}

/// A client's connection, for hyper.
pub(super) struct Wire<C> {
    connection: C,
    line: Arc<Line>,
    /// What is left of an interim answer of which a part is written: nothing may come between.
    begun: Bytes,
    /// The client has said its last.
    end: Option<Kept>,
}

impl<C> Wire<C> {
    pub(super) fn new(connection: C, line: Arc<Line>) -> Self {
        Wire {
            connection,
            line,
            begun: Bytes::new(),
            end: None,
        }
    }

    /// The connection, when there is nothing more to read or write for hyper.
    pub(super) fn into_inner(self) -> C {
        self.connection
    }
}

impl<C: AsyncWrite + Unpin> Wire<C> {
    /// Ready when no interim answer is written in part.
    fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.begun.is_empty() {
            let written = ready!(Pin::new(&mut self.connection).poll_write(context, &self.begun))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun.advance(written);
            self.note(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes note of bytes that were written.
    fn note(&mut self, written: usize) {
        if written > 0
            && let Some(end) = &mut self.end
        {
            end.moved();
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Wire<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end.is_none() {
            let (room, before) = (buffer.remaining(), buffer.filled().len());
            let ahead = &this.line.ahead;
            ready!(ahead.poll_read(&mut this.connection, context, buffer))?;
            let is_end = room > 0 && buffer.filled().len() == before;
            if is_end && this.line.goodbye.is_awaited() {
                this.end = Kept::new();
            }
        }
        match &mut this.end {
            Some(end) => end.poll(&this.line.goodbye, context).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Wire<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begun(context))?;
        let written = ready!(Pin::new(&mut this.connection).poll_write(context, bytes))?;
        this.note(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begun(context))?;
        let connection = Pin::new(&mut this.connection);
        let written = ready!(connection.poll_write_vectored(context, slices))?;
        this.note(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    /// hyper calls this when it has written everything that it had, and after every look at how far
    /// an answer is.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_begun(context))?;
            match this.line.interim.poll_next(context) {
                Poll::Ready(Some(head)) => this.begun = head,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        ready!(Pin::new(&mut this.connection).poll_flush(context))?;
        this.line.broken.flushed();
        if this.line.goodbye.flushed() && this.end.is_some() {
            // hyper may hear of it now, and has to ask.
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_begun(context))?;
        Pin::new(&mut this.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::half_close::Answering;
    use super::*;

    #[tokio::test]
    async fn a_read_into_an_empty_buffer_is_not_the_end() {
        let (mut client, connection) = tokio::io::duplex(64);
        let line = Arc::<Line>::default();
        let mut wire = Wire::new(connection, Arc::clone(&line));
        let _answering = Answering::begin(&line);
        client.write_all(b"next").await.expect("room");
        let mut nothing = ReadBuf::new(&mut []);
        let read = poll_fn(|context| Pin::new(&mut wire).poll_read(context, &mut nothing)).await;
        read.expect("no error");
        let mut bytes = [0; 4];
        wire.read_exact(&mut bytes).await.expect("all");
        assert_eq!(&bytes, b"next");
    }
}
