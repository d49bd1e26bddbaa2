use std::mem::MaybeUninit;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tor_rtcompat::{CommonConnectOptions, TcpConnectOptions};

use super::*;

/// Connects to a relay; returns both ends of the connection.
async fn connect(options: &TcpConnectOptions) -> (RelaySocket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (ours, theirs) = tokio::join!(RelaySockets.connect(&address, options), listener.accept());
    (ours.expect("connected"), theirs.expect("accepted").0)
}

#[tokio::test]
async fn connections_disable_nagles_algorithm() {
    let (socket, _relay) = connect(&TcpConnectOptions::default()).await;
    assert!(socket.handle.tcp_nodelay().expect("an option"));
}

#[tokio::test]
async fn the_buffers_have_the_requested_sizes() {
    let mut common = CommonConnectOptions::builder();
    common.send_buffer_size(Some(32 * 1024));
    common.recv_buffer_size(Some(16 * 1024));
    let mut options = TcpConnectOptions::builder();
    *options.common() = common;
    let options = options.build().expect("valid");
    let (socket, _relay) = connect(&options).await;
    let (send, receive) = (
        socket.handle.send_buffer_size().expect("an option"),
        socket.handle.recv_buffer_size().expect("an option"),
    );
    // The kernel doubles both sizes: socket(7).
    assert_eq!((send, receive), (64 * 1024, 32 * 1024));
    let (socket, _relay) = connect(&TcpConnectOptions::default()).await;
    assert_ne!(socket.handle.send_buffer_size().expect("an option"), send);
}

#[tokio::test]
async fn bytes_flow_both_ways_and_a_close_ends_the_stream() {
    let (mut socket, mut relay) = connect(&TcpConnectOptions::default()).await;
    relay.write_all(b"a cell").await.expect("written");
    let mut bytes = [0; 6];
    AsyncReadExt::read_exact(&mut socket, &mut bytes)
        .await
        .expect("read");
    assert_eq!(&bytes, b"a cell");
    AsyncWriteExt::write_all(&mut socket, b"another")
        .await
        .expect("written");
    AsyncWriteExt::flush(&mut socket).await.expect("flushed");
    AsyncWriteExt::close(&mut socket).await.expect("closed");
    let mut all = Vec::new();
    relay.read_to_end(&mut all).await.expect("read");
    assert_eq!(all, b"another");
}

/// The socket leaves quick-acknowledgement mode by itself after a while.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_read_that_empties_the_buffer_is_acknowledged_at_once() {
    let (mut socket, mut relay) = connect(&TcpConnectOptions::default()).await;
    relay.write_all(b"two cells").await.expect("written");
    let mut arrived = [MaybeUninit::uninit(); 9];
    while socket.handle.peek(&mut arrived).unwrap_or(0) < 9 {
        tokio::task::yield_now().await;
    }
    let quick = |socket: &RelaySocket| socket.handle.tcp_quickack().expect("an option");
    socket.handle.set_tcp_quickack(false).expect("an option");
    let mut first = [0; 3];
    let read = AsyncReadExt::read(&mut socket, &mut first).await;
    assert_eq!(read.expect("read"), 3);
    assert!(!quick(&socket), "more data is waiting");
    let mut rest = [0; 100];
    let read = AsyncReadExt::read(&mut socket, &mut rest).await;
    assert_eq!(read.expect("read"), 6);
    assert!(quick(&socket), "no data is waiting");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_caller_sets_how_much_unsent_data_may_wait() {
    let (socket, _relay) = connect(&TcpConnectOptions::default()).await;
    let limit = |socket: &RelaySocket| socket.handle.tcp_notsent_lowat().expect("an option");
    socket.set_tcp_notsent_lowat(4096).expect("an option");
    assert_eq!(limit(&socket), 4096);
    let handle = socket.new_handle();
    handle.set_tcp_notsent_lowat(8192).expect("an option");
    assert_eq!(limit(&socket), 8192);
}

#[tokio::test]
async fn listening_is_refused() {
    let address = "127.0.0.1:0".parse().expect("an address");
    let listening = RelaySockets.listen(&address, &Default::default()).await;
    let error = listening.err().expect("refused");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
