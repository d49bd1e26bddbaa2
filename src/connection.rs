//! The life of one connection, from its first byte to its last. Read this first.
//!
//! handshake -> request -> permit -> stream, or a failure -> reply -> relay
//!
//! Each stage takes a value and gives a better one. Stages end in `Result<_, Failure>`; the one
//! place that answers a request is [`answer`], so that no client that asked is left without a reply.
//! What is no request is refused within [`handshake`], byte for byte as the codec says.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use crate::dial::Dial;
use crate::failure::Failure;
use crate::isolation::{Facts, Isolation, Protocol, SessionGroup};
use crate::policy::{self, Permit, Rules};
use crate::relay::{Relayed, relay};
use crate::socks::reply::{self, Answer};
use crate::socks::{
    Address, ClientFamily, Command, Handshake, HandshakeOptions, MAX_MESSAGE_LEN, Request, Step,
    Version,
};

/// How much a client may say before it has an answer. What it says beyond waits in its socket.
const EARLY_LIMIT: usize = 16 * 1024;

/// What all connections of one port have in common.
pub struct Context<T> {
    /// The way to the network.
    pub tor: Arc<T>,
    /// What the port may ask for.
    pub rules: Rules,
    /// The group of streams that the port belongs to.
    pub group: SessionGroup,
    /// How long a client may take for its handshake, and then a request until its answer
    /// (`socks_timeout`).
    pub timeout: Duration,
}

/// Where a client came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Over TCP, from this address.
    Ip(IpAddr),
    /// Over a unix socket.
    Unix,
}

impl Origin {
    /// The address, if there is one.
    fn ip(self) -> Option<IpAddr> {
        match self {
            Origin::Ip(ip) => Some(ip),
            Origin::Unix => None,
        }
    }

    /// What the form of a reply depends on.
    fn family(self) -> ClientFamily {
        match self {
            Origin::Ip(IpAddr::V4(_)) => ClientFamily::V4,
            Origin::Ip(IpAddr::V6(_)) | Origin::Unix => ClientFamily::Other,
        }
    }
}

/// A client, and what it has said that nobody has dealt with yet.
struct Client<R, W> {
    reader: R,
    writer: W,
    origin: Origin,
    unread: Vec<u8>,
    /// Whether it has finished sending.
    done: bool,
}

/// What a request led to.
enum Reached<T: Dial> {
    /// A stream, open at the far end.
    Stream(T::Reader, T::Writer),
    /// The answer to a look-up.
    Answer(Answer),
}

/// Serves one connection until it is over.
pub async fn serve<T: Dial>(
    context: &Context<T>,
    reader: impl AsyncRead + Unpin + Send,
    writer: impl AsyncWrite + Unpin + Send,
    origin: Origin,
) {
    let mut client = Client {
        reader,
        writer,
        origin,
        unread: Vec::new(),
        done: false,
    };
    let deadline = Instant::now() + context.timeout;
    let request = match timeout_at(deadline, handshake(&mut client, context)).await {
        Ok(Ok(Some(request))) => request,
        // It hung up, broke off, was refused, or took its time: as C tor does, say nothing (more).
        Ok(Ok(None) | Err(_)) | Err(_) => return,
    };
    let begun = Instant::now();
    let outcome = match context.rules.admit(&request) {
        Ok(permit) => {
            let isolation = context.isolation(&request, origin);
            let deadline = begun + context.timeout;
            dial(
                &mut client,
                &*context.tor,
                &permit,
                &isolation,
                context,
                deadline,
            )
            .await
        }
        Err(failure) => Some(Err(failure)),
    };
    let Some(outcome) = outcome else {
        debug!("the client left after {:.1?}", begun.elapsed());
        return;
    };
    let extended = context.rules.flags.extended_errors;
    let reached = answer(&mut client, &request, outcome, extended, begun).await;
    if let Ok(Some(Reached::Stream(reader, writer))) = reached {
        let Client {
            reader: from,
            writer: to,
            unread,
            done,
            ..
        } = &mut client;
        let Relayed { sent, received } = relay((from, to), (reader, writer), unread, *done).await;
        client.part().await;
        debug!(sent, received, "closed after {:.1?}", begun.elapsed());
    }
}

/// Reads the request; `None` if there is none to serve, and everything has been said about it.
async fn handshake<T, R, W>(
    client: &mut Client<R, W>,
    context: &Context<T>,
) -> io::Result<Option<Request>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut handshake = Handshake::new(HandshakeOptions {
        prefer_no_auth: context.rules.flags.prefer_socks_no_auth,
        safe_socks: false,
        client: client.origin.family(),
    });
    loop {
        match handshake.step(&client.unread) {
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
                info!("refused a client: {why}");
                client.say(&reply).await?;
                client.part().await;
                return Ok(None);
            }
        }
    }
}

/// Asks the network, and meanwhile takes in what the client goes on to say. `None` if the client's
/// connection breaks before there is an answer.
async fn dial<T: Dial, R: AsyncRead + Unpin, W>(
    client: &mut Client<R, W>,
    tor: &T,
    permit: &Permit,
    isolation: &Isolation,
    context: &Context<T>,
    deadline: Instant,
) -> Option<Result<Reached<T>, Failure>> {
    let asked = ask(tor, permit, isolation, context, deadline);
    let listening = async {
        while !client.done && client.unread.len() < EARLY_LIMIT {
            match client.read(EARLY_LIMIT).await {
                // It may have finished its request and wait for the answer.
                Ok(0) => client.done = true,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = asked => Some(outcome),
        () = listening => None,
    }
}

/// Asks the network for what was permitted.
async fn ask<T: Dial>(
    tor: &T,
    permit: &Permit,
    isolation: &Isolation,
    context: &Context<T>,
    deadline: Instant,
) -> Result<Reached<T>, Failure> {
    match permit {
        Permit::Onion { .. } | Permit::Exit { .. } => {
            let (reader, writer) = tor.connect(permit, isolation, deadline).await?;
            Ok(Reached::Stream(reader, writer))
        }
        Permit::Literal(ip) => Ok(Reached::Answer(Answer::Ip(*ip))),
        Permit::Resolve { host, family } => {
            let addresses = tor.resolve(host, isolation, deadline).await?;
            let chosen = policy::choose(&addresses, *family, context.rules.allow_local_answers);
            chosen
                .map(|ip| Reached::Answer(Answer::Ip(ip)))
                .ok_or(Failure::NameNotResolved)
        }
        Permit::ResolvePtr(ip) => {
            let names = tor.resolve_ptr(*ip, isolation, deadline).await?;
            let name = names.into_iter().next().ok_or(Failure::NameNotResolved)?;
            Ok(Reached::Answer(Answer::Name(name)))
        }
    }
}

/// Writes the one reply that a request gets. What is left to do afterwards is given back.
async fn answer<T: Dial, R, W: AsyncWrite + Unpin>(
    client: &mut Client<R, W>,
    request: &Request,
    outcome: Result<Reached<T>, Failure>,
    extended: bool,
    begun: Instant,
) -> io::Result<Option<Reached<T>>>
where
    R: AsyncRead + Unpin,
{
    let family = client.origin.family();
    let took = begun.elapsed();
    match outcome {
        Ok(Reached::Answer(answer)) => {
            client
                .say(&reply::resolve_reply(request.version, &answer))
                .await?;
            debug!("looked up in {took:.1?}");
            client.part().await;
            Ok(None)
        }
        Ok(stream @ Reached::Stream(..)) => {
            client
                .say(&reply::connect_reply(
                    request.version,
                    reply::SUCCEEDED,
                    family,
                ))
                .await?;
            debug!("connected in {took:.1?}");
            Ok(Some(stream))
        }
        Err(failure) => {
            let code = failure.socks5_code(extended);
            let bytes = reply::failure_reply(request.version, request.command, code, family);
            // What is sent: SOCKS4 and look-ups have one code for every failure.
            let sent = bytes.get(1).copied().unwrap_or(code);
            info!(
                "failed with {sent:02X} after {took:.1?}: {}",
                failure.name()
            );
            client.say(&bytes).await?;
            client.part().await;
            Ok(None)
        }
    }
}

impl<R: AsyncRead + Unpin, W> Client<R, W> {
    /// Reads what there is, up to `limit` unread bytes in all; 0 at the end.
    async fn read(&mut self, limit: usize) -> io::Result<usize> {
        let room = limit.saturating_sub(self.unread.len()).max(1);
        (&mut self.reader)
            .take(room as u64)
            .read_buf(&mut self.unread)
            .await
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Client<R, W> {
    /// Sends bytes at once.
    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// Ends the connection so that the last reply arrives: closing a socket in which unread bytes
    /// wait would reset it, and take the reply away from the client.
    async fn part(&mut self) {
        /// How long to wait for the client to close its side.
        const GRACE: Duration = Duration::from_secs(2);
        /// How much of what it still says is thrown away.
        const MAX_IGNORED: u64 = 64 * 1024;
        if self.writer.shutdown().await.is_err() {
            return;
        }
        let mut nowhere = tokio::io::sink();
        let mut rest = (&mut self.reader).take(MAX_IGNORED);
        let _ = tokio::time::timeout(GRACE, tokio::io::copy(&mut rest, &mut nowhere)).await;
    }
}

impl<T> Context<T> {
    /// Which streams this request may share a circuit with.
    fn isolation(&self, request: &Request, origin: Origin) -> Isolation {
        let address = match &request.address {
            Address::Ip(ip) => ip.to_string(),
            Address::Name(name) => name.to_ascii_lowercase(),
        };
        let (user, password) = (request.credentials.user(), request.credentials.password());
        let facts = Facts {
            client: origin.ip(),
            credentials: (!user.is_empty() || !password.is_empty())
                .then(|| Arc::new((user.to_vec(), password.to_vec()))),
            protocol: match request.version {
                Version::V4 | Version::V4a => Protocol::Socks4,
                Version::V5 => Protocol::Socks5,
            },
            port: match request.command {
                Command::Connect => request.port,
                Command::Resolve | Command::ResolvePtr => 0,
            },
            address: Arc::from(address),
            group: self.group,
            epoch: 0,
        };
        let flags = &self.rules.flags;
        Isolation::new(facts, &flags.isolation, flags.keep_alive_isolate_socks_auth)
    }
}
