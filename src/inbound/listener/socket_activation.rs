//! Sockets that the parent process has opened: systemd's socket activation (sd_listen_fds(3)).
//!
//! A port line with the address of an inherited socket listens on that socket, with the line's flags.
//! Every other inherited socket becomes a port without flags. A datagram socket is a DNS port; the kind
//! of a stream socket is its name (`FileDescriptorName=`), `socks`, `http` or `trans`, and any other name
//! means `socks`. A socket whose type contradicts its name, such as a stream socket named `dns`, is
//! refused.
//!
//! The service manager keeps these sockets open whatever this process does, so clients of a socket
//! without a port would wait in its backlog. Therefore every inherited socket is served as long
//! as the process runs, by the port that the current configuration assigns it to.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::config::port_line::{BindAddr, Port, PortKind, PortLine};

/// The inherited sockets. Ports listen on duplicates of them, so that a closed port's socket is still
/// available to the next port.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<NamedSocket>);

#[derive(Debug)]
struct NamedSocket {
    socket: InheritedSocket,
    /// Its entry in `LISTEN_FDNAMES`.
    name: String,
}

/// A bound socket and its address. TCP and Unix sockets are listening.
#[derive(Debug)]
pub(super) enum InheritedSocket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
    Udp(UdpSocket, SocketAddr),
}

/// A port that is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPort {
    /// The port's kind, address and flags.
    pub port: Port,
    /// The index of the inherited socket to listen on; `None` binds a new socket.
    pub inherited: Option<usize>,
    /// Whether a line of the configuration opens this port, rather than an inherited socket alone.
    pub configured: bool,
}

impl InheritedSockets {
    /// Takes the sockets that `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` pass to this process.
    /// To be called once.
    ///
    /// # Errors
    /// A message that names the first socket that no port can use, and why.
    pub fn from_environment() -> Result<InheritedSockets, String> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut found = ListenFd::from_env();
        let mut all = Vec::new();
        for index in 0..found.len() {
            let name = names.next().unwrap_or_default();
            let describe = |problem| format!("socket {index} ({name:?}) of LISTEN_FDS: {problem}");
            let named = NamedSocket {
                socket: take_socket(&mut found, index).map_err(describe)?,
                name: name.clone(),
            };
            named.check().map_err(describe)?;
            all.push(named);
        }
        Ok(InheritedSockets(all))
    }

    /// Returns the ports to open for the port lines of a configuration: one for each line, on the
    /// inherited socket with its address if there is one, and one for each socket that is left. If any
    /// socket is inherited, default ports are left out.
    pub(crate) fn plan_ports(&self, lines: &[Port]) -> Vec<PlannedPort> {
        let mut left: Vec<usize> = (0..self.0.len()).collect();
        let mut planned = Vec::new();
        for port in lines
            .iter()
            .filter(|line| line.explicit || self.0.is_empty())
        {
            let found = left.iter().position(|index| self.0[*index].matches(port));
            planned.push(PlannedPort {
                port: port.clone(),
                inherited: found.map(|position| left.remove(position)),
                configured: true,
            });
        }
        planned.extend(left.into_iter().map(|index| PlannedPort {
            port: self.0[index].to_port(),
            inherited: Some(index),
            configured: false,
        }));
        planned
    }

    /// Duplicates the socket at `index`.
    pub(super) fn duplicate(&self, index: usize) -> io::Result<InheritedSocket> {
        Ok(match &self.0[index].socket {
            InheritedSocket::Tcp(socket, at) => InheritedSocket::Tcp(socket.try_clone()?, *at),
            InheritedSocket::Unix(socket, at) => {
                InheritedSocket::Unix(socket.try_clone()?, at.clone())
            }
            InheritedSocket::Udp(socket, at) => InheritedSocket::Udp(socket.try_clone()?, *at),
        })
    }

    /// Returns the address of an inherited socket that may keep `port` from being bound: one with the
    /// same port number, if either address is the unspecified one.
    pub(super) fn find_conflict(&self, port: &Port) -> Option<SocketAddr> {
        let BindAddr::Tcp(planned) = port.line.bind else {
            return None;
        };
        self.0.iter().find_map(|named| {
            let at = match (&named.socket, port.kind == PortKind::Dns) {
                (InheritedSocket::Tcp(_, at), false) | (InheritedSocket::Udp(_, at), true) => *at,
                _ => return None,
            };
            let overlap = at.ip().is_unspecified() || planned.ip().is_unspecified();
            (at.port() == planned.port() && overlap).then_some(at)
        })
    }
}

impl NamedSocket {
    /// Whether the socket has the address of the port line.
    fn matches(&self, port: &Port) -> bool {
        let is_dns = port.kind == PortKind::Dns;
        match (&self.socket, &port.line.bind) {
            (InheritedSocket::Tcp(_, at), BindAddr::Tcp(address)) => !is_dns && at == address,
            (InheritedSocket::Udp(_, at), BindAddr::Tcp(address)) => is_dns && at == address,
            (InheritedSocket::Unix(_, at), BindAddr::Unix(path)) => at == path,
            _ => false,
        }
    }

    /// Checks that a port of the kind that the name gives can use the socket.
    fn check(&self) -> Result<(), String> {
        let (is_udp, is_listener) = match &self.socket {
            InheritedSocket::Tcp(socket, _) => (false, SockRef::from(socket).is_listener()),
            InheritedSocket::Unix(socket, _) => (false, SockRef::from(socket).is_listener()),
            InheritedSocket::Udp(..) => (true, Ok(true)),
        };
        if !is_listener.unwrap_or(false) {
            return Err("it does not listen: set Accept=no in the socket unit".to_owned());
        }
        let kind = PortKind::ALL
            .into_iter()
            .find(|kind| self.name == kind.name());
        match kind {
            Some(PortKind::Dns) if !is_udp => {
                Err("DNS ports use UDP only: write ListenDatagram= in the socket unit".to_owned())
            }
            Some(PortKind::Socks | PortKind::Http | PortKind::Transparent) if is_udp => {
                Err("only DNS ports use UDP: write ListenStream= in the socket unit".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Returns the port to open on a socket that no port line matches.
    fn to_port(&self) -> Port {
        let (bind, kind) = match &self.socket {
            InheritedSocket::Tcp(_, at) => (BindAddr::Tcp(*at), self.stream_kind()),
            InheritedSocket::Unix(_, at) => (BindAddr::Unix(at.clone()), self.stream_kind()),
            InheritedSocket::Udp(_, at) => (BindAddr::Tcp(*at), PortKind::Dns),
        };
        Port {
            kind,
            line: PortLine::plain(bind),
            explicit: true,
        }
    }

    fn stream_kind(&self) -> PortKind {
        [PortKind::Http, PortKind::Transparent]
            .into_iter()
            .find(|kind| self.name == kind.name())
            .unwrap_or(PortKind::Socks)
    }
}

fn take_socket(found: &mut ListenFd, index: usize) -> Result<InheritedSocket, String> {
    if let Ok(Some(listener)) = found.take_tcp_listener(index) {
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        return Ok(InheritedSocket::Tcp(listener, without_scope(at)));
    }
    if let Ok(Some(socket)) = found.take_udp_socket(index) {
        let at = socket.local_addr().map_err(|e| e.to_string())?;
        return Ok(InheritedSocket::Udp(socket, without_scope(at)));
    }
    if let Ok(Some(listener)) = found.take_unix_listener(index) {
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        let path = at.as_pathname();
        let path = path.ok_or("the Unix socket has no path")?.to_owned();
        return Ok(InheritedSocket::Unix(listener, path));
    }
    Err("not a TCP, UDP or Unix socket that a port can use".to_owned())
}

/// Drops flow label and scope of an IPv6 address: port lines cannot contain them, and addresses are
/// compared.
fn without_scope(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
