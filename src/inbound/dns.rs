//! The DNS port (tor(1) `DNSPort`): answers DNS queries over UDP by lookups through Tor, or from the
//! address map. No query is sent to any other resolver.
//!
//! As in C tor, the first question for an address (A, AAAA) or a name (PTR) is answered, queries
//! without one get NOTIMP, and there is no TCP.
//!
//! `message` parses queries and builds replies; `query_limit` limits the queries in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument as _, debug, debug_span, info, warn};

use crate::failure::Failure;
use crate::inbound::failure_log::log_failure;
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::dispatch::{Dispatcher, Outcome};
use crate::request::policy;
use crate::request::{Address, ClientAddr, Command, Request};
use crate::tor::connector::Connector;
use crate::tor::isolation::Protocol;
use crate::tor::optimistic_data::OptimisticData;

mod message;
mod query_limit;

use message::{DnsLookup, DnsQuery};
use query_limit::QueryLimiter;

/// How many queries of a port may be in flight, of all clients together. Queries beyond this limit, or
/// beyond the share of their client ([`query_limit`]), get SERVFAIL at once.
pub const MAX_QUERIES: usize = 1024;
/// How many bytes of a datagram are read (libevent's limit). Queries are shorter.
const MAX_DATAGRAM_LEN: usize = 1500;
/// How long to pause when receiving fails.
const PAUSE: Duration = Duration::from_millis(100);

/// Limit each of these log lines to one a minute.
static RECEIVE_FAILED: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static REFUSED: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static FULL: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// Answers the queries that a socket receives, each in a task of its own, with the dispatcher that is
/// `current` when it arrives. Never returns.
pub async fn run<T: Connector>(socket: UdpSocket, current: watch::Receiver<Arc<Dispatcher<T>>>) {
    let socket = Arc::new(socket);
    let limiter = QueryLimiter::new(MAX_QUERIES);
    let mut datagram = [0; MAX_DATAGRAM_LEN];
    // The tasks end with the port, and hold no strong reference to its socket: the address must be free
    // for a new port.
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, peer) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            Err(error) => {
                if let Some(times) = RECEIVE_FAILED.due() {
                    warn!("cannot receive DNS queries: {error}{}", Occurrences(times));
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let dispatcher = Arc::clone(&current.borrow());
        let Some(query) = DnsQuery::parse(&datagram[..length]) else {
            debug!("dropped a datagram that is not a DNS query");
            continue;
        };
        let client_addr = ClientAddr::from(peer);
        if !dispatcher.shared.access.load().permits(client_addr.ip()) {
            if let Some(times) = REFUSED.due() {
                let times = Occurrences(times);
                info!("refused a client that socks_policy does not admit{times}");
            }
            send(&socket, &query.refuse(ResponseCode::Refused), peer).await;
            continue;
        }
        let Some(permit) = limiter.acquire(peer.ip()) else {
            if let Some(times) = FULL.due() {
                warn!(
                    "answered a DNS query with SERVFAIL{}: more than {MAX_QUERIES} in flight, or \
                     too many from one client",
                    Occurrences(times)
                );
            }
            send(&socket, &query.refuse(ResponseCode::ServFail), peer).await;
            continue;
        };
        let socket = Arc::downgrade(&socket);
        let task = async move {
            let reply = answer(&dispatcher, &query, client_addr).await;
            if let Some(socket) = socket.upgrade() {
                send(&socket, &reply, peer).await;
            }
            drop(permit);
        };
        tasks.spawn(task.instrument(debug_span!("client", kind = "dns")));
    }
}

/// Sends a reply. An error is only logged: the client repeats its query.
async fn send(socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(reply, peer).await {
        debug!("cannot send a DNS reply: {error}");
    }
}

/// Performs the lookup of a query and returns the reply.
async fn answer<T: Connector>(
    dispatcher: &Dispatcher<T>,
    query: &DnsQuery,
    client_addr: ClientAddr,
) -> Vec<u8> {
    let DnsLookup {
        command,
        address,
        family,
    } = match query.lookup() {
        Ok(lookup) => lookup,
        Err(code) => {
            debug!("refused a DNS query: {code}");
            return query.refuse(code);
        }
    };
    let request = Request {
        command,
        address,
        port: 0,
        protocol: Protocol::Dns,
        credentials: None,
        family,
    };
    let started = Instant::now();
    let no_data = OptimisticData::new(Vec::new());
    match dispatcher.serve(&request, client_addr, &no_data).await {
        Ok(Outcome::Answer(answer)) => {
            debug!("looked up");
            query.answer(&answer)
        }
        Ok(Outcome::Stream(_)) => query.refuse(ResponseCode::ServFail),
        Err(failure) => {
            let code = response_code(failure, &request);
            log_failure(failure, code, started.elapsed());
            query.refuse(code)
        }
    }
}

/// Returns the response code of a failed lookup, as in C tor: NXDOMAIN if the name does not exist,
/// SERVFAIL if that is unknown.
fn response_code(failure: Failure, request: &Request) -> ResponseCode {
    match failure {
        Failure::NameNotResolved => ResponseCode::NXDomain,
        // The name exists, but has no address of this family.
        Failure::NoSuchFamily => ResponseCode::NoError,
        Failure::PrivateAddress => match (request.command, &request.address) {
            (Command::ResolvePtr, _) => ResponseCode::NXDomain,
            // C tor sends these to an exit, which replies that they do not exist.
            (_, Address::Name(name)) if policy::is_local_name(name) => ResponseCode::NXDomain,
            _ => ResponseCode::ServFail,
        },
        _ => ResponseCode::ServFail,
    }
}
