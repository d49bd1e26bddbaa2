//! The client's connection as hyper reads and writes it, with four things that hyper's HTTP/1 server
//! lacks:
//!
//! - [`informational`]: interim responses. They are written when hyper flushes: then it has written all
//!   it had, and does not have the final response yet.
//! - [`optimistic_read`]: what the client sends after the head of a CONNECT, before its tunnel is open.
//!   It is withheld from hyper, and sent as soon as there is a stream.
//! - [`half_close`]: responses to clients that close their sending side after the request.
//! - [`aborted`]: the last bytes of a response that its site aborts.
//!
//! [`state`] holds what these share with the requests. This folder imports no other module of `http`
//! except [`super::hop_by_hop`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) mod aborted;
pub(super) mod half_close;
pub(super) mod informational;
pub(super) mod optimistic_read;
pub(super) mod state;

use half_close::HeldEof;
use state::WireState;

/// A client's connection, for hyper.
pub(super) struct Wire<C> {
    connection: C,
    state: Arc<WireState>,
    /// The rest of an interim response that is partly written: nothing may be written before it.
    partial: Bytes,
    /// Set once the client's end of file was read.
    eof: Option<HeldEof>,
}

impl<C> Wire<C> {
    /// Wraps a connection.
    pub(super) fn new(connection: C, state: Arc<WireState>) -> Self {
        Wire {
            connection,
            state,
            partial: Bytes::new(),
            eof: None,
        }
    }

    /// Returns the connection, once hyper is done with it.
    pub(super) fn into_inner(self) -> C {
        self.connection
    }
}

impl<C: AsyncWrite + Unpin> Wire<C> {
    /// Ready when no interim response is partly written.
    fn poll_write_partial(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.partial.is_empty() {
            let connection = Pin::new(&mut self.connection);
            let written = ready!(connection.poll_write(context, &self.partial))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.partial.advance(written);
            self.note_written(written);
        }
        Poll::Ready(Ok(()))
    }

    fn note_written(&mut self, written: usize) {
        if written > 0
            && let Some(eof) = &mut self.eof
        {
            eof.note_written();
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
        if this.eof.is_none() {
            let (room, before) = (buffer.remaining(), buffer.filled().len());
            let optimistic_reader = &this.state.optimistic_reader;
            ready!(optimistic_reader.poll_read(&mut this.connection, context, buffer))?;
            let is_eof = room > 0 && buffer.filled().len() == before;
            if is_eof && this.state.half_close.is_response_pending() {
                this.eof = HeldEof::new();
            }
        }
        match &mut this.eof {
            Some(eof) => eof.poll(&this.state.half_close, context).map(Ok),
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
        ready!(this.poll_write_partial(context))?;
        let written = ready!(Pin::new(&mut this.connection).poll_write(context, bytes))?;
        this.note_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_write_partial(context))?;
        let connection = Pin::new(&mut this.connection);
        let written = ready!(connection.poll_write_vectored(context, slices))?;
        this.note_written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    /// hyper calls this when it has written everything it had, and each time it has polled a response.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_write_partial(context))?;
            match this.state.interim.poll_next(context) {
                Poll::Ready(Some(head)) => this.partial = head,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        ready!(Pin::new(&mut this.connection).poll_flush(context))?;
        this.state.aborted.note_flushed();
        if this.state.half_close.note_flushed() && this.eof.is_some() {
            // hyper may read the end of file, so it has to poll again.
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_partial(context))?;
        Pin::new(&mut this.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::inbound::http::wire::state::ResponseInProgress;

    #[tokio::test]
    async fn a_read_into_an_empty_buffer_is_not_an_end_of_file() {
        let (mut client, connection) = tokio::io::duplex(64);
        let state = Arc::<WireState>::default();
        let mut wire = Wire::new(connection, Arc::clone(&state));
        let _in_progress = ResponseInProgress::begin(&state);
        client.write_all(b"next").await.expect("room");
        let mut empty = ReadBuf::new(&mut []);
        let read = poll_fn(|context| Pin::new(&mut wire).poll_read(context, &mut empty)).await;
        read.expect("no error");
        let mut bytes = [0; 4];
        wire.read_exact(&mut bytes).await.expect("four bytes");
        assert_eq!(&bytes, b"next");
    }
}
