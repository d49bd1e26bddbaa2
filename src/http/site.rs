//! A connection to a site, kept for as long as requests for it follow each other.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, join};
use tokio::time::timeout;

use super::{Body, MAX_BUFFER, MAX_HEAD, MAX_HEADERS};
use crate::dial::Stream;
use crate::request;

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
            .handshake(TokioIo::new(join(stream.reader, stream.writer)))
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

    /// Whether it can carry a request of this kind now.
    pub(super) async fn serves(&mut self, what: &What) -> bool {
        self.what == *what
            && !self.sender.is_closed()
            && matches!(timeout(READY, self.sender.ready()).await, Ok(Ok(())))
    }

    /// Asks the site.
    pub(super) async fn ask(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Fault> {
        self.used = true;
        let mut failed = match self.sender.try_send_request(request).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        match failed.take_message() {
            Some(request) => Err(Fault::NotSent(Box::new(request))),
            None if failed.error().is_parse() => Err(Fault::Nonsense),
            None => Err(Fault::Lost),
        }
    }
}
