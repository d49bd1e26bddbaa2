//! The transparent port (tor(1) `TransPort`): connections to somewhere else that the system
//! redirects here. They are carried to where they were going, through Tor.
//!
//! There is no protocol: nothing is said to a client whose connection fails, it is closed.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{SockRef, Socket};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::config::TransProxyType;
use crate::inbound::connection::{Client, serve_request};
use crate::inbound::failure_log::log_failure;
use crate::inbound::lingering_close::Connection;
use crate::log_limit::LogLimiter;
use crate::request::ClientAddr;
use crate::request::dispatch::{Dispatcher, Outcome};
use crate::request::{Address, Command, Request};
use crate::tor::connector::Connector;
use crate::tor::isolation::Protocol;

/// How often it is told that something is wrong with the system's rules.
static ADVICE: LogLimiter = LogLimiter::new(Duration::from_secs(5 * 60));

/// How connections get to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// What the system does with them.
    pub kind: TransProxyType,
    /// Where the port itself listens.
    pub port: SocketAddr,
}

/// Why nobody knows where a connection was going.
#[derive(Debug)]
enum Lost {
    /// To us: nothing redirected it.
    NotRedirected,
    /// The system does not say.
    Unknown(io::Error),
}

/// Serves one redirected connection until it is over.
pub async fn serve<T: Connector>(
    dispatcher: &Dispatcher<T>,
    stream: TcpStream,
    origin: ClientAddr,
    how: Redirection,
) {
    let destination = match destination(&stream, how) {
        Ok(destination) => destination,
        Err(lost) => {
            if let Some(times) = ADVICE.due() {
                let port = how.port;
                warn!("closed a connection to the transparent port {port} ({times} times): {lost}");
            }
            return;
        }
    };
    carry(dispatcher, stream, origin, destination).await;
}

/// Carries a connection to its destination.
pub async fn carry<T: Connector>(
    dispatcher: &Dispatcher<T>,
    connection: impl Connection,
    origin: ClientAddr,
    destination: SocketAddr,
) {
    let begun = Instant::now();
    let request = Request {
        command: Command::Connect,
        address: Address::Ip(destination.ip()),
        port: destination.port(),
        protocol: Protocol::Transparent,
        credentials: None,
        family: None,
    };
    let mut client = Client::new(connection, origin);
    // The box is no longer needed once bytes are carried.
    let outcome = Box::pin(serve_request(&mut client, dispatcher, &request)).await;
    match outcome {
        None => debug!("the client left after {:.1?}", begun.elapsed()),
        Some(Ok(Outcome::Stream(stream))) => {
            debug!("connected in {:.1?}", begun.elapsed());
            client.relay(Box::new(stream)).await;
        }
        // A connection is no look-up.
        Some(Ok(Outcome::Answer(_))) => client.part().await,
        Some(Err(failure)) => {
            log_failure(failure, "a closed connection", begun.elapsed());
            client.part().await;
        }
    }
}

/// Where a connection was going when it was redirected.
fn destination(stream: &TcpStream, how: Redirection) -> Result<SocketAddr, Lost> {
    let local = stream.local_addr().map_err(Lost::Unknown)?;
    let (destination, direct) = match how.kind {
        // The local address is where the client wanted to go.
        TransProxyType::Tproxy => (local, is_port(local, how.port)),
        TransProxyType::Default => {
            let destination = original(stream, local)?;
            (destination, unmapped(destination) == unmapped(local))
        }
    };
    match direct {
        true => Err(Lost::NotRedirected),
        false => Ok(unmapped(destination)),
    }
}

/// Whether a connection to `address` is one to the port itself. Whoever carried it would connect it to
/// itself, without end.
fn is_port(address: SocketAddr, port: SocketAddr) -> bool {
    let (address, port) = (unmapped(address), unmapped(port));
    address == port
        || (port.ip().is_unspecified() && address.port() == port.port() && is_near(address.ip()))
}

/// Whether an address is this computer's: no socket can be bound to another one. (Unless the system is
/// set so, `ip_nonlocal_bind`; then nothing is carried to the number of the port.)
fn is_near(ip: IpAddr) -> bool {
    let bound = UdpSocket::bind((ip, 0));
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// What the system remembers of a connection that it redirected (`SO_ORIGINAL_DST`).
#[cfg(target_os = "linux")]
fn original(stream: &TcpStream, local: SocketAddr) -> Result<SocketAddr, Lost> {
    let socket = SockRef::from(stream);
    // An IPv4 connection to a socket for both families is remembered as what it is.
    let original = match unmapped(local) {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    let original = original.map_err(|error| match error.kind() {
        // It remembers nothing of this connection.
        io::ErrorKind::NotFound => Lost::NotRedirected,
        _ => Lost::Unknown(error),
    })?;
    let no_address = || Lost::Unknown(io::ErrorKind::Unsupported.into());
    original.as_socket().ok_or_else(no_address)
}

/// Never asked: elsewhere no such port is opened ([`crate::config::port_line::PortLine::unserved`]).
#[cfg(not(target_os = "linux"))]
fn original(_stream: &TcpStream, _local: SocketAddr) -> Result<SocketAddr, Lost> {
    Err(Lost::Unknown(io::ErrorKind::Unsupported.into()))
}

/// An address without the form that IPv4 addresses have at an IPv6 socket.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Lets a socket take connections to any address, for TPROXY. To be called before it is bound.
#[cfg(target_os = "linux")]
pub fn permit(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let permitted = match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    permitted.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::other(
            "trans_proxy_type TPROXY needs the capability CAP_NET_ADMIN \
             (systemd: AmbientCapabilities=CAP_NET_ADMIN)",
        ),
        _ => error,
    })
}

/// Never asked: elsewhere no such port is opened ([`crate::config::port_line::PortLine::unserved`]).
#[cfg(not(target_os = "linux"))]
pub fn permit(_socket: &Socket, _address: SocketAddr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::NotRedirected => f.write_str(
                "it was not redirected but made to this port itself; add a rule with REDIRECT \
                 (iptables, nftables), or trans_proxy_type and a rule with TPROXY",
            ),
            Lost::Unknown(error) => write!(
                f,
                "the system does not say where it was going: {error}; is the connection tracking \
                 of netfilter there (nf_conntrack), and a rule with REDIRECT?"
            ),
        }
    }
}
