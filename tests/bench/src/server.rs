//! The server behind the exits and behind the onion service.
//!
//! A client says one letter and a number of eight bytes, most significant first:
//!
//! | letter | what the server does |
//! |---|---|
//! | `e` | sends back that many bytes of what comes, as it comes, and takes the next order |
//! | `d` | sends that many bytes, and closes |
//! | `u` | takes that many bytes, sends one, and closes |

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// The bytes of an order.
pub const ORDER: usize = 9;

/// How much is read or written at once.
const BUFFER: usize = 64 * 1024;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// How long to pause when there is no room for another connection.
const PAUSE: Duration = Duration::from_millis(10);

/// What a client can order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send back this many bytes.
    Echo(u64),
    /// Send this many bytes.
    Down(u64),
    /// Take this many bytes.
    Up(u64),
}

impl Order {
    /// As it is sent.
    pub fn bytes(self) -> [u8; ORDER] {
        let (letter, count) = match self {
            Order::Echo(count) => (b'e', count),
            Order::Down(count) => (b'd', count),
            Order::Up(count) => (b'u', count),
        };
        let mut bytes = [letter; ORDER];
        bytes[1..].copy_from_slice(&count.to_be_bytes());
        bytes
    }

    fn parse(bytes: [u8; ORDER]) -> io::Result<Order> {
        let [letter, count @ ..] = bytes;
        let count = u64::from_be_bytes(count);
        match letter {
            b'e' => Ok(Order::Echo(count)),
            b'd' => Ok(Order::Down(count)),
            b'u' => Ok(Order::Up(count)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A server on a free port of 127.0.0.1; it stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts it on the runtime that is running.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Server> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = socket.listen(BACKLOG).context("cannot listen")?;
        Ok(Server {
            address: listener.local_addr()?,
            accepting: tokio::spawn(accept(listener)),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A client that goes away in the middle is nothing to report.
                tokio::spawn(async { serve(stream).await.ok() });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut order = [0; ORDER];
        stream.read_exact(&mut order).await?;
        match Order::parse(order)? {
            Order::Echo(count) => {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut (&mut from).take(count), &mut to).await?;
            }
            Order::Down(count) => {
                send(&mut stream, count).await?;
                return stream.shutdown().await;
            }
            Order::Up(count) => {
                take(&mut stream, count).await?;
                stream.write_all(&[0]).await?;
                return stream.shutdown().await;
            }
        }
    }
}

/// Sends a number of bytes.
///
/// # Errors
/// When the other side takes no more.
pub async fn send(stream: &mut TcpStream, mut count: u64) -> io::Result<()> {
    let bytes = vec![0x5a; BUFFER];
    while count > 0 {
        let now = usize::try_from(count).map_or(BUFFER, |count| count.min(BUFFER));
        stream.write_all(&bytes[..now]).await?;
        count -= now as u64;
    }
    Ok(())
}

/// Takes a number of bytes, and not one less.
///
/// # Errors
/// When the other side breaks or ends before.
pub async fn take(stream: &mut TcpStream, mut count: u64) -> io::Result<()> {
    let mut bytes = vec![0; BUFFER];
    while count > 0 {
        let most = usize::try_from(count).map_or(BUFFER, |count| count.min(BUFFER));
        match stream.read(&mut bytes[..most]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => count -= read as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_order_is_followed_to_the_byte() {
        let server = Server::start().await.expect("server");
        let connect = || TcpStream::connect(server.address());

        let mut stream = connect().await.expect("connected");
        for text in [b"one", b"two"] {
            let order = Order::Echo(3).bytes();
            stream.write_all(&order).await.expect("sent");
            stream.write_all(text).await.expect("sent");
            let mut echo = [0; 3];
            stream.read_exact(&mut echo).await.expect("echo");
            assert_eq!(&echo, text);
        }
        let order = Order::Down(100_001).bytes();
        stream.write_all(&order).await.expect("sent");
        take(&mut stream, 100_001).await.expect("all of it");
        assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);

        let mut stream = connect().await.expect("connected");
        let order = Order::Up(100_001).bytes();
        stream.write_all(&order).await.expect("sent");
        send(&mut stream, 100_001).await.expect("sent");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("the end");
        assert_eq!(rest, [0]);
    }
}
