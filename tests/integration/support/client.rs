//! A client that says bytes and compares bytes, over whatever carries them.

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

/// Where a program listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(address) => address.fmt(f),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Something that carries bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One client. Every wait is bounded; what comes late or wrong fails the test.
pub struct Client {
    stream: Box<dyn Stream>,
    limit: Duration,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order.
    Closed,
    /// Broken off.
    Reset,
    /// It did not, for as long as was waited.
    Open,
}

impl Client {
    /// A client at the other end of `stream`.
    pub fn over(stream: impl Stream + 'static) -> Self {
        Client {
            stream: Box::new(stream),
            limit: LIMIT,
        }
    }

    /// Waits for days: for tests that let tokio's paused clock run.
    pub fn patient(mut self) -> Self {
        self.limit = Duration::from_secs(1_000_000);
        self
    }

    /// A new connection.
    pub async fn connect(place: &ListenAddr) -> Self {
        let connecting = async {
            Ok::<_, io::Error>(match place {
                ListenAddr::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    // Parts of a message have to arrive as parts.
                    stream.set_nodelay(true)?;
                    Client::over(stream)
                }
                ListenAddr::Unix(path) => Client::over(UnixStream::connect(path).await?),
            })
        };
        match timeout(LIMIT, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => panic!("cannot connect to {place}: {error}"),
            Err(_) => panic!("connecting to {place} takes too long"),
        }
    }

    /// A new connection from this IPv4 address.
    pub async fn connect_from(ip: IpAddr, place: &ListenAddr) -> Self {
        let ListenAddr::Tcp(address) = place else {
            panic!("{place} has no clients with addresses");
        };
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((ip, 0).into()).expect("an address of ours");
        let connecting = timeout(LIMIT, socket.connect(*address)).await;
        Client::over(connecting.expect("in time").expect("connected"))
    }

    /// Says bytes, written as hex.
    pub async fn send(&mut self, hex: &str) {
        self.send_bytes(&bytes(hex)).await;
    }

    /// Says bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let sending = self.try_send(bytes);
        sending.await.expect("the other side takes what is sent");
    }

    /// Says bytes to somebody who may have hung up.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(self.limit, sending)
            .await
            .expect("sending takes too long")
    }

    /// Has no more to say.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("shut down");
    }

    /// Takes `count` bytes, or fewer if the connection ends or nothing comes any more.
    pub async fn take(&mut self, count: usize) -> (Vec<u8>, End) {
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

    /// Takes everything up to the end.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        self.take(usize::MAX).await
    }

    /// The next bytes have to be these, written as hex.
    pub async fn expect(&mut self, hex: &str) {
        self.expect_bytes(&bytes(hex)).await;
    }

    /// The next bytes have to be these.
    pub async fn expect_bytes(&mut self, expected: &[u8]) {
        let (got, end) = self.take(expected.len()).await;
        assert!(
            got == expected,
            "expected {}, got {} ({end:?})",
            show(expected),
            show(&got)
        );
    }

    /// The connection has to end here, in order and with nothing more said.
    pub async fn expect_end(&mut self) {
        let (got, end) = self.rest().await;
        assert!(
            got.is_empty() && end == End::Closed,
            "expected the end, got {} ({end:?})",
            show(&got)
        );
    }

    /// What is said, or how it ended, within `window`; `None` if nothing happens.
    pub async fn overhear(&mut self, window: Duration) -> Option<(Vec<u8>, End)> {
        let mut got = Vec::new();
        match timeout(window, self.stream.read_buf(&mut got)).await {
            Ok(Ok(0)) => Some((got, End::Closed)),
            Ok(Ok(_)) => Some((got, End::Open)),
            Ok(Err(_)) => Some((got, End::Reset)),
            Err(_) => None,
        }
    }

    /// The stream itself.
    pub fn into_stream(self) -> Box<dyn Stream> {
        self.stream
    }
}
