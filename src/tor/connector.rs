//! What a connection asks of the network, so that its story can be told and tested without one.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::tor::destination::Permit;
use crate::tor::isolation::Isolation;
use crate::tor::optimistic_data::OptimisticData;

/// Opens streams and looks up names. [`crate::tor::Tor`] does it through the Tor network.
pub trait Connector: Send + Sync + 'static {
    /// The half of a stream that bytes come from.
    type Reader: AsyncRead + Send + Unpin + 'static;
    /// The half of a stream that bytes go to. Shutting it down ends the whole stream: Tor knows no
    /// half-open ones.
    type Writer: AsyncWrite + Send + Unpin + 'static;

    /// Opens a stream, and may meanwhile send `early` on it; answers at `deadline` at the latest.
    fn connect(
        &self,
        permit: &Permit,
        isolation: &Isolation,
        early: &OptimisticData,
        deadline: Instant,
    ) -> impl Future<Output = Result<Stream<Self::Reader, Self::Writer>, Failure>> + Send;

    /// The IP addresses of a name; answers at `deadline` at the latest.
    fn resolve(
        &self,
        host: &str,
        isolation: &Isolation,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<IpAddr>, Failure>> + Send;

    /// The names of an IP address; answers at `deadline` at the latest.
    fn resolve_ptr(
        &self,
        address: IpAddr,
        isolation: &Isolation,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<String>, Failure>> + Send;
}

/// A stream that is open at the far end.
#[derive(Debug)]
pub struct Stream<R, W> {
    /// Where its bytes come from.
    pub reader: R,
    /// Where bytes for it go to.
    pub writer: W,
    /// How many of the early bytes are on their way already.
    pub sent: usize,
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Stream<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Stream<R, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
