//! The life of one connection, from its first byte to its last. Read this first.
//!
//! handshake -> request -> permit -> stream, or a failure -> reply -> relay
//!
//! Each stage takes a value and gives a better one; what happens between request and stream is told
//! in [`crate::request::dispatch`]. Stages end in `Result<_, Failure>`; the one
//! place that answers a request is [`answer`], so that no client that asked is left without a reply.
//! What is no request is refused within [`handshake`], byte for byte as the codec says.

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
use crate::inbound::lingering_close::{Connection, leave, part};
use crate::inbound::relay::relay;
use crate::inbound::socks::reply;
use crate::inbound::socks::{Handshake, HandshakeOptions, MAX_MESSAGE_LEN, Request, Step};
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request;
use crate::request::ClientAddr;
use crate::request::dispatch::{Dispatcher, Outcome};
use crate::tor::connector::{Connector, Stream};
use crate::tor::optimistic_data::{EARLY_LIMIT, OptimisticData};

/// How often a refused client is logged: it speaks no SOCKS, and may come again and again.
static REFUSED: LogLimiter = LogLimiter::burst(Duration::from_secs(10 * 60), 5);

/// A client, and what it has said that nobody has dealt with yet.
pub(crate) struct Client<C> {
    connection: C,
    origin: ClientAddr,
    unread: Vec<u8>,
    /// Whether it has finished sending.
    done: bool,
}

/// Serves one connection until it is over.
pub fn serve<T: Connector>(
    dispatcher: impl Deref<Target = Dispatcher<T>> + Send,
    connection: impl Connection,
    origin: ClientAddr,
) -> impl Future<Output = ()> + Send {
    // In a box of its own, which an open stream no longer needs: most of the time, and of the
    // connections, a program like this only waits. No `async` around it, which would keep room for
    // what it is given, and twice for what it waits for.
    let opening = Box::pin(async move {
        let mut client = Client::new(connection, origin);
        let stream = open(&mut client, &*dispatcher).await?;
        // What serves the client goes along: with it goes the client's place among others.
        Some(client.relay(stream).map(|()| drop(dispatcher)))
    });
    opening.then(OptionFuture::from).map(drop)
}

/// All that comes before bytes are carried. `None` if none are: then all is said.
async fn open<T, C>(
    client: &mut Client<C>,
    dispatcher: &Dispatcher<T>,
) -> Option<Box<Stream<T::Reader, T::Writer>>>
where
    T: Connector,
    C: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + dispatcher.timeout;
    let request = match timeout_at(deadline, handshake(client, dispatcher)).await {
        Ok(Ok(Some(request))) => request,
        // It hung up, broke off, was refused, or took its time: as C tor does, say nothing (more).
        Ok(Ok(None) | Err(_)) | Err(_) => return None,
    };
    let begun = Instant::now();
    let Some(outcome) = serve_request(client, dispatcher, &(&request).into()).await else {
        debug!("the client left after {:.1?}", begun.elapsed());
        return None;
    };
    let extended = dispatcher.rules.flags.extended_errors;
    answer(client, &request, outcome, extended, begun)
        .await
        .unwrap_or_default()
}

/// Reads the request; `None` if there is none to serve, and everything has been said about it.
async fn handshake<T, C>(
    client: &mut Client<C>,
    dispatcher: &Dispatcher<T>,
) -> io::Result<Option<Request>>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut handshake = Handshake::new(HandshakeOptions {
        prefer_no_auth: dispatcher.rules.flags.prefer_socks_no_auth,
        client: client.origin.into(),
    });
    let (safety, names) = (
        dispatcher.shared.safe_socks.load_full(),
        dispatcher.shared.address_map.load_full(),
    );
    loop {
        let step = match handshake.step(&client.unread) {
            Step::Done { request, .. }
                if safety.forbids(&request.address, request.is_unsafe(), &names) =>
            {
                request.refuse_as_unsafe()
            }
            step => step,
        };
        match step {
            Step::NeedMore => {
                if client.read(MAX_MESSAGE_LEN).await? == 0 {
                    return Ok(None);
                }
            }
            Step::Send { consumed, reply } => {
                client.unread.drain(..consumed);
                client.say(&reply).await?;
            }
            Step::Done { consumed, request } => {
                client.unread.drain(..consumed);
                return Ok(Some(request));
            }
            Step::Refuse { reply, why } => {
                if let Some(times) = REFUSED.due() {
                    info!("refused a client: {why}{}", Occurrences(times));
                }
                client.say(&reply).await?;
                client.part().await;
                return Ok(None);
            }
        }
    }
}

/// Has the request served, and meanwhile takes in what the client goes on to say. `None` if the
/// client's connection breaks before there is an answer.
pub(crate) async fn serve_request<T: Connector, C: AsyncRead + Unpin>(
    client: &mut Client<C>,
    dispatcher: &Dispatcher<T>,
    request: &request::Request,
) -> Option<Result<Outcome<T>, Failure>> {
    let early = OptimisticData::new(std::mem::take(&mut client.unread));
    let outcome = {
        let outcome = dispatcher.serve(request, client.origin, &early);
        let listening = async {
            while !client.done && early.len() < EARLY_LIMIT {
                match client.read(EARLY_LIMIT - early.len()).await {
                    // It may have finished its request and wait for the answer.
                    Ok(0) => client.done = true,
                    Ok(_) => early.add(&std::mem::take(&mut client.unread)),
                    Err(_) => return,
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // An answer that is there is not kept waiting for a client that goes on talking.
            biased;
            outcome = outcome => outcome,
            () = listening => return None,
        }
    };
    let sent = match &outcome {
        Ok(Outcome::Stream(stream)) => stream.sent,
        Ok(Outcome::Answer(_)) | Err(_) => 0,
    };
    client.unread = early.rest(sent);
    Some(outcome)
}

/// Writes the one reply that a request gets. A stream that is open is given back.
async fn answer<T: Connector, C: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<C>,
    request: &Request,
    outcome: Result<Outcome<T>, Failure>,
    extended: bool,
    begun: Instant,
) -> io::Result<Option<Box<Stream<T::Reader, T::Writer>>>> {
    let family = client.origin.into();
    let took = begun.elapsed();
    match outcome {
        Ok(Outcome::Answer(answer)) => {
            client
                .say(&reply::resolve_reply(request.version, &answer))
                .await?;
            debug!("looked up in {took:.1?}");
            client.part().await;
            Ok(None)
        }
        Ok(Outcome::Stream(stream)) => {
            client
                .say(&reply::connect_reply(
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
            // The client first: it waits, and whoever reads the log does not.
            let said = client.say(&bytes).await;
            // What is sent: SOCKS4 and look-ups have one code for every failure.
            let sent = bytes.get(1).copied().unwrap_or(code);
            log_failure(failure, format_args!("{sent:02X}"), took);
            said?;
            client.part().await;
            Ok(None)
        }
    }
}

impl<C> Client<C> {
    /// A client that has said nothing yet.
    pub(crate) fn new(connection: C, origin: ClientAddr) -> Self {
        Client {
            connection,
            origin,
            unread: Vec::new(),
            done: false,
        }
    }
}

impl<C: AsyncRead + Unpin> Client<C> {
    /// Reads what there is, up to `limit` unread bytes in all; 0 at the end.
    async fn read(&mut self, limit: usize) -> io::Result<usize> {
        let room = limit.saturating_sub(self.unread.len()).max(1);
        (&mut self.connection)
            .take(room as u64)
            .read_buf(&mut self.unread)
            .await
    }
}

impl<C: Connection> Client<C> {
    /// Carries bytes both ways until the stream is over, and ends the connection.
    pub(crate) fn relay(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> impl Future<Output = ()> {
        let relaying = relay(self.connection, stream, self.unread, self.done);
        relaying.then(|(connection, relayed)| {
            relayed.tell();
            // In a box, as all that an idle stream need not remember.
            Box::pin(leave(connection, relayed))
        })
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Client<C> {
    /// Sends bytes at once.
    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.write_all(bytes).await?;
        self.connection.flush().await
    }

    /// Ends the connection so that the last reply arrives.
    pub(crate) async fn part(&mut self) {
        part(&mut self.connection).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpStream;

    use super::*;
    use crate::tor::Tor;

    /// Bytes that the future of a connection takes while it only waits, beside its stream: there may
    /// be thousands of them. With 16 for the client's place ([`crate::inbound::listener`]), and 104 of tokio's
    /// own, a task then takes 256.
    const IDLE: usize = 136;

    #[test]
    fn an_idle_stream_is_remembered_in_little() {
        fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
            size_of::<F>()
        }
        let serving = size(
            |(dispatcher, connection): (Arc<Dispatcher<Tor>>, TcpStream)| {
                serve(dispatcher, connection, ClientAddr::Unix)
            },
        );
        assert!(serving <= IDLE, "{serving} bytes");
    }
}
