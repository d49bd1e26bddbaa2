//! SOCKS requests and replies, written as hex.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::LIMIT;
use super::client::Client;
use super::hex::bytes;

/// A SOCKS5 greeting without authentication; the reply is `05 00`.
pub const GREETING: &str = "05 01 00";
/// A SOCKS5 CONNECT to good.example, port 80.
pub const CONNECT_GOOD: &str = "05 01 00 03 0c 676f6f642e6578616d706c65 0050";
/// The target of [`CONNECT_GOOD`], as scripted networks name it.
pub const GOOD: &str = "good.example:80";
/// The SOCKS5 reply to an IPv4 client whose stream is open.
pub const SUCCEEDED: &str = "05 00 00 01 00000000 0000";

/// Sends a SOCKS5 greeting and expects the reply to it.
pub async fn greet(client: &mut Client) {
    client.send(GREETING).await;
    client.expect("05 00").await;
}

/// Sends a request, written as hex. A SOCKS5 request follows a greeting.
pub async fn send_request(client: &mut Client, request: &str) {
    if request.starts_with("05") {
        greet(client).await;
    }
    client.send(request).await;
}

/// Opens a stream to good.example, for tests that need the socket itself.
pub async fn open_stream(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let request = bytes(&format!("{GREETING} {CONNECT_GOOD}"));
    socket.write_all(&request).await.expect("written");
    let expected = bytes(&format!("05 00 {SUCCEEDED}"));
    let mut reply = vec![0; expected.len()];
    let read = timeout(LIMIT, socket.read_exact(&mut reply)).await;
    read.expect("in time").expect("a reply");
    assert_eq!(reply, expected);
}
