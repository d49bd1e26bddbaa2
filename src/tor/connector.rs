//! The interface between the rest of the program and the network. Tests replace the network by a script.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::tor::destination::PermittedRequest;
use crate::tor::isolation::Isolation;
use crate::tor::optimistic_data::OptimisticData;

/// Opens streams and looks up names. [`crate::tor::Tor`] does so through the Tor network.
pub trait Connector: Send + Sync + 'static {
    /// The reading half of a stream.
    type Reader: AsyncRead + Send + Unpin + 'static;
    /// The writing half of a stream. Shutting it down ends the whole stream: Tor has no half-closed streams.
    type Writer: AsyncWrite + Send + Unpin + 'static;

    /// Opens a stream and may send `optimistic` on it meanwhile. Returns by `deadline` at the latest.
    fn connect(
        &self,
        request: &PermittedRequest,
        isolation: &Isolation,
        optimistic: &OptimisticData,
        deadline: Instant,
    ) -> impl Future<Output = Result<Stream<Self::Reader, Self::Writer>, Failure>> + Send;

    /// Looks up the IP addresses of a name. Returns by `deadline` at the latest.
    fn resolve(
        &self,
        host: &str,
        isolation: &Isolation,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<IpAddr>, Failure>> + Send;

    /// Looks up the names of an IP address. Returns by `deadline` at the latest.
    fn resolve_ptr(
        &self,
        address: IpAddr,
        isolation: &Isolation,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<String>, Failure>> + Send;
}

/// An open stream.
#[derive(Debug)]
pub struct Stream<R, W> {
    /// The reading half.
    pub reader: R,
    /// The writing half.
    pub writer: W,
    /// How many bytes of the optimistic data were sent on it.
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
