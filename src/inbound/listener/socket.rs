//! Opens the socket of a port: binds a new one, or uses one that was inherited.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::SockRef;
use tokio::net::{TcpListener, UdpSocket, UnixListener};

use super::socket_activation::{InheritedSocket, InheritedSockets, PlannedPort};
use super::unix::SocketFile;
use super::{ip, keepalive, unix};
use crate::config::port_line::{BindAddr, Flags, PortKind};

/// The socket of an open port.
pub(super) enum ListenSocket {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "removes the file when dropped")] Option<SocketFile>,
    ),
    Udp(UdpSocket),
}

/// The address that a port listens on. Displayed as in a port line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// An IP address and a port number, UDP for DNS and otherwise TCP.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Ip(address) => write!(f, "{address}"),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Opens the socket of a port. Returns `None` for the line `0`, which a loaded configuration leaves out.
///
/// # Errors
/// A message that names the address and the remedy.
pub(super) fn open(
    planned: &PlannedPort,
    inherited: &InheritedSockets,
    tproxy: bool,
) -> Result<Option<(ListenSocket, ListenAddr)>, String> {
    let (kind, line) = (planned.port.kind, &planned.port.line);
    let opened = match (planned.inherited, &line.bind) {
        (_, BindAddr::Disabled) => return Ok(None),
        (Some(index), _) => use_inherited(inherited, index),
        (None, BindAddr::Tcp(address)) => bind_ip(*address, kind, tproxy),
        (None, BindAddr::TcpAuto(ip)) => bind_ip(SocketAddr::new(*ip, 0), kind, tproxy),
        (None, BindAddr::Unix(path)) => bind_unix(path, &line.flags),
    };
    opened
        .map(Some)
        .map_err(|problem| match inherited.find_conflict(&planned.port) {
            Some(address) => format!(
                "{problem}; {address} is a socket of LISTEN_FDS and stays open: if the two conflict, \
                 change the socket unit, or use its address in the port line"
            ),
            None => problem,
        })
}

fn bind_ip(
    address: SocketAddr,
    kind: PortKind,
    tproxy: bool,
) -> Result<(ListenSocket, ListenAddr), String> {
    match kind {
        PortKind::Dns => {
            let (socket, bound) = ip::bind_udp(address)?;
            Ok((ListenSocket::Udp(socket), ListenAddr::Ip(bound)))
        }
        PortKind::Socks | PortKind::Http | PortKind::Transparent => {
            let (listener, bound) = ip::bind_tcp(address, tproxy)?;
            Ok((ListenSocket::Tcp(listener), ListenAddr::Ip(bound)))
        }
    }
}

fn bind_unix(path: &Path, flags: &Flags) -> Result<(ListenSocket, ListenAddr), String> {
    let (listener, file) = unix::bind(path, flags)
        .map_err(|problem| format!("cannot listen on unix:{}: {problem}", path.display()))?;
    Ok((
        ListenSocket::Unix(listener, Some(file)),
        ListenAddr::Unix(path.to_owned()),
    ))
}

/// Registers a duplicate of an inherited socket with tokio.
fn use_inherited(
    inherited: &InheritedSockets,
    index: usize,
) -> Result<(ListenSocket, ListenAddr), String> {
    let register = || {
        Ok(match inherited.duplicate(index)? {
            InheritedSocket::Tcp(listener, address) => {
                listener.set_nonblocking(true)?;
                keepalive::set_if_unset(&SockRef::from(&listener));
                let listener = TcpListener::from_std(listener)?;
                (ListenSocket::Tcp(listener), ListenAddr::Ip(address))
            }
            InheritedSocket::Unix(listener, path) => {
                listener.set_nonblocking(true)?;
                // No `SocketFile`: the process that created the file removes it.
                let listener = UnixListener::from_std(listener)?;
                (ListenSocket::Unix(listener, None), ListenAddr::Unix(path))
            }
            InheritedSocket::Udp(socket, address) => {
                socket.set_nonblocking(true)?;
                let socket = UdpSocket::from_std(socket)?;
                (ListenSocket::Udp(socket), ListenAddr::Ip(address))
            }
        })
    };
    register().map_err(|error: io::Error| format!("cannot use a socket of LISTEN_FDS: {error}"))
}
