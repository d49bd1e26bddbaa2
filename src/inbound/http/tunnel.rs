//! CONNECT (RFC 9110 section 9.3.6, and Tor's HTTP CONNECT specification), and what a connection
//! becomes when it carries something else than requests. What the client says while it waits for its
//! tunnel is told in [`early_read`](super::wire::early_read).

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::debug;

use super::wire::Wire;
use super::wire::early_read::Ahead;
use super::{Body, Session, answer};
use crate::failure::Failure;
use crate::inbound::failure_log::log_failure;
use crate::inbound::lingering_close::{Connection, close, close_or_reset, reset};
use crate::inbound::relay::{RelaySummary, relay};
use crate::request;
use crate::request::dispatch::Outcome;
use crate::tor::connector::{Connector, Stream};

/// What a connection turns into when its last answer is written: mostly bytes both ways.
pub(super) enum Tunnel<T: Connector> {
    /// What CONNECT asked for.
    Connected {
        client: OnUpgrade,
        stream: Stream<T::Reader, T::Writer>,
    },
    /// A WebSocket.
    Switched { client: OnUpgrade, site: OnUpgrade },
    /// CONNECT got none. hyper hands the connection over all the same when it is over.
    Refused { client: OnUpgrade },
}

impl<T: Connector> Session<T> {
    /// Opens a tunnel, or says why there is none.
    pub(super) async fn open_tunnel(
        &self,
        wanted: request::Request,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let begun = Instant::now();
        let client = hyper::upgrade::on(&mut request);
        let early = &self.line.ahead.early;
        match self.dispatcher.serve(&wanted, self.origin, early).await {
            Ok(Outcome::Stream(stream)) => {
                debug!("connected in {:.1?}", begun.elapsed());
                let mut state = self.state();
                state.tunnel = Some(Tunnel::Connected { client, stream });
                // No request for them can follow.
                state.sites.clear();
                answer::tunnel_open()
            }
            Ok(Outcome::Answer(_)) => {
                self.no_tunnel(client, answer::tunnel_failed(Failure::Internal))
            }
            Err(failure) => {
                log_failure(failure, failure.row().http, begun.elapsed());
                self.no_tunnel(client, answer::tunnel_failed(failure))
            }
        }
    }

    /// Makes `answer` the answer to a CONNECT that gets no tunnel. The connection ends with it: the
    /// client may be saying something already that is meant for the tunnel, and that is no request.
    pub(super) fn no_tunnel(
        &self,
        client: OnUpgrade,
        mut answer: Response<Body>,
    ) -> Response<Body> {
        self.state().tunnel = Some(Tunnel::Refused { client });
        self.line.ahead.give_up();
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
        answer
    }
}

impl<T: Connector> Tunnel<T> {
    /// Carries bytes until one side is done. `C` is the client's connection; `ahead` is what read it.
    pub(super) async fn carry<C>(self, ahead: &Ahead)
    where
        C: Connection + 'static,
    {
        let begun = Instant::now();
        let relayed = match self {
            Tunnel::Connected { client, stream } => {
                // Not all of it may be on its way.
                let Some((client, read)) = taken_back::<C>(client).await else {
                    return;
                };
                let early = [&ahead.early.rest(stream.sent), &read[..]].concat();
                carry_between(client, stream, early).await
            }
            Tunnel::Switched { client, site } => {
                let Some((client, read)) = taken_back::<C>(client).await else {
                    return;
                };
                let Ok(site) = site.await else {
                    return reset(client).await;
                };
                // What hyper has read of the site already comes out before anything else.
                carry_between(client, TokioIo::new(site), read.to_vec()).await
            }
            Tunnel::Refused { client } => {
                if let Some((client, _)) = taken_back::<C>(client).await {
                    close(client).await;
                }
                return;
            }
        };
        let RelaySummary {
            sent,
            received,
            broke,
        } = relayed;
        debug!(
            sent,
            received,
            broke,
            "closed after {:.1?}",
            begun.elapsed()
        );
    }
}

/// Carries bytes both ways, `early` first, and ends the client's connection.
async fn carry_between(
    client: impl Connection,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    early: Vec<u8>,
) -> RelaySummary {
    let (client, relayed) = relay(client, stream, early, false).await;
    close_or_reset(client, relayed).await;
    relayed
}

/// A client's connection, and what hyper has read of it and not used. `None` if hyper did not get as
/// far as that.
async fn taken_back<C>(client: OnUpgrade) -> Option<(C, Bytes)>
where
    C: Connection + 'static,
{
    // It is what `serve` gave to hyper.
    let parts = client.await.ok()?.downcast::<TokioIo<Wire<C>>>().ok()?;
    Some((parts.io.into_inner().into_inner(), parts.read_buf))
}
