//! A connection to a site, kept for as long as its client may ask for more.

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

use super::idle_timeout::Exchange;
use super::{Body, MAX_BUFFER, MAX_HEAD, MAX_HEADERS};
use crate::request;
use crate::tor::connector::Stream;

/// How long to wait until a connection is free that has just carried an answer to its end.
const READY: Duration = Duration::from_millis(250);

/// An open connection to a site.
pub(super) struct Site {
    sender: SendRequest<Body>,
    what: What,
    /// Whether it has carried a request before.
    pub(super) used: bool,
}

/// What a connection may be used for: requests that would open the same stream. It belongs to one
/// client's connection, so that the client, the port and its flags are the same in any case.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct What {
    pub(super) request: request::Request,
    /// When the user asks for new circuits, old connections must not be used any more.
    pub(super) epoch: u64,
}

/// Why a site gave no answer.
pub(super) enum Fault {
    /// The request was not even sent: another connection may do.
    NotSent(Box<Request<Body>>),
    /// The connection ended first.
    Lost,
    /// It took the request, and that was all.
    Silent,
    /// The client did not go on with its body, or sent nonsense.
    Client,
    /// What it said is not HTTP, or contradicts itself.
    Nonsense,
}

impl Site {
    /// Begins to speak HTTP on a stream. Its bytes are carried for as long as somebody runs the
    /// second value.
    pub(super) async fn begin<R, W>(
        stream: Stream<R, W>,
        what: What,
    ) -> Option<(Site, impl Future<Output = ()> + Send + 'static)>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(join(stream.reader, Mouth::new(stream.writer))))
            .await
            .ok()?;
        let site = Site {
            sender,
            what,
            used: false,
        };
        let carrier = async {
            // What goes wrong, whoever waits for the answer hears.
            let _ = connection.with_upgrades().await;
        };
        Some((site, carrier))
    }

    /// What it may be used for.
    pub(super) fn what(&self) -> &What {
        &self.what
    }

    /// Whether nothing can be asked here any more.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it can carry a request now.
    pub(super) async fn serves(&mut self) -> bool {
        !self.sender.is_closed() && matches!(timeout(READY, self.sender.ready()).await, Ok(Ok(())))
    }

    /// Asks the site.
    pub(super) async fn ask(
        &mut self,
        request: Request<Body>,
        exchange: &Exchange,
    ) -> Result<Response<Incoming>, Fault> {
        self.used = true;
        let answered = tokio::select! {
            answered = self.sender.try_send_request(request) => answered,
            () = exchange.silence() => return Err(Fault::Silent),
        };
        let mut failed = match answered {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        match failed.take_message() {
            Some(request) => Err(Fault::NotSent(Box::new(request))),
            None if failed.error().is_parse() => Err(Fault::Nonsense),
            None if failed.error().is_user() => Err(Fault::Client),
            None => Err(Fault::Lost),
        }
    }
}

/// Writes to a site. When the site takes nothing any more, what is meant for it is thrown away: it
/// may have closed with an answer to a request that is still being sent, and hyper reads nothing
/// more after it could not write. How the connection ended, the reader finds out.
struct Mouth<W> {
    writer: W,
    shut: bool,
}

impl<W: AsyncWrite + Unpin> Mouth<W> {
    fn new(writer: W) -> Self {
        Mouth {
            writer,
            shut: false,
        }
    }

    /// Does something with the writer for as long as there is one; then it gives `instead`.
    fn with<T>(
        &mut self,
        instead: T,
        act: impl FnOnce(Pin<&mut W>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if !self.shut {
            match act(Pin::new(&mut self.writer)) {
                Poll::Ready(Err(_)) => self.shut = true,
                other => return other,
            }
        }
        Poll::Ready(Ok(instead))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Mouth<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(bytes.len(), |writer| writer.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with((), |writer| writer.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with((), |writer| writer.poll_shutdown(context))
    }
}
