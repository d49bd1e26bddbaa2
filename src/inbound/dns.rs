//! The DNS port (tor(1) `DNSPort`): look-ups over UDP, answered through Tor or from the names that
//! stand for others. What is asked here goes nowhere else.
//!
//! As in C tor the first question for an address (A, AAAA) or for a name (PTR) is answered, what asks
//! for neither gets NOTIMP, and there is no TCP.

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
use crate::log_limit::LogLimiter;
use crate::request::ClientAddr;
use crate::request::dispatch::{Dispatcher, Outcome};
use crate::request::policy;
use crate::request::{Address, Command, Request};
use crate::tor::connector::Connector;
use crate::tor::isolation::Protocol;
use crate::tor::optimistic_data::OptimisticData;

mod message;
mod places;

use message::{Question, Questions};
use places::Places;

/// How many questions a port has under way at once, of all clients. What is beyond it, or beyond the
/// share of its client ([`places`]), gets SERVFAIL at once.
pub const MAX_QUESTIONS: usize = 1024;
/// How much of a datagram is read (libevent's number). Questions are shorter.
const MAX_DATAGRAM_LEN: usize = 1500;
/// How long to pause when nothing can be received.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the same trouble is told.
static TROUBLE: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static REFUSED: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static CROWD: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// Answers what comes in on a socket, each question in a task of its own and by what `current` is
/// then. Never returns.
pub async fn run<T: Connector>(socket: UdpSocket, current: watch::Receiver<Arc<Dispatcher<T>>>) {
    let socket = Arc::new(socket);
    let places = Places::new(MAX_QUESTIONS);
    let mut datagram = [0; MAX_DATAGRAM_LEN];
    // They end with the port, and do not hold its socket: it could not be opened again.
    let mut answering = JoinSet::new();
    loop {
        while answering.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            Err(error) => {
                if let Some(times) = TROUBLE.due() {
                    warn!("cannot receive questions: {error} ({times} times)");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let dispatcher = Arc::clone(&current.borrow());
        let Some(questions) = Questions::read(&datagram[..length]) else {
            debug!("dropped a datagram that asks nothing");
            continue;
        };
        let origin = ClientAddr::from(client);
        if !dispatcher.shared.access.load().permits(origin.ip()) {
            if let Some(times) = REFUSED.due() {
                info!("refused a client that socks_policy does not admit ({times} times)");
            }
            send(&socket, &questions.refuse(ResponseCode::Refused), client).await;
            continue;
        }
        let Some(place) = places.take(client.ip()) else {
            if let Some(times) = CROWD.due() {
                warn!(
                    "too many questions at once, or too many of one client: {times} got SERVFAIL"
                );
            }
            send(&socket, &questions.refuse(ResponseCode::ServFail), client).await;
            continue;
        };
        let socket = Arc::downgrade(&socket);
        let answer = async move {
            let reply = answer(&dispatcher, &questions, origin).await;
            if let Some(socket) = socket.upgrade() {
                send(&socket, &reply, client).await;
            }
            drop(place);
        };
        answering.spawn(answer.instrument(debug_span!("client", kind = "dns")));
    }
}

/// Sends a reply. Whoever does not get it asks again.
async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        debug!("cannot send an answer: {error}");
    }
}

/// Finds the answer to a client's questions.
async fn answer<T: Connector>(
    dispatcher: &Dispatcher<T>,
    questions: &Questions,
    origin: ClientAddr,
) -> Vec<u8> {
    let Question {
        command,
        address,
        family,
    } = match questions.question() {
        Ok(question) => question,
        Err(code) => {
            debug!("a question that is not answered: {code}");
            return questions.refuse(code);
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
    let begun = Instant::now();
    let nothing = OptimisticData::new(Vec::new());
    match dispatcher.serve(&request, origin, &nothing).await {
        Ok(Outcome::Answer(answer)) => {
            debug!("looked up");
            questions.answer(&answer)
        }
        Ok(Outcome::Stream(_)) => questions.refuse(ResponseCode::ServFail),
        Err(failure) => {
            let code = code(failure, &request);
            log_failure(failure, code, begun.elapsed());
            questions.refuse(code)
        }
    }
}

/// What a failed look-up is answered with: NXDOMAIN means that there is no such name, SERVFAIL that
/// this is not known. As C tor says them.
fn code(failure: Failure, request: &Request) -> ResponseCode {
    match failure {
        Failure::NameNotResolved => ResponseCode::NXDomain,
        // The name is good.
        Failure::NoSuchFamily => ResponseCode::NoError,
        Failure::PrivateAddress => match (request.command, &request.address) {
            (Command::ResolvePtr, _) => ResponseCode::NXDomain,
            // C tor asks an exit for these, which says so.
            (_, Address::Name(name)) if policy::is_local_name(name) => ResponseCode::NXDomain,
            _ => ResponseCode::ServFail,
        },
        _ => ResponseCode::ServFail,
    }
}
