//! What the kernel knows of TCP connections (proc(5), `/proc/net/tcp`).

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
    /// When keepalive asks whether the other side is still there, if it is on.
    pub keepalive_in: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Established,
    /// This side has finished sending.
    Finished,
    Other,
}

/// Ticks in a second, in all that the kernel tells programs.
const TICKS: u64 = 100;

/// The side of a connection that has the address `local`; `None` if there is none any more.
pub fn connection(local: SocketAddrV4, remote: SocketAddrV4) -> Option<Connection> {
    let table = fs::read_to_string("/proc/net/tcp").expect("readable");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, from, to, state, _, timer, ..] = fields[..] else {
            panic!("too short: {line}");
        };
        if address(from) != local || address(to) != remote {
            return None;
        }
        let (kind, ticks) = timer.split_once(':').expect("a timer");
        let ticks = u64::from_str_radix(ticks, 16).expect("hex");
        Some(Connection {
            state: match state {
                "01" => State::Established,
                "04" | "05" => State::Finished,
                _ => State::Other,
            },
            keepalive_in: (kind == "02").then(|| Duration::from_millis(ticks * 1000 / TICKS)),
        })
    })
}

/// An IPv4 address and a port; addresses are numbers in the machine's own order of bytes.
fn address(text: &str) -> SocketAddrV4 {
    let (ip, port) = text.split_once(':').expect("an address and a port");
    let ip = u32::from_str_radix(ip, 16).expect("hex").to_ne_bytes();
    let port = u16::from_str_radix(port, 16).expect("hex");
    SocketAddrV4::new(Ipv4Addr::from(ip), port)
}

/// The IPv4 address of a place.
pub fn ipv4(place: &ListenAddr) -> SocketAddrV4 {
    match place {
        ListenAddr::Tcp(std::net::SocketAddr::V4(address)) => *address,
        other => panic!("{other} is no IPv4 address"),
    }
}

/// Waits until the other side of a connection on this computer has finished sending, or is gone. What
/// it has sent need not have been read.
pub async fn finished_sending(client: &TcpStream) {
    let here = v4(client.local_addr());
    let there = v4(client.peer_addr());
    let finishing = async {
        while connection(there, here).is_some_and(|side| side.state == State::Established) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, finishing).await.expect("it goes on sending");
}

fn v4(address: io::Result<SocketAddr>) -> SocketAddrV4 {
    match address.expect("connected") {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is no IPv4 address"),
    }
}
