//! The life of a SOCKS connection, from its first byte to its last. Read this file of `inbound` first.
//!
//! handshake → request → Tor stream, lookup answer or failure → reply → relay → close
//!
//! [`serve`] runs these steps. Each takes a value from the step before and returns the next one; the
//! work between request and outcome is in [`crate::request::dispatch`]. Only [`send_reply`] answers a
//! request that was served, and failures reach it as [`Failure`] values, so every such request gets exactly
//! one reply unless the client disconnects first. [`read_request`] refuses malformed bytes and, with
//! SafeSocks, requests that give an IP address, with the bytes that the codec
//! ([`crate::inbound::socks`]) returns.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::OptionFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use crate::failure::Failure;
use crate::inbound::failure_log::log_failure;
use crate::inbound::lingering_close::{Connection, close, close_or_reset};
use crate::inbound::relay::relay;
use crate::inbound::socks::reply;
use crate::inbound::socks::{
    Handshake, HandshakeOptions, HandshakeStep, MAX_MESSAGE_LEN, SocksRequest,
};
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::dispatch::{Dispatcher, Outcome};
use crate::request::{ClientAddr, Request};
use crate::tor::connector::{Connector, Stream};
use crate::tor::optimistic_data::{OPTIMISTIC_LIMIT, OptimisticData};

/// Limits the log line about refused clients: a client that does not speak SOCKS may retry for ever.
static REFUSED: LogLimiter = LogLimiter::with_burst(Duration::from_secs(10 * 60), 5);

/// Serves one connection until it is closed.
///
/// `dispatcher` is dropped last, and with it the connection's slot in the limit of connections
/// ([`crate::inbound::listener`]).
pub fn serve<T: Connector>(
    dispatcher: impl Deref<Target = Dispatcher<T>> + Send,
    connection: impl Connection,
    client_addr: ClientAddr,
) -> impl Future<Output = ()> + Send {
    // Most connections are idle streams, so this part is boxed and its memory freed before the relay
    // starts. An `async` block around both parts would keep the arguments for the whole
    // connection and store the relay future twice.
    let opening = Box::pin(async move {
        let mut client = ClientConnection::new(connection, client_addr);
        let stream = open_stream(&mut client, &*dispatcher).await?;
        Some(client.relay(stream).map(|()| drop(dispatcher)))
    });
    opening.then(OptionFuture::from).map(drop)
}

/// Runs every step before the relay. Returns `None` if no stream is open; any reply has then been sent.
async fn open_stream<T, C>(
    client: &mut ClientConnection<C>,
    dispatcher: &Dispatcher<T>,
) -> Option<Box<Stream<T::Reader, T::Writer>>>
where
    T: Connector,
    C: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + dispatcher.timeout;
    let request = match timeout_at(deadline, read_request(client, dispatcher)).await {
        Ok(Ok(Some(request))) => request,
        // End of file, a refusal, an I/O error or the deadline: like C tor, send nothing (more).
        Ok(Ok(None) | Err(_)) | Err(_) => return None,
    };
    let started = Instant::now();
    let Some(outcome) = serve_request(client, dispatcher, &(&request).into()).await else {
        debug!("client disconnected after {:.1?}", started.elapsed());
        return None;
    };
    let extended = dispatcher.rules.flags.extended_errors;
    send_reply(client, &request, outcome, extended, started)
        .await
        .unwrap_or_default()
}

/// Performs the SOCKS handshake and returns the request. Returns `None` if there is no request to
/// serve: the client ended the connection, or was refused and answered.
async fn read_request<T, C>(
    client: &mut ClientConnection<C>,
    dispatcher: &Dispatcher<T>,
) -> io::Result<Option<SocksRequest>>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = Handshake::new(HandshakeOptions {
        prefer_no_auth: dispatcher.rules.flags.prefer_socks_no_auth,
        client: client.addr.into(),
    });
    let (safe_socks, address_map) = (
        dispatcher.shared.safe_socks.load_full(),
        dispatcher.shared.address_map.load_full(),
    );
    loop {
        let step = match handshake.step(&client.unread) {
            HandshakeStep::Done { request, .. }
                if safe_socks.forbids(&request.address, request.is_unsafe(), &address_map) =>
            {
                HandshakeStep::refuse_unsafe_ip(request.version)
            }
            step => step,
        };
        match step {
            HandshakeStep::NeedMore => {
                if client.read(MAX_MESSAGE_LEN).await? == 0 {
                    return Ok(None);
                }
            }
            HandshakeStep::Send { consumed, reply } => {
                client.unread.drain(..consumed);
                client.send(&reply).await?;
            }
            HandshakeStep::Done { consumed, request } => {
                client.unread.drain(..consumed);
                return Ok(Some(request));
            }
            HandshakeStep::Refuse { reply, error } => {
                if let Some(times) = REFUSED.due() {
                    info!("refused a client: {error}{}", Occurrences(times));
                }
                client.send(&reply).await?;
                client.close().await;
                return Ok(None);
            }
        }
    }
}

/// Serves the request, and collects the client's optimistic data meanwhile. Returns `None` if the
/// connection breaks before there is an outcome.
///
/// Afterwards `client.unread` holds the optimistic data that is not on the stream yet.
pub(crate) async fn serve_request<T: Connector, C: AsyncRead + Unpin>(
    client: &mut ClientConnection<C>,
    dispatcher: &Dispatcher<T>,
    request: &Request,
) -> Option<Result<Outcome<T>, Failure>> {
    let optimistic = OptimisticData::new(std::mem::take(&mut client.unread));
    let outcome = {
        let serving = dispatcher.serve(request, client.addr, &optimistic);
        let collecting = async {
            while !client.at_eof && optimistic.len() < OPTIMISTIC_LIMIT {
                match client.read(OPTIMISTIC_LIMIT - optimistic.len()).await {
                    // The client may have half-closed after its request and still await the answer.
                    Ok(0) => client.at_eof = true,
                    Ok(_) => optimistic.add(&std::mem::take(&mut client.unread)),
                    Err(_) => return,
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // An outcome must not wait for a client that keeps sending.
            biased;
            outcome = serving => outcome,
            () = collecting => return None,
        }
    };
    let sent = match &outcome {
        Ok(Outcome::Stream(stream)) => stream.sent,
        Ok(Outcome::Answer(_)) | Err(_) => 0,
    };
    client.unread = optimistic.take_rest(sent);
    Some(outcome)
}

/// Sends the one reply that a request gets. Returns the stream if one is open; otherwise the
/// connection is closed.
async fn send_reply<T: Connector, C: AsyncRead + AsyncWrite + Unpin>(
    client: &mut ClientConnection<C>,
    request: &SocksRequest,
    outcome: Result<Outcome<T>, Failure>,
    extended: bool,
    started: Instant,
) -> io::Result<Option<Box<Stream<T::Reader, T::Writer>>>> {
    let family = client.addr.into();
    let took = started.elapsed();
    match outcome {
        Ok(Outcome::Answer(answer)) => {
            client
                .send(&reply::resolve_reply(request.version, &answer))
                .await?;
            debug!("looked up in {took:.1?}");
            client.close().await;
            Ok(None)
        }
        Ok(Outcome::Stream(stream)) => {
            client
                .send(&reply::connect_reply(
                    request.version,
                    reply::SUCCEEDED,
                    family,
                ))
                .await?;
            debug!("connected in {took:.1?}");
            Ok(Some(Box::new(stream)))
        }
        Err(failure) => {
            let code = failure.socks5_code(extended);
            let bytes = reply::failure_reply(request.version, request.command, code, family);
            // Reply before logging: the client waits.
            let result = client.send(&bytes).await;
            // Log the code that was sent: SOCKS4 and lookups have one code for every failure.
            let sent = bytes.get(1).copied().unwrap_or(code);
            log_failure(failure, format_args!("{sent:02X}"), took);
            result?;
            client.close().await;
            Ok(None)
        }
    }
}

/// A client's connection, with the bytes that were read from it and not handled yet.
pub(crate) struct ClientConnection<C> {
    connection: C,
    addr: ClientAddr,
    unread: Vec<u8>,
    /// Whether the client has finished sending.
    at_eof: bool,
}

impl<C> ClientConnection<C> {
    /// Creates the state of a connection from which nothing was read yet.
    pub(crate) fn new(connection: C, addr: ClientAddr) -> Self {
        ClientConnection {
            connection,
            addr,
            unread: Vec::new(),
            at_eof: false,
        }
    }
}

impl<C: AsyncRead + Unpin> ClientConnection<C> {
    /// Reads once, until `unread` holds `limit` bytes at most. Returns the number of bytes read; 0 is
    /// the end of file.
    async fn read(&mut self, limit: usize) -> io::Result<usize> {
        let room = limit.saturating_sub(self.unread.len()).max(1);
        (&mut self.connection)
            .take(room as u64)
            .read_buf(&mut self.unread)
            .await
    }
}

impl<C: Connection> ClientConnection<C> {
    /// Copies bytes both ways until both directions have ended or a time limit passes, then closes or resets
    /// the connection.
    pub(crate) fn relay(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> impl Future<Output = ()> {
        let relaying = relay(self.connection, stream, self.unread, self.at_eof);
        relaying.then(|(connection, summary)| {
            summary.log();
            // Boxed: an idle stream must not reserve memory for its end.
            Box::pin(close_or_reset(connection, summary))
        })
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> ClientConnection<C> {
    /// Writes bytes and flushes them.
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.write_all(bytes).await?;
        self.connection.flush().await
    }

    /// Closes the connection so that the last reply arrives.
    pub(crate) async fn close(&mut self) {
        close(&mut self.connection).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpStream;

    use super::*;
    use crate::tor::Tor;

    /// The size limit, in bytes, of a connection's future while its stream is idle; the stream itself
    /// is boxed and not counted. Together with 16 bytes for the permit ([`crate::inbound::listener`])
    /// and 104 of tokio's own, a task takes 256.
    const IDLE: usize = 136;

    #[test]
    fn the_future_of_an_idle_connection_is_small() {
        fn future_size<A, F>(_: impl FnOnce(A) -> F) -> usize {
            size_of::<F>()
        }
        let size = future_size(
            |(dispatcher, connection): (Arc<Dispatcher<Tor>>, TcpStream)| {
                serve(dispatcher, connection, ClientAddr::Unix)
            },
        );
        assert!(size <= IDLE, "{size} bytes");
    }
}
