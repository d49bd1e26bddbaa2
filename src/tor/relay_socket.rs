//! TCP connections to relays.
//!
//! Cells are small, and many wait for a reply. Two features of TCP slow such traffic down and are disabled
//! here: Nagle's algorithm on our side (`TCP_NODELAY`), and delayed acknowledgements of what a relay sends
//! (`TCP_QUICKACK`). Relays that run C tor use Nagle's algorithm, so their next cell waits up to 40 ms for
//! the acknowledgement of the previous one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::io::{AsyncRead, AsyncWrite};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpSocket;
use tor_rtcompat::tokio::TokioRustlsRuntime;
use tor_rtcompat::{NetStreamListener, NetStreamProvider, StreamOps};

#[cfg(test)]
mod tests;

/// The TCP streams of the wrapped runtime.
type RuntimeStream = <TokioRustlsRuntime as NetStreamProvider<SocketAddr>>::Stream;

/// Opens connections to relays.
#[derive(Clone, Copy)]
pub(crate) struct RelaySockets;

#[async_trait]
impl NetStreamProvider<SocketAddr> for RelaySockets {
    type Stream = RelaySocket;
    type Listener = UnsupportedListener;
    type ConnectOptions = <TokioRustlsRuntime as NetStreamProvider<SocketAddr>>::ConnectOptions;
    type ListenOptions = <TokioRustlsRuntime as NetStreamProvider<SocketAddr>>::ListenOptions;

    async fn connect(
        &self,
        address: &SocketAddr,
        options: &Self::ConnectOptions,
    ) -> io::Result<RelaySocket> {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Buffer sizes take effect only if they are set before connecting: tcp(7).
        if let Some(size) = options.common().send_buffer_size() {
            socket.set_send_buffer_size(*size)?;
        }
        if let Some(size) = options.common().recv_buffer_size() {
            socket.set_recv_buffer_size(*size)?;
        }
        socket.set_tcp_nodelay(true)?;
        let handle = socket.try_clone()?;
        let stream = TcpSocket::from_std_stream(socket.into())
            .connect(*address)
            .await?;
        Ok(RelaySocket {
            stream: stream.into(),
            handle,
        })
    }

    /// Fails: a client of the Tor network accepts no connections.
    async fn listen(
        &self,
        _: &SocketAddr,
        _: &Self::ListenOptions,
    ) -> io::Result<UnsupportedListener> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A connection to a relay.
pub(crate) struct RelaySocket {
    stream: RuntimeStream,
    /// A duplicate of the socket, to set options.
    handle: Socket,
}

impl RelaySocket {
    /// Acknowledges what was read at once. The option is not permanent: tcp(7).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn acknowledge(&self) {
        // If the socket is broken, the next read or write reports it.
        let _ = self.handle.set_tcp_quickack(true);
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn acknowledge(&self) {}
}

impl AsyncRead for RelaySocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(read)) = &polled
            // While there is more to read, an acknowledgement is not urgent.
            && *read < buffer.len()
        {
            self.acknowledge();
        }
        polled
    }
}

impl AsyncWrite for RelaySocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl StreamOps for RelaySocket {
    fn set_tcp_notsent_lowat(&self, bytes: u32) -> io::Result<()> {
        self.stream.set_tcp_notsent_lowat(bytes)
    }

    fn new_handle(&self) -> Box<dyn StreamOps + Send + Unpin> {
        self.stream.new_handle()
    }
}

/// A listener that cannot exist.
pub(crate) enum UnsupportedListener {}

impl NetStreamListener<SocketAddr> for UnsupportedListener {
    type Stream = RelaySocket;
    type Incoming = futures::stream::Pending<io::Result<(RelaySocket, SocketAddr)>>;

    fn incoming(self) -> Self::Incoming {
        match self {}
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
}
