//! Opens the ports and accepts clients.
//!
//! No client and no error of the system ends the daemon: what cannot be accepted now is tried again
//! after a pause.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as Socket2, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{Instrument as _, Span, debug, debug_span, info, warn};

use crate::config::TransProxyType;
use crate::config::port_line::{Bind, Port, PortKind, PortLine};
use crate::inbound::connection::serve;
use crate::inbound::dns;
use crate::inbound::http;
use crate::inbound::lingering_close::Connection;
use crate::inbound::transparent::{self, Redirection, unmapped};
use crate::log_limit::LogLimiter;
use crate::request::ClientAddr;
use crate::request::dispatch::Dispatcher;
use crate::tor::connector::Connector;

mod keepalive;
mod socket_activation;
mod unix;

pub use socket_activation::{InheritedSockets, WantedPort};

/// How long to pause when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How often that is told.
static TROUBLE: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static REFUSED: LogLimiter = LogLimiter::new(Duration::from_secs(60));
static FULL: LogLimiter = LogLimiter::new(Duration::from_secs(60));

/// An open port.
pub struct Listener {
    kind: PortKind,
    socket: Socket,
    /// Where it listens, as it is told to the user.
    place: ListenAddr,
    /// How connections get to it, if it is a transparent port.
    transparent: Option<Redirection>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "removes the file when dropped")] Option<unix::File>,
    ),
    Udp(UdpSocket),
}

/// Where a port listens, written as in a port line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// An address and the port that is open there; a UDP port, if the port is for DNS.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(address) => write!(f, "{address}"),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// Opens a port, on its handed-over socket if it has one; `None` if its line is `0`.
    ///
    /// The error is one sentence that names the place and the remedy.
    pub fn bind(
        wanted: &WantedPort,
        handed: &InheritedSockets,
        trans_proxy_type: TransProxyType,
    ) -> Result<Option<Listener>, String> {
        let WantedPort {
            port: Port { kind, line, .. },
            inherited,
            ..
        } = wanted;
        let tproxy = *kind == PortKind::Transparent && trans_proxy_type == TransProxyType::Tproxy;
        let opened = match (inherited, &line.bind) {
            (_, Bind::Disabled) => return Ok(None),
            (Some(number), _) => adopt(handed, *number),
            (None, Bind::Tcp(address)) => bind_ip(*address, *kind, tproxy),
            (None, Bind::TcpAuto(ip)) => bind_ip(SocketAddr::new(*ip, 0), *kind, tproxy),
            (None, Bind::Unix(path)) => bind_unix(path, line),
        };
        let (socket, place) =
            opened.map_err(|problem| match handed.in_the_way_of(&wanted.port) {
                Some(address) => format!(
                    "{problem}; {address} is a socket of LISTEN_FDS, which stays open: if that is \
                     in the way, change the socket unit, or write its address"
                ),
                None => problem,
            })?;
        let kind = *kind;
        let transparent = match (kind, &place) {
            (PortKind::Transparent, ListenAddr::Tcp(port)) => Some(Redirection {
                kind: trans_proxy_type,
                port: *port,
            }),
            _ => None,
        };
        Ok(Some(Listener {
            kind,
            socket,
            place,
            transparent,
        }))
    }

    /// Where it listens.
    pub fn place(&self) -> &ListenAddr {
        &self.place
    }

    /// Accepts clients and serves each in a task of its own, by what `current` is when it comes, and
    /// at most as many at once as `permits` has. On an HTTP port, `client_auth_form` takes keys. Never returns.
    ///
    /// A DNS port has no connections, and a limit of its own ([`dns::MAX_QUESTIONS`]).
    pub async fn run<T: Connector>(
        self,
        current: watch::Receiver<Arc<Dispatcher<T>>>,
        permits: Arc<Semaphore>,
        client_auth_form: Arc<http::ClientAuthForm>,
    ) {
        match self {
            Listener {
                socket: Socket::Udp(socket),
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
            let accepted = match self.accept().await {
                Ok(accepted) => accepted,
                Err(error) if concerns_one_client(&error) => continue,
                Err(error) => {
                    if let Some(times) = TROUBLE.due() {
                        let place = &self.place;
                        warn!("cannot accept connections on {place}: {error} ({times} times)");
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let dispatcher = Arc::clone(&current.borrow());
            if !dispatcher
                .shared
                .access
                .load()
                .permits(accepted.origin().ip())
            {
                if let Some(times) = REFUSED.due() {
                    info!("refused a client that socks_policy does not admit ({times} times)");
                }
                continue;
            }
            // Taken only now: ports without clients hold none.
            let permit = match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    if let Some(times) = FULL.due() {
                        warn!(
                            "as many clients as there is room for; others wait ({times} times): \
                             raise system.max_files, and the system's limit"
                        );
                    }
                    // The semaphore is never closed.
                    let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                        return;
                    };
                    permit
                }
            };
            let visit = Visit {
                dispatcher,
                current: current.clone(),
                permit,
                span: debug_span!("client", port = %self.place, kind = self.kind.word()),
            };
            match accepted {
                Accepted::Tcp(stream, client) => {
                    // Small messages each way: waiting to fill a segment only costs time.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!("cannot set TCP_NODELAY for a client: {error}");
                    }
                    if let Some(how) = self.transparent {
                        visit.redirected(stream, client, how);
                        continue;
                    }
                    let local = stream.local_addr().ok().map(unmapped);
                    visit.begin(self.kind, &client_auth_form, stream, client, local);
                }
                Accepted::Unix(stream) => {
                    visit.begin(self.kind, &client_auth_form, stream, ClientAddr::Unix, None);
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, ClientAddr::from(client)))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted::Unix(stream))
            }
            // Has no connections.
            Socket::Udp(_) => std::future::pending().await,
        }
    }
}

/// A client that is about to be served, in a task of its own. Each kind of port has tasks of its own
/// kind: many of them wait for long, and should not take the room of the largest.
struct Visit<T> {
    dispatcher: Arc<Dispatcher<T>>,
    current: watch::Receiver<Arc<Dispatcher<T>>>,
    /// Given back when the client is served.
    permit: OwnedSemaphorePermit,
    span: Span,
}

impl<T: Connector> Visit<T> {
    fn begin<C>(
        self,
        kind: PortKind,
        client_auth_form: &Arc<http::ClientAuthForm>,
        connection: C,
        origin: ClientAddr,
        local: Option<SocketAddr>,
    ) where
        C: Connection + 'static,
    {
        let Visit {
            dispatcher,
            current,
            permit,
            span,
        } = self;
        if kind == PortKind::Http {
            let client_auth_form = Arc::clone(client_auth_form);
            let serving = async move {
                let _permit = permit;
                http::serve(current, connection, origin, local, client_auth_form).await;
            };
            tokio::spawn(serving.instrument(span));
        } else {
            let admission = Admission {
                dispatcher,
                _permit: permit,
            };
            spawn(span, serve(admission, connection, origin));
        }
    }

    fn redirected(self, stream: TcpStream, client: ClientAddr, how: Redirection) {
        let Visit {
            dispatcher,
            permit,
            span,
            ..
        } = self;
        let serving = async move {
            let _permit = permit;
            transparent::serve(&dispatcher, stream, client, how).await;
        };
        tokio::spawn(serving.instrument(span));
    }
}

/// What a client is served by, and its place among those that are served at once. It goes with the future that
/// serves: an `async` block around that one would remember it twice.
struct Admission<T> {
    dispatcher: Arc<Dispatcher<T>>,
    /// Given back when the client is served.
    _permit: OwnedSemaphorePermit,
}

impl<T> Deref for Admission<T> {
    type Target = Dispatcher<T>;

    fn deref(&self) -> &Dispatcher<T> {
        &self.dispatcher
    }
}

/// Runs what serves a client. Mostly the span is off (it is for the level `debug`), and then no task has to remember it.
fn spawn(span: Span, serving: impl Future<Output = ()> + Send + 'static) {
    if span.is_disabled() {
        tokio::spawn(serving);
    } else {
        tokio::spawn(serving.instrument(span));
    }
}

enum Accepted {
    Tcp(TcpStream, ClientAddr),
    Unix(UnixStream),
}

impl Accepted {
    fn origin(&self) -> ClientAddr {
        match self {
            Accepted::Tcp(_, client) => *client,
            Accepted::Unix(_) => ClientAddr::Unix,
        }
    }
}

/// Whether only the connection that was being accepted failed: accept(2).
fn concerns_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 1024;

fn bind_ip(
    address: SocketAddr,
    kind: PortKind,
    tproxy: bool,
) -> Result<(Socket, ListenAddr), String> {
    match kind {
        PortKind::Dns => bind_udp(address),
        PortKind::Socks | PortKind::Http | PortKind::Transparent => bind_tcp(address, tproxy),
    }
}

/// `tproxy`: for connections that keep their destination as local address.
fn bind_tcp(address: SocketAddr, tproxy: bool) -> Result<(Socket, ListenAddr), String> {
    let listen = || {
        let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            // An IPv6 port takes IPv6 clients alone, whatever the system's setting: as C tor's do.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        if tproxy {
            transparent::permit(&socket, address)?;
        }
        keepalive::set_if_unset(&socket);
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        Ok((listener.local_addr()?, listener))
    };
    let listening: io::Result<_> = listen();
    let (bound, listener) = listening.map_err(|error| cannot_listen(address, &error))?;
    Ok((Socket::Tcp(listener), ListenAddr::Tcp(bound)))
}

fn bind_udp(address: SocketAddr) -> Result<(Socket, ListenAddr), String> {
    let listen = || {
        let socket = Socket2::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok((socket.local_addr()?, socket))
    };
    let listening: io::Result<_> = listen();
    let (bound, socket) = listening.map_err(|error| cannot_listen(address, &error))?;
    Ok((Socket::Udp(socket), ListenAddr::Tcp(bound)))
}

/// Why a port cannot be opened, and what to do.
fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    if error.raw_os_error().is_none() {
        // Ours: it says what to do.
        return format!("cannot listen on {address}: {error}");
    }
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the program that listens there, or choose another port or `auto`"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023",
        io::ErrorKind::AddrNotAvailable => {
            "choose an address of this computer; for one that comes up later, let a systemd socket \
             unit with FreeBind=yes hand over the port"
        }
        _ => "choose another address or port",
    };
    format!("cannot listen on {address}: {error}; {remedy}")
}

/// Makes a port of a socket that was handed over.
fn adopt(handed: &InheritedSockets, number: usize) -> Result<(Socket, ListenAddr), String> {
    let adopt = || {
        Ok(match handed.duplicate(number)? {
            socket_activation::Socket::Tcp(listener, address) => {
                listener.set_nonblocking(true)?;
                keepalive::set_if_unset(&SockRef::from(&listener));
                let listener = TcpListener::from_std(listener)?;
                (Socket::Tcp(listener), ListenAddr::Tcp(address))
            }
            socket_activation::Socket::Unix(listener, path) => {
                listener.set_nonblocking(true)?;
                // The file belongs to whoever made it.
                let listener = UnixListener::from_std(listener)?;
                (Socket::Unix(listener, None), ListenAddr::Unix(path))
            }
            socket_activation::Socket::Udp(socket, address) => {
                socket.set_nonblocking(true)?;
                (
                    Socket::Udp(UdpSocket::from_std(socket)?),
                    ListenAddr::Tcp(address),
                )
            }
        })
    };
    adopt().map_err(|error: io::Error| format!("cannot use a socket of LISTEN_FDS: {error}"))
}

fn bind_unix(path: &Path, line: &PortLine) -> Result<(Socket, ListenAddr), String> {
    let (listener, file) = unix::bind(path, &line.flags)
        .map_err(|problem| format!("cannot listen on unix:{}: {problem}", path.display()))?;
    Ok((
        Socket::Unix(listener, Some(file)),
        ListenAddr::Unix(path.to_owned()),
    ))
}
