//! Opens the ports, accepts clients, and spawns a task for each.
//!
//! Read this file of `listener` first: [`Listener::bind`] opens a port, [`Listener::run`] accepts.
//!
//! | module | holds |
//! |---|---|
//! | `socket` | opening a port's socket, and its address ([`ListenAddr`]) |
//! | `ip` | binding TCP and UDP |
//! | `unix` | binding Unix sockets, with C tor's rules for their folder |
//! | `socket_activation` | sockets inherited from systemd ([`InheritedSockets`]), and the ports they become |
//! | `keepalive` | detecting clients that vanished |
//! | `client_task` | the task of one client |
//!
//! Neither a client nor a system error ends the process: if accepting fails, the listener tries again
//! after a pause.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, debug_span, info, warn};

use crate::config::TransProxyType;
use crate::config::port_line::PortKind;
use crate::inbound::dns;
use crate::inbound::http;
use crate::inbound::transparent::{Redirection, to_canonical};
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::ClientAddr;
use crate::request::dispatch::Dispatcher;
use crate::tor::connector::Connector;
use client_task::ClientTask;
use socket::ListenSocket;

mod client_task;
mod ip;
mod keepalive;
mod socket;
mod socket_activation;
mod unix;

pub use socket::ListenAddr;
pub use socket_activation::{InheritedSockets, PlannedPort};

/// How long to pause when the system cannot accept another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Limit each of these log lines to one a minute.
static ACCEPT_FAILED: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static REFUSED: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static FULL: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// An open port.
pub struct Listener {
    kind: PortKind,
    socket: ListenSocket,
    addr: ListenAddr,
    /// How connections reach it, if it is a transparent port on an IP address.
    redirection: Option<Redirection>,
}

impl Listener {
    /// Opens a port, on its inherited socket if it has one. Returns `None` for the line `0`, which a
    /// loaded configuration leaves out.
    ///
    /// # Errors
    /// A message that names the address and the remedy.
    pub fn bind(
        planned: &PlannedPort,
        inherited: &InheritedSockets,
        trans_proxy_type: TransProxyType,
    ) -> Result<Option<Listener>, String> {
        let kind = planned.port.kind;
        let tproxy = kind == PortKind::Transparent && trans_proxy_type == TransProxyType::Tproxy;
        let Some((socket, addr)) = socket::open(planned, inherited, tproxy)? else {
            return Ok(None);
        };
        let redirection = match (kind, &addr) {
            (PortKind::Transparent, ListenAddr::Ip(port)) => Some(Redirection {
                kind: trans_proxy_type,
                port: *port,
            }),
            _ => None,
        };
        Ok(Some(Listener {
            kind,
            socket,
            addr,
            redirection,
        }))
    }

    /// The address that the port listens on.
    pub fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// Accepts clients and spawns a task for each, with the dispatcher that is `current` at that time.
    /// Never returns.
    ///
    /// `permits` limits the connections of all ports together. A DNS port has no connections, and a
    /// limit of its own ([`dns::MAX_QUERIES`]). `client_auth_form` serves the key form of HTTP ports.
    pub async fn run<T: Connector>(
        self,
        current: watch::Receiver<Arc<Dispatcher<T>>>,
        permits: Arc<Semaphore>,
        client_auth_form: Arc<http::ClientAuthForm>,
    ) {
        match self {
            Listener {
                socket: ListenSocket::Udp(socket),
                ..
            } => dns::run(socket, current).await,
            streams => {
                streams
                    .run_streams(current, permits, client_auth_form)
                    .await
            }
        }
    }

    async fn run_streams<T: Connector>(
        self,
        current: watch::Receiver<Arc<Dispatcher<T>>>,
        permits: Arc<Semaphore>,
        client_auth_form: Arc<http::ClientAuthForm>,
    ) {
        loop {
            let client = match self.accept().await {
                Ok(client) => client,
                Err(error) if concerns_one_client(&error) => continue,
                Err(error) => {
                    if let Some(times) = ACCEPT_FAILED.due() {
                        let (addr, times) = (&self.addr, Occurrences(times));
                        warn!("cannot accept connections on {addr}: {error}{times}");
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let dispatcher = Arc::clone(&current.borrow());
            if !dispatcher.shared.access.load().permits(client.addr().ip()) {
                if let Some(times) = REFUSED.due() {
                    let times = Occurrences(times);
                    info!("refused a client that socks_policy does not admit{times}");
                }
                continue;
            }
            // Acquired after the accept, so that idle ports hold no permit.
            let Some(permit) = acquire(&permits).await else {
                return;
            };
            let task = ClientTask {
                dispatcher,
                current: current.clone(),
                permit,
                span: debug_span!("client", port = %self.addr, kind = self.kind.name()),
            };
            match client {
                AcceptedClient::Tcp(stream, client_addr) => {
                    // Nagle's algorithm would only delay small messages.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!("cannot set TCP_NODELAY for a client: {error}");
                    }
                    if let Some(redirection) = self.redirection {
                        task.spawn_redirected(stream, client_addr, redirection);
                        continue;
                    }
                    let local = stream.local_addr().ok().map(to_canonical);
                    task.spawn(self.kind, &client_auth_form, stream, client_addr, local);
                }
                AcceptedClient::Unix(stream) => {
                    task.spawn(self.kind, &client_auth_form, stream, ClientAddr::Unix, None);
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<AcceptedClient> {
        match &self.socket {
            ListenSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(AcceptedClient::Tcp(stream, ClientAddr::from(peer)))
            }
            ListenSocket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(AcceptedClient::Unix(stream))
            }
            // UDP has no connections.
            ListenSocket::Udp(_) => std::future::pending().await,
        }
    }
}

enum AcceptedClient {
    Tcp(TcpStream, ClientAddr),
    Unix(UnixStream),
}

impl AcceptedClient {
    fn addr(&self) -> ClientAddr {
        match self {
            AcceptedClient::Tcp(_, client_addr) => *client_addr,
            AcceptedClient::Unix(_) => ClientAddr::Unix,
        }
    }
}

/// Waits for a permit, with a warning if there is none at once. Returns `None` if the semaphore is
/// closed, which does not happen.
async fn acquire(permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        return Some(permit);
    }
    if let Some(times) = FULL.due() {
        warn!(
            "connection limit reached, new clients wait{}: raise system.max_files and the system's \
             limit on open files",
            Occurrences(times)
        );
    }
    Arc::clone(permits).acquire_owned().await.ok()
}

/// Whether an error of accept(2) concerns only the connection that was being accepted.
fn concerns_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}
