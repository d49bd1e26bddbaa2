//! What a connection turns into after its last HTTP response: in most cases a relay of bytes.

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::debug;

use super::wire::Wire;
use super::wire::early_read::EarlyReader;
use crate::inbound::lingering_close::{Connection, close, close_or_reset, reset};
use crate::inbound::relay::{RelaySummary, relay};
use crate::tor::connector::{Connector, Stream};

/// What a connection turns into once its last response is written.
pub(super) enum UpgradedConnection<T: Connector> {
    /// A tunnel, after CONNECT.
    Tunnel {
        client: OnUpgrade,
        stream: Stream<T::Reader, T::Writer>,
    },
    /// A WebSocket.
    WebSocket { client: OnUpgrade, site: OnUpgrade },
    /// Nothing: CONNECT was refused. hyper returns the connection nevertheless.
    Refused { client: OnUpgrade },
}

impl<T: Connector> UpgradedConnection<T> {
    /// Relays bytes until the connection ends. `C` is the type of the client's connection;
    /// `early_reader` has read from it so far.
    pub(super) async fn relay<C>(self, early_reader: &EarlyReader)
    where
        C: Connection + 'static,
    {
        let begun = Instant::now();
        let relayed = match self {
            UpgradedConnection::Tunnel { client, stream } => {
                let Some((client, unread)) = take_back::<C>(client).await else {
                    return;
                };
                // The stream may have sent only a part of the early data.
                let early = [&early_reader.early.take_rest(stream.sent), &unread[..]].concat();
                relay_and_close(client, stream, early).await
            }
            UpgradedConnection::WebSocket { client, site } => {
                let Some((client, unread)) = take_back::<C>(client).await else {
                    return;
                };
                let Ok(site) = site.await else {
                    return reset(client).await;
                };
                // `site` first yields what hyper has read of it already.
                relay_and_close(client, TokioIo::new(site), unread.to_vec()).await
            }
            UpgradedConnection::Refused { client } => {
                if let Some((client, _)) = take_back::<C>(client).await {
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

/// Relays bytes both ways, `early` first, and closes the client's connection.
async fn relay_and_close(
    client: impl Connection,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    early: Vec<u8>,
) -> RelaySummary {
    let (client, relayed) = relay(client, stream, early, false).await;
    close_or_reset(client, relayed).await;
    relayed
}

/// Takes the client's connection back from hyper, with the bytes that hyper has read but not used.
/// Returns `None` if hyper closed the connection before.
async fn take_back<C>(client: OnUpgrade) -> Option<(C, Bytes)>
where
    C: Connection + 'static,
{
    // The type that `serve` passes to hyper.
    let parts = client.await.ok()?.downcast::<TokioIo<Wire<C>>>().ok()?;
    Some((parts.io.into_inner().into_inner(), parts.read_buf))
}
