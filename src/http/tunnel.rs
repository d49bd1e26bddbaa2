//! CONNECT (RFC 9110 section 9.3.6, and Tor's HTTP CONNECT specification), and what a connection
//! becomes when it carries something else than requests.

use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::time::Instant;
use tracing::{debug, info};

use super::wire::Wire;
use super::{Body, Session, answer};
use crate::dial::{Dial, Stream};
use crate::early::Early;
use crate::failure::Failure;
use crate::gateway::Reached;
use crate::relay::relay;
use crate::request;

/// Bytes both ways, once the answer is written.
pub(super) enum Tunnel<T: Dial> {
    /// What CONNECT asked for.
    Connected {
        client: OnUpgrade,
        stream: Stream<T::Reader, T::Writer>,
    },
    /// A WebSocket.
    Switched { client: OnUpgrade, site: OnUpgrade },
}

impl<T: Dial> Session<T> {
    /// Opens a tunnel, or says why there is none.
    pub(super) async fn open_tunnel(
        &self,
        wanted: request::Request,
        request: &mut Request<Incoming>,
    ) -> Response<Body> {
        let begun = Instant::now();
        // hyper keeps what the client says meanwhile, and gives it up with the connection.
        let early = Early::new(Vec::new());
        match self.gateway.reach(&wanted, self.origin, &early).await {
            Ok(Reached::Stream(stream)) => {
                debug!("connected in {:.1?}", begun.elapsed());
                let client = hyper::upgrade::on(request);
                let mut state = self.state();
                state.tunnel = Some(Tunnel::Connected { client, stream });
                // No request for them can follow.
                state.sites.clear();
                answer::tunnel_open()
            }
            Ok(Reached::Answer(_)) => answer::tunnel_failed(Failure::Internal),
            Err(failure) => {
                let (status, name) = (failure.row().http, failure.name());
                info!("failed with {status} after {:.1?}: {name}", begun.elapsed());
                answer::tunnel_failed(failure)
            }
        }
    }
}

impl<T: Dial> Tunnel<T> {
    /// Carries bytes until one side is done. `R` and `W` are what the client's connection is made
    /// of.
    pub(super) async fn carry<R, W>(self)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Instant::now();
        let relayed = match self {
            Tunnel::Connected { client, stream } => {
                let stream = (stream.reader, stream.writer);
                let Ok(client) = client.await else { return };
                // The halves themselves work side by side; what hyper made of them does not.
                match client.downcast::<TokioIo<Wire<R, W>>>() {
                    Ok(parts) => {
                        let client = parts.io.into_inner().into_halves();
                        relay(client, stream, &parts.read_buf, false).await
                    }
                    Err(client) => relay(halves(client), stream, &[], false).await,
                }
            }
            Tunnel::Switched { client, site } => match tokio::try_join!(client, site) {
                Ok((client, site)) => relay(halves(client), halves(site), &[], false).await,
                Err(_) => return,
            },
        };
        let (sent, received) = (relayed.sent, relayed.received);
        debug!(sent, received, "closed after {:.1?}", begun.elapsed());
    }
}

/// What hyper has read already comes out of the first half before anything else.
fn halves(upgraded: Upgraded) -> (impl AsyncRead + Unpin, impl AsyncWrite + Unpin) {
    split(TokioIo::new(upgraded))
}
