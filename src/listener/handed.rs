//! Sockets that whoever started us has opened already (systemd's socket units; sd_listen_fds(3)).
//!
//! A port line whose address is that of a handed-over socket takes the socket, and keeps its flags.
//! What no line asks for becomes a port without flags, of the kind that the socket's name
//! (`FileDescriptorName=`) says: `socks`, `http`, `trans` or `dns`; any other name is `socks`.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::port::{Bind, Port, PortKind, PortLine};

/// The sockets that nobody has asked for yet.
#[derive(Debug, Default)]
pub struct Handed(Vec<One>);

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

impl Handed {
    /// Takes what the environment variables `LISTEN_FDS` and `LISTEN_FDNAMES` say is ours. To be
    /// called once.
    ///
    /// The error is one sentence that says which socket is of no use here.
    pub fn from_environment() -> Result<Handed, String> {
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
        Ok(Handed(all))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The socket that listens where the line says, if it was handed over.
    pub(super) fn take_for(&mut self, port: &Port) -> Option<Socket> {
        let wanted = |one: &One| match (&one.socket, &port.line.bind) {
            (Socket::Tcp(_, at), Bind::Tcp(place)) => port.kind != PortKind::Dns && at == place,
            (Socket::Udp(_, at), Bind::Tcp(place)) => port.kind == PortKind::Dns && at == place,
            (Socket::Unix(_, at), Bind::Unix(place)) => at == place,
            _ => false,
        };
        let index = self.0.iter().position(wanted)?;
        Some(self.0.swap_remove(index).socket)
    }

    /// The ports that no line asked for, each as a line without flags for [`Handed::take_for`].
    pub fn ports(&self) -> Vec<Port> {
        self.0.iter().map(One::port).collect()
    }
}

impl One {
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
            Socket::Tcp(_, at) => (Bind::Tcp(*at), self.kind()),
            Socket::Unix(_, at) => (Bind::Unix(at.clone()), self.kind()),
            Socket::Udp(_, at) => (Bind::Tcp(*at), PortKind::Dns),
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
