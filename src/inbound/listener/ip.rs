//! Sockets on IP addresses: TCP, and UDP for DNS ports.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use super::keepalive;
use crate::inbound::transparent::set_transparent;

/// How many connections may wait to be accepted (listen(2)).
pub(super) const BACKLOG: i32 = 1024;

/// Listens on a TCP address. Returns the address with the port number that the system chose for 0.
///
/// `tproxy`: accept connections to any address, for firewall rules with TPROXY.
///
/// # Errors
/// A message that names the address and the remedy.
pub(super) fn bind_tcp(
    address: SocketAddr,
    tproxy: bool,
) -> Result<(TcpListener, SocketAddr), String> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            // Like C tor, never dual-stack, whatever the system's default.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        if tproxy {
            set_transparent(&socket, address)?;
        }
        keepalive::set_if_unset(&socket);
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    listen().map_err(|error| describe_failure(address, &error))
}

/// Binds a UDP address. Returns the address with the port number that the system chose for 0.
///
/// # Errors
/// A message that names the address and the remedy.
pub(super) fn bind_udp(address: SocketAddr) -> Result<(UdpSocket, SocketAddr), String> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let bound = socket.local_addr()?;
        Ok((socket, bound))
    };
    bind().map_err(|error| describe_failure(address, &error))
}

/// Describes why a port cannot be opened, and the remedy.
fn describe_failure(address: SocketAddr, error: &io::Error) -> String {
    if error.raw_os_error().is_none() {
        // From `set_transparent`, whose message names the remedy.
        return format!("cannot listen on {address}: {error}");
    }
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the program that listens there, or choose another port or `auto`"
        }
        io::ErrorKind::PermissionDenied => "choose a port above 1023",
        io::ErrorKind::AddrNotAvailable => {
            "choose an address of this computer; for one that comes up later, use a systemd socket \
             unit with FreeBind=yes"
        }
        _ => "choose another address or port",
    };
    format!("cannot listen on {address}: {error}; {remedy}")
}
