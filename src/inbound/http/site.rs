//! An HTTP connection to a site, reused for further requests of the same client connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, join};
use tokio::time::timeout;

use super::body::Body;
use super::idle_timeout::Exchange;
use super::limits::{MAX_BUFFER, MAX_HEAD, MAX_HEADERS};
use crate::request;
use crate::tor::connector::Stream;

/// How long to wait until a connection that has just delivered a response accepts a request again.
const READY_TIMEOUT: Duration = Duration::from_millis(250);

/// An open connection to a site.
pub(super) struct SiteConnection {
    sender: SendRequest<Body>,
    key: ConnectionKey,
    /// Whether a request was sent on it before.
    pub(super) used: bool,
}

/// Which requests may share a connection: those that would open the same stream. Client, port and flags
/// need no comparison, because only one client connection uses it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ConnectionKey {
    pub(super) request: request::Request,
    /// Changes with each new identity; connections of an older one must not be reused.
    pub(super) epoch: u64,
}

/// Why a request on an open connection got no response.
pub(super) enum ExchangeError {
    /// The request was not sent at all: another connection may work.
    NotSent(Box<Request<Body>>),
    /// The connection ended before a response.
    Closed,
    /// No response arrived in time.
    TimedOut,
    /// The client stopped sending its body, or sent a malformed one.
    Client,
    /// The response was not valid HTTP.
    InvalidResponse,
}

impl SiteConnection {
    /// Starts HTTP on a stream. The second value drives the connection: it must be polled for as long
    /// as the connection is in use.
    pub(super) async fn handshake<R, W>(
        stream: Stream<R, W>,
        key: ConnectionKey,
    ) -> Option<(Self, impl Future<Output = ()> + Send + 'static)>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let writer = DiscardingWriter::new(stream.writer);
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(join(stream.reader, writer)))
            .await
            .ok()?;
        let site = SiteConnection {
            sender,
            key,
            used: false,
        };
        let driver = async {
            // `send` reports errors.
            let _ = connection.with_upgrades().await;
        };
        Some((site, driver))
    }

    /// Returns which requests may use it.
    pub(super) fn key(&self) -> &ConnectionKey {
        &self.key
    }

    /// Whether it accepts no further requests.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it accepts a request now, or within [`READY_TIMEOUT`].
    pub(super) async fn is_ready(&mut self) -> bool {
        !self.sender.is_closed()
            && matches!(
                timeout(READY_TIMEOUT, self.sender.ready()).await,
                Ok(Ok(()))
            )
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
        exchange: &Exchange,
    ) -> Result<Response<Incoming>, ExchangeError> {
        self.used = true;
        let result = tokio::select! {
            result = self.sender.try_send_request(request) => result,
            () = exchange.wait_for_timeout() => return Err(ExchangeError::TimedOut),
        };
        let mut error = match result {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match error.take_message() {
            Some(request) => Err(ExchangeError::NotSent(Box::new(request))),
            None if error.error().is_parse() => Err(ExchangeError::InvalidResponse),
            None if error.error().is_user() => Err(ExchangeError::Client),
            None => Err(ExchangeError::Closed),
        }
    }
}

/// Writes to a site, and discards everything after the first error.
///
/// A site may close its side with a response to a request that is still being sent, but hyper stops
/// reading once a write fails. The reader finds out how the connection ended.
struct DiscardingWriter<W> {
    writer: W,
    failed: bool,
}

impl<W: AsyncWrite + Unpin> DiscardingWriter<W> {
    fn new(writer: W) -> Self {
        DiscardingWriter {
            writer,
            failed: false,
        }
    }

    /// Calls `operation` with the writer; returns `substitute` after an error.
    fn poll_unless_failed<T>(
        &mut self,
        substitute: T,
        operation: impl FnOnce(Pin<&mut W>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if !self.failed {
            match operation(Pin::new(&mut self.writer)) {
                Poll::Ready(Err(_)) => self.failed = true,
                other => return other,
            }
        }
        Poll::Ready(Ok(substitute))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for DiscardingWriter<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_unless_failed(bytes.len(), |writer| writer.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unless_failed((), |writer| writer.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unless_failed((), |writer| writer.poll_shutdown(context))
    }
}
