//! CONNECT (RFC 9110 section 9.3.6, and Tor's HTTP CONNECT specification).
//!
//! [`optimistic_read`](super::wire::optimistic_read) handles what a client sends before its tunnel is
//! open; [`upgraded`](super::upgraded) relays after that.

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use tokio::time::Instant;
use tracing::debug;

use super::body::Body;
use super::response;
use super::session::HttpSession;
use super::upgraded::UpgradedConnection;
use crate::failure::Failure;
use crate::inbound::failure_log::log_failure;
use crate::request;
use crate::request::dispatch::Outcome;
use crate::tor::connector::Connector;

impl<T: Connector> HttpSession<T> {
    /// Opens a tunnel to `target`, or responds with the reason why it cannot.
    pub(super) async fn open_tunnel(
        &self,
        target: request::Request,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let started = Instant::now();
        let client = hyper::upgrade::on(&mut request);
        let optimistic = &self.wire.optimistic_reader.optimistic;
        match self
            .dispatcher
            .serve(&target, self.client, optimistic)
            .await
        {
            Ok(Outcome::Stream(stream)) => {
                debug!("connected in {:.1?}", started.elapsed());
                let mut state = self.state();
                state.upgraded = Some(UpgradedConnection::Tunnel { client, stream });
                // No request can follow that would use them.
                state.sites.clear();
                response::tunnel_open()
            }
            Ok(Outcome::Answer(_)) => {
                self.refuse_tunnel(client, response::tunnel_failed(Failure::Internal))
            }
            Err(failure) => {
                log_failure(failure, failure.row().http, started.elapsed());
                self.refuse_tunnel(client, response::tunnel_failed(failure))
            }
        }
    }

    /// Makes `response` the last one of the connection, for a CONNECT that gets no tunnel: what the
    /// client may have sent after it is meant for the tunnel and must not be parsed as a request.
    pub(super) fn refuse_tunnel(
        &self,
        client: OnUpgrade,
        mut response: Response<Body>,
    ) -> Response<Body> {
        self.state().upgraded = Some(UpgradedConnection::Refused { client });
        self.wire.optimistic_reader.stop();
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        response
    }
}
