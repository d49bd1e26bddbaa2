//! The transparent port (tor(1) `TransPort`): takes connections that the system redirects here, and
//! connects them through Tor to their original destination.
//!
//! There is no protocol, so a failure cannot be reported to the client: its connection is closed.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::config::TransProxyType;
use crate::inbound::connection::{ClientConnection, serve_request};
use crate::inbound::failure_log::log_failure;
use crate::inbound::lingering_close::Connection;
use crate::log_limit::{LogLimiter, Occurrences};
use crate::request::dispatch::{Dispatcher, Outcome};
use crate::request::{Address, ClientAddr, Command, Request};
use crate::tor::connector::Connector;
use crate::tor::isolation::Protocol;

/// Limits the warning about firewall rules to one in five minutes.
static NO_DESTINATION: LogLimiter = LogLimiter::new(Duration::from_secs(5 * 60));

/// How connections reach a transparent port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// The kind of firewall rule that redirects them.
    pub kind: TransProxyType,
    /// The address that the port listens on.
    pub port: SocketAddr,
}

/// Serves one redirected connection until it is closed. Closes it at once, with a warning, if its
/// original destination is unknown.
pub async fn serve<T: Connector>(
    dispatcher: &Dispatcher<T>,
    stream: TcpStream,
    client_addr: ClientAddr,
    redirection: Redirection,
) {
    let destination = match find_destination(&stream, redirection) {
        Ok(destination) => destination,
        Err(error) => {
            if let Some(times) = NO_DESTINATION.due() {
                let (port, times) = (redirection.port, Occurrences(times));
                warn!("closed a connection to the transparent port {port}{times}: {error}");
            }
            return;
        }
    };
    connect_and_relay(dispatcher, stream, client_addr, destination).await;
}

/// Connects a client to `destination` through Tor and relays until the connection is closed.
pub async fn connect_and_relay<T: Connector>(
    dispatcher: &Dispatcher<T>,
    connection: impl Connection,
    client_addr: ClientAddr,
    destination: SocketAddr,
) {
    let started = Instant::now();
    let request = Request {
        command: Command::Connect,
        address: Address::Ip(destination.ip()),
        port: destination.port(),
        protocol: Protocol::Transparent,
        credentials: None,
        family: None,
    };
    let mut client = ClientConnection::new(connection, client_addr);
    // Boxed, and freed before the relay: an idle stream must not reserve memory for it.
    let outcome = Box::pin(serve_request(&mut client, dispatcher, &request)).await;
    match outcome {
        None => debug!("client disconnected after {:.1?}", started.elapsed()),
        Some(Ok(Outcome::Stream(stream))) => {
            debug!("connected in {:.1?}", started.elapsed());
            client.relay(Box::new(stream)).await;
        }
        // Never the outcome of a CONNECT: only lookups have answers.
        Some(Ok(Outcome::Answer(_))) => client.close().await,
        Some(Err(failure)) => {
            log_failure(failure, "a closed connection", started.elapsed());
            client.close().await;
        }
    }
}

/// Why the original destination of a connection is unknown.
#[derive(Debug)]
enum NoDestination {
    /// The client connected to the port itself; no rule redirected the connection.
    NotRedirected,
    /// The system call that returns the destination failed.
    Unknown(io::Error),
}

/// Returns the address that the client connected to before the connection was redirected.
fn find_destination(
    stream: &TcpStream,
    redirection: Redirection,
) -> Result<SocketAddr, NoDestination> {
    let local = stream.local_addr().map_err(NoDestination::Unknown)?;
    let (destination, is_direct) = match redirection.kind {
        // TPROXY keeps the original destination as the local address.
        TransProxyType::Tproxy => (local, is_own_port(local, redirection.port)),
        TransProxyType::Default => {
            let destination = read_original_dst(stream, local)?;
            (
                destination,
                to_canonical(destination) == to_canonical(local),
            )
        }
    };
    match is_direct {
        true => Err(NoDestination::NotRedirected),
        false => Ok(to_canonical(destination)),
    }
}

/// Whether `address` is that of the port itself: connecting there would loop without end.
fn is_own_port(address: SocketAddr, port: SocketAddr) -> bool {
    let (address, port) = (to_canonical(address), to_canonical(port));
    address == port
        || (port.ip().is_unspecified()
            && address.port() == port.port()
            && is_local_ip(address.ip()))
}

/// Whether a socket can be bound to `ip`, which means that it is an address of this computer.
///
/// With `net.ipv4.ip_nonlocal_bind` any address qualifies; connections to the port's own number are
/// then never relayed.
fn is_local_ip(ip: IpAddr) -> bool {
    let bound = UdpSocket::bind((ip, 0));
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Reads the destination that netfilter recorded before it redirected the connection
/// (`SO_ORIGINAL_DST`).
#[cfg(target_os = "linux")]
fn read_original_dst(stream: &TcpStream, local: SocketAddr) -> Result<SocketAddr, NoDestination> {
    let socket = SockRef::from(stream);
    // netfilter records an IPv4 connection to a dual-stack socket as IPv4.
    let original = match to_canonical(local) {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    let original = original.map_err(|error| match error.kind() {
        // netfilter has no record of this connection.
        io::ErrorKind::NotFound => NoDestination::NotRedirected,
        _ => NoDestination::Unknown(error),
    })?;
    let no_address = || NoDestination::Unknown(io::ErrorKind::Unsupported.into());
    original.as_socket().ok_or_else(no_address)
}

/// Never called: transparent ports exist on Linux only
/// ([`crate::config::port_line::PortLine::unsupported_reason`]).
#[cfg(not(target_os = "linux"))]
fn read_original_dst(_stream: &TcpStream, _local: SocketAddr) -> Result<SocketAddr, NoDestination> {
    Err(NoDestination::Unknown(io::ErrorKind::Unsupported.into()))
}

/// Converts an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) to IPv4.
pub(crate) fn to_canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Allows a socket to accept connections to any address, for TPROXY (`IP_TRANSPARENT`). Call it
/// before the socket is bound.
///
/// # Errors
/// Returns the system's error; the one for a missing privilege names the remedy.
#[cfg(target_os = "linux")]
pub fn set_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let result = match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    result.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::other(
            "trans_proxy_type TPROXY needs the capability CAP_NET_ADMIN \
             (systemd: AmbientCapabilities=CAP_NET_ADMIN)",
        ),
        _ => error,
    })
}

/// Never called: transparent ports exist on Linux only
/// ([`crate::config::port_line::PortLine::unsupported_reason`]).
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn set_transparent(_socket: &Socket, _address: SocketAddr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl fmt::Display for NoDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoDestination::NotRedirected => f.write_str(
                "it was not redirected but made to this port itself; add a REDIRECT rule (iptables, \
                 nftables), or set trans_proxy_type = \"TPROXY\" and add a TPROXY rule",
            ),
            NoDestination::Unknown(error) => write!(
                f,
                "cannot read its original destination: {error}; check that netfilter's connection \
                 tracking (nf_conntrack) is active and that a REDIRECT rule exists"
            ),
        }
    }
}
