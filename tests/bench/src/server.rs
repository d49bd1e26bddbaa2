//! The server behind the exits and behind the onion service.
//!
//! A client sends commands. A command is one letter and a count of bytes (`u64`, big endian):
//!
//! | letter | what the server does |
//! |---|---|
//! | `e` | sends back the next `count` bytes as they arrive, then reads the next command |
//! | `d` | sends `count` bytes and closes |
//! | `u` | receives `count` bytes, sends one, and closes |

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// The length of a command, in bytes.
pub const COMMAND_LENGTH: usize = 9;

/// The size of the buffers for reading and writing.
const BUFFER_SIZE: usize = 64 * 1024;

/// The backlog: how many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

/// The pause after a failed `accept`, for example when no more files can be opened.
const PAUSE: Duration = Duration::from_millis(10);

/// A command of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send back this many bytes.
    Echo(u64),
    /// Send this many bytes.
    Down(u64),
    /// Receive this many bytes.
    Up(u64),
}

impl Command {
    /// Encodes the command.
    pub fn to_bytes(self) -> [u8; COMMAND_LENGTH] {
        let (letter, count) = match self {
            Command::Echo(count) => (b'e', count),
            Command::Down(count) => (b'd', count),
            Command::Up(count) => (b'u', count),
        };
        let mut bytes = [letter; COMMAND_LENGTH];
        bytes[1..].copy_from_slice(&count.to_be_bytes());
        bytes
    }

    fn parse(bytes: [u8; COMMAND_LENGTH]) -> io::Result<Command> {
        let [letter, count @ ..] = bytes;
        let count = u64::from_be_bytes(count);
        match letter {
            b'e' => Ok(Command::Echo(count)),
            b'd' => Ok(Command::Down(count)),
            b'u' => Ok(Command::Up(count)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A server on a free port of 127.0.0.1. It stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts a server on the current runtime.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> Result<Server> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let listener = socket.listen(BACKLOG).context("cannot listen")?;
        Ok(Server {
            address: listener.local_addr()?,
            accepting: tokio::spawn(accept(listener)),
        })
    }

    /// Returns the address of its listener.
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
                // The error is ignored: the client measures, and reports broken streams itself.
                tokio::spawn(async { serve(stream).await.ok() });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut command = [0; COMMAND_LENGTH];
        stream.read_exact(&mut command).await?;
        match Command::parse(command)? {
            Command::Echo(count) => {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut (&mut from).take(count), &mut to).await?;
            }
            Command::Down(count) => {
                send(&mut stream, count).await?;
                return stream.shutdown().await;
            }
            Command::Up(count) => {
                receive(&mut stream, count).await?;
                stream.write_all(&[0]).await?;
                return stream.shutdown().await;
            }
        }
    }
}

/// Sends `count` bytes.
///
/// # Errors
/// If the connection breaks.
pub async fn send(stream: &mut TcpStream, mut count: u64) -> io::Result<()> {
    let bytes = vec![0x5a; BUFFER_SIZE];
    while count > 0 {
        let length = usize::try_from(count).map_or(BUFFER_SIZE, |count| count.min(BUFFER_SIZE));
        stream.write_all(&bytes[..length]).await?;
        count -= length as u64;
    }
    Ok(())
}

/// Receives exactly `count` bytes.
///
/// # Errors
/// If the connection breaks, or the other side ends it earlier.
pub async fn receive(stream: &mut TcpStream, mut count: u64) -> io::Result<()> {
    let mut bytes = vec![0; BUFFER_SIZE];
    while count > 0 {
        let limit = usize::try_from(count).map_or(BUFFER_SIZE, |count| count.min(BUFFER_SIZE));
        match stream.read(&mut bytes[..limit]).await? {
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
    async fn each_command_transfers_the_exact_number_of_bytes() {
        let server = Server::start().await.expect("server");
        let connect = || TcpStream::connect(server.address());

        let mut stream = connect().await.expect("connected");
        for text in [b"one", b"two"] {
            let command = Command::Echo(3).to_bytes();
            stream.write_all(&command).await.expect("sent");
            stream.write_all(text).await.expect("sent");
            let mut echo = [0; 3];
            stream.read_exact(&mut echo).await.expect("echo");
            assert_eq!(&echo, text);
        }
        let command = Command::Down(100_001).to_bytes();
        stream.write_all(&command).await.expect("sent");
        receive(&mut stream, 100_001).await.expect("received");
        assert_eq!(stream.read(&mut [0]).await.expect("end of stream"), 0);

        let mut stream = connect().await.expect("connected");
        let command = Command::Up(100_001).to_bytes();
        stream.write_all(&command).await.expect("sent");
        send(&mut stream, 100_001).await.expect("sent");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("end of stream");
        assert_eq!(rest, [0]);
    }
}
