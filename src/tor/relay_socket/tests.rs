use std::mem::MaybeUninit;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tor_rtcompat::{CommonConnectOptions, TcpConnectOptions};

use super::*;

/// A connection to a relay, and the relay's side of it.
async fn connected(options: &TcpConnectOptions) -> (RelaySocket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (ours, theirs) = tokio::join!(RelaySockets.connect(&address, options), listener.accept());
    (ours.expect("connected"), theirs.expect("accepted").0)
}

#[tokio::test]
async fn a_relay_is_connected_to_without_nagles_algorithm() {
    let (socket, _relay) = connected(&TcpConnectOptions::default()).await;
    assert!(socket.handle.tcp_nodelay().expect("an option"));
}

#[tokio::test]
async fn the_buffers_have_the_sizes_that_are_asked_for() {
    let mut common = CommonConnectOptions::builder();
    common.send_buffer_size(Some(32 * 1024));
    common.recv_buffer_size(Some(16 * 1024));
    let mut options = TcpConnectOptions::builder();
    *options.common() = common;
    let options = options.build().expect("sound");
    let (socket, _relay) = connected(&options).await;
    let (send, receive) = (
        socket.handle.send_buffer_size().expect("an option"),
        socket.handle.recv_buffer_size().expect("an option"),
    );
    // The system doubles them for its own needs: socket(7).
    assert_eq!((send, receive), (64 * 1024, 32 * 1024));
    let (socket, _relay) = connected(&TcpConnectOptions::default()).await;
    assert_ne!(socket.handle.send_buffer_size().expect("an option"), send);
}

#[tokio::test]
async fn bytes_go_both_ways_and_a_close_is_an_end() {
    let (mut socket, mut relay) = connected(&TcpConnectOptions::default()).await;
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

/// Whether the system acknowledges at once; it stops by itself after a while.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_was_read_is_acknowledged_at_once_if_nothing_more_is_there() {
    let (mut socket, mut relay) = connected(&TcpConnectOptions::default()).await;
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
    assert!(!quick(&socket), "there is more");
    let mut rest = [0; 100];
    let read = AsyncReadExt::read(&mut socket, &mut rest).await;
    assert_eq!(read.expect("read"), 6);
    assert!(quick(&socket), "there is nothing more");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn how_much_may_wait_in_the_system_is_the_callers_choice() {
    let (socket, _relay) = connected(&TcpConnectOptions::default()).await;
    let limit = |socket: &RelaySocket| socket.handle.tcp_notsent_lowat().expect("an option");
    socket.set_tcp_notsent_lowat(4096).expect("an option");
    assert_eq!(limit(&socket), 4096);
    let handle = socket.new_handle();
    handle.set_tcp_notsent_lowat(8192).expect("an option");
    assert_eq!(limit(&socket), 8192);
}

#[tokio::test]
async fn a_client_takes_no_connections() {
    let address = "127.0.0.1:0".parse().expect("an address");
    let listening = RelaySockets.listen(&address, &Default::default()).await;
    let error = listening.err().expect("refused");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
