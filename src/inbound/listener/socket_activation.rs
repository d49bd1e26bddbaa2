//! Sockets that whoever started us has opened already (systemd's socket units; sd_listen_fds(3)).
//!
//! A port line whose address is that of a handed-over socket takes the socket, and keeps its flags.
//! What no line asks for becomes a port without flags, of the kind that the socket's name
//! (`FileDescriptorName=`) says: `socks`, `http`, `trans` or `dns`; any other name is `socks`.
//!
//! The service manager keeps such a socket open whatever we do: clients that connect while nobody
//! accepts would wait in its backlog. So every one of them is served as long as the program runs,
//! by whichever port the present configuration gives it to.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::config::port_line::{BindAddr, Port, PortKind, PortLine};

/// The sockets that were handed over. Ports listen on duplicates of them, so that a socket is there
/// again for the next port when one is closed.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<One>);

#[derive(Debug)]
struct One {
    socket: Socket,
    name: String,
}

/// A socket that is bound, and listens if it can.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
    Udp(UdpSocket, SocketAddr),
}

/// A port that should be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPort {
    /// Where, and how it serves.
    pub port: Port,
    /// The number of the handed-over socket that it listens on; without one, it is bound anew.
    pub inherited: Option<usize>,
    /// Whether a line of the configuration asks for it; if not, its socket does.
    pub configured: bool,
}

impl InheritedSockets {
    /// Takes what the environment variables `LISTEN_FDS` and `LISTEN_FDNAMES` say is ours. To be
    /// called once.
    ///
    /// The error is one sentence that says which socket is of no use here.
    pub fn from_environment() -> Result<InheritedSockets, String> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut found = ListenFd::from_env();
        let mut all = Vec::new();
        for number in 0..found.len() {
            let name = names.next().unwrap_or_default();
            let wrong = |problem| format!("socket {number} ({name:?}) of LISTEN_FDS: {problem}");
            let socket = take(&mut found, number).map_err(wrong)?;
            let one = One {
                socket,
                name: name.clone(),
            };
            one.check().map_err(wrong)?;
            all.push(one);
        }
        Ok(InheritedSockets(all))
    }

    /// The ports that should be open under a configuration with these lines: its own, each with the
    /// socket that listens where it says, and one for each socket that no line asks for. A default
    /// port gives way to any socket.
    pub fn ports(&self, lines: &[Port]) -> Vec<WantedPort> {
        let mut left: Vec<usize> = (0..self.0.len()).collect();
        let mut wanted = Vec::new();
        for port in lines.iter().filter(|line| line.chosen || self.0.is_empty()) {
            let found = left.iter().position(|number| self.0[*number].fits(port));
            wanted.push(WantedPort {
                port: port.clone(),
                inherited: found.map(|place| left.remove(place)),
                configured: true,
            });
        }
        wanted.extend(left.into_iter().map(|number| WantedPort {
            port: self.0[number].port(),
            inherited: Some(number),
            configured: false,
        }));
        wanted
    }

    /// Another handle of a socket.
    pub(super) fn duplicate(&self, number: usize) -> io::Result<Socket> {
        Ok(match &self.0[number].socket {
            Socket::Tcp(socket, at) => Socket::Tcp(socket.try_clone()?, *at),
            Socket::Unix(socket, at) => Socket::Unix(socket.try_clone()?, at.clone()),
            Socket::Udp(socket, at) => Socket::Udp(socket.try_clone()?, *at),
        })
    }

    /// The address of a socket that may keep `port` from being bound: one with the same number, when
    /// one of the two is for all interfaces.
    pub(super) fn in_the_way_of(&self, port: &Port) -> Option<SocketAddr> {
        let BindAddr::Tcp(wanted) = port.line.bind else {
            return None;
        };
        self.0.iter().find_map(|one| {
            let at = match (&one.socket, port.kind == PortKind::Dns) {
                (Socket::Tcp(_, at), false) | (Socket::Udp(_, at), true) => *at,
                _ => return None,
            };
            let overlap = at.ip().is_unspecified() || wanted.ip().is_unspecified();
            (at.port() == wanted.port() && overlap).then_some(at)
        })
    }
}

impl One {
    /// Whether the socket listens where the line says.
    fn fits(&self, port: &Port) -> bool {
        match (&self.socket, &port.line.bind) {
            (Socket::Tcp(_, at), BindAddr::Tcp(place)) => port.kind != PortKind::Dns && at == place,
            (Socket::Udp(_, at), BindAddr::Tcp(place)) => port.kind == PortKind::Dns && at == place,
            (Socket::Unix(_, at), BindAddr::Unix(place)) => at == place,
            _ => false,
        }
    }

    /// Whether a port can be made of the socket, of the kind that its name says.
    fn check(&self) -> Result<(), String> {
        let (datagrams, listens) = match &self.socket {
            Socket::Tcp(socket, _) => (false, SockRef::from(socket).is_listener()),
            Socket::Unix(socket, _) => (false, SockRef::from(socket).is_listener()),
            Socket::Udp(..) => (true, Ok(true)),
        };
        if !listens.unwrap_or(false) {
            return Err("it does not listen: set Accept=no in the socket unit".to_owned());
        }
        let named = PortKind::ALL
            .into_iter()
            .find(|kind| self.name == kind.word());
        match named {
            Some(PortKind::Dns) if !datagrams => {
                Err("DNS is served over UDP alone: use ListenDatagram=".to_owned())
            }
            Some(PortKind::Socks | PortKind::Http | PortKind::Transparent) if datagrams => {
                Err("only DNS is served over UDP: use ListenStream=".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn port(&self) -> Port {
        let (bind, kind) = match &self.socket {
            Socket::Tcp(_, at) => (BindAddr::Tcp(*at), self.kind()),
            Socket::Unix(_, at) => (BindAddr::Unix(at.clone()), self.kind()),
            Socket::Udp(_, at) => (BindAddr::Tcp(*at), PortKind::Dns),
        };
        Port {
            kind,
            line: PortLine::plain(bind),
            chosen: true,
        }
    }

    fn kind(&self) -> PortKind {
        [PortKind::Http, PortKind::Transparent]
            .into_iter()
            .find(|kind| self.name == kind.word())
            .unwrap_or(PortKind::Socks)
    }
}

fn take(found: &mut ListenFd, number: usize) -> Result<Socket, String> {
    if let Ok(Some(listener)) = found.take_tcp_listener(number) {
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        return Ok(Socket::Tcp(listener, canonical(at)));
    }
    if let Ok(Some(socket)) = found.take_udp_socket(number) {
        let at = socket.local_addr().map_err(|e| e.to_string())?;
        return Ok(Socket::Udp(socket, canonical(at)));
    }
    if let Ok(Some(listener)) = found.take_unix_listener(number) {
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        let path = at.as_pathname();
        let path = path.ok_or("it has no place in the file system")?.to_owned();
        return Ok(Socket::Unix(listener, path));
    }
    Err("it is no TCP, UDP or unix socket that a port can be made of".to_owned())
}

/// The address without what port lines cannot say.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip();
    SocketAddr::new(ip, address.port())
}
