//! A client that sends bytes and compares what it receives, over any stream.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use super::LIMIT;
use super::hex::{bytes, show};

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    Ip(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Ip(address) => address.fmt(f),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One end of a connection. Every wait has a limit; a late or unexpected byte fails the test.
pub struct Client {
    stream: Box<dyn Stream>,
    limit: Duration,
}

/// The state of a connection after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Closed in order: end of file.
    Closed,
    /// Reset, or broken in another way.
    Reset,
    /// Still open when the wait ended.
    Open,
}

impl Client {
    /// Creates a client that uses `stream`.
    pub fn over(stream: impl Stream + 'static) -> Self {
        Client {
            stream: Box::new(stream),
            limit: LIMIT,
        }
    }

    /// Raises the limit of each wait to days, for tests on tokio's paused clock.
    pub fn patient(mut self) -> Self {
        self.limit = Duration::from_secs(1_000_000);
        self
    }

    /// Connects to `address`.
    pub async fn connect(address: &ListenAddr) -> Self {
        let connecting = async {
            Ok::<_, io::Error>(match address {
                ListenAddr::Ip(address) => {
                    let stream = TcpStream::connect(address).await?;
                    // Each write has to arrive separately.
                    stream.set_nodelay(true)?;
                    Client::over(stream)
                }
                ListenAddr::Unix(path) => Client::over(UnixStream::connect(path).await?),
            })
        };
        match timeout(LIMIT, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => panic!("cannot connect to {address}: {error}"),
            Err(_) => panic!("connecting to {address} takes too long"),
        }
    }

    /// Connects to a TCP listener from the local IPv4 address `ip`.
    pub async fn connect_from(ip: IpAddr, address: &ListenAddr) -> Self {
        let ListenAddr::Ip(address) = address else {
            panic!("{address} is not a TCP address");
        };
        let socket = TcpSocket::new_v4().expect("create a socket");
        socket
            .bind((ip, 0).into())
            .expect("bind to a local address");
        let connecting = timeout(LIMIT, socket.connect(*address)).await;
        Client::over(connecting.expect("connect in time").expect("connect"))
    }

    /// Sends bytes, given in hex.
    pub async fn send(&mut self, hex: &str) {
        self.send_bytes(&bytes(hex)).await;
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let sending = self.try_send(bytes);
        sending.await.expect("send");
    }

    /// Sends bytes; fails if the other side has closed the connection.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(self.limit, sending)
            .await
            .expect("sending takes too long")
    }

    /// Shuts down the sending side.
    pub async fn finish(&mut self) {
        self.stream
            .shutdown()
            .await
            .expect("shut down the sending side");
    }

    /// Reads `count` bytes, or fewer if the connection ends or nothing arrives for the limit.
    pub async fn read(&mut self, count: usize) -> (Vec<u8>, End) {
        let mut got = Vec::new();
        while got.len() < count {
            let room = (count - got.len()) as u64;
            let mut next = (&mut self.stream).take(room);
            match timeout(self.limit, next.read_buf(&mut got)).await {
                Ok(Ok(0)) => return (got, End::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return (got, End::Reset),
                Err(_) => break,
            }
        }
        (got, End::Open)
    }

    /// Reads everything up to the end of the connection.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        self.read(usize::MAX).await
    }

    /// Reads as many bytes as expected and asserts that they are these, given in hex.
    pub async fn expect(&mut self, hex: &str) {
        self.expect_bytes(&bytes(hex)).await;
    }

    /// Reads as many bytes as expected and asserts that they are these.
    pub async fn expect_bytes(&mut self, expected: &[u8]) {
        let (got, end) = self.read(expected.len()).await;
        assert!(
            got == expected,
            "expected {}, got {} ({end:?})",
            show(expected),
            show(&got)
        );
    }

    /// Asserts that the other side closes the connection in order and sends nothing more.
    pub async fn expect_end(&mut self) {
        let (got, end) = self.read_to_end().await;
        assert!(
            got.is_empty() && end == End::Closed,
            "expected the end, got {} ({end:?})",
            show(&got)
        );
    }

    /// Reads what arrives first within `window`: some bytes or the end. Returns `None` if nothing
    /// happens.
    pub async fn read_within(&mut self, window: Duration) -> Option<(Vec<u8>, End)> {
        let mut got = Vec::new();
        match timeout(window, self.stream.read_buf(&mut got)).await {
            Ok(Ok(0)) => Some((got, End::Closed)),
            Ok(Ok(_)) => Some((got, End::Open)),
            Ok(Err(_)) => Some((got, End::Reset)),
            Err(_) => None,
        }
    }

    /// Returns the stream.
    pub fn into_stream(self) -> Box<dyn Stream> {
        self.stream
    }
}
