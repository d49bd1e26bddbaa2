//! What a connection turns into after its last HTTP response: in most cases a relay of bytes.

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::debug;

use super::wire::Wire;
use super::wire::optimistic_read::OptimisticReader;
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
    /// `optimistic_reader` has read from it so far.
    pub(super) async fn relay<C>(self, optimistic_reader: &OptimisticReader)
    where
        C: Connection + 'static,
    {
        let started = Instant::now();
        let summary = match self {
            UpgradedConnection::Tunnel { client, stream } => {
                let Some((client, unread)) = take_back::<C>(client).await else {
                    return;
                };
                // The stream may have sent only a part of the optimistic data.
                let optimistic = [
                    &optimistic_reader.optimistic.take_rest(stream.sent),
                    &unread[..],
                ]
                .concat();
                relay_and_close(client, stream, optimistic).await
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
        } = summary;
        debug!(
            sent,
            received,
            broke,
            "closed after {:.1?}",
            started.elapsed()
        );
    }
}

/// Relays bytes both ways, `optimistic` first, and closes the client's connection.
async fn relay_and_close(
    client: impl Connection,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    optimistic: Vec<u8>,
) -> RelaySummary {
    let (client, summary) = relay(client, stream, optimistic, false).await;
    close_or_reset(client, summary).await;
    summary
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
