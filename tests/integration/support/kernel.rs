//! The kernel's table of TCP connections over IPv4 (`/proc/net/tcp`, proc(5)).

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::LIMIT;
use super::client::ListenAddr;

/// One side of a connection over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub state: State,
    /// The time until the next keepalive probe, if keepalive is on.
    pub keepalive_in: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Established,
    /// This side has finished sending: FIN_WAIT1 or FIN_WAIT2.
    FinishedSending,
    Other,
}

/// Ticks per second in times that the kernel reports (USER_HZ).
const TICKS: u64 = 100;

/// Returns the side of a connection that has the address `local`; `None` if it does not exist.
pub fn find_connection(local: SocketAddrV4, remote: SocketAddrV4) -> Option<Connection> {
    let table = fs::read_to_string("/proc/net/tcp").expect("read /proc/net/tcp");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, from, to, state, _, timer, ..] = fields[..] else {
            panic!("too few fields: {line}");
        };
        if parse_address(from) != local || parse_address(to) != remote {
            return None;
        }
        let (kind, ticks) = timer.split_once(':').expect("a timer");
        let ticks = u64::from_str_radix(ticks, 16).expect("hex");
        Some(Connection {
            state: match state {
                "01" => State::Established,
                "04" | "05" => State::FinishedSending,
                _ => State::Other,
            },
            keepalive_in: (kind == "02").then(|| Duration::from_millis(ticks * 1000 / TICKS)),
        })
    })
}

/// Parses an IPv4 address and a port in hex. The address is in the machine's byte order.
fn parse_address(text: &str) -> SocketAddrV4 {
    let (ip, port) = text.split_once(':').expect("an address and a port");
    let ip = u32::from_str_radix(ip, 16).expect("hex").to_ne_bytes();
    let port = u16::from_str_radix(port, 16).expect("hex");
    SocketAddrV4::new(Ipv4Addr::from(ip), port)
}

/// Returns the address of a TCP listener on IPv4.
pub fn ipv4_addr(address: &ListenAddr) -> SocketAddrV4 {
    match address {
        ListenAddr::Ip(std::net::SocketAddr::V4(address)) => *address,
        other => panic!("{other} is not an IPv4 address"),
    }
}

/// Waits until the other side of `client`'s connection, on this computer, has finished sending or is
/// gone. Data that it sent may still be unread.
pub async fn wait_finished_sending(client: &TcpStream) {
    let local = v4(client.local_addr());
    let remote = v4(client.peer_addr());
    let finishing = async {
        while find_connection(remote, local).is_some_and(|side| side.state == State::Established) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, finishing)
        .await
        .expect("the other side finishes sending");
}

fn v4(address: io::Result<SocketAddr>) -> SocketAddrV4 {
    match address.expect("a connected socket") {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is not an IPv4 address"),
    }
}
